"""Reading objects out of shards, one by one. `shard_batch` reads many at once.

Chunks of a volume; skeletons, meshes and annotations by id. One whose indices are not known
costs three requests (shard index entry, minishard index, data); one whose indices are
cached costs one. Indices are cached per process.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from precomputed_store.codecs import content
from precomputed_store.codecs.base import Buffer
from precomputed_store.errors import ChunkError, FormatError, ObjectError, StorageError
from precomputed_store.metadata import ShardingSpec
from precomputed_store.shard_cache import EMPTY_INDEX, KnownIndex, forget_shard, known_indices
from precomputed_store.sharding import (
    ByteRange,
    MinishardIndex,
    ShardLocation,
    check_placement,
    locate,
    parse_minishard_index,
    parse_shard_index_entry,
    shard_name,
)
from precomputed_store.storage import Blob, Get, Storage

__all__ = ["NO_BYTES", "ShardReader"]

TRUSTED_S = 10.0
"""How long an index that was read over a network is believed to lack what it lacks, and one
of a shard whose version is unknown to be that of the shard."""

_MOST_LOOKS = 20

T = TypeVar("T")
Steps: TypeAlias = Generator[ByteRange, Blob | None, T]
"""Asks for bytes of a shard, gets them (None: there is no shard, or throws), returns."""

NO_BYTES = Blob(b"", None)
"""An object that the index gives no bytes: not missing, but corrupt, which decoding finds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReader:
    """Objects in the shards of one folder, by id.

    Specification: sharded.md.

    Parameters
    ----------
    storage : Storage
    folder : str
        Holds the shards; relative to `storage`, empty for its own folder.
    sharding : ShardingSpec
    most_object_bytes, most_index_bytes : int
        Longer objects, and longer minishard indices, are refused unread.
    noun : str
        What an object is, for messages.
    error : type of PrecomputedError
        What is raised of damaged shards.
    objects_per_shard : int, optional
        How many objects a full shard has, where that is known.
    """

    storage: Storage
    folder: str
    sharding: ShardingSpec
    most_object_bytes: int
    most_index_bytes: int
    noun: str = "object"
    error: type[ChunkError] | type[ObjectError] = ObjectError
    objects_per_shard: int | None = None

    def key(self, location: ShardLocation) -> str:
        """The object of storage that is a shard."""
        name = shard_name(self.sharding, location.shard)
        return f"{self.folder}/{name}" if self.folder else name

    def fetch(self, object_id: int) -> Blob | None:
        """What is stored under an id, compressed as it is, or None. For threads."""
        location = locate(self.sharding, object_id)
        return self._run(self.key(location), self.object_steps(location, object_id))

    def object_steps(self, location: ShardLocation, object_id: int) -> Steps[Blob | None]:
        """Fetch an object: each step asks for bytes of its shard and gets them.

        A shard may be exchanged for another between two steps. Then its version is another,
        or the bytes asked for are not there, and it is looked up anew.
        """
        key = self.key(location)
        known = self.known(location)
        failed: tuple[Hashable, StorageError] | None = None
        for _ in range(_MOST_LOOKS):
            is_new = known is None
            if known is None:
                known = yield from self.index_steps(location)
            if failed is not None and failed[0] == known.version:
                raise failed[1]
            place = known.index.find(object_id)
            if place is None:
                if is_new or (yield from self.is_still(known, location)):
                    return None
            elif place.start == place.stop:
                return NO_BYTES
            else:
                self.check_size(place, key)
                try:
                    blob = yield place
                except StorageError as error:
                    failed = known.version, error
                else:
                    if blob is None or blob.version == known.version:
                        return self.checked(blob, place, key)
            forget_shard(self.storage, key)
            known = None
        raise self._changing(key)

    def known(self, location: ShardLocation) -> KnownIndex | None:
        """The index that was read of a minishard, if it may still be used."""
        known = known_indices.get(self.storage, self.key(location), location.minishard)
        if known is not None and known.version is None and known.age_s >= TRUSTED_S:
            return None
        return known

    def is_still(
        self, known: KnownIndex, location: ShardLocation, *, trusted: bool = True
    ) -> Steps[bool]:
        """Whether an index is that of the shard as it is now.

        One that was read lately over a network, and lacks what is wanted, is trusted.
        """
        recent = not self.storage.threaded and known.age_s < TRUSTED_S
        if known.version is None or (trusted and recent):
            return trusted
        entry = yield self.entry_range(location)
        if entry is None or entry.version != known.version:
            return False
        fresh = KnownIndex(index=known.index, version=known.version)
        known_indices.put(self.storage, self.key(location), location.minishard, fresh)
        return True

    def index_steps(self, location: ShardLocation) -> Steps[KnownIndex]:
        """Look up a minishard index: its place, then the index itself, of the same shard."""
        key = self.key(location)
        failed: tuple[Hashable, StorageError] | None = None
        for _ in range(_MOST_LOOKS):
            entry = yield self.entry_range(location)
            if entry is None:
                return KnownIndex(index=EMPTY_INDEX, version=None)
            if failed is not None and failed[0] == entry.version:
                raise failed[1]
            place = self.entry(entry.data, key)
            if place is None:
                return KnownIndex(index=EMPTY_INDEX, version=entry.version)
            try:
                blob = yield place
            except StorageError as error:
                failed = entry.version, error
                continue
            if blob is not None and blob.version == entry.version:
                return self.remember(location, blob, place)
        raise self._changing(key)

    def fetch_from(self, shard: Blob | None, object_id: int) -> Blob | None:
        """As `fetch`, out of a whole shard (None: there is none) that was read before."""
        location = locate(self.sharding, object_id)
        return _run_on(shard, self.object_steps(location, object_id), self._url(location))

    def _run(self, key: str, steps: Steps[T]) -> T:
        """Carry steps out, with blocking requests."""
        try:
            wanted = next(steps)
            while True:
                try:
                    blob = self.storage.get(key, wanted)
                except StorageError as error:
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(blob)
        except StopIteration as done:
            result: T = done.value
            return result

    async def run_async(self, key: str, steps: Steps[T]) -> T:
        """Carry steps out, with requests of an event loop."""
        try:
            wanted = next(steps)
            while True:
                try:
                    blob = await self.storage.get_async(key, wanted)
                except StorageError as error:
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(blob)
        except StopIteration as done:
            result: T = done.value
            return result

    async def fetch_async(self, object_id: int) -> Blob | None:
        location = locate(self.sharding, object_id)
        steps = self.object_steps(location, object_id)
        return await self.run_async(self.key(location), steps)

    def check_size(self, place: ByteRange, key: str) -> None:
        """Refuse to read more than any such object can be."""
        size = place.stop - place.start
        if size > self.most_object_bytes:
            raise self._error(
                f"its index gives a {self.noun} {size} bytes; expected at most "
                f"{self.most_object_bytes}",
                key,
            )

    def _changing(self, key: str) -> ChunkError | ObjectError:
        return self._error(
            f"it was exchanged for another each of the {_MOST_LOOKS} times it was read", key
        )

    def checked(self, blob: Blob | None, place: ByteRange, key: str) -> Blob:
        """An object's bytes in a shard, exactly as many as the index says."""
        size = place.stop - place.start
        if blob is None or len(blob.data) != size:
            raise self._error(
                f"the shard ends after {len(blob.data) if blob else 0} of {size} bytes "
                f"that its index gives a {self.noun} at {place.start}",
                key,
            )
        return Blob(blob.data, None if self.sharding.data_encoding == "raw" else "gzip")

    def _url(self, location: ShardLocation) -> str:
        return f"{self.storage.url}/{self.key(location)}"

    def _error(self, message: str, key: str) -> ChunkError | ObjectError:
        return self.error(f"{self.storage.url}/{key}: {message}", key=key)

    def minishard_index(self, location: ShardLocation) -> MinishardIndex:
        """The index of a minishard as it is stored now. For threads."""
        return self._run(self.key(location), self.index_steps(location)).index

    async def minishard_index_async(self, location: ShardLocation) -> MinishardIndex:
        """As `minishard_index`, from any event loop."""
        known = await self.run_async(self.key(location), self.index_steps(location))
        return known.index

    @staticmethod
    def entry_range(location: ShardLocation) -> ByteRange:
        return ByteRange(16 * location.minishard, 16 * location.minishard + 16)

    def entry(self, data: Buffer, key: str) -> ByteRange | None:
        if len(data) != 16:
            raise self._error(f"the shard index ends after {len(data)} of 16 bytes", key)
        try:
            place = parse_shard_index_entry(data, self.sharding)
        except FormatError as error:
            raise self._error(str(error), key) from error
        if place is not None and place.stop - place.start > self.most_index_bytes:
            raise self._error(f"the minishard index is {place.stop - place.start} bytes", key)
        return place

    def remember(self, location: ShardLocation, blob: Blob, place: ByteRange) -> KnownIndex:
        key = self.key(location)
        try:
            if len(blob.data) != place.stop - place.start:
                raise FormatError(f"the shard ends after {len(blob.data)} bytes of it")
            index = parse_minishard_index(self._unpack_index(blob.data), self.sharding)
            check_placement(index, self.sharding, location)
        except FormatError as error:
            message = f"minishard index {location.minishard}: {error}"
            raise self._error(message, key) from error
        known = KnownIndex(index=index, version=blob.version)
        known_indices.put(self.storage, key, location.minishard, known)
        return known

    def _unpack_index(self, data: Buffer) -> Buffer:
        if self.sharding.minishard_index_encoding == "raw":
            return data
        limit = self.most_index_bytes
        return content.undo(data, "gzip", limit=limit, allow_zlib=True)


def _run_on(shard: Blob | None, steps: Steps[T], url: str) -> T:
    """Carry steps out on a whole shard."""
    try:
        wanted = next(steps)
        while True:
            if shard is None:
                wanted = steps.send(None)
            elif wanted.stop > len(shard.data):
                get = Get(key="", byte_range=wanted)
                wanted = steps.throw(get.past_end(len(shard.data), url))
            else:
                data = memoryview(shard.data)[wanted.start : wanted.stop]
                wanted = steps.send(shard._replace(data=data))
    except StopIteration as done:
        result: T = done.value
        return result
