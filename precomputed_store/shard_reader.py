"""Reading objects out of shards: indices once, data in coalesced ranges.

Chunks of a volume; skeletons, meshes and annotations by id. One whose indices are not known
costs three requests (shard index entry, minishard index, data); one whose indices are
cached costs one. Indices are cached per process.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

from precomputed_store.codecs import content
from precomputed_store.codecs.base import Buffer
from precomputed_store.errors import ChunkError, FormatError, ObjectError, StorageError
from precomputed_store.metadata import ShardingSpec
from precomputed_store.shard_cache import KnownIndex, forget_shard, known_indices
from precomputed_store.sharding import (
    ByteRange,
    MinishardIndex,
    ShardLocation,
    check_placement,
    coalesce,
    locate,
    parse_minishard_index,
    parse_shard_index_entry,
    shard_name,
)
from precomputed_store.storage import Blob, Storage

__all__ = ["Found", "ShardReader"]

MAX_GAP_BYTES = 64 << 10
TRUSTED_S = 10.0
"""How long an index that was read over a network is believed to lack what it lacks, and one
of a shard whose version is unknown to be that of the shard."""
MAX_REQUEST_BYTES = 16 << 20

_EMPTY = parse_minishard_index(
    b"",
    ShardingSpec(hash="identity", preshift_bits=0, minishard_bits=0, shard_bits=0),
)

_MOST_LOOKS = 20

T = TypeVar("T")
Steps: TypeAlias = Generator[ByteRange, Blob | None, T]
"""Asks for bytes of a shard, gets them (None: there is no shard, or throws), returns."""

Deliver: TypeAlias = Callable[[int, Blob | None], Awaitable[None]]
"""Takes what is stored under an id (None: nothing) as soon as it is there."""

Throttle: TypeAlias = Callable[[Sequence[Any], Callable[[Any], Awaitable[None]]], Awaitable[None]]
"""Runs a coroutine function over items, a bounded number of them at once."""

_NO_BYTES = Blob(b"", None)
"""An object that the index gives no bytes: not missing, but corrupt, which decoding finds."""


class Found(NamedTuple):
    """Where an object lies.

    Attributes
    ----------
    key : str
        The shard.
    place : ByteRange
        Its bytes there.
    version : hashable
        Of the shard that says so: bytes of another version are not where it says.
    """

    key: str
    place: ByteRange
    version: Hashable


class _Wanted(NamedTuple):
    """An object whose place in a shard of some version is known."""

    object_id: int
    version: Hashable


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
    """

    storage: Storage
    folder: str
    sharding: ShardingSpec
    most_object_bytes: int
    most_index_bytes: int
    noun: str = "object"
    error: type[ChunkError] | type[ObjectError] = ObjectError

    def key(self, location: ShardLocation) -> str:
        """The object of storage that is a shard."""
        name = shard_name(self.sharding, location.shard)
        return f"{self.folder}/{name}" if self.folder else name

    def fetch(self, object_id: int) -> Blob | None:
        """What is stored under an id, compressed as it is, or None. For threads."""
        location = locate(self.sharding, object_id)
        return self._run(self.key(location), self._object_steps(location, object_id))

    def _object_steps(self, location: ShardLocation, object_id: int) -> Steps[Blob | None]:
        """Fetch an object: each step asks for bytes of its shard and gets them.

        A shard may be exchanged for another between two steps. Then its version is another,
        or the bytes asked for are not there, and it is looked up anew.
        """
        key = self.key(location)
        known = self._known(location)
        failed: tuple[Hashable, StorageError] | None = None
        for _ in range(_MOST_LOOKS):
            is_new = known is None
            if known is None:
                known = yield from self._index_steps(location)
            if failed is not None and failed[0] == known.version:
                raise failed[1]
            place = known.index.find(object_id)
            if place is None:
                if is_new or (yield from self._is_still(known, location)):
                    return None
            elif place.start == place.stop:
                return _NO_BYTES
            else:
                self.check_size(place, key)
                try:
                    blob = yield place
                except StorageError as error:
                    failed = known.version, error
                else:
                    if blob is None or blob.version == known.version:
                        return self._checked(blob, place, key)
            forget_shard(self.storage, key)
            known = None
        raise self._changing(key)

    def _known(self, location: ShardLocation) -> KnownIndex | None:
        """The index that was read of a minishard, if it may still be used."""
        known = known_indices.get(self.storage, self.key(location), location.minishard)
        if known is not None and known.version is None and known.age_s >= TRUSTED_S:
            return None
        return known

    def _is_still(
        self, known: KnownIndex, location: ShardLocation, *, trusted: bool = True
    ) -> Steps[bool]:
        """Whether an index is that of the shard as it is now.

        One that was read lately over a network, and lacks what is wanted, is trusted.
        """
        recent = not self.storage.threaded and known.age_s < TRUSTED_S
        if known.version is None or (trusted and recent):
            return trusted
        entry = yield self._entry_range(location)
        if entry is None or entry.version != known.version:
            return False
        fresh = KnownIndex(index=known.index, version=known.version)
        known_indices.put(self.storage, self.key(location), location.minishard, fresh)
        return True

    def _index_steps(self, location: ShardLocation) -> Steps[KnownIndex]:
        """Look up a minishard index: its place, then the index itself, of the same shard."""
        key = self.key(location)
        failed: tuple[Hashable, StorageError] | None = None
        for _ in range(_MOST_LOOKS):
            entry = yield self._entry_range(location)
            if entry is None:
                return KnownIndex(index=_EMPTY, version=None)
            if failed is not None and failed[0] == entry.version:
                raise failed[1]
            place = self._entry(entry.data, key)
            if place is None:
                return KnownIndex(index=_EMPTY, version=entry.version)
            try:
                blob = yield place
            except StorageError as error:
                failed = entry.version, error
                continue
            if blob is not None and blob.version == entry.version:
                return self._remember(location, blob, place)
        raise self._changing(key)

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

    async def _run_async(self, key: str, steps: Steps[T]) -> T:
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

    async def find_many(
        self, ids: Iterable[int], throttle: Throttle, *, fresh: bool = False
    ) -> dict[int, Found | None]:
        """Where objects lie; None for those that are not stored.

        Parameters
        ----------
        ids : iterable of int
        throttle : callable
        fresh : bool
            Whether to make sure that an index that was read before is still that of its
            shard. A reader of the data finds out by the data's version.
        """
        wanted: dict[ShardLocation, list[int]] = {}
        for object_id in ids:
            wanted.setdefault(locate(self.sharding, object_id), []).append(object_id)
        found: dict[int, Found | None] = {}
        together = {} if fresh else await self._read_indices(wanted, throttle)

        async def look_up(location: ShardLocation) -> None:
            key = self.key(location)
            known = together.get(location)
            if known is None:
                known = await self._index_for(location, wanted[location], fresh=fresh)
            for object_id in wanted[location]:
                place = known.index.find(object_id)
                found[object_id] = None if place is None else Found(key, place, known.version)

        await throttle(list(wanted), look_up)
        return found

    async def _read_indices(
        self, locations: Iterable[ShardLocation], throttle: Throttle
    ) -> dict[ShardLocation, KnownIndex]:
        """Indices of minishards that share shards: their places in joined requests, then they.

        What is known already, alone in its shard, cannot be read or is of two versions is
        left out, to be looked up by itself.
        """
        by_shard: dict[str, list[ShardLocation]] = {}
        for location in locations:
            if self._known(location) is None:
                by_shard.setdefault(self.key(location), []).append(location)
        shared = {key: each for key, each in by_shard.items() if len(each) > 1}
        entries = await self._get_joined(
            {key: [self._entry_range(each) for each in shared[key]] for key in shared}, throttle
        )
        found: dict[ShardLocation, KnownIndex] = {}
        places: dict[str, dict[ByteRange, tuple[ShardLocation, Hashable]]] = {}
        for location in itertools.chain.from_iterable(shared.values()):
            key = self.key(location)
            if (key, self._entry_range(location)) not in entries:
                continue
            entry = entries[key, self._entry_range(location)]
            place = None if entry is None else self._entry(entry.data, key)
            version = None if entry is None else entry.version
            if place is None:
                found[location] = KnownIndex(index=_EMPTY, version=version)
            else:
                places.setdefault(key, {})[place] = location, version
        for (key, place), blob in (await self._get_joined(places, throttle)).items():
            location, version = places[key][place]
            if blob is not None and blob.version == version:
                found[location] = self._remember(location, blob, place)
        return found

    async def _get_joined(
        self, wanted: Mapping[str, Iterable[ByteRange]], throttle: Throttle
    ) -> dict[tuple[str, ByteRange], Blob | None]:
        """Bytes of shards (None: there is no shard), without those that cannot be read."""
        requests = [
            (key, whole, members)
            for key, ranges in wanted.items()
            for whole, members in coalesce(
                ranges, max_gap=MAX_GAP_BYTES, max_bytes=MAX_REQUEST_BYTES
            )
        ]
        found: dict[tuple[str, ByteRange], Blob | None] = {}

        async def get(request: tuple[str, ByteRange, Iterable[ByteRange]]) -> None:
            key, whole, members = request
            try:
                blob = await self.storage.get_async(key, whole)
            except StorageError:
                return  # What is at fault shows one by one.
            for place in members:
                part = blob
                if blob is not None:
                    # Copied: what is kept of an index does not keep the rest.
                    data = bytes(blob.data[place.start - whole.start : place.stop - whole.start])
                    part = blob._replace(data=data)
                found[key, place] = part

        await throttle(requests, get)
        return found

    async def fetch_many(self, ids: Iterable[int], deliver: Deliver, throttle: Throttle) -> None:
        """Fetch many objects with as few requests as it takes, in any order."""
        found: dict[str, dict[ByteRange, list[_Wanted]]] = {}
        for object_id, each in (await self.find_many(ids, throttle)).items():
            if each is None or each.place.start == each.place.stop:
                await deliver(object_id, None if each is None else _NO_BYTES)
            else:
                self.check_size(each.place, each.key)
                wanted = _Wanted(object_id, each.version)
                found.setdefault(each.key, {}).setdefault(each.place, []).append(wanted)
        await self._fetch_ranges(found, deliver, throttle)

    async def _index_for(
        self, location: ShardLocation, object_ids: Iterable[int], *, fresh: bool
    ) -> KnownIndex:
        """The index of a minishard, read anew if it lacks an object and is not fresh."""
        key = self.key(location)
        known = self._known(location)
        if known is not None:
            there = [known.index.find(object_id) is not None for object_id in object_ids]
            if not fresh and all(there):
                return known
            # What was deleted meanwhile must not be said to be there.
            still = self._is_still(known, location, trusted=not (fresh and any(there)))
            if await self._run_async(key, still):
                return known
        return await self._run_async(key, self._index_steps(location))

    async def _fetch_ranges(
        self,
        found: Mapping[str, Mapping[ByteRange, Sequence[_Wanted]]],
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
            try:
                blob = await self.storage.get_async(key, whole)
            except StorageError:
                # Which object is at fault, and whether the shard was exchanged, shows one by one.
                blob = None
            view = memoryview(b"" if blob is None else blob.data)
            for place in members:
                data = view[place.start - whole.start : place.stop - whole.start]
                for object_id, version in found[key][place]:
                    if blob is not None and blob.version == version:
                        await deliver(object_id, self._checked(Blob(data, None), place, key))
                    else:
                        await deliver(object_id, await self._fetch_alone(object_id))

        await throttle(requests, fetch)

    async def _fetch_alone(self, object_id: int) -> Blob | None:
        location = locate(self.sharding, object_id)
        steps = self._object_steps(location, object_id)
        return await self._run_async(self.key(location), steps)

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

    def _checked(self, blob: Blob | None, place: ByteRange, key: str) -> Blob:
        """An object's bytes in a shard, exactly as many as the index says."""
        size = place.stop - place.start
        if blob is None or len(blob.data) != size:
            raise self._error(
                f"the shard ends after {len(blob.data) if blob else 0} of {size} bytes "
                f"that its index gives a {self.noun} at {place.start}",
                key,
            )
        return Blob(blob.data, None if self.sharding.data_encoding == "raw" else "gzip")

    def _error(self, message: str, key: str) -> ChunkError | ObjectError:
        return self.error(f"{self.storage.url}/{key}: {message}", key=key)

    def minishard_index(self, location: ShardLocation) -> MinishardIndex:
        """The index of a minishard as it is stored now. For threads."""
        return self._run(self.key(location), self._index_steps(location)).index

    async def minishard_index_async(self, location: ShardLocation) -> MinishardIndex:
        """As `minishard_index`, from any event loop."""
        known = await self._run_async(self.key(location), self._index_steps(location))
        return known.index

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
        if place is not None and place.stop - place.start > self.most_index_bytes:
            raise self._error(f"the minishard index is {place.stop - place.start} bytes", key)
        return place

    def _remember(self, location: ShardLocation, blob: Blob, place: ByteRange) -> KnownIndex:
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
