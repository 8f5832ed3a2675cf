"""Folders that `info` links (meshes, skeletons, segment properties), object by object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from precomputed_store.codecs import content
from precomputed_store.codecs.base import Buffer
from precomputed_store.concurrency import run_threaded
from precomputed_store.copying.removal import list_tree
from precomputed_store.errors import FormatError, StorageError, UnsupportedError
from precomputed_store.grid import Box
from precomputed_store.storage import Blob, Storage
from precomputed_store.storage.listing import list_objects
from precomputed_store.storage.pieces import OpenFile
from precomputed_store.storage.transfer import opened, put_opened
from precomputed_store.writing.stages import Stage, unique_name
from precomputed_store.writing.tasks import DONE, check_shared
from precomputed_store.writing.tiling import Tiling

__all__ = ["LinkedObject", "copy_objects", "folder_stage", "list_pairs", "old_objects"]

_BATCH = 256
_LARGEST_INFLATED = 4 << 30
# Larger ones, few at a time: held or not, they keep a connection busy.
_LARGE_BYTES = 1 << 20
_LARGE_AT_ONCE = 4
_NO_TILING = Tiling(region=Box((0, 0, 0), (1, 1, 1)), spans=((1,), (1,), (1,)))


class LinkedObject(NamedTuple):
    """An object on its way: where it is, where it goes, and its bytes if they are known."""

    old: str
    new: str
    num_bytes: int | None = None

    @property
    def is_large(self) -> bool:
        return self.num_bytes is not None and self.num_bytes > _LARGE_BYTES


def list_pairs(source: Storage, folders: Sequence[tuple[str, str]]) -> list[LinkedObject]:
    """The objects in folders, where each is and goes.

    Names that may be of folders, as far as the storage tells, are among them.

    Raises
    ------
    UnsupportedError
        The storage cannot list.
    """
    return [pair for old, new in folders for pair in _pairs(source, old.strip("/"), new)]


def _pairs(source: Storage, old: str, new: str) -> Iterator[LinkedObject]:
    try:
        for item in list_objects(source, old):
            if item.is_temporary or item.key is None:
                continue
            pair = LinkedObject(f"{old}/{item.key}", f"{new}/{item.key}", item.num_bytes)
            if item.is_file is False:
                yield from _pairs(source, pair.old, pair.new)
            else:
                yield pair
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{source.url}/{old}: its objects cannot be listed here, so linked=True cannot copy "
            f"them ({error})"
        ) from error


def old_objects(target: Storage, folders: Iterable[str], *, linked: Iterable[str]) -> list[str]:
    """Objects in the folders to be filled, all of a layer that is to be replaced.

    Parameters
    ----------
    target : Storage
    folders : iterable of str
    linked : iterable of str
        Those that the layer links which is to be replaced; none if there is no such layer.

    Raises
    ------
    FileExistsError
        There are objects in another folder, which would be mixed with those that are copied.
    """
    replaced = {link.strip("/") for link in linked}
    found: list[str] = []
    for folder in folders:
        stored = list_tree(target, folder)
        if folder in replaced:
            found += [key for key, _ in stored]
        elif (first := next(stored, None)) is not None:
            raise FileExistsError(
                f"{target.url}/{first[0]}: there are objects in {folder!r} already, which would "
                "be mixed with those that are copied: move them away, or copy without linked=True"
            )
    return found


def folder_stage(
    source: Storage, target: Storage, pairs: Sequence[LinkedObject], *, resuming: bool
) -> Stage:
    """Tasks that copy objects; those that are there already are left out when resuming."""
    name = unique_name("copy-objects-precomputed")
    tasks = {
        (name, at): (copy_objects, source, target, list(pairs[at : at + _BATCH]), resuming)
        for at in range(0, len(pairs), _BATCH)
    }
    return Stage(
        name=name,
        layers={name: tasks},
        dependencies={name: set()},
        tiling=_NO_TILING,
        scattered=tuple(tasks),
    )


def copy_objects(
    source: Storage, target: Storage, pairs: Sequence[LinkedObject], resuming: bool
) -> bool:
    """Copy objects, and what lies in those that are folders."""
    check_shared(target)

    def copy_one(pair: LinkedObject) -> None:
        if resuming and target.stat(pair.new) is not None:
            return  # stored atomically, into a folder that was empty when the copy began
        if pair.is_large and _copy_large(source, target, pair):
            return
        blob = source.get(pair.old)
        if blob is not None:
            _store(source, target, blob, pair)
            return
        for inner in _pairs(source, pair.old, pair.new):
            copy_one(inner)

    workers = max(source.concurrency, target.concurrency)
    run_threaded(copy_one, [pair for pair in pairs if not pair.is_large], workers=workers)
    run_threaded(copy_one, [pair for pair in pairs if pair.is_large], workers=_LARGE_AT_ONCE)
    return DONE


def _copy_large(source: Storage, target: Storage, pair: LinkedObject) -> bool:
    """Copy an object without holding it; False where that is not possible as it is."""
    with opened(source, pair.old, near=target) as stored:
        if not isinstance(stored, OpenFile) or stored.content_encoding is not None:
            return False
        put_opened(target, pair.new, stored, content_type="application/octet-stream")
    return True


def _store(source: Storage, target: Storage, blob: Blob, pair: LinkedObject) -> None:
    old, new, _ = pair
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
