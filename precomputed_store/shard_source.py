"""Reading chunks out of shards: indices once, data in coalesced ranges.

A chunk whose indices are not known costs three requests (shard index entry, minishard
index, data); one whose indices are cached costs one. Indices are cached per process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from precomputed_store.chunk_source import ChunkBytes, Deliver, Throttle
from precomputed_store.codecs import content
from precomputed_store.codecs.base import Buffer
from precomputed_store.errors import ChunkError, FormatError
from precomputed_store.grid import XYZ
from precomputed_store.metadata import ShardingSpec
from precomputed_store.sharding import (
    MAX_MINISHARD_INDEX_BYTES,
    ByteRange,
    MinishardIndex,
    ShardLocation,
    coalesce,
    locate,
    parse_minishard_index,
    parse_shard_index_entry,
    shard_name,
)
from precomputed_store.storage import Blob, Storage

__all__ = ["ShardSource", "clear_index_cache", "forget_shard"]

INDEX_CACHE_BYTES = 64 << 20
MAX_GAP_BYTES = 64 << 10
MAX_REQUEST_BYTES = 16 << 20

_EMPTY = parse_minishard_index(
    b"",
    ShardingSpec(hash="identity", preshift_bits=0, minishard_bits=0, shard_bits=0),
)

_NO_BYTES = Blob(b"", None)
"""A chunk that the index gives no bytes: not missing, but corrupt, which decoding finds."""


class _IndexCache:
    """Minishard indices by (storage, shard's key, minishard), least recently used out first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cache: LRUCache[Any, MinishardIndex] = LRUCache(
            INDEX_CACHE_BYTES, getsizeof=lambda index: index.nbytes + 512
        )

    def get(self, key: object) -> MinishardIndex | None:
        with self._lock:
            return self._cache.get(key)

    def put(self, key: object, index: MinishardIndex) -> None:
        if index.nbytes + 512 <= self._cache.maxsize:
            with self._lock:
                self._cache[key] = index

    def clear(self) -> None:
        with self._lock:
            self._cache.clear()

    def forget(self, storage: Storage, key: str) -> None:
        with self._lock:
            for item in [item for item in self._cache if item[:2] == (storage, key)]:
                del self._cache[item]


_indices = _IndexCache()


def clear_index_cache() -> None:
    """Forget every cached shard index, for instance after another program rewrote shards."""
    _indices.clear()


def forget_shard(storage: Storage, key: str) -> None:
    """Forget the cached indices of one shard, which has just been written."""
    _indices.forget(storage, key)


@dataclass(frozen=True, kw_only=True)
class ShardSource:
    """Chunks in shards.

    Specification: sharded.md.
    """

    storage: Storage
    chunks: ChunkBytes
    sharding: ShardingSpec

    def key(self, cell: XYZ) -> str:
        location = locate(self.sharding, self.chunks.scale.grid.chunk_id(cell))
        return self._shard_key(location)

    def _shard_key(self, location: ShardLocation) -> str:
        return f"{self.chunks.scale.key}/{shard_name(self.sharding, location.shard)}"

    def fetch(self, cell: XYZ) -> Blob | None:
        chunk_id = self.chunks.scale.grid.chunk_id(cell)
        location = locate(self.sharding, chunk_id)
        place = self.minishard_index(location).find(chunk_id)
        if place is None:
            return None
        key = self._shard_key(location)
        if place.start == place.stop:
            return _NO_BYTES
        return self._chunk(self.storage.get(key, place), place, key)

    async def fetch_many(self, cells: Sequence[XYZ], deliver: Deliver, throttle: Throttle) -> None:
        ids = {self.chunks.scale.grid.chunk_id(cell): cell for cell in cells}
        wanted: dict[ShardLocation, list[int]] = {}
        for chunk_id in ids:
            wanted.setdefault(locate(self.sharding, chunk_id), []).append(chunk_id)
        found: dict[str, dict[ByteRange, list[XYZ]]] = {}

        async def look_up(location: ShardLocation) -> None:
            index = await self.minishard_index_async(location)
            for chunk_id in wanted[location]:
                place = index.find(chunk_id)
                if place is None or place.start == place.stop:
                    await deliver(ids[chunk_id], None if place is None else _NO_BYTES)
                else:
                    ranges = found.setdefault(self._shard_key(location), {})
                    ranges.setdefault(place, []).append(ids[chunk_id])

        await throttle(list(wanted), look_up)
        await self._fetch_ranges(found, deliver, throttle)

    async def _fetch_ranges(
        self,
        found: dict[str, dict[ByteRange, list[XYZ]]],
        deliver: Deliver,
        throttle: Throttle,
    ) -> None:
        requests = [
            (key, whole, members)
            for key, ranges in found.items()
            for whole, members in coalesce(
                ranges, max_gap=MAX_GAP_BYTES, max_bytes=MAX_REQUEST_BYTES
            )
        ]

        async def fetch(request: tuple[str, ByteRange, Iterable[ByteRange]]) -> None:
            key, whole, members = request
            blob = await self.storage.get_async(key, whole)
            view = memoryview(b"" if blob is None else blob.data)
            for place in members:
                data = view[place.start - whole.start : place.stop - whole.start]
                chunk = self._chunk(blob and Blob(data, None), place, key)
                for cell in found[key][place]:
                    await deliver(cell, chunk)

        await throttle(requests, fetch)

    def _chunk(self, blob: Blob | None, place: ByteRange, key: str) -> Blob:
        """A chunk's bytes in a shard, exactly as many as the index says."""
        size = place.stop - place.start
        if blob is None or len(blob.data) != size:
            raise self._error(
                f"the shard ends after {len(blob.data) if blob else 0} of {size} bytes "
                f"that its index gives a chunk at {place.start}",
                key,
            )
        return Blob(blob.data, None if self.sharding.data_encoding == "raw" else "gzip")

    def unpack(self, blob: Blob, cell: XYZ) -> Buffer:
        if blob.content_encoding is None:
            return blob.data
        # neuroglancer-scripts writes zlib streams where the specification says gzip.
        return content.undo(blob.data, "gzip", limit=self.chunks.limit(cell), allow_zlib=True)

    def _error(self, message: str, key: str) -> ChunkError:
        return ChunkError(f"{self.storage.url}/{key}: {message}", key=key)

    def minishard_index(self, location: ShardLocation) -> MinishardIndex:
        key = self._shard_key(location)
        cached = _indices.get((self.storage, key, location.minishard))
        if cached is not None:
            return cached
        entry = self.storage.get(key, self._entry_range(location))
        place = None if entry is None else self._entry(entry.data, key)
        blob = None if place is None else self.storage.get(key, place)
        return self._remember(location, None if blob is None else blob.data, place)

    async def minishard_index_async(self, location: ShardLocation) -> MinishardIndex:
        key = self._shard_key(location)
        cached = _indices.get((self.storage, key, location.minishard))
        if cached is not None:
            return cached
        entry = await self.storage.get_async(key, self._entry_range(location))
        place = None if entry is None else self._entry(entry.data, key)
        blob = None if place is None else await self.storage.get_async(key, place)
        return self._remember(location, None if blob is None else blob.data, place)

    @staticmethod
    def _entry_range(location: ShardLocation) -> ByteRange:
        return ByteRange(16 * location.minishard, 16 * location.minishard + 16)

    def _entry(self, data: Buffer, key: str) -> ByteRange | None:
        if len(data) != 16:
            raise self._error(f"the shard index ends after {len(data)} of 16 bytes", key)
        try:
            place = parse_shard_index_entry(data, self.sharding)
        except FormatError as error:
            raise self._error(str(error), key) from error
        if place is not None and place.stop - place.start > MAX_MINISHARD_INDEX_BYTES:
            raise self._error(f"the minishard index is {place.stop - place.start} bytes", key)
        return place

    def _remember(
        self, location: ShardLocation, data: Buffer | None, place: ByteRange | None
    ) -> MinishardIndex:
        if data is None or place is None:
            return _EMPTY
        key = self._shard_key(location)
        try:
            if len(data) != place.stop - place.start:
                raise FormatError(f"the shard ends after {len(data)} bytes of it")
            index = parse_minishard_index(self._unpack_index(data), self.sharding)
        except FormatError as error:
            message = f"minishard index {location.minishard}: {error}"
            raise self._error(message, key) from error
        _indices.put((self.storage, key, location.minishard), index)
        return index

    def _unpack_index(self, data: Buffer) -> Buffer:
        if self.sharding.minishard_index_encoding == "raw":
            return data
        limit = min(24 * self.chunks.scale.grid.num_cells, MAX_MINISHARD_INDEX_BYTES)
        return content.undo(data, "gzip", limit=limit, allow_zlib=True)
