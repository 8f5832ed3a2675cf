"""Segment id → bytes: skeletons, meshes and annotations, one object each or in shards.

Specification: sharded.md; skeletons.md, "Skeleton representation".
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from precomputed_store.codecs import content
from precomputed_store.concurrency import bounded, num_cores, run_threaded
from precomputed_store.errors import FormatError, ObjectError, UnsupportedError
from precomputed_store.metadata import ShardingSpec
from precomputed_store.shard_batch import Found, ShardBatch
from precomputed_store.shard_reader import ShardReader
from precomputed_store.sharding import (
    ByteRange,
    ShardLocation,
    locate,
    shard_index_bytes,
    shard_name,
)
from precomputed_store.storage import Blob, Storage, run_sync

__all__ = ["KeyedReader", "check_id"]

_MOST_INDEX_BYTES = 64 << 20
_MOST_SHARDS_TRIED = 256
"""How many shards are looked for by name where a storage cannot list."""


def check_id(object_id: int) -> int:
    """A segment id as a plain int.

    Raises
    ------
    TypeError
        It is no integer.
    ValueError
        It is negative, or has more than 64 bits.
    """
    if isinstance(object_id, bool) or not isinstance(object_id, (int, np.integer)):
        raise TypeError(f"id {object_id!r}: expected an integer")
    if not 0 <= object_id < 1 << 64:
        raise ValueError(f"id {object_id}: expected an integer from 0 to 2**64 - 1")
    return int(object_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedReader:
    """Reads what is stored under ids in one folder.

    Parameters
    ----------
    storage : Storage
    folder : str
        Relative to `storage`; empty for its own folder.
    sharding : ShardingSpec, optional
        None: the object of an id is ``<folder>/<id><suffix>``.
    suffix : str
        Behind the id in names of objects that are not in shards: ``":0"``, ``".index"``.
    max_bytes : int
        The most bytes of one object, compression undone. Longer ones are refused.
    noun : str
        What an object is, for messages.
    """

    storage: Storage
    folder: str = ""
    sharding: ShardingSpec | None = None
    suffix: str = ""
    max_bytes: int = 1 << 30
    noun: str = "object"

    def key(self, object_id: int) -> str:
        """The object of storage that holds an id: its own, or its shard."""
        if self.sharding is None:
            return self._join(f"{object_id}{self.suffix}")
        return self._join(shard_name(self.sharding, locate(self.sharding, object_id).shard))

    def fetch(self, ids: Iterable[int]) -> dict[int, bytes | None]:
        """Read many objects at once.

        Returns
        -------
        dict of int to bytes or None
            In the order of `ids`; None where nothing is stored.

        Raises
        ------
        ObjectError
            What is stored is damaged or too long.
        StorageError
        """
        wanted = _distinct(ids)
        blobs: dict[int, Blob | None] = dict.fromkeys(wanted)
        found: dict[int, bytes | None] = dict.fromkeys(wanted)

        def unpack(object_id: int) -> None:
            blob = blobs.pop(object_id)
            found[object_id] = None if blob is None else self._unpack(blob, object_id)

        if self.storage.threaded:

            def read(object_id: int) -> None:
                blobs[object_id] = self._get(object_id)
                unpack(object_id)

            run_threaded(read, wanted, workers=self.storage.concurrency)
            return found

        async def deliver(object_id: int, blob: Blob | None) -> None:
            blobs[object_id] = blob

        run_sync(self._fetch_many(wanted, deliver))
        run_threaded(unpack, wanted, workers=num_cores())
        return found

    def contains(self, ids: Iterable[int]) -> dict[int, bool]:
        """Whether something is stored under each id, without reading it."""
        wanted = _distinct(ids)
        if self.sharding is not None:
            return {i: found is not None for i, found in self.locate(wanted).items()}
        found: dict[int, bool] = dict.fromkeys(wanted, False)

        async def look(object_id: int) -> None:
            found[object_id] = await self.storage.exists_async(self.key(object_id))

        self._each(wanted, look)
        return found

    def locate(self, ids: Iterable[int]) -> dict[int, Found | None]:
        """Where objects lie in their shards; None for those that are not stored.

        Raises
        ------
        ValueError
            There are no shards.
        """
        wanted = _distinct(ids)
        places = run_sync(ShardBatch(self._shards, self._throttle).find(wanted, fresh=True))
        return {object_id: places[object_id] for object_id in wanted}

    def read_ranges(self, places: Sequence[Found]) -> list[bytes]:
        """Bytes of shards as they were when `locate` looked, in the order of `places`.

        For what lies in a shard without an id of its own: the fragments of a mesh, which lie
        before its manifest.

        Raises
        ------
        ObjectError
            A shard ends before, or was exchanged for another meanwhile.
        """
        found: dict[int, bytes] = {}

        async def read(index: int) -> None:
            key, place, version = places[index]
            if place.start == place.stop:
                found[index] = b""
                return
            blob = await self.storage.get_async(key, ByteRange(*place))
            if blob is None or blob.version != version:
                raise self._error("it was exchanged for another while it was read", key)
            if len(blob.data) != place.stop - place.start:
                raise self._error(f"the shard ends before byte {place.stop}", key)
            found[index] = bytes(blob.data)

        self._each(range(len(places)), read)
        return [found[index] for index in range(len(places))]

    def ids(self) -> Iterator[int]:
        """Every id under which something is stored, in no promised order.

        Raises
        ------
        UnsupportedError
            The storage cannot list, and there are no shards, or too many to try each.
        """
        if self.sharding is None:
            pattern = re.compile(r"(0|[1-9][0-9]{0,19})" + re.escape(self.suffix))
            for name in self._names():
                match = pattern.fullmatch(name)
                if match and int(match[1]) < 1 << 64:
                    yield int(match[1])
            return
        for shard in self.shards():
            yield from self._ids_of(shard)

    def shards(self) -> list[int]:
        """Numbers of the shards that are stored, ascending.

        Raises
        ------
        UnsupportedError
            As `ids`.
        """
        sharding = self._shards.sharding
        try:
            names = set(self._names())
        except UnsupportedError:
            if sharding.shard_bits > 0 and 1 << sharding.shard_bits > _MOST_SHARDS_TRIED:
                raise
            return self._shards_by_trying(1 << sharding.shard_bits)
        numbers = (
            int(name.removesuffix(".shard"), 16)
            for name in names
            if re.fullmatch(r"[0-9a-f]{1,16}\.shard", name)
        )
        return sorted(number for number in numbers if shard_name(sharding, number) in names)

    def shard_key(self, shard: int) -> str:
        """The object of storage that is a shard, by its number."""
        return self._shards.key(ShardLocation(shard, 0))

    def _shards_by_trying(self, count: int) -> list[int]:
        found: list[int] = []

        async def look(shard: int) -> None:
            if await self.storage.exists_async(self._shards.key(ShardLocation(shard, 0))):
                found.append(shard)

        self._each(range(count), look)
        return sorted(found)

    def _ids_of(self, shard: int) -> list[int]:
        """Every id that a shard's minishard indices name."""
        reader = self._shards
        key = reader.key(ShardLocation(shard, 0))
        end = shard_index_bytes(reader.sharding)
        if end > _MOST_INDEX_BYTES:
            raise UnsupportedError(f"{self.storage.url}/{key}: its index is {end} bytes")
        blob = self.storage.get(key, ByteRange(0, end))
        if blob is None:
            return []
        if len(blob.data) != end:
            raise self._error(f"the shard index ends after {len(blob.data)} of {end} bytes", key)
        entries = np.frombuffer(blob.data, "<u8").reshape(-1, 2)
        minishards = np.flatnonzero(entries[:, 0] != entries[:, 1]).tolist()
        ids: dict[int, list[int]] = {}

        async def look(minishard: int) -> None:
            index = await reader.minishard_index_async(ShardLocation(shard, minishard))
            ids[minishard] = index.chunk_ids.tolist()

        self._each(minishards, look)
        return [object_id for minishard in minishards for object_id in ids[minishard]]

    def _names(self) -> Iterator[str]:
        try:
            yield from self.storage.list_names(self.folder)
        except UnsupportedError as error:
            raise UnsupportedError(
                f"{self.storage.url}/{self.folder}: which ids are stored cannot be told, as this "
                "storage cannot list; ask for ids that you know"
            ) from error

    @property
    def _shards(self) -> ShardReader:
        if self.sharding is None:
            raise ValueError(f"{self.storage.url}/{self.folder} has no shards")
        return ShardReader(
            storage=self.storage,
            folder=self.folder,
            sharding=self.sharding,
            most_object_bytes=self._most_stored,
            most_index_bytes=_MOST_INDEX_BYTES,
            noun=self.noun,
        )

    @property
    def _most_stored(self) -> int:
        # Compression can make an object a little longer.
        return self.max_bytes + self.max_bytes // 64 + (1 << 16)

    def _get(self, object_id: int) -> Blob | None:
        if self.sharding is not None:
            return self._shards.fetch(object_id)
        return self.storage.get(self.key(object_id), max_bytes=self._most_stored)

    async def _fetch_many(
        self, ids: Sequence[int], deliver: Callable[[int, Blob | None], Awaitable[None]]
    ) -> None:
        if self.sharding is not None:
            await ShardBatch(self._shards, self._throttle).fetch(ids, deliver)
            return

        async def fetch(object_id: int) -> None:
            limit = self._most_stored
            blob = await self.storage.get_async(self.key(object_id), max_bytes=limit)
            await deliver(object_id, blob)

        await self._throttle(ids, fetch)

    def _unpack(self, blob: Blob, object_id: int) -> bytes:
        encoding = blob.content_encoding
        if encoding is None and not blob.certain and bytes(blob.data[:3]) == b"\x1f\x8b\x08":
            encoding = "gzip"
        if encoding is None:
            return bytes(blob.data)
        try:
            return content.undo(blob.data, encoding, limit=self.max_bytes, allow_zlib=True)
        except FormatError as error:
            key = self.key(object_id)
            raise self._error(f"{self.noun} {object_id}: {error}", key) from error

    def _error(self, message: str, key: str) -> ObjectError:
        return ObjectError(f"{self.storage.url}/{key}: {message}", key=key)

    def _join(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name

    async def _throttle(
        self, items: Sequence[Any], function: Callable[[Any], Awaitable[None]]
    ) -> None:
        await bounded(self.storage.concurrency)(items, function)

    def _each(self, items: Sequence[Any], function: Callable[[Any], Awaitable[None]]) -> None:
        run_sync(self._throttle(items, function))


def _distinct(ids: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(check_id(object_id) for object_id in ids))
