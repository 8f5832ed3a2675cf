"""From a selection of voxels to the chunks that hold them. Pure, no I/O.

The engine's axes are ``(channel, z, y, x)``, counted from the volume's first voxel;
the grid's cells are ``(x, y, z)``. The two meet here and nowhere else.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.codecs.base import Ranges
from precomputed_store.grid import XYZ

__all__ = [
    "AxisSelection",
    "ChunkPart",
    "Selection",
    "SortedPoints",
    "plan_points",
    "plan_selection",
    "sorted_points",
]

AxisSelection: TypeAlias = range | npt.NDArray[np.intp]
"""Non-negative indices along one axis; a range has a positive step."""

Selection: TypeAlias = tuple[AxisSelection, AxisSelection, AxisSelection, AxisSelection]
"""Indices along channel, z, y and x, combined as an outer product."""

AxisIndex: TypeAlias = slice | npt.NDArray[np.intp]


class ChunkPart(NamedTuple):
    """What one chunk contributes: ``out[target] = chunk[source]``."""

    cell: XYZ
    source: tuple[Any, ...]
    target: tuple[Any, ...]
    known_box: Ranges | None = None

    @property
    def is_box(self) -> bool:
        """Whether every voxel of `box` is wanted, in order."""
        return all(isinstance(axis, slice) and axis.step in (None, 1) for axis in self.source)

    @property
    def box(self) -> Ranges:
        """The smallest box of the chunk with every voxel that is wanted, along z, y and x."""
        if self.known_box is not None:
            return self.known_box
        z, y, x = map(_range_of, self.source[1:])
        return z, y, x

    def source_from(self, start: tuple[int, int, int]) -> tuple[Any, ...]:
        """`source` in a part of the chunk that begins at `start`, along z, y and x."""
        axes = zip(self.source[1:], start, strict=True)
        return self.source[0], *(_moved(axis, first) for axis, first in axes)


def _range_of(axis: AxisIndex) -> tuple[int, int]:
    if isinstance(axis, slice):
        return axis.start, axis.stop
    return int(axis.min()), int(axis.max()) + 1


def _moved(axis: AxisIndex, first: int) -> AxisIndex:
    if isinstance(axis, slice):
        return slice(axis.start - first, axis.stop - first, axis.step)
    return axis - first


class _AxisPart(NamedTuple):
    cell: int
    source: AxisIndex
    target: AxisIndex


def plan_selection(selection: Selection, chunk_size: XYZ) -> Iterator[ChunkPart]:
    """The chunks that an outer product of indices touches, x fastest.

    Parameters
    ----------
    selection : tuple of four range or index array
        Along channel, z, y and x; all within the volume.
    chunk_size : (int, int, int)
        x, y and z.
    """
    channel, *axes = selection
    outer = any(not isinstance(axis, range) for axis in selection)
    channels = _AxisPart(0, *_whole_axis(channel))
    parts = [
        list(_axis_parts(axis, size))
        for axis, size in zip(axes, reversed(chunk_size), strict=True)
    ]
    for z, y, x in itertools.product(*parts):
        source: tuple[AxisIndex, ...] = (channels.source, z.source, y.source, x.source)
        target: tuple[AxisIndex, ...] = (channels.target, z.target, y.target, x.target)
        if outer:
            source, target = _outer(source), _outer(target)
        yield ChunkPart((x.cell, y.cell, z.cell), source, target)


class SortedPoints(NamedTuple):
    """Scattered voxels, those of one chunk side by side.

    Attributes
    ----------
    order : numpy.ndarray, shape (n,)
        Their numbers as they were given.
    cells, local : numpy.ndarray, shape (n, 3)
        The chunk of each, and its place in that, along z, y and x.
    channel : numpy.ndarray, shape (n,)
    starts : numpy.ndarray
        Where each chunk's begin.
    """

    order: npt.NDArray[np.intp]
    cells: npt.NDArray[np.intp]
    local: npt.NDArray[np.intp]
    channel: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]


def sorted_points(points: tuple[npt.NDArray[np.intp], ...], chunk_size: XYZ) -> SortedPoints:
    """Sort scattered voxels by the chunks that they lie in; see `plan_points`."""
    channel, *coordinates = points
    sizes = np.asarray(chunk_size[::-1], dtype=np.intp)
    cells, local = np.divmod(np.stack(coordinates, axis=1), sizes)
    order = np.lexsort(cells.T[::-1])
    cells, local, channel = cells[order], local[order], channel[order]
    starts = np.flatnonzero(np.any(np.diff(cells, axis=0, prepend=-1), axis=1))
    return SortedPoints(order, cells, local, channel, starts)


def plan_points(points: tuple[npt.NDArray[np.intp], ...], chunk_size: XYZ) -> Iterator[ChunkPart]:
    """The chunks that scattered voxels lie in; each chunk comes once.

    Parameters
    ----------
    points : tuple of four arrays of shape (n,)
        Indices along channel, z, y and x; all within the volume.
    chunk_size : (int, int, int)
        x, y and z.
    """
    if not len(points[0]):
        return
    order, cells, local, channel, starts = sorted_points(points, chunk_size)
    stops = np.append(starts[1:], len(order)).tolist()
    first = np.minimum.reduceat(local, starts)
    last = np.maximum.reduceat(local, starts)
    boxes = np.stack([first, last + 1], axis=2).tolist()
    columns = (channel, *local.T)
    groups = zip(starts.tolist(), stops, cells[starts].tolist(), boxes, strict=True)
    for start, stop, (z, y, x), (depth, height, width) in groups:
        source = tuple(column[start:stop] for column in columns)
        box = (tuple(depth), tuple(height), tuple(width))
        yield ChunkPart((x, y, z), source, (order[start:stop],), box)


def _whole_axis(axis: AxisSelection) -> tuple[AxisIndex, AxisIndex]:
    if isinstance(axis, range):
        return _as_slice(axis), slice(0, len(axis))
    return axis, np.arange(len(axis))


def _axis_parts(axis: AxisSelection, chunk: int) -> Iterator[_AxisPart]:
    """Split indices along one axis by the cell that they fall in."""
    if not isinstance(axis, range):
        yield from _array_parts(axis, chunk)
        return
    done = 0
    while done < len(axis):
        cell = axis[done] // chunk
        origin = cell * chunk
        following = -(-(origin + chunk - axis.start) // axis.step)
        end = min(following, len(axis))
        inside = axis[done:end]
        local = range(inside.start - origin, inside.stop - origin, axis.step)
        yield _AxisPart(cell, _as_slice(local), slice(done, end))
        done = end


def _array_parts(indices: npt.NDArray[np.intp], chunk: int) -> Iterator[_AxisPart]:
    if not len(indices):
        return
    cells, local = np.divmod(indices, chunk)
    order = np.argsort(cells, kind="stable")
    starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
    for where in np.split(order, starts[1:]):
        yield _AxisPart(int(cells[where[0]]), local[where], where)


def _as_slice(indices: range) -> slice:
    if not len(indices):
        return slice(0, 0)
    return slice(indices[0], indices[-1] + 1, indices.step)


def _outer(indices: tuple[AxisIndex, ...]) -> tuple[npt.NDArray[np.intp], ...]:
    """The index arrays of an outer product, as `numpy.ix_` takes them."""
    arrays = [
        np.arange(index.start, index.stop, index.step or 1) if isinstance(index, slice) else index
        for index in indices
    ]
    return np.ix_(*arrays)
