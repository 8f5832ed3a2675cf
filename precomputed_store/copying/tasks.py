"""What a task of a copy does, wherever it runs. Doing it twice changes nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.codecs.base import Buffer, ChunkArray
from precomputed_store.codecs.transcoding import transcoding
from precomputed_store.concurrency import bounded, codec_pool, run_threaded
from precomputed_store.copying.plan import source_cell
from precomputed_store.copying.removal import existing
from precomputed_store.engine import ChunkedArray
from precomputed_store.errors import FormatError
from precomputed_store.grid import XYZ, Box, ChunkGrid
from precomputed_store.metadata import ShardingSpec
from precomputed_store.shard_assembly import ShardPlace, in_shard_order
from precomputed_store.shard_writer import ShardWriter
from precomputed_store.sharding import locate, locate_many
from precomputed_store.storage import Blob, run_sync
from precomputed_store.writer import ChunkWriter, RegionWriter
from precomputed_store.writing.tasks import DONE, CoarseSink, check_shared
from precomputed_store.writing.tiling import Tiling

__all__ = [
    "ChunkCopy",
    "VoxelCopy",
    "copy_block",
    "copy_scattered",
    "shard_of",
]

_KEPT = (None, "gzip", "br", "zstd")
_GZIP = b"\x1f\x8b"

Take: TypeAlias = Callable[[XYZ, Blob | None], None]
TakeAsync: TypeAlias = Callable[[XYZ, Blob | None], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class VoxelCopy(CoarseSink):
    """Where voxels that are decoded and encoded again come from and go to."""

    def voxels(self, box: Box) -> ChunkArray:
        x, y, z = (
            range(a - offset, b - offset)
            for a, b, offset in zip(box.start, box.stop, self.finer.grid.voxel_offset, strict=True)
        )
        return self.finer.read((range(self.finer.num_channels), z, y, x), warn=False)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A chunk as it is to be stored."""

    data: Buffer
    content_encoding: str | None


@dataclass(frozen=True, kw_only=True)
class ChunkCopy:
    """Where encoded chunks come from and go to.

    Attributes
    ----------
    source : ChunkedArray
    writer : RegionWriter
        Of the copy.
    tiling : Tiling
        Its blocks.
    verify : bool
        Whether every chunk is decoded on the way.
    """

    source: ChunkedArray
    writer: RegionWriter
    tiling: Tiling
    verify: bool = False

    @property
    def shard_writer(self) -> ShardWriter:
        if not isinstance(self.writer, ShardWriter):
            raise TypeError("the copy is not sharded")
        return self.writer

    def pack(self, cell: XYZ, blob: Blob) -> Packed:
        """What is stored for a cell of the source as it is to be stored in the copy.

        Raises
        ------
        ChunkError
            It is empty, damaged as far as it was looked at, or cannot be encoded.
        """
        self._check(cell, blob)
        if self.source.scale.codec != self.writer.array.scale.codec:
            return self._compressed(self._encoded(cell, blob))
        if self._stays(blob):
            return Packed(data=blob.data, content_encoding=blob.content_encoding)
        return self._compressed(self.source.unpack(cell, blob))

    def _check(self, cell: XYZ, blob: Blob) -> None:
        if not len(blob.data):
            raise self.source.chunk_error(
                cell, FormatError("the stored object is empty (0 bytes)")
            )
        source, target = self.source.scale.codec, self.writer.array.scale.codec
        if source != target and transcoding(source, target) is None:
            return  # it is going to be decoded anyway
        free = source.place == "inline" and blob.content_encoding is None
        if self.verify or (free and blob.certain):
            self.source.decode(cell, blob)

    def _stays(self, blob: Blob) -> bool:
        """Whether the compression around a chunk is that of the copy already."""
        stored, options = blob.content_encoding, self.writer.options
        if not blob.certain or options.compress_level is not None:
            return False
        if stored == "gzip" and bytes(blob.data[:2]) != _GZIP:
            return False  # a zlib stream, which shards are known to hold
        if stored == self.writer.content_encoding:
            return True
        same_kind = self.source.storage.has_headers == self.writer.array.storage.has_headers
        free = isinstance(self.writer, ChunkWriter) and options.compress == "auto"
        return free and same_kind and self.source.scale.sharding is None and stored in _KEPT

    def _compressed(self, data: Buffer) -> Packed:
        packed = self.writer.compress(bytes(data))
        return Packed(data=packed, content_encoding=self.writer.content_encoding)

    def _encoded(self, cell: XYZ, blob: Blob) -> bytes:
        """A chunk in the encoding of the copy, without voxels in between where that can be."""
        source, target = self.source, self.writer.array.scale.codec
        transcode = transcoding(source.scale.codec, target)
        try:
            made = None
            if transcode is not None:
                made = transcode(source.unpack(cell, blob), source.chunk_shape_at(cell))
            return target.encode(source.decode(cell, blob)) if made is None else made
        except FormatError as error:
            raise source.chunk_error(cell, error) from error


def copy_block(sink: ChunkCopy, index: XYZ) -> bool:
    """Copy the chunks of a block: objects of their own, or all of a shard."""
    check_shared(sink.writer.array.storage)
    cells = list(sink.writer.array.grid.cells(sink.tiling.box(index)))
    if isinstance(sink.writer, ShardWriter):
        _fill_shard(sink, shard_of(sink.writer, cells[0]), cells)
    else:
        _copy_chunks(sink, cells)
    return DONE


def copy_scattered(sink: ChunkCopy, shard: int) -> bool:
    """Put a shard together from chunks that lie anywhere in the source."""
    check_shared(sink.writer.array.storage)
    writer = sink.shard_writer
    _fill_shard(sink, shard, _cells_in(writer.grid, writer.spec, shard))
    return DONE


def _copy_chunks(sink: ChunkCopy, cells: Sequence[XYZ]) -> None:
    writer = sink.writer
    if writer.keep_stored:
        cells = _absent(writer.array, cells)
    targets = {source_cell(sink.source.grid, writer.array.grid, cell): cell for cell in cells}

    def store(cell: XYZ, blob: Blob | None) -> None:
        if blob is not None:
            packed = sink.pack(cell, blob)
            _writer_of(writer, packed).store(targets[cell], bytes(packed.data))

    async def store_async(cell: XYZ, blob: Blob | None) -> None:
        if blob is not None:
            loop = asyncio.get_running_loop()
            packed = await loop.run_in_executor(codec_pool(), sink.pack, cell, blob)
            await _writer_of(writer, packed).store_async(targets[cell], bytes(packed.data))

    _each(sink, list(targets), store, store_async)


def _absent(array: ChunkedArray, cells: Sequence[XYZ]) -> list[XYZ]:
    """Those of some cells whose chunks are not stored."""
    keys = {f"{array.scale.key}/{array.grid.chunk_name(cell)}": cell for cell in cells}
    stored = set(existing(array.storage, keys))
    return [cell for key, cell in keys.items() if key not in stored]


def _fill_shard(sink: ChunkCopy, shard: int, cells: Sequence[XYZ]) -> None:
    """Put a shard together in its own order, a group of chunks at a time."""
    grid, writer = sink.writer.array.grid, sink.shard_writer
    by_id = {grid.chunk_id(cell): source_cell(sink.source.grid, grid, cell) for cell in cells}

    def packed() -> Iterator[tuple[ShardPlace, Buffer | None]]:
        order = in_shard_order(writer.spec, by_id)
        while group := list(itertools.islice(order, 16 * _concurrency(sink))):
            chunks = _pack_group(sink, [by_id[chunk_id] for _, chunk_id in group])
            for place in group:
                yield place, chunks.get(by_id[place[1]])

    writer.store_ordered(shard, packed())


def _pack_group(sink: ChunkCopy, cells: Sequence[XYZ]) -> dict[XYZ, Buffer]:
    """What is to be stored of some cells of the source, without those that are not stored."""
    chunks: dict[XYZ, Buffer] = {}

    def keep(cell: XYZ, blob: Blob | None) -> None:
        if blob is not None:
            chunks[cell] = sink.pack(cell, blob).data

    async def keep_async(cell: XYZ, blob: Blob | None) -> None:
        await asyncio.get_running_loop().run_in_executor(codec_pool(), keep, cell, blob)

    _each(sink, cells, keep, keep_async)
    return chunks


def shard_of(writer: ShardWriter, cell: XYZ) -> int:
    """The shard that holds a cell's chunk."""
    return locate(writer.spec, writer.grid.chunk_id(cell)).shard


def _cells_in(grid: ChunkGrid, spec: ShardingSpec, shard: int) -> list[XYZ]:
    """The cells whose chunks are in a shard, wherever they lie."""
    order, numbers, starts = _by_shard(grid, spec)
    at = int(np.searchsorted(numbers, np.uint64(shard)))
    if at == len(numbers) or int(numbers[at]) != shard:
        return []
    z, y, x = np.unravel_index(order[starts[at] : starts[at + 1]], grid.shape[::-1])
    return list(zip(x.tolist(), y.tolist(), z.tolist(), strict=True))


@lru_cache(maxsize=2)
def _by_shard(grid: ChunkGrid, spec: ShardingSpec) -> tuple[npt.NDArray[Any], ...]:
    """Cells in the order of their shards, the shards, and where each begins."""
    shards = locate_many(spec, grid.chunk_ids(grid.cell_array()))[0]
    order = np.argsort(shards, kind="stable")
    numbers, starts = np.unique(shards[order], return_index=True)
    return order, numbers, np.append(starts, len(order))


def _writer_of(writer: RegionWriter, packed: Packed) -> RegionWriter:
    """The writer that says of a chunk how it is compressed."""
    encoding: Any = packed.content_encoding
    if encoding == writer.content_encoding:
        return writer
    return replace(writer, options=replace(writer.options, compress=encoding or False))


def _concurrency(sink: ChunkCopy) -> int:
    """How many chunks are worth having in hand: more where each is written by itself."""
    source, target = sink.source.storage, sink.writer.array.storage
    writes = target.concurrency if sink.writer.array.scale.sharding else target.write_concurrency
    return max(source.concurrency, writes)


def _each(sink: ChunkCopy, cells: Sequence[XYZ], take: Take, take_async: TakeAsync) -> None:
    """Fetch cells of the source and hand each on, with as many at once as pays."""
    source, limit = sink.source.source, _concurrency(sink)
    if sink.source.storage.threaded and sink.writer.array.storage.threaded:
        run_threaded(lambda cell: take(cell, source.fetch(cell)), cells, workers=limit)
        return

    async def one(cell: XYZ) -> None:
        await take_async(cell, await asyncio.to_thread(source.fetch, cell))

    async def every() -> None:
        if sink.source.storage.threaded:
            await bounded(limit)(cells, one)
        else:
            await source.fetch_many(cells, take_async, bounded(limit))

    run_sync(every())
