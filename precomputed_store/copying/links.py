"""Folders that `info` links (meshes, skeletons, segment properties), object by object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from precomputed_store.codecs import content
from precomputed_store.codecs.base import Buffer
from precomputed_store.concurrency import run_batches
from precomputed_store.errors import FormatError, StorageError, UnsupportedError
from precomputed_store.grid import Box
from precomputed_store.storage import Blob, Storage
from precomputed_store.storage.listing import list_objects
from precomputed_store.writing.stages import Stage, unique_name
from precomputed_store.writing.tasks import DONE, check_shared
from precomputed_store.writing.tiling import Tiling

__all__ = ["KeyPair", "copy_objects", "folder_stage", "list_pairs"]

KeyPair: TypeAlias = tuple[str, str]
"""Where an object is, and where it goes."""

_BATCH = 256
_LARGEST_INFLATED = 4 << 30
_NO_TILING = Tiling(region=Box((0, 0, 0), (1, 1, 1)), spans=((1,), (1,), (1,)))


def list_pairs(source: Storage, folders: Sequence[KeyPair]) -> list[KeyPair]:
    """The objects in folders, where each is and goes.

    Names that may be of folders, as far as the storage tells, are among them.

    Raises
    ------
    UnsupportedError
        The storage cannot list.
    """
    return [pair for old, new in folders for pair in _pairs(source, old.strip("/"), new)]


def _pairs(source: Storage, old: str, new: str) -> Iterator[KeyPair]:
    try:
        for item in list_objects(source, old):
            if item.is_temporary or item.key is None:
                continue
            pair = f"{old}/{item.key}", f"{new}/{item.key}"
            if item.is_file is False:
                yield from _pairs(source, *pair)
            else:
                yield pair
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{source.url}/{old}: its objects cannot be listed here, so linked=True cannot copy "
            f"them ({error})"
        ) from error


def folder_stage(source: Storage, target: Storage, pairs: Sequence[KeyPair]) -> Stage:
    """Tasks that copy objects."""
    name = unique_name("copy-objects-precomputed")
    tasks = {
        (name, at): (copy_objects, source, target, list(pairs[at : at + _BATCH]))
        for at in range(0, len(pairs), _BATCH)
    }
    return Stage(
        name=name,
        layers={name: tasks},
        dependencies={name: set()},
        tiling=_NO_TILING,
        scattered=tuple(tasks),
    )


def copy_objects(source: Storage, target: Storage, pairs: Sequence[KeyPair]) -> bool:
    """Copy objects, and what lies in those that are folders."""
    check_shared(target)

    def copy_one(pair: KeyPair) -> None:
        old, new = pair
        blob = source.get(old)
        if blob is not None:
            _store(source, target, blob, pair)
            return
        for inner in _pairs(source, old, new):
            copy_one(inner)

    run_batches(copy_one, pairs, workers=max(source.concurrency, target.concurrency))
    return DONE


def _store(source: Storage, target: Storage, blob: Blob, pair: KeyPair) -> None:
    old, new = pair
    data: Buffer = blob.data
    encoding = blob.content_encoding
    if encoding is not None and not (
        encoding in content.SUFFIXES and source.has_headers == target.has_headers
    ):
        try:
            data, encoding = content.undo(data, encoding, limit=_LARGEST_INFLATED), None
        except FormatError as error:
            raise StorageError(f"{source.url}/{old}: {error}") from error
    is_json = new.rpartition("/")[2] == "info" or new.endswith(".json")
    target.put(
        new,
        data,
        content_type="application/json" if is_json else "application/octet-stream",
        content_encoding=encoding,
        cache_control="no-cache" if is_json else None,
    )
