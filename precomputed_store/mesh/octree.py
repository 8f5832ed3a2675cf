"""Levels of detail → the octree nodes of a multi-resolution mesh, compressed. Pure.

Triangles are cut exactly where they cross a plane that the specification forbids them to
cross, and positions are rounded so that neighbouring nodes meet exactly.
Specification: meshes.md, "Multi-resolution mesh fragment data file format".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from precomputed_store.mesh import draco
from precomputed_store.mesh.manifest import Manifest, z_order
from precomputed_store.mesh.mesh import Mesh
from precomputed_store.mesh.vertices import drop_unused, merge_equal

__all__ = ["EncodedMesh", "OctreeOptions", "encode_levels", "split_at_planes"]

Points = npt.NDArray[np.float64]
Faces = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OctreeOptions:
    """How levels of detail are stored.

    Attributes
    ----------
    bits : 10 or 16
        `vertex_quantization_bits`.
    draco_level : int
        Effort of the compression, 0 to 10.
    """

    bits: int = 16
    draco_level: int = 7


class EncodedMesh(NamedTuple):
    """A mesh as it is stored: manifest, and the data that it describes."""

    manifest: bytes
    data: bytes


class _Grid(NamedTuple):
    origin: npt.NDArray[np.float32]
    cell: npt.NDArray[np.float32]
    num_lods: int

    def place(self, mesh: Mesh) -> Points:
        """Vertices in units of the finest cells."""
        place = (mesh.vertices - self.origin.astype(np.float64)) / self.cell.astype(np.float64)
        return np.clip(place, 0, 2 ** (self.num_lods - 1))


class _Level(NamedTuple):
    """The nodes of one level: their positions, and quantised vertices and faces of each."""

    positions: npt.NDArray[np.uint32]
    meshes: list[tuple[npt.NDArray[Any], Faces]]


def encode_levels(levels: Sequence[Mesh], options: OctreeOptions) -> EncodedMesh:
    """Store levels of detail, the finest first, in an octree of as many levels.

    Parameters
    ----------
    levels : sequence of Mesh
        In stored coordinates.
    options : OctreeOptions

    Raises
    ------
    ValueError
        There is no level.
    """
    if not levels:
        raise ValueError("a mesh has at least one level of detail")
    grid = _grid_of(levels)
    parts = [_partition(mesh, lod, grid, options.bits) for lod, mesh in enumerate(levels)]
    parts = _with_parents(parts)
    streams = [
        [
            draco.encode(vertices, faces, level=options.draco_level) if len(faces) else b""
            for vertices, faces in part.meshes
        ]
        for part in parts
    ]
    manifest = Manifest(
        chunk_shape=grid.cell,
        grid_origin=grid.origin,
        lod_scales=_scales(levels),
        vertex_offsets=np.zeros((len(levels), 3), np.float32),
        fragment_positions=tuple(part.positions for part in parts),
        fragment_sizes=tuple(np.asarray(list(map(len, level)), np.uint32) for level in streams),
    )
    data = b"".join(stream for level in streams for stream in level)
    return EncodedMesh(manifest.to_bytes(), data)


def _grid_of(levels: Sequence[Mesh]) -> _Grid:
    """Cubic cells around all levels: one of the coarsest holds everything."""
    present = [mesh.bounds for mesh in levels if len(mesh.vertices)]
    corners = np.concatenate(present) if present else np.zeros((1, 3))
    origin = corners.min(axis=0).astype(np.float32)
    extent = float((corners.max(axis=0) - origin).max()) or 1.0
    cell = np.nextafter(np.float32(extent / 2 ** (len(levels) - 1)), np.float32(np.inf))
    return _Grid(origin, np.full(3, cell, np.float32), len(levels))


def _scales(levels: Sequence[Mesh]) -> npt.NDArray[np.float32]:
    """The mean length of a triangle's side in each level, never falling."""
    lengths = [(2.31 * mesh.area / max(1, len(mesh.faces))) ** 0.5 for mesh in levels]
    scales = np.maximum.accumulate(np.asarray(lengths, np.float32))
    return np.where(scales > 0, scales, np.float32(1))


def _partition(mesh: Mesh, lod: int, grid: _Grid, bits: int) -> _Level:
    # Nodes above the finest level must be cut in their middle, too.
    halves = 1 if lod == 0 else 2
    unit = 2.0**lod / halves
    points, faces = split_at_planes(grid.place(mesh) / unit, mesh.faces)
    if not len(faces):
        return _Level(np.empty((0, 3), np.uint32), [])
    nodes = 2 ** (grid.num_lods - 1 - lod)
    code = np.zeros(len(faces), np.int64)
    for axis in (2, 1, 0):
        low, high = _ranges(points[faces, axis])
        node = np.clip(np.floor((low + high) / (2 * halves)), 0, nodes - 1)
        code = code * nodes + node.astype(np.int64)
    present, group = np.unique(code, return_inverse=True)
    positions = np.stack(
        [present % nodes, present // nodes % nodes, present // nodes**2], axis=1
    ).astype(np.uint32)
    order = z_order(positions)
    # Few groups sort fast as small numbers.
    group = group.ravel().astype(np.min_scalar_type(len(present)))
    by_node = np.split(
        faces[np.argsort(group, kind="stable")],
        np.cumsum(np.bincount(group, minlength=len(present)))[:-1],
    )
    points = points / halves
    meshes = [_quantised(points, by_node[i], positions[i], bits) for i in order]
    return _Level(positions[order], meshes)


def _ranges(corners: Points) -> tuple[Points, Points]:
    """Least and greatest of the three numbers in each row: faster than reductions."""
    a, b, c = corners.T
    return np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)


def _quantised(
    points: Points, faces: Faces, position: npt.NDArray[np.uint32], bits: int
) -> tuple[npt.NDArray[Any], Faces]:
    """Vertices of a node rounded to its grid of positions, those that coincide merged."""
    points, faces = drop_unused(points, faces)
    most = (1 << bits) - 1
    rounded = np.clip(np.rint((points - position) * most), 0, most).astype(np.uint32)
    return merge_equal(rounded, faces.astype(np.uint32))


def _with_parents(levels: list[_Level]) -> list[_Level]:
    """Add an empty node wherever a level has none above one of the level below."""
    complete = [levels[0]]
    for level in levels[1:]:
        needed = np.unique(complete[-1].positions // 2, axis=0)
        present = set(map(tuple, level.positions.tolist()))
        absent = [place for place in needed.tolist() if tuple(place) not in present]
        if absent:
            positions = np.concatenate([level.positions, np.asarray(absent, np.uint32)])
            none = (np.empty((0, 3), np.uint32), np.empty((0, 3), np.uint32))
            meshes = level.meshes + [none] * len(absent)
            order = z_order(positions)
            level = _Level(positions[order], [meshes[i] for i in order])
        complete.append(level)
    return complete


def split_at_planes(points: Points, faces: Faces) -> tuple[Points, Faces]:
    """Cut triangles so that none crosses a plane of whole coordinates; they may touch one.

    Parameters
    ----------
    points : float64 (n, 3)
    faces : int (m, 3)

    Returns
    -------
    points, faces
        With new points behind the old ones. Where two triangles share an edge, the points
        that cut it are equal, whichever of them is cut first.
    """
    faces = faces.astype(np.int64)
    for axis in range(3):
        done, pending = [], faces
        while len(pending):
            low, high = _ranges(points[pending, axis])
            plane = np.floor(low) + 1
            crossing = high > plane
            done.append(pending[~crossing])
            pending = pending[crossing]
            if len(pending):
                points, pending = _cut(points, pending, axis, plane[crossing])
        faces = np.concatenate(done) if done else faces
    return points, faces


def _cut(
    points: Points, faces: Faces, axis: int, planes: npt.NDArray[np.float64]
) -> tuple[Points, Faces]:
    """Cut each triangle at its plane, which it crosses."""
    side = np.sign(points[faces, axis] - planes[:, None])
    touching = (side == 0).any(axis=1)
    # First the corner on the plane, or the one that is alone on its side.
    alone = side * side.sum(axis=1, keepdims=True) < 0
    first = np.where(touching[:, None], side == 0, alone).argmax(axis=1)
    turned = np.take_along_axis(faces, (first[:, None] + np.arange(3)) % 3, axis=1)
    a, b, c = turned[touching].T
    points, p = _add_points(points, b, c, axis, planes[touching])
    two = [np.stack(corners, axis=1) for corners in ((a, b, p), (a, p, c))]
    a, b, c = turned[~touching].T
    points, p = _add_points(points, a, b, axis, planes[~touching])
    points, q = _add_points(points, a, c, axis, planes[~touching])
    three = [np.stack(corners, axis=1) for corners in ((a, p, q), (p, b, c), (p, c, q))]
    return points, np.concatenate([*two, *three])


def _add_points(
    points: Points, starts: Faces, stops: Faces, axis: int, planes: npt.NDArray[np.float64]
) -> tuple[Points, Faces]:
    """Points where edges cross planes: the same bits in whichever direction an edge runs."""
    backwards = points[starts, axis] > points[stops, axis]
    below = points[np.where(backwards, stops, starts)]
    above = points[np.where(backwards, starts, stops)]
    part = (planes - below[:, axis]) / (above[:, axis] - below[:, axis])
    new = below + part[:, None] * (above - below)
    new = np.clip(new, np.minimum(below, above), np.maximum(below, above))
    new[:, axis] = planes
    return np.concatenate([points, new]), len(points) + np.arange(len(new))
