"""Many objects out of shards over a network, with as few and as short waits as it takes.

Minishards that share a shard are looked up together, ranges that lie close are joined. Of a
shard most of whose objects are wanted the whole is read, if that is not too long: one request.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from precomputed_store.errors import StorageError
from precomputed_store.shard_cache import EMPTY_INDEX, KnownIndex
from precomputed_store.shard_reader import NO_BYTES, ShardReader
from precomputed_store.sharding import ByteRange, ShardLocation, coalesce, locate
from precomputed_store.storage import Blob, ObjectTooLargeError, Storage

__all__ = ["Deliver", "Found", "ShardBatch", "Throttle"]

MAX_GAP_BYTES = 64 << 10
MAX_REQUEST_BYTES = 16 << 20

Deliver: TypeAlias = Callable[[int, Blob | None], Awaitable[None]]
"""Takes what is stored under an id (None: nothing) as soon as it is there."""

Throttle: TypeAlias = Callable[[Sequence[Any], Callable[[Any], Awaitable[None]]], Awaitable[None]]
"""Runs a coroutine function over items, a bounded number of them at once."""

# Folders with a shard that was too long to be read as a whole; the others will be, too.
_large: set[tuple[Storage, str]] = set()
_MOST_LARGE = 10_000


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


@dataclass(frozen=True, slots=True)
class ShardBatch:
    """Reads many objects of a reader's shards; for coroutines.

    Parameters
    ----------
    reader : ShardReader
    throttle : callable
    """

    reader: ShardReader
    throttle: Throttle

    async def fetch(self, ids: Iterable[int], deliver: Deliver) -> None:
        """Fetch objects, in any order."""
        scattered = await self._fetch_dense(list(ids), deliver)
        found: dict[str, dict[ByteRange, list[_Wanted]]] = {}
        for object_id, each in (await self.find(scattered)).items():
            if each is None or each.place.start == each.place.stop:
                await deliver(object_id, None if each is None else NO_BYTES)
            else:
                self.reader.check_size(each.place, each.key)
                wanted = _Wanted(object_id, each.version)
                found.setdefault(each.key, {}).setdefault(each.place, []).append(wanted)
        await self._fetch_ranges(found, deliver)

    async def find(self, ids: Iterable[int], *, fresh: bool = False) -> dict[int, Found | None]:
        """Where objects lie; None for those that are not stored.

        Parameters
        ----------
        ids : iterable of int
        fresh : bool
            Whether to make sure that an index that was read before is still that of its
            shard. A reader of the data finds out by the data's version.
        """
        wanted: dict[ShardLocation, list[int]] = {}
        for object_id in ids:
            wanted.setdefault(locate(self.reader.sharding, object_id), []).append(object_id)
        found: dict[int, Found | None] = {}
        together = {} if fresh else await self._read_indices(wanted)

        async def look_up(location: ShardLocation) -> None:
            key = self.reader.key(location)
            known = together.get(location)
            if known is None:
                known = await self._index_for(location, wanted[location], fresh=fresh)
            for object_id in wanted[location]:
                place = known.index.find(object_id)
                found[object_id] = None if place is None else Found(key, place, known.version)

        await self.throttle(list(wanted), look_up)
        return found

    async def _fetch_dense(self, ids: list[int], deliver: Deliver) -> list[int]:
        """Fetch those whose shards are wanted nearly whole; the others' ids."""
        folder, full = (self.reader.storage, self.reader.folder), self.reader.objects_per_shard
        if full is None or len(ids) < (enough := max(2, full * 3 // 4)) or folder in _large:
            return ids
        by_shard: dict[str, list[int]] = {}
        for object_id in ids:
            key = self.reader.key(locate(self.reader.sharding, object_id))
            by_shard.setdefault(key, []).append(object_id)
        dense = [key for key, each in by_shard.items() if len(each) >= enough]
        left = [each for each in by_shard.values() if len(each) < enough]

        async def fetch(key: str) -> None:
            try:
                whole = await self.reader.storage.get_async(key, max_bytes=MAX_REQUEST_BYTES)
            except ObjectTooLargeError:
                if len(_large) < _MOST_LARGE:
                    _large.add(folder)
                left.append(by_shard[key])
                return
            if whole is not None and whole.content_encoding is not None:
                # A server compresses as it likes; places are those of the plain bytes.
                left.append(by_shard[key])
                return

            async def take(object_id: int) -> None:
                await deliver(object_id, self.reader.fetch_from(whole, object_id))

            await self.throttle(by_shard[key], take)

        await self.throttle(dense, fetch)
        return list(itertools.chain.from_iterable(left))

    async def _read_indices(
        self, locations: Iterable[ShardLocation]
    ) -> dict[ShardLocation, KnownIndex]:
        """Indices of minishards that share shards: their places in joined requests, then they.

        What is known already, alone in its shard, cannot be read or is of two versions is
        left out, to be looked up by itself.
        """
        reader = self.reader
        by_shard: dict[str, list[ShardLocation]] = {}
        for location in locations:
            if reader.known(location) is None:
                by_shard.setdefault(reader.key(location), []).append(location)
        shared = {key: each for key, each in by_shard.items() if len(each) > 1}
        entries = await self._get_joined(
            {key: [reader.entry_range(each) for each in shared[key]] for key in shared}
        )
        found: dict[ShardLocation, KnownIndex] = {}
        places: dict[str, dict[ByteRange, tuple[ShardLocation, Hashable]]] = {}
        for location in itertools.chain.from_iterable(shared.values()):
            key = reader.key(location)
            if (key, reader.entry_range(location)) not in entries:
                continue
            entry = entries[key, reader.entry_range(location)]
            place = None if entry is None else reader.entry(entry.data, key)
            version = None if entry is None else entry.version
            if place is None:
                found[location] = KnownIndex(index=EMPTY_INDEX, version=version)
            else:
                places.setdefault(key, {})[place] = location, version
        for (key, place), blob in (await self._get_joined(places)).items():
            location, version = places[key][place]
            if blob is not None and blob.version == version:
                found[location] = reader.remember(location, blob, place)
        return found

    async def _get_joined(
        self, wanted: Mapping[str, Iterable[ByteRange]]
    ) -> dict[tuple[str, ByteRange], Blob | None]:
        """Bytes of shards (None: there is no shard), without those that cannot be read."""
        found: dict[tuple[str, ByteRange], Blob | None] = {}

        async def get(request: tuple[str, ByteRange, Iterable[ByteRange]]) -> None:
            key, whole, members = request
            try:
                blob = await self.reader.storage.get_async(key, whole)
            except StorageError:
                return  # What is at fault shows one by one.
            for place in members:
                part = blob
                if blob is not None:
                    # Copied: what is kept of an index does not keep the rest.
                    data = bytes(blob.data[place.start - whole.start : place.stop - whole.start])
                    part = blob._replace(data=data)
                found[key, place] = part

        await self.throttle(_joined(wanted), get)
        return found

    async def _index_for(
        self, location: ShardLocation, object_ids: Iterable[int], *, fresh: bool
    ) -> KnownIndex:
        """The index of a minishard, read anew if it lacks an object and is not fresh."""
        key = self.reader.key(location)
        known = self.reader.known(location)
        if known is not None:
            there = [known.index.find(object_id) is not None for object_id in object_ids]
            if not fresh and all(there):
                return known
            # What was deleted meanwhile must not be said to be there.
            still = self.reader.is_still(known, location, trusted=not (fresh and any(there)))
            if await self.reader.run_async(key, still):
                return known
        return await self.reader.run_async(key, self.reader.index_steps(location))

    async def _fetch_ranges(
        self, found: Mapping[str, Mapping[ByteRange, Sequence[_Wanted]]], deliver: Deliver
    ) -> None:
        async def fetch(request: tuple[str, ByteRange, Sequence[ByteRange]]) -> None:
            key, whole, members = request
            try:
                blob = await self.reader.storage.get_async(key, whole)
            except StorageError:
                # Which object is at fault, and whether the shard was exchanged, shows one by one.
                blob = None
            view = memoryview(b"" if blob is None else blob.data)

            async def take(place: ByteRange) -> None:
                data = view[place.start - whole.start : place.stop - whole.start]
                for object_id, version in found[key][place]:
                    if blob is not None and blob.version == version:
                        await deliver(object_id, self.reader.checked(Blob(data, None), place, key))
                    else:
                        await deliver(object_id, await self.reader.fetch_async(object_id))

            await self.throttle(members, take)

        await self.throttle(_joined(found), fetch)


def _joined(
    wanted: Mapping[str, Iterable[ByteRange]],
) -> list[tuple[str, ByteRange, list[ByteRange]]]:
    """Requests for byte ranges of shards: key, range, and the ranges that it answers."""
    return [
        (key, whole, members)
        for key, ranges in wanted.items()
        for whole, members in coalesce(ranges, max_gap=MAX_GAP_BYTES, max_bytes=MAX_REQUEST_BYTES)
    ]
