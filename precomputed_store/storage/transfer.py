"""Large objects from one storage to another: in pieces, and not held in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Hashable, Iterator

from precomputed_store.codecs.base import Buffer
from precomputed_store.concurrency import bounded, run_threaded
from precomputed_store.errors import StorageError
from precomputed_store.storage.base import Blob, ByteRange
from precomputed_store.storage.bridge import run_sync
from precomputed_store.storage.pieces import HeldObject, OpenFile, Stored
from precomputed_store.storage.storage import Storage
from precomputed_store.url import local_path

__all__ = ["HELD_BYTES", "opened", "put_opened"]

HELD_BYTES = 32 << 20
"""Objects up to this size are held in memory: one request is faster than several."""

_PIECE_BYTES = 16 << 20
_AT_ONCE = 4
_MOST_LOOKS = 3


@contextlib.contextmanager
def opened(storage: Storage, key: str, *, near: Storage | None = None) -> Iterator[Stored | None]:
    """An object as it is stored, to be read in pieces of one version; None: there is none.

    What is large and not on a local disk is fetched into a temporary file.

    Parameters
    ----------
    storage : Storage
    key : str
    near : Storage, optional
        Where it is going to: if that is a local disk, the temporary file lies there.

    Raises
    ------
    StorageError
        It cannot be read, or was exchanged for another again and again.
    """
    if storage.has_files:
        with _local_file(storage, key) as file:
            yield file
        return
    found = storage.stat(key)
    size = 0 if found is None or found.num_bytes is None else found.num_bytes
    if found is None or size <= HELD_BYTES or found.content_encoding or not _HAS_PLACES:
        blob = None if found is None else storage.get(key)
        yield None if blob is None else HeldObject(blob)
        return
    with tempfile.TemporaryFile(dir=_folder(near)) as spool:
        _fetch(storage, key, size, spool.fileno())
        yield OpenFile(
            fd=spool.fileno(), path=f"{storage.url}/{key}", size=size, content_encoding=None
        )


def put_opened(
    storage: Storage,
    key: str,
    stored: Stored,
    *,
    content_type: str,
    cache_control: str | None = None,
) -> None:
    """Write an object as `Storage.put` does, with the bytes of one that is `opened`."""
    if isinstance(stored, OpenFile) and (storage.has_files or stored.size > HELD_BYTES):
        storage.put_file(key, stored, content_type=content_type, cache_control=cache_control)
    else:
        data = stored.read(0, stored.size)
        storage.put(key, data, content_type=content_type, cache_control=cache_control)


_HAS_PLACES = hasattr(os, "pread") and hasattr(os, "pwrite")


@contextlib.contextmanager
def _local_file(storage: Storage, key: str) -> Iterator[OpenFile | None]:
    file = storage.open_file(key)
    try:
        yield file
    finally:
        if file is not None:
            os.close(file.fd)


def _folder(near: Storage | None) -> str | None:
    """A folder on the disk that is being written to: others may be of memory."""
    folder = None if near is None else local_path(near.url)
    return folder if folder is not None and os.path.isdir(folder) else None


def _fetch(storage: Storage, key: str, size: int, fd: int) -> None:
    """Bring an object into a file, several pieces at a time, all of one version."""
    places = [(start, min(size, start + _PIECE_BYTES)) for start in range(0, size, _PIECE_BYTES)]
    for _ in range(_MOST_LOOKS):
        if len(_fetch_pieces(storage, key, places, fd)) == 1:
            return
    raise StorageError(
        f"{storage.url}/{key}: it was exchanged for another each of the {_MOST_LOOKS} times it "
        "was read"
    )


def _fetch_pieces(storage: Storage, key: str, places: list[ByteRange], fd: int) -> set[Hashable]:
    """Write pieces of an object to their places in a file; the versions that they are of."""
    versions: set[Hashable] = set()

    def keep(place: ByteRange, blob: Blob | None) -> None:
        if blob is None:
            raise StorageError(f"{storage.url}/{key}: it was removed while it was read")
        versions.add(blob.version)
        _write_at(fd, blob.data, place[0])

    async def get(place: ByteRange) -> None:
        await asyncio.to_thread(keep, place, await storage.get_async(key, place))

    async def every() -> None:
        await bounded(_AT_ONCE)(places, get)

    if storage.threaded:
        run_threaded(lambda place: keep(place, storage.get(key, place)), places, workers=_AT_ONCE)
    else:
        run_sync(every())
    return versions


def _write_at(fd: int, data: Buffer, start: int) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        done = os.pwrite(fd, rest, start)
        rest, start = rest[done:], start + done
