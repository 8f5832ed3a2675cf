"""Looking at chunks: whether they are there, and whether they can be decoded.

One corrupt chunk, or one shard with a damaged index, keeps no other from being looked at.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from precomputed_store.chunk_source import FileSource
from precomputed_store.concurrency import bounded, codec_pool, run_threaded
from precomputed_store.engine import ChunkedArray
from precomputed_store.errors import ChunkError, StorageError
from precomputed_store.grid import XYZ
from precomputed_store.progress import Advance
from precomputed_store.shard_source import ShardSource
from precomputed_store.sharding import MinishardIndex, ShardLocation, locate, shard_name
from precomputed_store.storage import Blob, run_sync
from precomputed_store.storage.listing import StoredObject
from precomputed_store.validation.report import ChunkProblem

__all__ = ["Decoding", "IndexLookup", "Presence", "Tally", "count_listed"]

T = TypeVar("T")

# Cells held in memory at once: a grid may have more than fit.
_BATCH = 4096
_FAILURES = (ChunkError, StorageError)


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of chunks, and those that are corrupt. May be told of them from any thread."""

    array: ChunkedArray
    advance: Advance
    num_told: int = 0
    num_present: int = 0
    num_bytes: int = 0
    sizes_known: bool = True
    corrupt: list[ChunkProblem] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def present(self, cell: XYZ, num_bytes: int | None, problem: str | None = None) -> None:
        """A chunk is stored, in so many bytes; perhaps something is wrong with it."""
        with self._lock:
            self.num_told += 1
            self.num_present += 1
            self.num_bytes += num_bytes or 0
            self.sizes_known &= num_bytes is not None
            if problem is not None:
                key, box = self.array.source.key(cell), self.array.grid.cell_box(cell)
                self.corrupt.append(ChunkProblem(key, box, problem))
        self.advance(1)

    def missing(self) -> None:
        """A chunk is not stored."""
        with self._lock:
            self.num_told += 1
        self.advance(1)


def count_listed(tally: Tally, chunks: Iterable[tuple[XYZ, StoredObject]]) -> None:
    """Count chunks that a listing shows, with their sizes held against what is possible."""
    for cell, found in chunks:
        problem = "not a file" if found.is_file is False else None
        if found.num_bytes is not None:
            compressed = found.name != found.key
            problem = _size_problem(tally.array, cell, found.num_bytes, compressed=compressed)
        tally.present(cell, found.num_bytes, problem)


def _size_problem(
    array: ChunkedArray, cell: XYZ, num_bytes: int, *, compressed: bool
) -> str | None:
    """Why no chunk can be of this size, once its content encoding is undone."""
    if num_bytes == 0:
        return "the stored object is empty (0 bytes)"
    if compressed:
        return None
    codec = array.scale.codec
    most = codec.max_encoded_bytes(shape=array.chunk_shape_at(cell), dtype=array.dtype)
    if codec.name == "raw" and num_bytes != most:
        return f"{num_bytes} bytes; expected {most}"
    return f"{num_bytes} bytes; expected at most {most}" if num_bytes > most else None


@dataclass(slots=True, kw_only=True)
class Decoding:
    """Reads and decodes chunks."""

    tally: Tally

    def run(self, cells: Iterable[XYZ]) -> None:
        """Look at chunks.

        Raises
        ------
        UnsupportedError
            The library that decodes them is not installed.
        """
        storage = self.tally.array.storage
        for batch in _batches(cells):
            if storage.threaded:
                run_threaded(self._fetch, batch, workers=storage.concurrency)
            else:
                run_sync(self._fetch_many(batch))

    def _fetch(self, cell: XYZ) -> None:
        try:
            blob = self.tally.array.source.fetch(cell)
        except _FAILURES as error:
            self.tally.present(cell, None, _cause(error))
        else:
            self._decode(cell, blob)

    async def _fetch_many(self, batch: list[XYZ]) -> None:
        source = self.tally.array.source
        throttle = bounded(self.tally.array.storage.concurrency)
        loop = asyncio.get_running_loop()
        done: set[XYZ] = set()

        def decode(cell: XYZ, blob: Blob | None) -> None:
            # Here, since a cancelled delivery may never get as far.
            done.add(cell)
            self._decode(cell, blob)

        async def deliver(cell: XYZ, blob: Blob | None) -> None:
            await loop.run_in_executor(codec_pool(), decode, cell, blob)

        async def alone(cell: XYZ) -> None:
            try:
                await source.fetch_many([cell], deliver, bounded(1))
            except _FAILURES as error:
                self.tally.present(cell, None, _cause(error))

        try:
            await source.fetch_many(batch, deliver, throttle)
        except _FAILURES:
            # Together is quicker, but the first failure ends it.
            await throttle([cell for cell in batch if cell not in done], alone)

    def _decode(self, cell: XYZ, blob: Blob | None) -> None:
        if blob is None:
            self.tally.missing()
            return
        problem = None
        try:
            self.tally.array.decode(cell, blob)
        except ChunkError as error:
            problem = _cause(error)
        self.tally.present(cell, len(blob.data), problem)


@dataclass(slots=True, kw_only=True)
class Presence:
    """Asks for each chunk whether it is stored, where there is no listing."""

    tally: Tally

    def run(self, cells: Iterable[XYZ]) -> None:
        storage = self.tally.array.storage
        for batch in _batches(cells):
            if storage.threaded:
                run_threaded(self._ask, batch, workers=storage.concurrency)
            else:
                run_sync(_each(batch, self._ask_async, storage.concurrency))

    def _ask(self, cell: XYZ) -> None:
        storage = self.tally.array.storage
        self._count(cell, any(storage.exists(key) for key in self._keys(cell)))

    async def _ask_async(self, cell: XYZ) -> None:
        storage = self.tally.array.storage
        found = [await storage.exists_async(key) for key in self._keys(cell)]
        self._count(cell, any(found))

    def _keys(self, cell: XYZ) -> set[str]:
        source = self.tally.array.source
        assert isinstance(source, FileSource)
        return {source.key(cell), source.write_key(cell)}

    def _count(self, cell: XYZ, is_there: bool) -> None:
        if is_there:
            self.tally.present(cell, None)
        else:
            self.tally.missing()


@dataclass(slots=True, kw_only=True)
class IndexLookup:
    """Looks chunks up in the indices of their shards.

    Parameters
    ----------
    tally : Tally
    source : ShardSource
    shards : mapping or None
        What a listing says of the shards, by name: what the indices say is held against
        their sizes. None where there is no listing.
    """

    tally: Tally
    source: ShardSource
    shards: Mapping[str, StoredObject] | None

    def run(self, cells: Iterable[XYZ]) -> None:
        storage = self.tally.array.storage
        for batch in _batches(cells):
            wanted: dict[ShardLocation, list[XYZ]] = {}
            for cell in batch:
                chunk_id = self.tally.array.grid.chunk_id(cell)
                wanted.setdefault(locate(self.source.sharding, chunk_id), []).append(cell)
            groups = list(wanted.items())
            if storage.threaded:
                run_threaded(self._look_up, groups, workers=storage.concurrency)
            else:
                run_sync(_each(groups, self._look_up_async, storage.concurrency))

    def _look_up(self, group: tuple[ShardLocation, list[XYZ]]) -> None:
        location, cells = group
        try:
            self._count(location, cells, self.source.minishard_index(location))
        except _FAILURES as error:
            self._failed(cells, error)

    async def _look_up_async(self, group: tuple[ShardLocation, list[XYZ]]) -> None:
        location, cells = group
        try:
            self._count(location, cells, await self.source.minishard_index_async(location))
        except _FAILURES as error:
            self._failed(cells, error)

    def _failed(self, cells: list[XYZ], error: Exception) -> None:
        for cell in cells:
            self.tally.present(cell, None, _cause(error))

    def _count(self, location: ShardLocation, cells: list[XYZ], index: MinishardIndex) -> None:
        name = shard_name(self.source.sharding, location.shard)
        listed = None if self.shards is None else self.shards.get(name)
        end = None if listed is None else listed.num_bytes
        compressed = self.source.sharding.data_encoding != "raw"
        for cell in cells:
            place = index.find(self.tally.array.grid.chunk_id(cell))
            if place is None:
                self.tally.missing()
                continue
            num_bytes = place.stop - place.start
            problem = _size_problem(self.tally.array, cell, num_bytes, compressed=compressed)
            if end is not None and place.stop > end:
                problem = f"its index gives it bytes {place.start} to {place.stop} of {end}"
            self.tally.present(cell, num_bytes, problem)


async def _each(items: Sequence[T], function: Callable[[T], Awaitable[None]], limit: int) -> None:
    await bounded(limit)(items, function)


def _batches(cells: Iterable[XYZ]) -> Iterator[list[XYZ]]:
    remaining = iter(cells)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


def _cause(error: Exception) -> str:
    """What went wrong, without the place, which the report names already."""
    return str(error.__cause__ if isinstance(error, ChunkError) and error.__cause__ else error)
