"""Layers behind any other fsspec protocol or chain (sftp, zip, ``simplecache::…``, …).

What these hand out may or may not have had its compression undone, so blobs are marked
as uncertain; and they have no place for a ``Content-Encoding``.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar

from precomputed_store.errors import PrecomputedError, StorageError, UnsupportedError
from precomputed_store.storage.base import (
    AsyncBackend,
    Blob,
    Get,
    Page,
    Place,
    Put,
    Stat,
    ThreadedBackend,
)
from precomputed_store.storage.bridge import shared
from precomputed_store.storage.retry import (
    TRANSIENT_STATUSES,
    TransientError,
    retry_async,
    retry_sync,
)
from precomputed_store.storage.update import Update, unguarded, unguarded_async
from precomputed_store.url import split_url

__all__ = ["AsyncGenericBackend", "ThreadedGenericBackend", "generic_backend"]

T = TypeVar("T")

_MISSING = (FileNotFoundError, NotADirectoryError)


def generic_backend(place: Place, filesystem: Any) -> ThreadedBackend | AsyncBackend:
    """The backend for a file system, after whether it has coroutines of its own.

    Wrappers pretend to have coroutines whether what they wrap has them or not.
    """
    from fsspec.asyn import AsyncFileSystem  # type: ignore[import-untyped]

    wraps = "fs" in vars(filesystem)
    if issubclass(type(filesystem), AsyncFileSystem) and filesystem.async_impl and not wraps:
        return AsyncGenericBackend(place, filesystem)
    return ThreadedGenericBackend(place, filesystem)


class _Generic:
    """Paths and the meaning of exceptions, for both kinds."""

    def __init__(self, place: Place, filesystem: Any) -> None:
        self._place = place
        self._fs = filesystem
        address = split_url(place.url)
        self._folder = filesystem._strip_protocol(f"{address.scheme}://{address.path}").rstrip("/")

    def _path(self, key: str) -> str:
        return f"{self._folder}/{key}".rstrip("/") if self._folder else key

    def _url(self, key: str) -> str:
        address = split_url(self._place.url)
        return address.with_path(f"{address.path}/{key}")

    def _blob(self, data: bytes, request: Get) -> Blob:
        url = self._url(request.key)
        request.check_size(len(data), url)
        if request.byte_range is not None:
            asked = request.byte_range[1] - request.byte_range[0]
            if len(data) < asked:
                raise request.past_end(None, url)
            if len(data) > asked:
                raise StorageError(
                    f"{url}: {len(data)} bytes came; expected the {asked} asked for. "
                    "Does this server ignore Range?"
                )
        return Blob(bytes(data), None, certain=False)

    @staticmethod
    def _stat(found: Mapping[str, Any] | None) -> Stat | None:
        if found is None or found.get("type") == "directory":
            return None
        size = found.get("size")
        return Stat(size if isinstance(size, int) else None)

    def _check_encoding(self, request: Put) -> None:
        if request.content_encoding is not None:
            raise UnsupportedError(
                f"{self._url(request.key)}: this storage keeps no headers that would tell readers "
                f"of {request.content_encoding}; write without compression"
            )

    def _meaning(self, error: Exception, key: str) -> Exception:
        from fsspec.exceptions import FSTimeoutError  # type: ignore[import-untyped]

        url = self._url(key)
        if isinstance(error, NotImplementedError):
            return UnsupportedError(f"{url}: not possible with this storage ({error})")
        status = getattr(error, "status", None)
        status = status if isinstance(status, int) else None
        if status in TRANSIENT_STATUSES:
            return TransientError(f"{status} {error}", status=status)
        if isinstance(error, (TimeoutError, ConnectionError, FSTimeoutError, *_web_errors())):
            return TransientError(f"broken connection ({type(error).__name__}: {error})")
        if isinstance(error, PermissionError):
            return StorageError(f"{url}: no permission ({error})")
        return StorageError(f"{url}: {type(error).__name__}: {error}", status=status)

    def _names(self, entries: list[str]) -> list[str]:
        folder = self._path("")
        paths = [entry.rstrip("/") for entry in entries]
        return [path.rpartition("/")[2] for path in paths if path.strip("/") != folder.strip("/")]


def _web_errors() -> tuple[type[Exception], ...]:
    """Exceptions of aiohttp that tell of a broken connection, if it is in use at all."""
    aiohttp = sys.modules.get("aiohttp")
    return () if aiohttp is None else (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)


class AsyncGenericBackend(_Generic, AsyncBackend):
    can_guard = False

    async def get(self, request: Get) -> Blob | None:
        start, stop = request.byte_range or (None, None)

        async def read() -> Blob:
            data = await self._fs._cat_file(self._path(request.key), start=start, end=stop)
            return self._blob(data, request)

        return await self._tried(read, request.key)

    async def put(self, request: Put) -> None:
        self._check_encoding(request)
        data = bytes(request.data)
        if await self._tried(lambda: self._pipe(request.key, data), request.key) is None:
            raise StorageError(f"{self._url(request.key)}: there is no such folder")

    async def _pipe(self, key: str, data: bytes) -> bool:
        await self._fs._pipe_file(self._path(key), data)
        return True

    async def delete(self, key: str) -> None:
        await self._tried(lambda: self._fs._rm_file(self._path(key)), key)

    async def update(self, request: Update) -> None:
        await unguarded_async(self, request, request.get(), self._url(request.key))

    async def exists(self, key: str) -> bool:
        return bool(await self._tried(lambda: self._fs._exists(self._path(key)), key))

    async def stat(self, key: str) -> Stat | None:
        return self._stat(await self._tried(lambda: self._fs._info(self._path(key)), key))

    async def page(self, token: str | None) -> Page:
        async def names() -> list[str]:
            self._fs.invalidate_cache(self._path(""))
            return self._names(await self._fs._ls(self._path(""), detail=False))

        return Page(await self._tried(names, "") or [], None)

    async def _tried(self, call: Callable[[], Awaitable[T]], key: str) -> T | None:
        """Await a call with retries; None if it finds nothing."""

        async def attempt(stall_s: float) -> T | None:
            try:
                return await call()
            except _MISSING:
                return None
            except PrecomputedError:
                raise
            except Exception as error:
                raise self._meaning(error, key) from error

        return await retry_async(attempt, policy=self._place.retry, url=self._url(key))


def _new_locks() -> list[threading.Lock]:
    return [threading.Lock() for _ in range(64)]


class ThreadedGenericBackend(_Generic, ThreadedBackend):
    can_guard = False
    # Most of these wait for a network, so there may be more threads than processors.
    concurrency = 16

    def __init__(self, place: Place, filesystem: Any) -> None:
        super().__init__(place, filesystem)
        # A cache fills the file that others already read: one reader per object at a time,
        # whoever reads, as all of them share the cache.
        self._locks = shared("locks of cached objects", _new_locks)

    def get(self, request: Get) -> Blob | None:
        path = self._path(request.key)
        start, stop = request.byte_range or (None, None)

        def read() -> Blob:
            with self._locks[hash(path) % len(self._locks)]:
                try:
                    data = self._fs.cat_file(path, start=start, end=stop)
                except _MISSING:
                    raise
                except Exception:
                    self._forget_partial(path)
                    raise
            return self._blob(data, request)

        return self._tried(read, request.key)

    def _forget_partial(self, path: str) -> None:
        """Drop what a cache may hold of an object whose download broke off."""
        if hasattr(type(self._fs), "_check_file"):
            with contextlib.suppress(Exception):
                found = self._fs._check_file(path)
                os.unlink(found[-1] if isinstance(found, tuple) else found)

    def put(self, request: Put) -> None:
        self._check_encoding(request)
        path, data = self._path(request.key), bytes(request.data)

        def write() -> bool:
            folder = path.rpartition("/")[0]
            try:
                self._fs.pipe_file(path, data)
            except FileNotFoundError:
                self._fs.makedirs(folder, exist_ok=True)
                self._fs.pipe_file(path, data)
            return True

        if self._tried(write, request.key) is None:
            raise StorageError(f"{self._url(request.key)}: there is no such folder")

    def delete(self, key: str) -> None:
        self._tried(lambda: self._fs.rm_file(self._path(key)), key)

    def update(self, request: Update) -> None:
        unguarded(self, request, request.get(), self._url(request.key))

    def exists(self, key: str) -> bool:
        return bool(self._tried(lambda: self._fs.exists(self._path(key)), key))

    def stat(self, key: str) -> Stat | None:
        return self._stat(self._tried(lambda: self._fs.info(self._path(key)), key))

    def names(self) -> Iterator[str]:
        def listed() -> list[str]:
            self._fs.invalidate_cache(self._path(""))
            return self._names(self._fs.ls(self._path(""), detail=False))

        yield from self._tried(listed, "") or ()

    def _tried(self, call: Callable[[], T], key: str) -> T | None:
        """Make a call with retries; None if it finds nothing."""

        def attempt() -> T | None:
            try:
                return call()
            except _MISSING:
                return None
            except PrecomputedError:
                raise
            except Exception as error:
                raise self._meaning(error, key) from error

        return retry_sync(attempt, policy=self._place.retry, url=self._url(key))
