"""The chunk grid: cell ⇄ voxel box ⇄ chunk name ⇄ chunk id. Pure arithmetic.

Edge chunks are cropped to the volume here and nowhere else.
Specification: volume.md, "Chunked representation of volume data".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.cached import cached_property

__all__ = ["XYZ", "Box", "ChunkGrid"]

XYZ: TypeAlias = tuple[int, int, int]

# 20 digits hold any 64-bit number; Python refuses to convert thousands.
_SPAN = r"(-?\d{1,20})-(-?\d{1,20})"
_CHUNK_NAME = re.compile(f"{_SPAN}_{_SPAN}_{_SPAN}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of voxels, ``start <= (x, y, z) < stop``.

    Examples
    --------
    >>> Box((0, 0, 0), (4, 3, 2)).shape
    (4, 3, 2)
    >>> print(Box((-8, 0, 0), (56, 64, 64)))
    [-8:56, 0:64, 0:64]
    """

    start: XYZ
    stop: XYZ

    @property
    def shape(self) -> XYZ:
        """Extent along x, y and z, in voxels (zero where the box is empty)."""
        return _xyz(max(0, b - a) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def is_empty(self) -> bool:
        return any(b <= a for a, b in zip(self.start, self.stop, strict=True))

    def intersection(self, other: Box) -> Box:
        return Box(_xyz(map(max, self.start, other.start)), _xyz(map(min, self.stop, other.stop)))

    def contains(self, other: Box) -> bool:
        """Whether every voxel of `other` lies in this box."""
        return other.is_empty or (
            all(a <= b for a, b in zip(self.start, other.start, strict=True))
            and all(a >= b for a, b in zip(self.stop, other.stop, strict=True))
        )

    def __str__(self) -> str:
        return (
            "[" + ", ".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True)) + "]"
        )


@dataclass(frozen=True, kw_only=True)
class ChunkGrid:
    """The division of one scale into chunks, in voxels.

    Cells are numbered from the volume's first voxel, whatever its `voxel_offset`.

    Examples
    --------
    >>> grid = ChunkGrid(size=(110, 64, 50), voxel_offset=(10, 0, 0), chunk_size=(64, 64, 64))
    >>> grid.shape
    (2, 1, 1)
    >>> grid.chunk_name((1, 0, 0))
    '74-120_0-64_0-50'
    """

    size: XYZ
    voxel_offset: XYZ
    chunk_size: XYZ

    @cached_property
    def shape(self) -> XYZ:
        """Number of cells along x, y and z."""
        return _xyz(-(-s // c) for s, c in zip(self.size, self.chunk_size, strict=True))

    @property
    def bounds(self) -> Box:
        """All voxels of the volume."""
        return Box(
            self.voxel_offset,
            _xyz(o + s for o, s in zip(self.voxel_offset, self.size, strict=True)),
        )

    @property
    def num_cells(self) -> int:
        return math.prod(self.shape)

    def chunk_shape(self, cell: XYZ) -> XYZ:
        """Extent of the chunk at `cell`, cropped to the volume."""
        # Spelled out, as are the next two: this is asked for every chunk that is read.
        x, y, z = cell
        width, height, depth = self.chunk_size
        size_x, size_y, size_z = self.size
        return (
            min(width, size_x - x * width),
            min(height, size_y - y * height),
            min(depth, size_z - z * depth),
        )

    def cell_box(self, cell: XYZ) -> Box:
        """Voxels stored in the chunk at `cell`, cropped to the volume."""
        x, y, z = self._first_voxel(cell)
        width, height, depth = self.chunk_shape(cell)
        return Box((x, y, z), (x + width, y + height, z + depth))

    def _first_voxel(self, cell: XYZ) -> XYZ:
        x, y, z = cell
        width, height, depth = self.chunk_size
        offset_x, offset_y, offset_z = self.voxel_offset
        return offset_x + x * width, offset_y + y * height, offset_z + z * depth

    def chunk_name(self, cell: XYZ) -> str:
        """File name of `cell` below the scale's key.

        Specification: volume.md, "Unsharded chunk storage".
        """
        x, y, z = self._first_voxel(cell)
        width, height, depth = self.chunk_shape(cell)
        return f"{x}-{x + width}_{y}-{y + height}_{z}-{z + depth}"

    def cell_of_name(self, name: str) -> XYZ | None:
        """The cell that `name` is the chunk name of, or None if it is not of this grid."""
        match = _CHUNK_NAME.fullmatch(name)
        if match is None:
            return None
        cell = _xyz(
            (int(start) - o) // c
            for start, o, c in zip(
                match.groups()[::2], self.voxel_offset, self.chunk_size, strict=True
            )
        )
        inside = all(0 <= g < n for g, n in zip(cell, self.shape, strict=True))
        return cell if inside and self.chunk_name(cell) == name else None

    def cells(self, box: Box | None = None) -> Iterator[XYZ]:
        """Every cell that meets `box` (default: the whole volume), x fastest."""
        box = self.bounds if box is None else box.intersection(self.bounds)
        if box.is_empty:
            return
        xs, ys, zs = (
            range((a - o) // c, -(-(b - o) // c))
            for a, b, o, c in zip(
                box.start, box.stop, self.voxel_offset, self.chunk_size, strict=True
            )
        )
        # Not itertools.product, which would list each range in memory first.
        for z in zs:
            for y in ys:
                for x in xs:
                    yield x, y, z

    def cell_array(self, box: Box | None = None) -> npt.NDArray[np.int64]:
        """`cells` as an array ``(n, 3)``."""
        box = self.bounds if box is None else box.intersection(self.bounds)
        if box.is_empty:
            return np.empty((0, 3), np.int64)
        x, y, z = (
            np.arange((a - o) // c, -(-(b - o) // c))
            for a, b, o, c in zip(
                box.start, box.stop, self.voxel_offset, self.chunk_size, strict=True
            )
        )
        mesh = np.meshgrid(z, y, x, indexing="ij")
        return np.stack([axis.ravel() for axis in reversed(mesh)], axis=1)

    def is_aligned(self, box: Box) -> bool:
        """Whether `box` is a union of whole chunks (cropped ones count as whole)."""
        return self.bounds.contains(box) and self.rounded_out(box) == box

    def rounded_out(self, box: Box) -> Box:
        """The smallest union of whole chunks that covers what of `box` lies in the volume.

        An empty box stays as it is, and one outside the volume becomes empty.
        """
        if box.is_empty:
            return box
        if box.intersection(self.bounds).is_empty:
            return Box(box.start, box.start)
        start = _xyz(
            o + (a - o) // c * c
            for a, o, c in zip(box.start, self.voxel_offset, self.chunk_size, strict=True)
        )
        stop = _xyz(
            o - (o - b) // c * c
            for b, o, c in zip(box.stop, self.voxel_offset, self.chunk_size, strict=True)
        )
        return Box(start, stop).intersection(self.bounds)

    @cached_property
    def _morton_bits(self) -> tuple[tuple[int, int], ...]:
        """(dimension, bit) of each output bit of the compressed Morton code."""
        return tuple(
            (dim, bit)
            for bit in range(max((n - 1).bit_length() for n in self.shape))
            for dim in range(3)
            if (1 << bit) < self.shape[dim]
        )

    @property
    def num_chunk_id_bits(self) -> int:
        """Number of bits of the largest chunk id."""
        return len(self._morton_bits)

    def chunk_id(self, cell: XYZ) -> int:
        """Compressed Morton code of `cell`.

        Specification: volume.md, "Compressed morton code".

        Examples
        --------
        >>> grid = ChunkGrid(size=(4, 2, 1), voxel_offset=(0, 0, 0), chunk_size=(1, 1, 1))
        >>> [grid.chunk_id((x, y, 0)) for y in range(2) for x in range(4)]
        [0, 1, 4, 5, 2, 3, 6, 7]
        """
        code = 0
        for position, (dim, bit) in enumerate(self._morton_bits):
            code |= (cell[dim] >> bit & 1) << position
        return code

    def chunk_ids(self, cells: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint64]:
        """Compressed Morton codes of many cells.

        Parameters
        ----------
        cells : integer array, shape (n, 3)
            x, y and z.

        Returns
        -------
        numpy.ndarray of uint64, shape (n,)
        """
        code = np.zeros(len(cells), np.uint64)
        axes = cells.astype(np.uint64).T
        one = np.uint64(1)
        for position, (dim, bit) in enumerate(self._morton_bits):
            code |= (axes[dim] >> np.uint64(bit) & one) << np.uint64(position)
        return code

    def low_bits_cells(self, num_bits: int) -> XYZ:
        """Extent in cells of the box of those whose ids differ in the lowest bits only.

        A Morton code counts the cells of such boxes one after the other, and the boxes
        lie on a grid of their own.

        Examples
        --------
        >>> grid = ChunkGrid(size=(8, 8, 2), voxel_offset=(0, 0, 0), chunk_size=(1, 1, 1))
        >>> grid.low_bits_cells(5)
        (4, 4, 2)
        """
        extent = [1, 1, 1]
        for dim, _ in self._morton_bits[:num_bits]:
            extent[dim] *= 2
        return _xyz(extent)

    def cell_of_id(self, chunk_id: int) -> XYZ | None:
        """The cell with this compressed Morton code, or None if there is none in the grid."""
        if chunk_id >> len(self._morton_bits):
            return None
        cell = [0, 0, 0]
        for position, (dim, bit) in enumerate(self._morton_bits):
            cell[dim] |= (chunk_id >> position & 1) << bit
        inside = all(g < n for g, n in zip(cell, self.shape, strict=True))
        return _xyz(cell) if inside else None


def _xyz(values: Iterable[int]) -> XYZ:
    x, y, z = values
    return x, y, z
