"""Write units: the disjoint pieces of a write, each stored by one task as one object. Pure.

The same plan serves numpy, dask and zarr: whoever writes asks here what may be written
together and what must first be read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from precomputed_store.grid import XYZ, Box, ChunkGrid
from precomputed_store.metadata import Scale
from precomputed_store.shard_shape import shard_cells

__all__ = ["Unaligned", "WriteUnit", "check_region", "plan_write", "unit_grid", "unit_spans"]

Unaligned: TypeAlias = Literal["raise", "read-modify-write", "unguarded-read-modify-write"]
"""What to do with a region that covers some objects only in part: refuse it; read, change and
store them, losing nothing that others write; or the same without that guard, for a single
writer on a storage that knows none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteUnit:
    """One object of storage and the voxels of it that a write covers.

    Attributes
    ----------
    cell : (int, int, int)
        Place of the object in the unit grid.
    box : Box
        Voxels that the object holds.
    covered : Box
        Those of them that are written; the others must be read first.
    """

    cell: XYZ
    box: Box
    covered: Box

    @property
    def is_whole(self) -> bool:
        return self.box == self.covered


def unit_grid(scale: Scale) -> ChunkGrid:
    """The grid of the objects that are written as one.

    Chunks; in a sharded scale, shards where these are boxes of chunks, else the whole
    volume, because then any region has chunks in every shard.
    """
    return replace(scale.grid, chunk_size=_unit_size(scale))


def _unit_size(scale: Scale) -> XYZ:
    if scale.sharding is None:
        return scale.chunk_size
    cells = shard_cells(scale.grid, scale.sharding)
    if cells is None:
        return scale.size
    x, y, z = (a * b for a, b in zip(cells, scale.chunk_size, strict=True))
    return x, y, z


def check_region(scale: Scale, region: Box, unaligned: Unaligned) -> None:
    """Refuse a region that cannot be written, before anything is touched.

    Raises
    ------
    IndexError
        The region reaches outside the volume.
    ValueError
        It covers objects in part and ``unaligned="raise"``.
    """
    grid = unit_grid(scale)
    if not grid.bounds.contains(region):
        raise IndexError(f"region {region} reaches outside the volume {grid.bounds}")
    if unaligned == "raise" and not grid.is_aligned(region):
        kind = "chunks" if scale.sharding is None else "shards"
        raise ValueError(
            f"region {region} covers {kind} of {grid.chunk_size} voxels (from voxel_offset "
            f"{scale.voxel_offset}) only in part; the whole {kind} around it are "
            f"{grid.rounded_out(region)}. Write those, or pass "
            'unaligned="read-modify-write"'
        )


def plan_write(scale: Scale, region: Box) -> Iterator[WriteUnit]:
    """The objects that a write to `region` replaces or changes, x fastest."""
    grid = unit_grid(scale)
    for cell in grid.cells(region):
        box = grid.cell_box(cell)
        yield WriteUnit(cell=cell, box=box, covered=box.intersection(region))


def unit_spans(
    scale: Scale, region: Box
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Extents along x, y and z into which the unit grid cuts `region`.

    Arrays split so (or into unions of neighbouring pieces) can be written by tasks
    that never touch the same object.
    """
    grid = unit_grid(scale)
    x, y, z = (
        _spans(a, b, offset, size)
        for a, b, offset, size in zip(
            region.start, region.stop, grid.voxel_offset, grid.chunk_size, strict=True
        )
    )
    return x, y, z


def _spans(start: int, stop: int, offset: int, size: int) -> tuple[int, ...]:
    first = offset + ((start - offset) // size + 1) * size
    edges = [start, *range(first, stop, size), stop]
    return tuple(b - a for a, b in itertools.pairwise(edges))
