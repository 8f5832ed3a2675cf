"""Segment id → bytes to be stored: one object each, or put together into shards.

Shards are put together from a spool, a temporary file beyond some size, so that a few copies
of one shard and some 200 bytes for each object are all that is in memory. A shard that exists
is read, changed and written back under the condition that nobody else changed it meanwhile.
Specification: sharded.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from precomputed_store.codecs import content
from precomputed_store.codecs.base import Buffer
from precomputed_store.concurrency import bounded, num_cores, run_threaded
from precomputed_store.errors import FormatError, ObjectError
from precomputed_store.keyed_reader import KeyedReader, check_id
from precomputed_store.keyed_spool import Keyed, Spool, check_twice, groups
from precomputed_store.metadata import ShardingSpec
from precomputed_store.shard_assembly import ShardAssembler, in_shard_order, shard_places
from precomputed_store.shard_cache import forget_shard
from precomputed_store.sharding import (
    MAX_MINISHARD_INDEX_BYTES,
    locate_many,
    shard_index_bytes,
    shard_name,
)
from precomputed_store.storage import Blob, Storage, Update, run_sync

__all__ = ["Keyed", "KeyedWriter"]

CONTENT_TYPE = "application/octet-stream"
_SPOOL_BYTES = 256 << 20
# Of 1,000 skeletons of 500 vertices, level 1 leaves 42 %, 4 leaves 41 % in 1.6 times and 6
# leaves 40 % in four times as long (benchmarks/skeletons.py).
_LEVEL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedWriter:
    """Writes objects under ids into one folder.

    Parameters
    ----------
    storage, folder, sharding, suffix
        See `KeyedReader`.
    compress : {"gzip", "br", "zstd", None}
        Content encoding of objects that are not in shards; in shards `data_encoding` says.
    compress_level : int, optional
    cache_control : str, optional
    guarded : bool
        See `Update`: whether a shard that exists must not be changed over somebody else's
        change.
    before_bytes : callable, optional
        How many bytes before an object that is stored, of which it gets the data with
        compression undone, belong to it; for `Keyed.before`. Default: none.
    """

    storage: Storage
    folder: str = ""
    sharding: ShardingSpec | None = None
    suffix: str = ""
    compress: Literal["gzip", "br", "zstd"] | None = None
    compress_level: int | None = None
    cache_control: str | None = None
    guarded: bool = True
    before_bytes: Callable[[bytes], int] | None = None

    @property
    def reader(self) -> KeyedReader:
        """Reads what is written here."""
        return KeyedReader(
            storage=self.storage, folder=self.folder, sharding=self.sharding, suffix=self.suffix
        )

    def put(self, objects: Iterable[tuple[int, Keyed]], *, replace: bool = False) -> int:
        """Store objects; those of other ids stay, unless they are replaced.

        Parameters
        ----------
        objects : iterable of (int, Keyed)
            Read once, a few at a time.
        replace : bool
            Whether these are to be all objects of the folder. Others are removed after these
            are stored, so a reader sees the old, the new or, for a while, both.

        Returns
        -------
        int
            How many were stored.

        Raises
        ------
        ValueError
            An id is given twice, or is none.
        UnsupportedError
            `replace` where the storage cannot list; a shard to be changed where the storage
            knows no conditions.
        ObjectError
            A shard that is to be changed is damaged.
        """
        if self.sharding is not None:
            return self._put_in_shards(objects, self.sharding, replace=replace)
        others = set(self.reader.ids()) if replace else set()
        seen: set[int] = set()
        for group in groups(objects):
            ids = [object_id for object_id, _ in group]
            check_twice(ids, seen)
            self._put_files(group)
            others.difference_update(ids)
        self._delete_files(sorted(others))
        return len(seen)

    def delete(self, ids: Iterable[int]) -> None:
        """Remove objects; they may be absent."""
        wanted = sorted({check_id(object_id) for object_id in ids})
        if self.sharding is None:
            self._delete_files(wanted)
            return
        shards = locate_many(self.sharding, np.array(wanted, np.uint64))[0].tolist()
        by_shard: dict[int, list[int]] = {}
        for shard, object_id in zip(shards, wanted, strict=True):
            by_shard.setdefault(shard, []).append(object_id)
        for shard, members in by_shard.items():
            if self.storage.exists(self._shard_key(shard)):
                self._change(shard, dict.fromkeys(members))

    def _put_files(self, group: Sequence[tuple[int, Keyed]]) -> None:
        packed: dict[int, Buffer] = {}

        def pack(item: tuple[int, Keyed]) -> None:
            object_id, keyed = item
            if keyed.before:
                raise ValueError(f"id {object_id}: only shards hold bytes before an object")
            packed[object_id] = self._compressed(keyed.data, self.compress)

        def put(item: tuple[int, Keyed]) -> None:
            pack(item)
            object_id = item[0]
            self.storage.put(
                self.reader.key(object_id),
                packed.pop(object_id),
                content_type=CONTENT_TYPE,
                content_encoding=self.compress,
                cache_control=self.cache_control,
            )

        async def put_packed(object_id: int) -> None:
            await self.storage.put_async(
                self.reader.key(object_id),
                packed.pop(object_id),
                content_type=CONTENT_TYPE,
                content_encoding=self.compress,
                cache_control=self.cache_control,
            )

        if self.storage.threaded:
            run_threaded(put, group, workers=self.storage.concurrency)
        else:
            run_threaded(pack, group, workers=num_cores())
            run_sync(self._throttle(list(packed), put_packed))

    def _delete_files(self, ids: Sequence[int]) -> None:
        async def delete(object_id: int) -> None:
            await self.storage.delete_async(self.reader.key(object_id))

        run_sync(self._throttle(ids, delete))

    async def _throttle(
        self, ids: Sequence[int], function: Callable[[int], Awaitable[None]]
    ) -> None:
        await bounded(self.storage.concurrency)(ids, function)

    def _put_in_shards(
        self, objects: Iterable[tuple[int, Keyed]], spec: ShardingSpec, *, replace: bool
    ) -> int:
        others = set(self.reader.shards()) if replace else set()
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as file:
            spool = Spool(file)
            seen: set[int] = set()
            for group in groups(objects):
                check_twice([object_id for object_id, _ in group], seen)
                for object_id, keyed in self._packed(group, spec):
                    spool.add(object_id, keyed)
            ids = np.fromiter(spool.places, np.uint64, len(spool.places))
            shards = locate_many(spec, ids)[0]
            for shard in np.unique(shards).tolist():
                members = ids[shards == shard].tolist()
                others.discard(shard)
                self._store(shard, spool, members, replace=replace)
        for shard in others:
            self.storage.delete(self._shard_key(shard))
            forget_shard(self.storage, self._shard_key(shard))
        return len(seen)

    def _packed(
        self, group: Sequence[tuple[int, Keyed]], spec: ShardingSpec
    ) -> list[tuple[int, Keyed]]:
        """Objects as they are to be stored in shards, compressed on every core."""
        if spec.data_encoding == "raw":
            return list(group)
        packed: dict[int, Keyed] = {}

        def pack(item: tuple[int, Keyed]) -> None:
            object_id, keyed = item
            packed[object_id] = Keyed(self._compressed(keyed.data, "gzip"), keyed.before)

        run_threaded(pack, group, workers=num_cores())
        return [(object_id, packed[object_id]) for object_id, _ in group]

    def _store(self, shard: int, spool: Spool, ids: Sequence[int], *, replace: bool) -> None:
        key = self._shard_key(shard)
        if not replace:
            self._change(shard, {object_id: spool.read(object_id) for object_id in ids})
            return
        data = self._assembled({object_id: spool.read(object_id) for object_id in ids})
        self.storage.put(key, data, content_type=CONTENT_TYPE, cache_control=self.cache_control)
        forget_shard(self.storage, key)

    def _assembled(self, objects: Mapping[int, Keyed]) -> bytearray:
        assert self.sharding is not None
        assembler = ShardAssembler(self.sharding, compress_level=_LEVEL)
        for minishard, object_id in in_shard_order(self.sharding, objects):
            keyed = objects[object_id]
            assembler.add(minishard, object_id, keyed.data, before=keyed.before)
        return assembler.finish()

    def _change(self, shard: int, changes: Mapping[int, Keyed | None]) -> None:
        """Change some objects of a shard and keep the others."""
        key = self._shard_key(shard)

        def change(stored: Blob | None) -> Buffer | None:
            kept: dict[int, Keyed] = {} if stored is None else self._split(shard, stored)
            for object_id, keyed in changes.items():
                if keyed is None:
                    kept.pop(object_id, None)
                else:
                    kept[object_id] = keyed
            if not kept and (self.storage.can_delete_if or stored is None):
                return None
            return self._assembled(kept)

        self.storage.apply(
            Update(
                key=key,
                change=change,
                content_type=CONTENT_TYPE,
                cache_control=self.cache_control,
                guarded=self.guarded,
            )
        )
        forget_shard(self.storage, key)

    def _split(self, shard: int, stored: Blob) -> dict[int, Keyed]:
        assert self.sharding is not None
        try:
            if stored.content_encoding is not None:
                raise FormatError(f"a shard cannot be compressed ({stored.content_encoding})")
            view = memoryview(stored.data).cast("B")
            most = MAX_MINISHARD_INDEX_BYTES // 24
            places = shard_places(
                lambda start, stop: view[start:stop],
                len(view),
                self.sharding,
                shard=shard,
                num_chunks=most,
            )
            return {
                object_id: Keyed(view[start:stop], self._before(view, start, stop))
                for object_id, (start, stop) in places.items()
            }
        except FormatError as error:
            key = self._shard_key(shard)
            raise ObjectError(
                f"{self.storage.url}/{key}: {error}: the shard is damaged, and is not changed; "
                "write all of it to replace it",
                key=key,
            ) from error

    def _before(self, view: memoryview, start: int, stop: int) -> Sequence[Buffer]:
        if self.before_bytes is None:
            return ()
        assert self.sharding is not None
        data = bytes(view[start:stop])
        if self.sharding.data_encoding == "gzip":
            data = content.undo(data, "gzip", limit=1 << 30, allow_zlib=True)
        size = self.before_bytes(data)
        if not 0 <= size <= start - shard_index_bytes(self.sharding):
            raise FormatError(f"{size} bytes are to lie before an object at {start}")
        return (view[start - size : start],)

    def _compressed(self, data: Buffer, encoding: str | None) -> Buffer:
        if encoding is None:
            return data
        level = self.compress_level
        if level is None and encoding == "gzip":
            level = _LEVEL
        return content.apply(data, encoding, level=level)

    def _shard_key(self, shard: int) -> str:
        assert self.sharding is not None
        name = shard_name(self.sharding, shard)
        return f"{self.folder}/{name}" if self.folder else name
