"""Removing objects that have been found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from precomputed_store.concurrency import bounded, run_threaded
from precomputed_store.grid import Box
from precomputed_store.info_edits import remove_scale
from precomputed_store.progress import Advance, progress_bar
from precomputed_store.shard_cache import clear_index_cache
from precomputed_store.shard_writer import ShardWriter
from precomputed_store.storage import Storage, run_sync
from precomputed_store.storage.base import Stat
from precomputed_store.storage.listing import list_objects
from precomputed_store.volume_summary import human_bytes

__all__ = ["Removal", "ShardEdit", "Sizes", "existing", "list_tree", "stored_among"]

_LONG = 1000

Sizes: TypeAlias = dict[str, int | None]
"""Key → bytes of the object; None where the storage does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEdit:
    """A shard that loses the chunks of a region and keeps the others."""

    writer: ShardWriter
    shard: int
    region: Box

    @property
    def key(self) -> str:
        return self.writer.key(self.shard)

    def carry_out(self) -> None:
        cells = self.writer.cells_of(self.shard, self.region)
        gone = dict.fromkeys(map(self.writer.grid.chunk_id, cells))
        self.writer.store_chunks(self.shard, gone, whole=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Removal:
    """What goes, or has gone.

    Attributes
    ----------
    storage : Storage
        The layer's folder.
    what : str
        In words.
    keys : tuple of str
        Objects that go, in this order where the last of them is `info`.
    num_bytes : int or None
        Their size; None where the storage does not tell it of all of them.
    edits : tuple of ShardEdit
        Shards that lose some of their chunks.
    prune : tuple of str
        Folders that go if nothing is left in them.
    entry : str, optional
        Key of the scale that `info` names no more.
    """

    storage: Storage
    what: str
    keys: tuple[str, ...]
    num_bytes: int | None = None
    edits: tuple[ShardEdit, ...] = ()
    prune: tuple[str, ...] = ()
    entry: str | None = None

    @property
    def num_objects(self) -> int:
        """Objects that go as a whole."""
        return len(self.keys)

    @property
    def is_long(self) -> bool:
        """Whether one would want to see how far it is."""
        return len(self.keys) + len(self.edits) > _LONG

    def __repr__(self) -> str:
        return f"<Removal: {self}>"

    def __str__(self) -> str:
        entry = ", and its entry in info" if self.entry is not None else ""
        return f"{self.storage.url}: {self.what}: {self.amount}{entry}"

    @property
    def amount(self) -> str:
        """How much that is, in words."""
        objects = f"{len(self.keys):,} object{'' if len(self.keys) == 1 else 's'}"
        if self.keys and self.num_bytes is not None:
            objects += f" ({human_bytes(self.num_bytes)})"
        if not self.edits:
            return objects
        shards = f"{len(self.edits):,} shard{'' if len(self.edits) == 1 else 's'}"
        return f"{objects}, and chunks of {shards}, the rest of which is written anew"

    def carry_out(self, *, progress: bool = False) -> None:
        """Remove it all; what is gone already is no error."""
        storage = self.storage
        info = [key for key in self.keys if key == "info"]
        keys = [key for key in self.keys if key != "info"]
        total = len(keys) + len(self.edits)
        with progress_bar("removing", total=total, enabled=progress, unit="objects") as done:
            _remove(storage, keys, done)
            for edit in self.edits:
                edit.carry_out()
                done(1)
        if any(key.endswith(".shard") for key in keys):
            clear_index_cache()
        for key in info:
            storage.delete(key)
        if self.entry is not None:
            remove_scale(
                storage.url,
                self.entry,
                storage_options=storage.storage_options,
                root=storage.root,
            )
        for folder in self.prune:
            storage.remove_empty_folder(folder)


def _remove(storage: Storage, keys: list[str], done: Advance) -> None:
    def remove(key: str) -> None:
        storage.delete(key)
        done(1)

    async def remove_async(key: str) -> None:
        await storage.delete_async(key)
        done(1)

    async def every() -> None:
        await bounded(storage.concurrency)(keys, remove_async)

    if storage.threaded:
        run_threaded(remove, keys, workers=storage.concurrency)
    else:
        run_sync(every())


def existing(storage: Storage, keys: Iterable[str]) -> list[str]:
    """Those of some keys that are stored."""
    return list(stored_among(storage, keys))


def stored_among(storage: Storage, keys: Iterable[str]) -> Sizes:
    """Those of some keys that are stored, in their order, with their sizes."""
    asked = list(keys)
    found: dict[str, Stat] = {}

    def ask(key: str) -> None:
        if (stat := storage.stat(key)) is not None:
            found[key] = stat

    async def ask_async(key: str) -> None:
        if (stat := await storage.stat_async(key)) is not None:
            found[key] = stat

    async def every() -> None:
        await bounded(storage.concurrency)(asked, ask_async)

    if storage.threaded:
        run_threaded(ask, asked, workers=storage.concurrency)
    else:
        run_sync(every())
    return {key: found[key].num_bytes for key in asked if key in found}


def list_tree(storage: Storage, folder: str) -> Iterator[tuple[str, int | None]]:
    """Every object in a folder and in those below it, with its size.

    Raises
    ------
    UnsupportedError
        The storage cannot list.
    """
    unknown: list[str] = []
    for item in list_objects(storage, folder):
        if item.is_temporary or item.key is None:
            continue
        key = f"{folder}/{item.key}"
        if item.is_file or item.num_bytes is not None:
            yield key, item.num_bytes
        elif item.is_file is None:
            unknown.append(key)
        else:
            yield from list_tree(storage, key)
    files = stored_among(storage, unknown)
    yield from files.items()
    for key in unknown:
        if key not in files:
            yield from list_tree(storage, key)
