"""How a region is cut into blocks that tasks write: which, how large, of which shard. Pure."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from precomputed_store.cached import cached_property
from precomputed_store.grid import XYZ, Box
from precomputed_store.metadata import Scale
from precomputed_store.write_plan import unit_grid, unit_spans
from precomputed_store.writing.blocks import LARGEST_BLOCK_BYTES, Spans, merged_spans

__all__ = ["Tiling", "tile"]


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """A region in blocks.

    Attributes
    ----------
    region : Box
    spans : tuple of three tuples of int
        Extents of the blocks along x, y, z.
    grouped : tuple of three tuples of int, optional
        Where an object is too large for one block: how many neighbouring blocks make up
        each object, along x, y, z. None where blocks are unions of whole objects.
    """

    region: Box
    spans: Spans
    grouped: Spans | None = None

    @property
    def shape(self) -> XYZ:
        """Number of blocks along x, y, z."""
        x, y, z = map(len, self.spans)
        return x, y, z

    @property
    def num_blocks(self) -> int:
        return math.prod(self.shape)

    @property
    def largest_block(self) -> XYZ:
        """Extent of the largest block along x, y, z."""
        x, y, z = map(max, self.spans)
        return x, y, z

    @cached_property
    def edges(self) -> Spans:
        """Where blocks begin, and the last one ends, along x, y, z."""
        x, y, z = (
            tuple(itertools.accumulate(axis, initial=start))
            for axis, start in zip(self.spans, self.region.start, strict=True)
        )
        return x, y, z

    @cached_property
    def objects(self) -> Tiling:
        """The same region in whole objects: the blocks themselves where nothing is grouped."""
        if self.grouped is None:
            return self
        x, y, z = (
            tuple(sum(itertools.islice(lengths, count)) for count in counts)
            for lengths, counts in zip(map(iter, self.spans), self.grouped, strict=True)
        )
        return Tiling(region=self.region, spans=(x, y, z))

    @cached_property
    def _first_members(self) -> Spans:
        x, y, z = (tuple(itertools.accumulate(axis, initial=0)) for axis in self.grouped or ())
        return x, y, z

    def box(self, index: XYZ) -> Box:
        """The voxels of a block."""
        starts = (edges[i] for edges, i in zip(self.edges, index, strict=True))
        stops = (edges[i + 1] for edges, i in zip(self.edges, index, strict=True))
        (x0, y0, z0), (x1, y1, z1) = starts, stops
        return Box((x0, y0, z0), (x1, y1, z1))

    def indices(self) -> Iterator[XYZ]:
        """Every block, x fastest."""
        nx, ny, nz = self.shape
        for z, y, x in itertools.product(range(nz), range(ny), range(nx)):
            yield x, y, z

    def meeting(self, box: Box) -> Iterator[XYZ]:
        """The blocks that have a voxel in `box`, x fastest."""
        if box.intersection(self.region).is_empty:
            return
        x, y, z = (
            range(max(0, bisect_right(edges, a) - 1), min(len(edges) - 1, bisect_left(edges, b)))
            for edges, a, b in zip(self.edges, box.start, box.stop, strict=True)
        )
        for k, j, i in itertools.product(z, y, x):
            yield i, j, k

    def members(self, index: XYZ) -> Iterator[XYZ]:
        """The blocks that make up an object of `objects`, x fastest."""
        if self.grouped is None:
            yield index
            return
        x, y, z = (
            range(firsts[i], firsts[i + 1])
            for firsts, i in zip(self._first_members, index, strict=True)
        )
        for k, j, i in itertools.product(z, y, x):
            yield i, j, k


def tile(
    scale: Scale,
    region: Box,
    *,
    voxel_bytes: int,
    present: Spans | None = None,
    smallest: int | None = None,
    largest: int = LARGEST_BLOCK_BYTES,
) -> Tiling:
    """Cut a region of a scale into blocks for tasks, no two of which share an object.

    Parameters
    ----------
    scale : Scale
    region : Box
    voxel_bytes : int
        Size of all channels of a voxel.
    present : tuple of three tuples of int, optional
        How the array is cut along x, y, z now; see `merged_spans`.
    smallest, largest : int
        Bytes that blocks should have at the least and the most.
    """
    units = unit_spans(scale, region)
    unit = unit_grid(scale).chunk_size
    small = largest // 8 if smallest is None else smallest
    if scale.sharding is None or math.prod(unit) * voxel_bytes <= largest:
        spans = merged_spans(
            units, voxel_bytes=voxel_bytes, present=present, smallest=small, largest=largest
        )
        return Tiling(region=region, spans=spans)
    if not scale.grid.is_aligned(region):
        # Chunks that are written in part need what is stored of them: shard by shard.
        return Tiling(region=region, spans=units)
    block = _part_of(unit, scale.chunk_size, voxel_bytes=voxel_bytes, largest=largest)
    cut = [[_cut(span, size) for span in axis] for axis, size in zip(units, block, strict=True)]
    sx, sy, sz = (tuple(itertools.chain.from_iterable(axis)) for axis in cut)
    gx, gy, gz = (tuple(map(len, axis)) for axis in cut)
    return Tiling(region=region, spans=(sx, sy, sz), grouped=(gx, gy, gz))


def _part_of(unit: XYZ, chunk_size: XYZ, *, voxel_bytes: int, largest: int) -> XYZ:
    """A box of chunks, of at most `largest` bytes, that whole shards are made up of."""
    counts = [-(-u // c) for u, c in zip(unit, chunk_size, strict=True)]

    def extent(axis: int) -> int:
        return counts[axis] * chunk_size[axis]

    while math.prod(map(extent, range(3))) * voxel_bytes > largest and max(counts) > 1:
        axis = max(range(3), key=lambda i: (counts[i] > 1, extent(i)))
        counts[axis] = -(-counts[axis] // 2)
    return extent(0), extent(1), extent(2)


def _cut(span: int, size: int) -> tuple[int, ...]:
    """A span in pieces of `size` and a rest. It begins where a shard does, or is the first."""
    whole, rest = divmod(span, size)
    return (size,) * whole + ((rest,) if rest else ())
