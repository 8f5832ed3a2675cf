"""Vertices of triangles: merging equal ones, dropping unused ones. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "drop_unused",
    "is_closed",
    "merge_equal",
    "on_grid_planes",
    "unique_rows",
    "without_collapsed",
]

Rows = npt.NDArray[Any]
Faces = npt.NDArray[np.uint32]
# Of the distance between two planes: vertices computed in float32 are not exactly on them.
_PLANE_TOLERANCE = 1e-5


def unique_rows(rows: Rows) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Index of the first of each group of equal rows, and the group of each row.

    Rows are of three numbers, float32 or uint32.
    """
    if not len(rows):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    keys = _keys(rows)
    order = np.lexsort(keys)
    is_new = np.ones(len(rows), bool)
    is_new[1:] = np.any([key[order[1:]] != key[order[:-1]] for key in keys], axis=0)
    # Sorting is stable: the first row of each group stands in front.
    number = np.cumsum(is_new) - 1
    first = order[is_new]
    by_place = np.argsort(first, kind="stable")
    rank = np.empty_like(by_place)
    rank[by_place] = np.arange(len(by_place))
    group = np.empty(len(rows), np.intp)
    group[order] = rank[number]
    return first[by_place], group


def _keys(rows: Rows) -> list[npt.NDArray[np.uint64]]:
    """Columns of 64 bits that are equal where three numbers of up to 32 bits are."""
    # Minus zero equals zero, but not bit by bit.
    x, y, z = np.ascontiguousarray((rows + 0).astype(rows.dtype, copy=False).T).view(np.uint32)
    x, y, z = x.astype(np.uint64), y.astype(np.uint64), z.astype(np.uint64)
    if rows.dtype.kind == "u" and max(x.max(), y.max(), z.max()) < 1 << 21:
        return [x | y << np.uint64(21) | z << np.uint64(42)]
    return [z, x | y << np.uint64(32)]


def merge_equal(
    vertices: Rows, faces: Faces, wanted: npt.NDArray[np.bool_] | None = None
) -> tuple[Rows, Faces]:
    """Merge equal vertices (only those that are `wanted`), then drop what is of no use."""
    if wanted is None:
        first, group = unique_rows(vertices)
    else:
        picked = np.flatnonzero(wanted)
        first_picked, group_picked = unique_rows(vertices[picked])
        representative = np.arange(len(vertices))
        representative[picked] = picked[first_picked[group_picked]]
        first, group = np.unique(representative, return_inverse=True)
    return drop_unused(vertices[first], without_collapsed(group.ravel()[faces].astype(np.uint32)))


def without_collapsed(faces: Faces) -> Faces:
    """Triangles with three different corners."""
    a, b, c = faces.T
    kept: Faces = faces[(a != b) & (b != c) & (c != a)]
    return kept


def drop_unused(vertices: Rows, faces: Faces) -> tuple[Rows, Faces]:
    """Drop vertices that no triangle has."""
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    if used.all():
        return vertices, faces
    number = np.cumsum(used, dtype=np.uint32) - np.uint32(1)
    return vertices[used], number[faces].reshape(-1, 3)


def on_grid_planes(
    vertices: Rows, chunk_shape: Sequence[float], offset: Sequence[float]
) -> npt.NDArray[np.bool_]:
    """Which vertices lie on a face of a grid's cells."""
    shape = np.asarray(chunk_shape, np.float64)
    if shape.shape != (3,) or not (shape > 0).all():
        raise ValueError(f"chunk_shape {chunk_shape}: expected three positive lengths")
    place = (vertices - np.asarray(offset, np.float64)) / shape
    on_plane: npt.NDArray[np.bool_] = np.any(
        np.abs(place - np.rint(place)) <= _PLANE_TOLERANCE, axis=1
    )
    return on_plane


def is_closed(faces: Faces) -> bool:
    """Whether each directed edge has its opposite, as often as it is there."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.uint64)
    forth = np.sort(edges[:, 0] << np.uint64(32) | edges[:, 1])
    back = np.sort(edges[:, 1] << np.uint64(32) | edges[:, 0])
    return bool(np.array_equal(forth, back))
