"""What a read takes: parts of chunks, or the bytes of plain chunks. Pure, no I/O.

A plain chunk is its voxels and nothing else, so that what is wanted of it can be read straight
into its place. Both come in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.grid import XYZ, ChunkGrid
from precomputed_store.read_plan import (
    ChunkPart,
    Selection,
    plan_points,
    plan_selection,
    sorted_points,
)
from precomputed_store.storage.blocks import FileBlocks, Integers

__all__ = ["PointsPlan", "ReadPlan", "SelectionPlan", "shares"]

_FEWEST_BYTES = 3 << 18
"""Of whole chunks: planning takes as long as to read that many."""
_SHARE_BYTES = 1 << 19, 1 << 25
"""At least and at most: nothing is reported, nor can a read be interrupted, within a share."""
_SHARES = 64
_FILE_BYTES = 1 << 15
"""As many as are read in the time that opening a file takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionPlan:
    """An outer product of indices.

    Attributes
    ----------
    selection : tuple of four range or index array
        Along channel, z, y and x; all within the volume.
    grid : ChunkGrid
    """

    selection: Selection
    grid: ChunkGrid

    def parts(self) -> list[ChunkPart]:
        """What each chunk contributes."""
        return list(plan_selection(self.selection, self.grid.chunk_size))

    def blocks(self, num_channels: int, out: npt.NDArray[Any]) -> FileBlocks | None:
        """The bytes of plain chunks, or None if the selection is no box or hardly worth it.

        Parameters
        ----------
        num_channels : int
            Of the volume.
        out : numpy.ndarray
            C order, of the selection's shape.
        """
        if not all(isinstance(axis, range) and axis.step == 1 for axis in self.selection):
            return None
        cells = (
            -(-axis.stop // chunk) - axis.start // chunk  # type: ignore[union-attr]
            for axis, chunk in zip(self.selection[1:], self.grid.chunk_size[::-1], strict=True)
        )
        voxels = math.prod(cells) * math.prod(self.grid.chunk_size) * num_channels
        if voxels * out.itemsize < _FEWEST_BYTES:
            return None
        return _blocks_of_box(self.selection, self.grid, num_channels=num_channels, out=out)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsPlan:
    """Scattered voxels.

    Attributes
    ----------
    points : tuple of four arrays of shape (n,)
        Indices along channel, z, y and x; all within the volume.
    grid : ChunkGrid
    """

    points: tuple[npt.NDArray[np.intp], ...]
    grid: ChunkGrid

    def parts(self) -> list[ChunkPart]:
        """What each chunk contributes."""
        return list(plan_points(self.points, self.grid.chunk_size))

    def blocks(self, num_channels: int, out: npt.NDArray[Any]) -> FileBlocks | None:
        """The bytes of plain chunks, each block one voxel; see `SelectionPlan.blocks`."""
        return _blocks_of_points(self.points, self.grid, num_channels=num_channels, out=out)


ReadPlan: TypeAlias = SelectionPlan | PointsPlan


def shares(blocks: FileBlocks) -> list[slice]:
    """Runs of files that take about as long each."""
    num_bytes = np.add.reduceat(np.prod(blocks.blocks[:, 4:8], axis=1), blocks.first[:-1])
    done = np.cumsum(num_bytes + _FILE_BYTES)
    least, most = _SHARE_BYTES
    number = done // min(most, max(least, int(done[-1]) // _SHARES))
    ends = [*np.flatnonzero(np.diff(number)) + 1, len(blocks)]
    return [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


class _Axis(NamedTuple):
    """Of one axis, for each of its cells that are wanted."""

    cell: Integers
    extent: Integers
    """Voxels of the chunk, which is cropped at the far edge."""
    source: Integers
    """First voxel in the chunk."""
    length: Integers
    target: Integers
    """Where that goes in the output."""


def _blocks_of_box(
    selection: Selection, grid: ChunkGrid, *, num_channels: int, out: npt.NDArray[Any]
) -> FileBlocks:
    channels, *axes = selection
    z, y, x = (
        _axis(axis, chunk, size)  # type: ignore[arg-type]
        for axis, chunk, size in zip(axes, grid.chunk_size[::-1], grid.size[::-1], strict=True)
    )
    z, y = _Axis(*(a[:, None, None] for a in z)), _Axis(*(a[:, None] for a in y))
    row = x.extent * out.itemsize
    plane = y.extent * row
    channel = z.extent * plane
    blocks = np.empty((z.cell.size, y.cell.size, x.cell.size, 9), np.int64)
    start = z.source * plane + y.source * row + x.source * out.itemsize
    place = z.target * out.strides[1] + y.target * out.strides[2] + x.target * out.itemsize
    fields: tuple[Integers | int, ...] = (
        start + channels[0] * channel, channel, plane, row,
        len(channels), z.length, y.length, x.length * out.itemsize, place,
    )  # fmt: skip
    for number, values in enumerate(fields):
        blocks[..., number] = values
    names = _names(grid, [axis.cell.ravel().tolist() for axis in (x, y, z)])
    return FileBlocks(
        names=names,
        sizes=num_channels * np.broadcast_to(channel, blocks.shape[:3]).ravel(),
        first=np.arange(len(names) + 1),
        blocks=blocks.reshape(-1, 9),
    )


def _axis(wanted: range, chunk: int, size: int) -> _Axis:
    cell = np.arange(wanted.start // chunk, (wanted.stop - 1) // chunk + 1)
    begin = cell * chunk
    start, stop = np.maximum(begin, wanted.start), np.minimum(begin + chunk, wanted.stop)
    extent = np.minimum(chunk, size - begin)
    return _Axis(cell, extent, start - begin, stop - start, start - wanted.start)


def _names(grid: ChunkGrid, cells: Sequence[Sequence[int]]) -> list[str]:
    xs, ys, zs = (
        [part.split("_")[axis] for part in map(grid.chunk_name, _along(axis, numbers))]
        for axis, numbers in enumerate(cells)
    )
    return [f"{x}_{y}_{z}" for z in zs for y in ys for x in xs]


def _along(axis: int, numbers: Sequence[int]) -> list[XYZ]:
    return [(n, 0, 0) if axis == 0 else (0, n, 0) if axis == 1 else (0, 0, n) for n in numbers]


def _blocks_of_points(
    points: tuple[npt.NDArray[np.intp], ...],
    grid: ChunkGrid,
    *,
    num_channels: int,
    out: npt.NDArray[Any],
) -> FileBlocks:
    found = sorted_points(points, grid.chunk_size)
    sizes = np.asarray(grid.size[::-1], np.int64)
    chunk = np.asarray(grid.chunk_size[::-1], np.int64)
    depth, height, width = np.minimum(chunk, sizes - found.cells * chunk).T
    row = width * out.itemsize
    channel = depth * height * row
    z, y, x = found.local.T
    blocks = np.empty((len(found.order), 9), np.int64)
    blocks[:, 0] = found.channel * channel + (z * height + y) * row + x * out.itemsize
    blocks[:, 1:4] = 0
    blocks[:, 4:7] = 1
    blocks[:, 7] = out.itemsize
    blocks[:, 8] = found.order * out.itemsize
    return FileBlocks(
        names=[grid.chunk_name((x, y, z)) for z, y, x in found.cells[found.starts].tolist()],
        sizes=num_channels * channel[found.starts],
        first=np.append(found.starts, len(found.order)),
        blocks=blocks,
    )
