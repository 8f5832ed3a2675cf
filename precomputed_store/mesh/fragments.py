"""Fragments of a multi-resolution mesh: compressed octree nodes ⇄ a mesh in nanometres. Pure.

Specification: meshes.md, "Multi-resolution mesh fragment data file format".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from precomputed_store.codecs.base import Buffer
from precomputed_store.errors import FormatError
from precomputed_store.mesh import draco
from precomputed_store.mesh.manifest import Manifest
from precomputed_store.mesh.mesh import Mesh, NmBox
from precomputed_store.metadata.mesh import IDENTITY, MeshInfo

__all__ = ["DecodedFragment", "Fragment", "assemble", "decode_fragment", "nodes_within"]

_VERTICES_AT_ONCE: Final = 1 << 15


class Fragment(NamedTuple):
    """One octree node of one level of detail, by its place in the manifest."""

    lod: int
    node: int


class DecodedFragment(NamedTuple):
    """Triangles of one node: vertices on its own grid of positions."""

    fragment: Fragment
    points: npt.NDArray[np.uint32]
    faces: npt.NDArray[np.uint32]


def decode_fragment(data: Buffer, fragment: Fragment, info: MeshInfo) -> DecodedFragment:
    """One fragment that is not empty.

    Raises
    ------
    FormatError
        It is no Draco mesh within its node.
    """
    points, faces = draco.decode(data, bits=info.vertex_quantization_bits)
    return DecodedFragment(fragment, points, faces)


def assemble(parts: Sequence[DecodedFragment], manifest: Manifest, info: MeshInfo) -> Mesh:
    """Fragments of one level as a mesh in nanometres, each with vertices of its own.

    Raises
    ------
    FormatError
        Coordinates leave what float32 can hold.
    """
    first = np.cumsum([0, *(len(part.points) for part in parts)]).tolist()
    vertices = np.empty((first[-1], 3), np.float32)
    faces = np.empty((sum(len(part.faces) for part in parts), 3), np.uint32)
    end = 0
    for part, start in zip(parts, first[:-1], strict=True):
        np.add(part.faces, np.uint32(start), out=faces[end : end + len(part.faces)])
        end += len(part.faces)
    with np.errstate(over="ignore"):
        for group in _groups(first):
            out = vertices[first[group.start] : first[group.stop]]
            _place([parts[number] for number in group], manifest, info, out=out)
            if not np.isfinite(out).all():
                raise FormatError("a coordinate is too large for a mesh")
    return Mesh.trusted(vertices, faces)


def _groups(first: Sequence[int]) -> Iterator[range]:
    """Fragments that are placed together: few calls of numpy, on arrays that caches hold."""
    start = 0
    for number in range(1, len(first)):
        if number == len(first) - 1 or first[number + 1] - first[start] > _VERTICES_AT_ONCE:
            yield range(start, number)
            start = number


def _place(
    parts: Sequence[DecodedFragment],
    manifest: Manifest,
    info: MeshInfo,
    *,
    out: npt.NDArray[np.float32],
) -> None:
    """Vertices of fragments of one level in nanometres.

    Computed in the order in which the specification writes it: a vertex on the face between
    two nodes is the same number in both.
    """
    lod = parts[0].fragment.lod
    nodes = manifest.fragment_positions[lod][[part.fragment.node for part in parts]]
    counts = [len(part.points) for part in parts]
    shape = manifest.node_shape(lod)
    origin = manifest.grid_origin.astype(np.float64) + manifest.vertex_offsets[lod]
    # Axis by axis: numpy is several times slower along rows of three.
    stored = []
    for axis in range(3):
        column = np.concatenate([part.points[:, axis] for part in parts], dtype=np.float64)
        column /= (1 << info.vertex_quantization_bits) - 1
        column += np.repeat(nodes[:, axis], counts)
        column *= shape[axis]
        column += origin[axis]
        stored.append(column)
    for axis, row in enumerate(info.matrix):
        if info.transform == IDENTITY:
            out[:, axis] = stored[axis]
        else:
            out[:, axis] = row[0] * stored[0] + row[1] * stored[1] + row[2] * stored[2] + row[3]


def nodes_within(manifest: Manifest, lod: int, box: NmBox, info: MeshInfo) -> Sequence[int]:
    """Indices of the nodes of a level that touch a box in nanometres."""
    corners = np.indices((2, 2, 2)).reshape(3, 8).T
    origins = manifest.node_origins(lod)
    stored = origins[:, None, :] + corners * manifest.node_shape(lod)
    matrix = info.matrix
    placed: npt.NDArray[np.float64] = stored @ matrix[:, :3].T + matrix[:, 3]
    low, high = np.asarray(box[0], float), np.asarray(box[1], float)
    # What float32 rounds to may lie a little outside of its node.
    margin = np.spacing(np.abs(placed).max(initial=0).astype(np.float32))
    touching = np.all(
        (placed.min(axis=1) <= high + margin) & (placed.max(axis=1) >= low - margin), axis=1
    )
    found: list[int] = np.flatnonzero(touching).tolist()
    return found
