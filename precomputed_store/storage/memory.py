"""Layers in this process's memory (fsspec's ``memory://``), with the local naming rules."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Hashable, Iterator
from typing import Any

from precomputed_store.codecs.content import SUFFIXES
from precomputed_store.concurrency import num_cores
from precomputed_store.errors import StorageError
from precomputed_store.storage.base import Blob, Get, Place, Put, Stat, ThreadedBackend
from precomputed_store.storage.bridge import shared
from precomputed_store.storage.update import Update, tries
from precomputed_store.url import split_url

__all__ = ["MemoryBackend"]


class MemoryBackend(ThreadedBackend):
    def __init__(self, place: Place, filesystem: Any) -> None:
        self.concurrency = num_cores()
        self._url = place.url
        self._fs = filesystem
        self._lock = shared("lock of memory", threading.RLock)
        self._folder = f"/{split_url(place.url).path}".rstrip("/")

    def get(self, request: Get) -> Blob | None:
        # A writer may exchange the plain object for a compressed one between two looks.
        for _ in range(10):
            for encoding, path in self._candidates(request.key):
                with contextlib.suppress(FileNotFoundError):
                    return self._read(path, encoding, request)
            if not self.exists(request.key):
                return None
        raise StorageError(f"{self._url}/{request.key}: it is being replaced all the time")

    def _read(self, path: str, encoding: str | None, request: Get) -> Blob:
        with self._lock:
            # Of one object, which others would exchange in between.
            version = self._version(path)
            data: bytes = self._fs.cat_file(path, *(request.byte_range or ()))
        url = f"{self._url}/{request.key}"
        if request.byte_range is not None:
            if encoding is not None:
                raise request.compressed(encoding, url)
            if len(data) != request.byte_range[1] - request.byte_range[0]:
                raise request.past_end(None, url)
        request.check_size(len(data), url)
        return Blob(data, encoding, version=version)

    def _version(self, path: str) -> Hashable:
        stored = self._fs.store.get(path)
        return None if stored is None else (id(stored), stored.modified)

    def put(self, request: Put) -> None:
        with self._lock:
            self._put(request)

    def _put(self, request: Put) -> None:
        paths = dict(self._candidates(request.key))
        target = paths.pop(request.content_encoding)
        try:
            self._fs.pipe_file(target, bytes(request.data))
        except OSError as error:
            raise StorageError(f"{self._url}/{request.key}: {error!r}") from error
        for other in paths.values():
            self._remove(other)

    def update(self, request: Update) -> None:
        for wait_s in tries(f"{self._url}/{request.key}"):
            if wait_s:
                time.sleep(wait_s)
            # Held here, so that no other object can take its place in memory.
            before = self._stored(request.key)
            new = request.change(self.get(request.get()))
            with self._lock:
                if self._stored(request.key) is not before:
                    continue
                if new is None:
                    self._delete(request.key)
                else:
                    self._put(request.put(new))
                return

    def _stored(self, key: str) -> object:
        """The object under a key, whatever its suffix."""
        found = (self._fs.store.get(path) for _, path in self._candidates(key))
        return next((stored for stored in found if stored is not None), None)

    def delete(self, key: str) -> None:
        with self._lock:
            self._delete(key)

    def _delete(self, key: str) -> None:
        for _, path in self._candidates(key):
            self._remove(path)

    def exists(self, key: str) -> bool:
        return any(self._fs.isfile(path) for _, path in self._candidates(key))

    def stat(self, key: str) -> Stat | None:
        for encoding, path in self._candidates(key):
            with contextlib.suppress(FileNotFoundError):
                found = self._fs.info(path)
                if found["type"] == "file":
                    return Stat(found["size"], encoding)
        return None

    def sizes(self) -> Iterator[tuple[str, int | None]]:
        for name in self.names():
            found = self.stat(name)
            yield name, None if found is None else found.num_bytes

    def names(self) -> Iterator[str]:
        try:
            entries = self._fs.ls(self._folder, detail=False)
        except FileNotFoundError:
            return
        names = {entry.rpartition("/")[2] for entry in entries}
        suffixes = tuple(SUFFIXES.values())
        yield from sorted(
            {name.rpartition(".")[0] if name.endswith(suffixes) else name for name in names}
        )

    def _candidates(self, key: str) -> Iterator[tuple[str | None, str]]:
        path = f"{self._folder}/{key}"
        yield None, path
        for encoding, suffix in SUFFIXES.items():
            yield encoding, path + suffix

    def _remove(self, path: str) -> None:
        # Another thread may remove it at the same moment.
        self._fs.store.pop(path, None)
