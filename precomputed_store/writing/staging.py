"""Chunks between encoding and the shards that they belong to, where shards are no boxes.

Under a hash, every block of an array has chunks for every shard. So a block's encoded
chunks are stored first, sorted by where they go, as one object: itself in the sharded
format, with a minishard for each shard, or group of shards, to be. Each shard then takes
its chunks from every such object, and is written once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from precomputed_store.concurrency import run_threaded
from precomputed_store.errors import StorageError
from precomputed_store.grid import XYZ
from precomputed_store.metadata import ShardingSpec
from precomputed_store.shard_assembly import ShardAssembler
from precomputed_store.shard_writer import EncodedChunks, ShardWriter
from precomputed_store.sharding import (
    locate_many,
    parse_minishard_index,
    parse_shard_index_entry,
)
from precomputed_store.storage import Storage

__all__ = ["Staging", "is_staged", "staging_folder"]

_SUFFIX = ".staged"

_MOST_GROUP_BITS = 10


def staging_folder(key: str) -> str:
    """Where the chunks of a scale are staged."""
    return f"{key}.staging"


def is_staged(name: str) -> bool:
    """Whether a name is that of a block's staged chunks."""
    return name.endswith(_SUFFIX)


@dataclass(frozen=True, kw_only=True)
class Staging:
    """Where encoded chunks wait.

    Attributes
    ----------
    storage : Storage
        Seen by every worker.
    folder : str
    """

    storage: Storage
    folder: str

    def key(self, index: XYZ) -> str:
        return f"{self.folder}/{'_'.join(map(str, index))}{_SUFFIX}"

    def put(self, index: XYZ, writer: ShardWriter, chunks: EncodedChunks) -> None:
        """Store the encoded chunks of a block."""
        present = {i: data for i, data in chunks.items() if data is not None}
        ids = np.fromiter(present, np.uint64, len(present))
        shards = locate_many(writer.spec, ids)[0]
        spec = _staging_spec(writer.spec)
        groups = shards & np.uint64((1 << spec.minishard_bits) - 1)
        assembler = ShardAssembler(spec)
        for at in np.lexsort((ids, groups)).tolist():
            chunk_id = int(ids[at])
            assembler.add(int(groups[at]), chunk_id, present[chunk_id])
        self.storage.put(
            self.key(index), assembler.finish(), content_type="application/octet-stream"
        )

    def get(self, indices: list[XYZ], writer: ShardWriter, shard: int) -> dict[int, bytes]:
        """The encoded chunks of one shard, from every block.

        Raises
        ------
        StorageError
            A block has not been staged.
        """
        found: dict[int, bytes] = {}

        def read(index: XYZ) -> None:
            found.update(self._chunks(self.key(index), writer.spec, shard))

        run_threaded(read, indices, workers=self.storage.concurrency)
        return found

    def clear(self, indices: Iterator[XYZ]) -> None:
        """Remove what was staged."""
        keys = [self.key(index) for index in indices]
        run_threaded(self.storage.delete, keys, workers=self.storage.concurrency)
        self.storage.remove_empty_folder(self.folder)

    def _chunks(self, key: str, spec: ShardingSpec, shard: int) -> Iterator[tuple[int, bytes]]:
        own = _staging_spec(spec)
        group = shard & ((1 << own.minishard_bits) - 1)
        entry = self._read(key, 16 * group, 16 * group + 16)
        place = parse_shard_index_entry(entry, own)
        if place is None:
            return
        index = parse_minishard_index(self._read(key, *place), own)
        wanted = np.flatnonzero(locate_many(spec, index.chunk_ids)[0] == np.uint64(shard))
        if not len(wanted):
            return
        start, stop = int(index.starts[wanted].min()), int(index.stops[wanted].max())
        data = self._read(key, start, stop)
        for at in wanted.tolist():
            a, b = int(index.starts[at]) - start, int(index.stops[at]) - start
            yield int(index.chunk_ids[at]), data[a:b]

    def _read(self, key: str, start: int, stop: int) -> bytes:
        blob = self.storage.get(key, (start, stop))
        if blob is None:
            raise StorageError(f"{self.storage.url}/{key}: chunks staged there are gone")
        return bytes(blob.data)


def _staging_spec(spec: ShardingSpec) -> ShardingSpec:
    """The format of a staged object: a minishard for each of the lowest bits of a shard."""
    return ShardingSpec(
        hash="identity",
        preshift_bits=0,
        minishard_bits=min(spec.shard_bits, _MOST_GROUP_BITS),
        shard_bits=0,
    )
