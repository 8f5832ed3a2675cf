"""Chunks out of shards.

Specification: sharded.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from precomputed_store.cached import cached_property
from precomputed_store.chunk_source import ChunkBytes, Deliver, Throttle
from precomputed_store.codecs import content
from precomputed_store.codecs.base import Buffer
from precomputed_store.errors import ChunkError
from precomputed_store.grid import XYZ
from precomputed_store.metadata import ShardingSpec
from precomputed_store.shard_batch import ShardBatch
from precomputed_store.shard_reader import ShardReader
from precomputed_store.sharding import (
    MAX_MINISHARD_INDEX_BYTES,
    ByteRange,
    MinishardIndex,
    ShardLocation,
    locate,
)
from precomputed_store.storage import Blob, Storage

__all__ = ["ShardSource"]

_MARGIN_INDEX_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ShardSource:
    """Chunks in shards."""

    storage: Storage
    chunks: ChunkBytes
    sharding: ShardingSpec

    @cached_property
    def _reader(self) -> ShardReader:
        # 24 bytes for every chunk; and some for chunks that a smaller `info` left outside.
        index_bytes = 24 * self.chunks.scale.grid.num_cells + _MARGIN_INDEX_BYTES
        return ShardReader(
            storage=self.storage,
            folder=self.chunks.scale.key,
            sharding=self.sharding,
            most_object_bytes=self.chunks.most_stored,
            most_index_bytes=min(index_bytes, MAX_MINISHARD_INDEX_BYTES),
            noun="chunk",
            error=ChunkError,
            objects_per_shard=self._chunks_per_shard,
        )

    @property
    def _chunks_per_shard(self) -> int | None:
        """How many chunks a shard has that does not lie at the edge of the volume."""
        spec, grid = self.sharding, self.chunks.scale.grid
        if spec.hash != "identity":
            return None
        box = 1 << (spec.preshift_bits + spec.minishard_bits)
        # With few shards, each holds several boxes of chunks.
        return min(grid.num_cells, max(box, -(-grid.num_cells >> spec.shard_bits)))

    def key(self, cell: XYZ) -> str:
        return self._reader.key(locate(self.sharding, self.chunks.scale.grid.chunk_id(cell)))

    def fetch(self, cell: XYZ) -> Blob | None:
        return self._reader.fetch(self.chunks.scale.grid.chunk_id(cell))

    async def fetch_many(self, cells: Sequence[XYZ], deliver: Deliver, throttle: Throttle) -> None:
        by_id = {self.chunks.scale.grid.chunk_id(cell): cell for cell in cells}

        async def deliver_cell(chunk_id: int, blob: Blob | None) -> None:
            await deliver(by_id[chunk_id], blob)

        await ShardBatch(self._reader, throttle).fetch(by_id, deliver_cell)

    def check_size(self, place: ByteRange, key: str) -> None:
        """Refuse to read more for a chunk than any chunk of this scale can be."""
        self._reader.check_size(place, key)

    def unpack(self, blob: Blob, cell: XYZ) -> Buffer:
        if blob.content_encoding is None:
            return blob.data
        # neuroglancer-scripts writes zlib streams where the specification says gzip.
        return content.undo(blob.data, "gzip", limit=self.chunks.limit(cell), allow_zlib=True)

    def minishard_index(self, location: ShardLocation) -> MinishardIndex:
        """The index of a minishard as it is stored now. For threads."""
        return self._reader.minishard_index(location)

    async def minishard_index_async(self, location: ShardLocation) -> MinishardIndex:
        """As `minishard_index`, from any event loop."""
        return await self._reader.minishard_index_async(location)

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self.storage, "chunks": self.chunks, "sharding": self.sharding}
