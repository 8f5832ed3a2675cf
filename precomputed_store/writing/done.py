"""Which objects of a write are stored already. Each is stored atomically: what is there is whole.

Chunks of nothing but the fill value are not stored, so what holds them is written again.
"""

from __future__ import annotations

import numpy as np

from precomputed_store.engine import ChunkedArray
from precomputed_store.grid import XYZ, Box
from precomputed_store.shard_writer import ShardWriter
from precomputed_store.sharding import locate_many, shard_name
from precomputed_store.writing.stages import Pending, scatters
from precomputed_store.writing.tasks import ArraySink, CoarseSink
from precomputed_store.writing.tiling import Tiling

__all__ = ["pending", "pending_objects", "pending_shards"]


def pending_objects(array: ChunkedArray, tiling: Tiling) -> frozenset[XYZ]:
    """The blocks of a tiling of which something is not stored yet."""
    stored = set(array.storage.list_names(array.scale.key))
    return frozenset(
        index for index in tiling.indices() if not _is_stored(array, tiling, index, stored)
    )


def _is_stored(array: ChunkedArray, tiling: Tiling, index: XYZ, stored: set[str]) -> bool:
    box, spec = tiling.box(index), array.scale.sharding
    if spec is None:
        return all(array.grid.chunk_name(cell) in stored for cell in array.grid.cells(box))
    shards, _ = locate_many(spec, array.grid.chunk_ids(array.grid.cell_array(box)))
    return all(shard_name(spec, shard) in stored for shard in np.unique(shards).tolist())


def pending_shards(writer: ShardWriter, region: Box) -> frozenset[int]:
    """The shards with chunks in a region that are not stored yet."""
    stored = set(writer.array.storage.list_names(writer.array.scale.key))
    shards = writer.shards_of(region)
    return frozenset(i for i in shards if shard_name(writer.spec, i) not in stored)


def pending(sink: ArraySink | CoarseSink) -> Pending:
    """What is not stored yet of what a sink takes."""
    if scatters(sink.tiling, sink):
        assert isinstance(sink.writer, ShardWriter)
        return pending_shards(sink.writer, sink.tiling.region)
    return pending_objects(sink.writer.array, sink.tiling.objects)
