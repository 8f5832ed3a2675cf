"""Shard files that are copied as they are, after a look at their indices."""

from __future__ import annotations

from precomputed_store.concurrency import run_threaded
from precomputed_store.copying.tasks import ChunkCopy, shard_of
from precomputed_store.errors import ChunkError, FormatError
from precomputed_store.grid import XYZ
from precomputed_store.shard_assembly import shard_places
from precomputed_store.shard_cache import forget_shard
from precomputed_store.shard_source import ShardSource
from precomputed_store.shard_writer import CONTENT_TYPE
from precomputed_store.sharding import ByteRange, shard_name
from precomputed_store.storage import Blob
from precomputed_store.storage.pieces import Stored
from precomputed_store.storage.transfer import opened, put_opened
from precomputed_store.writing.tasks import DONE, check_shared

__all__ = ["copy_file", "copy_file_of_block"]


def copy_file_of_block(sink: ChunkCopy, index: XYZ) -> bool:
    """Copy the shard that a block is, as it is."""
    first = next(sink.writer.array.grid.cells(sink.tiling.box(index)))
    return copy_file(sink, shard_of(sink.shard_writer, first))


def copy_file(sink: ChunkCopy, shard: int) -> bool:
    """Copy a shard as it is. A large one is not held in memory."""
    storage, writer, source = sink.writer.array.storage, sink.shard_writer, sink.source
    check_shared(storage)
    key = f"{source.scale.key}/{shard_name(writer.spec, shard)}"
    with opened(source.storage, key, near=storage) as stored:
        if stored is None:
            return DONE
        try:
            places = _places(sink, shard, stored)
        except FormatError as error:
            raise ChunkError(f"{source.storage.url}/{key}: {error}", key=key) from error
        _check_chunks(sink, key, places, stored)
        put_opened(
            storage,
            writer.key(shard),
            stored,
            content_type=CONTENT_TYPE,
            cache_control=writer.options.cache_control,
        )
    forget_shard(storage, writer.key(shard))
    return DONE


def _places(sink: ChunkCopy, shard: int, stored: Stored) -> dict[int, ByteRange]:
    """Where the chunks of a shard lie in it.

    Raises
    ------
    FormatError
        Its indices are damaged.
    """
    if stored.content_encoding is not None:
        raise FormatError(f"a shard cannot be compressed ({stored.content_encoding})")
    grid = sink.source.grid
    places = shard_places(
        stored.read, stored.size, sink.shard_writer.spec, shard=shard, num_chunks=grid.num_cells
    )
    strays = [i for i in places if grid.cell_of_id(i) is None] if sink.verify else []
    if strays:
        raise FormatError(f"chunk {strays[0]} is of no place in the volume")
    return places


def _check_chunks(sink: ChunkCopy, key: str, places: dict[int, ByteRange], stored: Stored) -> None:
    """Refuse empty chunks; decode all of them if that was asked for."""
    source, shards = sink.source, sink.source.source
    assert isinstance(shards, ShardSource)

    def check(item: tuple[int, ByteRange]) -> None:
        cell, place = source.grid.cell_of_id(item[0]), item[1]
        if cell is not None:
            shards.check_size(place, key)
            blob = Blob(stored.read(*place), sink.shard_writer.content_encoding)
            source.decode(cell, blob)

    wanted = [item for item in places.items() if sink.verify or item[1].start == item[1].stop]
    run_threaded(check, wanted, workers=source.storage.concurrency)
