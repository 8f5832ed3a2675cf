"""Labels → the surface of each of them, all at once. Pure.

Marching cubes between voxel centres, for every label of a block in one pass: the surface
passes half-way between two voxels of different labels. Surfaces are closed and every edge
has two triangles, except where the block ends; blocks that share a layer of voxels give
surfaces that fit together, each triangle in one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.mesh._cases import EDGES, cases

__all__ = ["Extractor", "Surface", "extract_surfaces"]

Labels: TypeAlias = npt.NDArray[Any]

_BATCH = 1 << 19


class Surface(NamedTuple):
    """The surface of one label.

    Attributes
    ----------
    label : int
    vertices : float32 (n, 3)
        x, y, z in voxels: the centre of the block's first voxel is at 0.
    faces : int (m, 3)
        Counter-clockwise as seen from outside.
    """

    label: int
    vertices: npt.NDArray[np.float32]
    faces: npt.NDArray[Any]


Extractor: TypeAlias = Callable[[Labels], Iterable[Surface]]
"""Gives the surface of every label but 0 in a block of labels ``(x, y, z)``."""


def extract_surfaces(labels: Labels) -> Iterator[Surface]:
    """The surfaces of all labels but 0 in a block.

    Parameters
    ----------
    labels : unsigned integers (x, y, z)

    Yields
    ------
    Surface
        In ascending order of their labels.

    Examples
    --------
    >>> block = np.zeros((3, 3, 3), np.uint8)
    >>> block[1, 1, 1] = 7
    >>> [(one.label, len(one.vertices), len(one.faces)) for one in extract_surfaces(block)]
    [(7, 6, 8)]
    """
    if 0 in labels.shape or (labels == labels.flat[0]).all():
        return
    crossed = [_crossed_edges(labels, axis) for axis in range(3)]
    vertices, owners, ranks = _vertices(labels, crossed)
    faces, face_labels = _triangles(labels, crossed, ranks)
    del crossed, ranks
    yield from _by_label(vertices, owners, faces, face_labels)


def _crossed_edges(labels: Labels, axis: int) -> npt.NDArray[np.bool_]:
    """Whether the label changes between each voxel and the next one along an axis."""
    ahead = [slice(None)] * 3
    ahead[axis] = slice(1, None)
    behind = [slice(None)] * 3
    behind[axis] = slice(None, -1)
    changed: npt.NDArray[np.bool_] = labels[tuple(ahead)] != labels[tuple(behind)]
    return changed


def _vertices(
    labels: Labels, crossed: list[npt.NDArray[np.bool_]]
) -> tuple[npt.NDArray[np.float32], Labels, list[npt.NDArray[np.int32]]]:
    """Two vertices for each crossed edge, one for the label at either end.

    Returns
    -------
    vertices, owners
        Positions, and the labels that they belong to.
    ranks
        For each axis and edge, the number of its first vertex; the second follows.
    """
    positions, owners, ranks, count = [], [], [], 0
    for axis, changed in enumerate(crossed):
        rank = np.full(changed.shape, -1, np.int32)
        places = np.nonzero(changed)
        number = len(places[0])
        rank[places] = count + 2 * np.arange(number, dtype=np.int32)
        count += 2 * number
        middle = np.stack(places, axis=1).astype(np.float32)
        middle[:, axis] += 0.5
        ends = [labels[places], labels[_shifted(places, axis)]]
        positions.append(np.repeat(middle, 2, axis=0))
        owners.append(np.stack(ends, axis=1).ravel())
        ranks.append(rank)
    return np.concatenate(positions), np.concatenate(owners), ranks


def _shifted(
    places: tuple[npt.NDArray[np.intp], ...], axis: int
) -> tuple[npt.NDArray[np.intp], ...]:
    return tuple(place + (i == axis) for i, place in enumerate(places))


def _cells(crossed: list[npt.NDArray[np.bool_]]) -> npt.NDArray[np.intp]:
    """Lower corners (n, 3) of the cells in which there is more than one label."""
    mixed = None
    for axis, changed in enumerate(crossed):
        for other in range(3):
            if other != axis:
                ahead = [slice(None)] * 3
                ahead[other] = slice(1, None)
                behind = [slice(None)] * 3
                behind[other] = slice(None, -1)
                changed = changed[tuple(ahead)] | changed[tuple(behind)]
        mixed = changed if mixed is None else mixed | changed
    assert mixed is not None
    return np.argwhere(mixed)


def _triangles(
    labels: Labels,
    crossed: list[npt.NDArray[np.bool_]],
    ranks: list[npt.NDArray[np.int32]],
) -> tuple[npt.NDArray[np.int32], Labels]:
    """All triangles, by the numbers of their vertices, and their labels."""
    cells = _cells(crossed)
    parts = [
        part
        for start in range(0, len(cells), _BATCH)
        for part in _triangles_of_cells(labels, ranks, cells[start : start + _BATCH])
    ]
    if not parts:
        return np.empty((0, 3), np.int32), np.empty(0, labels.dtype)
    return np.concatenate([faces for faces, _ in parts]), np.concatenate(
        [owners for _, owners in parts]
    )


def _triangles_of_cells(
    labels: Labels, ranks: list[npt.NDArray[np.int32]], cells: npt.NDArray[np.intp]
) -> Iterator[tuple[npt.NDArray[np.int32], Labels]]:
    offsets = np.indices((2, 2, 2))[::-1].reshape(3, 8).T
    corners = np.stack([labels[tuple((cells + offset).T)] for offset in offsets])
    numbers = np.stack([_edge_numbers(ranks, cells, edge) for edge in range(12)])
    table = cases()
    lower = np.array([low for low, _ in EDGES])
    bit = (1 << np.arange(8, dtype=np.uint8))[:, None]
    for corner in range(8):
        label = corners[corner]
        is_first = (label != 0) & (corners[:corner] != label).all(axis=0)
        chosen = np.flatnonzero(is_first)
        inside = corners[:, chosen] == label[chosen]
        case = (inside * bit).sum(axis=0, dtype=np.uint8)
        for number in range(table.triangles.shape[1]):
            some = np.flatnonzero(table.counts[case] > number)
            if not len(some):
                break
            edges = table.triangles[case[some], number]
            first = numbers[edges, chosen[some, None]]
            # The second vertex of an edge belongs to the label of its upper end.
            faces = first + ~inside[lower[edges], some[:, None]]
            yield faces.astype(np.int32), label[chosen[some]]


def _edge_numbers(
    ranks: list[npt.NDArray[np.int32]], cells: npt.NDArray[np.intp], edge: int
) -> npt.NDArray[np.int32]:
    corner = EDGES[edge][0]
    offset = np.array([corner & 1, corner >> 1 & 1, corner >> 2])
    numbers: npt.NDArray[np.int32] = ranks[edge // 4][tuple((cells + offset).T)]
    return numbers


def _by_label(
    vertices: npt.NDArray[np.float32],
    owners: Labels,
    faces: npt.NDArray[np.int32],
    face_labels: Labels,
) -> Iterator[Surface]:
    # Vertices at the end of the block may be of no triangle.
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    kept = np.flatnonzero(used)
    order = kept[np.argsort(owners[kept], kind="stable")]
    number = np.empty(len(vertices), np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    face_order = np.argsort(face_labels, kind="stable")
    present, starts = np.unique(owners[order], return_index=True)
    face_starts = np.searchsorted(face_labels[face_order], present)
    vertex_stops = [*starts[1:], len(order)]
    face_stops = [*face_starts[1:], len(face_order)]
    for label, *ranges in zip(
        present.tolist(), starts, vertex_stops, face_starts, face_stops, strict=True
    ):
        start, stop, first, last = map(int, ranges)
        own_faces = number[faces[face_order[first:last]]] - start
        yield Surface(label, vertices[order[start:stop]], own_faces)
