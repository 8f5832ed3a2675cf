"""Removing the stored chunks of a layer that is about to be replaced."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from precomputed_store.codecs import content
from precomputed_store.concurrency import bounded, run_threaded
from precomputed_store.errors import UnsupportedError
from precomputed_store.storage import Blob, Storage, run_sync
from precomputed_store.storage.listing import list_objects
from precomputed_store.writing.record import RECORD_KEY, recorded_scales
from precomputed_store.writing.staging import is_staged, staging_folder

__all__ = [
    "Removal",
    "Replacement",
    "left_over",
    "plan_removal",
    "plan_replacement",
    "stored_objects",
    "stored_sizes",
]

_AXIS = r"-?\d+--?\d+"
_STORED = re.compile(rf"{_AXIS}_{_AXIS}_{_AXIS}|[0-9a-f]+\.shard")
_NESTED = re.compile(_AXIS)
_LARGEST_INFO = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Chunks that have to go before others take their place."""

    storage: Storage
    keys: tuple[str, ...]

    def carry_out(self) -> None:
        if self.storage.threaded:
            run_threaded(self.storage.delete, self.keys, workers=self.storage.concurrency)
        else:
            run_sync(self._delete_all())

    async def _delete_all(self) -> None:
        await bounded(self.storage.concurrency)(self.keys, self.storage.delete_async)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A layer that has to go before another takes its place."""

    storage: Storage
    chunks: Removal

    def also(self, keys: Iterable[str]) -> Replacement:
        """The same with more objects."""
        return replace(self, chunks=replace(self.chunks, keys=(*self.chunks.keys, *keys)))

    def carry_out(self) -> None:
        """Remove `info`, so that nobody reads what is half there, then the chunks."""
        self.storage.delete("info")
        self.storage.delete(RECORD_KEY)
        self.chunks.carry_out()


def plan_replacement(storage: Storage, *, keys: Iterable[str]) -> Replacement | None:
    """What to remove for a layer whose scales are in the folders `keys`; touches nothing.

    Chunks and shards in the folders of the old layer's scales, of those that an interrupted
    job was writing, and of the new one's; and what that job had staged. Meshes, skeletons and
    whatever else lies there stay.

    Returns
    -------
    Replacement or None
        None if there is nothing.

    Raises
    ------
    UnsupportedError
        The storage cannot list, or the old layer keeps chunks where they cannot be told
        from those of others.
    ValueError
        The `info` that is there cannot be read.
    """
    folders = {*keys, *recorded_scales(storage)}
    blob = storage.get("info", max_bytes=_LARGEST_INFO)
    if blob is not None:
        folders |= _old_folders(blob, storage)
    stored = [key for folder in sorted(folders) for key in _left(storage, folder)]
    if blob is None and not stored and not storage.exists(RECORD_KEY):
        return None
    return Replacement(storage=storage, chunks=Removal(storage=storage, keys=tuple(stored)))


def plan_removal(storage: Storage, *, keys: Iterable[str]) -> Removal:
    """What to remove from the folders of scales that are written anew; touches nothing.

    Where the storage cannot list, that is nothing.
    """
    try:
        stored = tuple(key for folder in keys for key in _left(storage, folder))
    except UnsupportedError:
        stored = ()
    return Removal(storage=storage, keys=stored)


def left_over(storage: Storage, keys: Iterable[str]) -> str | None:
    """A chunk or shard in one of these folders, if there is any that can be seen."""
    try:
        return next((key for folder in keys for key in stored_objects(storage, folder)), None)
    except UnsupportedError:
        return None


def _old_folders(info: Blob, storage: Storage) -> set[str]:
    data = info.data
    try:
        if info.content_encoding is not None:
            data = content.undo(data, info.content_encoding, limit=_LARGEST_INFO)
        return set(_scale_keys(json.loads(bytes(data))))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{storage.url}/info cannot be read ({error}), so it is unknown what there is to "
            "replace: remove the folder yourself"
        ) from error


def _scale_keys(document: Any) -> Iterator[str]:
    scales = document.get("scales") if isinstance(document, dict) else None
    for scale in scales if isinstance(scales, list) else []:
        found = scale.get("key") if isinstance(scale, dict) else None
        if isinstance(found, str):
            yield found


def _left(storage: Storage, folder: str) -> Iterator[str]:
    """What is stored of a scale, and what is staged for it."""
    yield from stored_objects(storage, folder)
    staging = staging_folder(folder)
    yield from (f"{staging}/{name}" for name in storage.list_names(staging) if is_staged(name))


def stored_objects(storage: Storage, folder: str) -> Iterator[str]:
    """The chunks and shards in the folder of a scale.

    Raises
    ------
    UnsupportedError
        The storage cannot list, or the folder may hold those of other layers.
    """
    return (key for key, _ in stored_sizes(storage, folder))


def stored_sizes(storage: Storage, folder: str) -> Iterator[tuple[str, int | None]]:
    """As `stored_objects`, each with its bytes, or None where the storage does not tell."""
    if ".." in folder.split("/"):
        raise UnsupportedError(
            f"{storage.url}: scale {folder!r} of the layer to be replaced lies outside of its "
            "folder, where other layers may share it: remove the layer yourself"
        )
    for item in list_objects(storage, folder):
        name = item.key
        if name is None:
            continue
        if _STORED.fullmatch(name):
            yield f"{folder}/{name}", item.num_bytes
        elif _NESTED.fullmatch(name):
            raise UnsupportedError(
                f"{storage.url}/{folder}: the chunks of the layer to be replaced are in nested "
                "x/y/z folders: remove the folder yourself"
            )
