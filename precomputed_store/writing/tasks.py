"""What a task of a write does, wherever it runs. Doing it twice changes nothing.

A task gets a sink, which says where voxels come from and go to, the place of its block,
and whatever it has to wait for. What it gives back says that the block is done.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from precomputed_store.codecs.base import ChunkArray
from precomputed_store.downsampling import WORKING_BYTES, Method, downsample, fine_box
from precomputed_store.engine import ChunkedArray
from precomputed_store.errors import StorageError
from precomputed_store.grid import XYZ, Box
from precomputed_store.shard_writer import EncodedChunks, ShardWriter
from precomputed_store.storage import Storage
from precomputed_store.writer import RegionWriter, as_layer_dtype
from precomputed_store.writing.staging import Staging
from precomputed_store.writing.tiling import Tiling, tile

__all__ = [
    "PIECE_BYTES",
    "ArraySink",
    "CoarseSink",
    "encode_block",
    "encode_coarse",
    "stage_block",
    "store_blocks",
    "store_coarse",
    "store_staged",
    "write_block",
    "write_coarse",
    "write_scattered",
]

DONE = True

PIECE_BYTES = 32 << 20
"""Finer voxels that coarser ones are made from at a time: few enough for memory and caches."""


@dataclass(frozen=True, kw_only=True)
class ArraySink:
    """Where the blocks of an array go.

    Attributes
    ----------
    writer : RegionWriter
    tiling : Tiling
        The blocks of the array.
    """

    writer: RegionWriter
    tiling: Tiling

    def check_shared(self) -> None:
        check_shared(self.writer.array.storage)


@dataclass(frozen=True, kw_only=True)
class CoarseSink:
    """Where the blocks of a coarser scale come from and go to.

    Attributes
    ----------
    writer : RegionWriter
        Of the coarser scale.
    finer : ChunkedArray
        The scale that it is made from.
    factor : (int, int, int)
        How many of its voxels make one, along x, y, z.
    method : str
        See `downsampling.downsample`.
    tiling : Tiling
        The blocks.
    """

    writer: RegionWriter
    finer: ChunkedArray
    factor: XYZ
    method: Method
    tiling: Tiling

    def write(self, box: Box) -> None:
        """Make and write whole objects, or, at the ends of the region, parts of them."""
        writer = self.writer
        if not isinstance(writer, ShardWriter):
            for piece in self.pieces(box):
                writer.write(piece, self.voxels(piece))
        elif writer.grid.is_aligned(box):
            writer.store_region(box, self.encode(box))
        else:
            writer.write(box, self.voxels(box))

    def encode(self, box: Box) -> EncodedChunks:
        """Make and encode the chunks of a box of a sharded scale."""
        writer = _shard_writer(self.writer)
        chunks: dict[int, bytes | None] = {}
        for piece in self.pieces(box):
            chunks |= writer.encode(piece, self.voxels(piece))
        return chunks

    def pieces(self, box: Box) -> Iterator[Box]:
        """A box in unions of whole chunks that are made one after another.

        All of it at once where a smaller piece would cost more: a network, where many requests
        are to be in flight, or finer chunks that would be decoded once for each of the pieces
        that they lie across.
        """
        scale, (fx, fy, fz) = self.writer.array.scale, self.factor
        first = self._fine(scale.grid.cell_box(next(scale.grid.cells(box))))
        if not self.finer.storage.threaded or not self.finer.grid.is_aligned(first):
            yield box
            return
        voxel_bytes = self.finer.num_channels * self.finer.dtype.itemsize * fx * fy * fz
        tiling = tile(
            replace(scale, sharding=None),
            box,
            voxel_bytes=voxel_bytes,
            smallest=PIECE_BYTES,
            largest=PIECE_BYTES,
        )
        yield from map(tiling.box, tiling.indices())

    @property
    def largest_voxel_bytes(self) -> int:
        """Bytes of the voxels that are held at once to make a block of the whole scale."""
        largest = next(self.pieces(self.tiling.box((0, 0, 0))))
        coarse, fine = math.prod(largest.shape), math.prod(self._fine(largest).shape)
        voxel_bytes = self.finer.num_channels * self.finer.dtype.itemsize
        return (coarse + fine) * voxel_bytes + WORKING_BYTES

    def _fine(self, box: Box) -> Box:
        return fine_box(box, self.factor).intersection(self.finer.grid.bounds)

    def voxels(self, box: Box) -> ChunkArray:
        """Coarse voxels ``(channel, z, y, x)``, made from the finer scale as it is stored."""
        fine = self._fine(box)
        x, y, z = (
            range(a - offset, b - offset)
            for a, b, offset in zip(
                fine.start, fine.stop, self.finer.grid.voxel_offset, strict=True
            )
        )
        block = self.finer.read((range(self.finer.num_channels), z, y, x), warn=False)
        return downsample(block, factor=self.factor, start=fine.start, method=self.method)


@dataclass(frozen=True)
class Encoded:
    """Chunks of a block on their way into a shard."""

    chunks: EncodedChunks

    def __sizeof__(self) -> int:
        return 64 + sum(len(data) + 100 for data in self.chunks.values() if data is not None)


def write_block(
    block: ChunkArray, sink: ArraySink, block_id: tuple[int, ...] | None = None
) -> npt.NDArray[np.bool_]:
    """Write a block of an array, a union of whole objects."""
    sink.check_shared()
    sink.writer.write(_place(sink.tiling, block_id), _voxels(block, sink))
    return np.full((1, 1, 1, 1), DONE)


def encode_block(
    block: ChunkArray, sink: ArraySink, block_id: tuple[int, ...] | None = None
) -> npt.NDArray[np.object_]:
    """Encode the chunks of a block that is a part of a shard."""
    sink.check_shared()
    writer = _shard_writer(sink.writer)
    encoded = writer.encode(_place(sink.tiling, block_id), _voxels(block, sink))
    return _boxed(Encoded(encoded))


def store_blocks(
    blocks: npt.NDArray[np.object_], sink: ArraySink, block_id: tuple[int, ...] | None = None
) -> npt.NDArray[np.bool_]:
    """Put the encoded blocks of one shard together."""
    sink.check_shared()
    box = _place(sink.tiling.objects, block_id)
    _store(_shard_writer(sink.writer), box, [item.chunks for item in blocks.ravel().tolist()])
    return np.full((1, 1, 1, 1), DONE)


def stage_block(
    block: ChunkArray,
    sink: ArraySink,
    staging: Staging,
    block_id: tuple[int, ...] | None = None,
) -> npt.NDArray[np.bool_]:
    """Encode the chunks of a block and put them where shards will look for them."""
    sink.check_shared()
    writer = _shard_writer(sink.writer)
    encoded = writer.encode(_place(sink.tiling, block_id), _voxels(block, sink))
    staging.put(_index(block_id), writer, encoded)
    return np.full((1, 1, 1, 1), DONE)


def store_staged(sink: ArraySink, staging: Staging, shard: int, _after: object = None) -> bool:
    """Put a shard together from what every block has staged for it."""
    sink.check_shared()
    writer, region = _shard_writer(sink.writer), sink.tiling.region
    chunks: dict[int, bytes | None] = dict(staging.get(list(sink.tiling.indices()), writer, shard))
    whole = region == writer.grid.bounds
    if not whole:
        for cell in writer.cells_of(shard, region):
            chunks.setdefault(writer.grid.chunk_id(cell), None)
    writer.store_chunks(shard, chunks, whole=whole)
    return DONE


def write_coarse(sink: CoarseSink, index: XYZ, _after: object = None) -> bool:
    """Make and write a block of a coarser scale, a union of whole objects."""
    check_shared(sink.writer.array.storage)
    sink.write(sink.tiling.box(index))
    return DONE


def encode_coarse(sink: CoarseSink, index: XYZ, _after: object = None) -> Encoded:
    """Make and encode a block of a coarser scale that is a part of a shard."""
    check_shared(sink.writer.array.storage)
    return Encoded(sink.encode(sink.tiling.box(index)))


def store_coarse(sink: CoarseSink, index: XYZ, blocks: Sequence[Encoded]) -> bool:
    """Put the encoded blocks of one shard of a coarser scale together."""
    box = sink.tiling.objects.box(index)
    _store(_shard_writer(sink.writer), box, [block.chunks for block in blocks])
    return DONE


def write_scattered(sink: CoarseSink, shard: int, _after: object = None) -> bool:
    """Make and write a shard of a coarser scale whose chunks lie anywhere in it."""
    check_shared(sink.writer.array.storage)
    writer = _shard_writer(sink.writer)
    chunks: dict[int, bytes | None] = {}
    for cell in writer.cells_of(shard, sink.tiling.region):
        box = writer.grid.cell_box(cell)
        chunks |= writer.encode(box, sink.voxels(box))
    writer.store_chunks(shard, chunks, whole=sink.tiling.region == writer.grid.bounds)
    return DONE


def check_shared(storage: Storage) -> None:
    """Refuse a worker that would write where nobody else looks.

    Raises
    ------
    StorageError
    """
    if storage.threaded and not storage.exists("info"):
        raise StorageError(
            f"{storage.url}: the layer to be written into cannot be seen from this worker: "
            "write to a disk or a bucket that all workers share"
        )


def _store(writer: ShardWriter, box: Box, parts: Iterable[EncodedChunks]) -> None:
    """Store the encoded chunks of a box."""
    chunks: dict[int, bytes | None] = {}
    for part in parts:
        chunks |= part
    writer.store_region(box, chunks)


def _index(block_id: tuple[int, ...] | None) -> XYZ:
    if block_id is None:
        raise TypeError("a block is written with its block_id")
    z, y, x = block_id[1:]
    return x, y, z


def _place(tiling: Tiling, block_id: tuple[int, ...] | None) -> Box:
    return tiling.box(_index(block_id))


def _voxels(block: ChunkArray, sink: ArraySink) -> ChunkArray:
    return as_layer_dtype(block, sink.writer.array.dtype)


def _shard_writer(writer: RegionWriter) -> ShardWriter:
    if not isinstance(writer, ShardWriter):
        raise TypeError("only sharded scales are written in parts of objects")
    return writer


def _boxed(item: Any) -> npt.NDArray[np.object_]:
    """One object as a block of a dask array."""
    block = np.empty((1, 1, 1, 1), object)
    block[0, 0, 0, 0] = item
    return block
