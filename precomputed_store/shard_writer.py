"""Array → chunks → shards: each shard is put together in memory and stored as one object.

A shard that is written in part is changed under the condition that nobody else changed it
meanwhile; its other chunks are taken over as they are, on a local disk from file to file.
Specification: sharded.md.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.codecs.base import Buffer, ChunkArray
from precomputed_store.concurrency import num_cores, run_threaded
from precomputed_store.errors import ChunkError, FormatError, UnsupportedError
from precomputed_store.grid import XYZ, Box, ChunkGrid
from precomputed_store.metadata import ShardingSpec
from precomputed_store.progress import Advance
from precomputed_store.shard_assembly import (
    Piece,
    ShardAssembler,
    ShardPlace,
    assemble_pieces,
    assemble_shard,
    in_shard_order,
    shard_places,
)
from precomputed_store.shard_cache import forget_shard
from precomputed_store.shard_source import ShardSource
from precomputed_store.sharding import (
    ByteRange,
    locate,
    locate_many,
    shard_index_bytes,
    shard_name,
)
from precomputed_store.storage import Blob, Update
from precomputed_store.storage.pieces import Stored, held
from precomputed_store.write_plan import unit_grid
from precomputed_store.writer import RegionWriter

__all__ = ["EncodedChunks", "ShardWriter"]

EncodedChunks: TypeAlias = Mapping[int, bytes | None]
"""Chunk id → the bytes to store, None where nothing is to be stored."""

CONTENT_TYPE = "application/octet-stream"
# Encoded together, then appended: few enough to hold twice, enough for every core.
_GROUP = 16 * num_cores()
_LARGEST_SHARD_INDEX = 1 << 30


@dataclass(frozen=True, kw_only=True)
class ShardWriter(RegionWriter):
    """Writes regions of a sharded scale, whole shards or parts of them."""

    def __post_init__(self) -> None:
        if self.options.compress not in ("auto", False, None):
            raise ValueError(
                f"compress is {self.options.compress!r}, but shards are never compressed as a "
                "whole: their chunks are, as data_encoding of the sharding says"
            )
        index_bytes = shard_index_bytes(self.spec)
        if index_bytes > _LARGEST_SHARD_INDEX:
            raise UnsupportedError(
                f"minishard_bits is {self.spec.minishard_bits}, so each shard would begin with an "
                f"index of {index_bytes >> 20} MiB; at most {_LARGEST_SHARD_INDEX >> 20} MiB are "
                "written: use more preshift_bits or shard_bits instead"
            )

    @property
    def spec(self) -> ShardingSpec:
        spec = self.array.scale.sharding
        assert spec is not None
        return spec

    @property
    def grid(self) -> ChunkGrid:
        return self.array.grid

    @property
    def content_encoding(self) -> str | None:
        return None if self.spec.data_encoding == "raw" else "gzip"

    def key(self, shard: int) -> str:
        """The object that holds a shard."""
        return f"{self.array.scale.key}/{shard_name(self.spec, shard)}"

    def encode(
        self, region: Box, data: ChunkArray, *, advance: Advance | None = None
    ) -> EncodedChunks:
        """The chunks that a region covers as a whole, as they are to be stored."""
        cells = [cell for cell in self.grid.cells(region) if self._covers(region, cell)]
        ids = [self.grid.chunk_id(cell) for cell in cells]
        packed = self._pack_all(cells, region, data, advance)
        return dict(zip(ids, packed, strict=True))

    def store_chunks(self, shard: int, chunks: EncodedChunks, *, whole: bool) -> None:
        """Write encoded chunks into one shard.

        Parameters
        ----------
        shard : int
        chunks : mapping of int to bytes or None
            All of this shard; None removes a chunk.
        whole : bool
            Whether these are all of its chunks: then what was stored before is replaced
            without being looked at. Else it is read, and its other chunks are kept.
        """
        if whole and self.keep_stored and self._is_stored(shard):
            return
        if whole:
            present = {i: data for i, data in chunks.items() if data is not None}
            self._replace(shard, self._assembled(present))
        else:
            self._update(shard, chunks)

    def store_ordered(
        self, shard: int, chunks: Iterable[tuple[ShardPlace, Buffer | None]]
    ) -> None:
        """Replace a shard by chunks that come in its order; each is held once.

        Parameters
        ----------
        shard : int
        chunks : iterable of ((int, int), bytes or None)
            As `in_shard_order` says, with what is to be stored of each; None: nothing.
        """
        assembler = ShardAssembler(self.spec, compress_level=self.options.compress_level)
        empty = True
        for (minishard, chunk_id), chunk in chunks:
            if chunk is not None:
                assembler.add(minishard, chunk_id, chunk)
                empty = False
        self._replace(shard, None if empty else assembler.finish())

    def store_region(self, region: Box, chunks: EncodedChunks) -> None:
        """Write the encoded chunks of a region, which is a union of whole chunks."""
        whole = unit_grid(self.array.scale).is_aligned(region)
        ids = np.fromiter(chunks, np.uint64, len(chunks))
        shards = locate_many(self.spec, ids)[0]
        for shard in np.unique(shards).tolist():
            members = ids[shards == shard].tolist()
            self.store_chunks(shard, {i: chunks[i] for i in members}, whole=whole)

    def cells_of(self, shard: int, region: Box) -> list[XYZ]:
        """The cells of a region whose chunks lie in a shard, x fastest."""
        cells = self.grid.cell_array(region)
        found = cells[self._shard_numbers(cells) == shard].tolist()
        return [(x, y, z) for x, y, z in found]

    def shards_of(self, region: Box) -> list[int]:
        """The shards that have chunks in a region."""
        numbers = np.unique(self._shard_numbers(self.grid.cell_array(region)))
        return [int(number) for number in numbers]

    def _shard_numbers(self, cells: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        return locate_many(self.spec, self.grid.chunk_ids(cells))[0]

    def store(self, cell: XYZ, data: bytes | None) -> None:
        chunk_id = self.grid.chunk_id(cell)
        self._update(locate(self.spec, chunk_id).shard, {chunk_id: data})

    async def store_async(self, cell: XYZ, data: bytes | None) -> None:
        await asyncio.to_thread(self.store, cell, data)

    def _write(self, region: Box, data: ChunkArray, advance: Advance | None) -> None:
        for shard, cells, is_whole in self._shards(region):
            if is_whole and self.keep_stored and self._is_stored(shard):
                continue
            if is_whole:
                self._write_whole(shard, cells, region, data, advance)
            else:
                self._write_part(shard, cells, region, data, advance)

    def _is_stored(self, shard: int) -> bool:
        return self.array.storage.exists(self.key(shard))

    def _shards(self, region: Box) -> Iterator[tuple[int, list[XYZ], bool]]:
        """Each shard that a region meets, its cells there, and whether that is all of it."""
        units = unit_grid(self.array.scale)
        for unit in units.cells(region):
            box = units.cell_box(unit)
            covered = box.intersection(region)
            cells = self.grid.cell_array(covered)
            shards = self._shard_numbers(cells)
            order = np.argsort(shards, kind="stable")
            numbers, starts = np.unique(shards[order], return_index=True)
            for shard, members in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
                yield shard, [(x, y, z) for x, y, z in cells[members].tolist()], covered == box

    def _write_whole(
        self,
        shard: int,
        cells: Sequence[XYZ],
        region: Box,
        data: ChunkArray,
        advance: Advance | None,
    ) -> None:
        """Encode a shard's chunks in its order, straight into the file to be."""
        by_id = {self.grid.chunk_id(cell): cell for cell in cells}

        def packed() -> Iterator[tuple[ShardPlace, bytes | None]]:
            order = in_shard_order(self.spec, by_id)
            while group := list(itertools.islice(order, _GROUP)):
                chunks = self._pack_all([by_id[i] for _, i in group], region, data, advance)
                yield from zip(group, chunks, strict=True)

        self.store_ordered(shard, packed())

    def _write_part(
        self,
        shard: int,
        cells: Sequence[XYZ],
        region: Box,
        data: ChunkArray,
        advance: Advance | None,
    ) -> None:
        whole = [cell for cell in cells if self._covers(region, cell)]
        packed = self._pack_all(whole, region, data, advance)
        ids = [self.grid.chunk_id(cell) for cell in whole]
        partial = {self.grid.chunk_id(cell): cell for cell in set(cells).difference(whole)}
        self._update(shard, dict(zip(ids, packed, strict=True)), _Overlay(partial, region, data))
        if advance is not None and partial:
            advance(len(partial))

    def _update(self, shard: int, chunks: EncodedChunks, overlay: _Overlay | None = None) -> None:
        """Change some chunks of a shard and keep the others."""
        key = self.key(shard)

        def rewrite(stored: Stored | None) -> list[Piece] | None:
            places = self._places(shard, stored)
            changed = dict(chunks)
            if overlay is not None:
                changed |= self._overlaid(overlay, stored, places)
            new: dict[int, Piece] = {i: place for i, place in places.items() if i not in changed}
            new |= {i: chunk for i, chunk in changed.items() if chunk is not None}
            if not new and (self.array.storage.can_delete_if or stored is None):
                return None
            return assemble_pieces(self.spec, new, compress_level=self.options.compress_level)

        self.array.storage.apply(
            Update(
                key=key,
                change=held(rewrite),
                rewrite=rewrite,
                content_type=CONTENT_TYPE,
                cache_control=self.options.cache_control,
                guarded=self.guarded,
                max_bytes=self._most_stored,
            )
        )
        forget_shard(self.array.storage, key)

    @property
    def _source(self) -> ShardSource:
        source = self.array.source
        assert isinstance(source, ShardSource)
        return source

    @property
    def _most_stored(self) -> int:
        """The most bytes that a shard can have: every chunk of the scale, at its longest."""
        # A chunk's entry in an index is 24 bytes, which gzip can make a little longer.
        each = self._source.chunks.most_stored + 32
        return shard_index_bytes(self.spec) + self.grid.num_cells * each

    def _places(self, shard: int, stored: Stored | None) -> dict[int, ByteRange]:
        """Where the chunks of a stored shard lie."""
        if stored is None:
            return {}
        key = self.key(shard)
        try:
            if stored.content_encoding is not None:
                raise FormatError(f"a shard cannot be compressed ({stored.content_encoding})")
            places = shard_places(
                stored.read, stored.size, self.spec, shard=shard, num_chunks=self.grid.num_cells
            )
            # Places may lie over one another: each chunk takes room of its own in the new shard.
            if sum(stop - start for start, stop in places.values()) > self._most_stored:
                raise FormatError(f"its chunks are more than {self._most_stored} bytes together")
        except FormatError as error:
            raise ChunkError(
                f"{self.array.storage.url}/{key}: {error}: the shard is damaged, and is not "
                "changed; write all of it to replace it",
                key=key,
            ) from error
        return places

    def _overlaid(
        self, overlay: _Overlay, stored: Stored | None, places: Mapping[int, ByteRange]
    ) -> EncodedChunks:
        """Chunks of which only a part is written, over what is stored of them."""
        new: dict[int, bytes | None] = {}

        def merge(chunk_id: int) -> None:
            cell, place, old = overlay.cells[chunk_id], places.get(chunk_id), None
            if place is not None and stored is not None:
                self._source.check_size(place, self._source.key(cell))
                blob = Blob(stored.read(*place), self.content_encoding)
                old = self.array.decode(cell, blob)
            new[chunk_id] = self.pack(cell, self.merged(cell, old, overlay.region, overlay.data))

        run_threaded(merge, list(overlay.cells), workers=num_cores())
        return new

    def _covers(self, region: Box, cell: XYZ) -> bool:
        return region.contains(self.grid.cell_box(cell))

    def _pack_all(
        self, cells: Sequence[XYZ], region: Box, data: ChunkArray, advance: Advance | None
    ) -> list[bytes | None]:
        """Chunks that `region` covers as a whole, encoded on every core, in order."""
        packed: list[bytes | None] = [None] * len(cells)

        def pack(index: int) -> None:
            cell = cells[index]
            packed[index] = self.pack(cell, self.merged(cell, None, region, data))
            if advance is not None:
                advance(1)

        run_threaded(pack, range(len(cells)), workers=num_cores())
        return packed

    def _assembled(self, chunks: Mapping[int, Buffer]) -> bytearray | None:
        """The shard with these chunks; None if there are none."""
        if not chunks:
            return None
        return assemble_shard(self.spec, chunks, compress_level=self.options.compress_level)

    def _replace(self, shard: int, data: bytearray | None) -> None:
        key = self.key(shard)
        if data is None:
            self.array.storage.delete(key)
        else:
            self.array.storage.put(
                key,
                data,
                content_type=CONTENT_TYPE,
                cache_control=self.options.cache_control,
            )
        forget_shard(self.array.storage, key)


@dataclass(frozen=True, slots=True)
class _Overlay:
    """Voxels that cover some chunks only in part."""

    cells: Mapping[int, XYZ]
    region: Box
    data: ChunkArray
