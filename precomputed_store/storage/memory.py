"""Layers in this process's memory (fsspec's ``memory://``), with the local naming rules."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

from precomputed_store.codecs.content import SUFFIXES
from precomputed_store.concurrency import num_cores
from precomputed_store.errors import StorageError
from precomputed_store.storage.base import (
    ABSENT,
    Blob,
    Delete,
    Get,
    Place,
    Put,
    ThreadedBackend,
    Version,
    Versioned,
    changed,
)
from precomputed_store.storage.bridge import shared
from precomputed_store.url import split_url

__all__ = ["MemoryBackend"]


_numbers = itertools.count(1)


class MemoryBackend(ThreadedBackend):
    has_conditions = True

    def __init__(self, place: Place, filesystem: Any) -> None:
        self.url = place.url
        # Whoever has layers in memory shares them, hence the lock.
        self._lock = shared("lock of objects in memory", threading.RLock)
        self.concurrency = num_cores()
        self._fs = filesystem
        self._folder = f"/{split_url(place.url).path}".rstrip("/")

    def get(self, request: Get) -> Blob | None:
        # A writer may exchange the plain object for a compressed one between two looks.
        for _ in range(10):
            for encoding, path in self._candidates(request.key):
                with contextlib.suppress(FileNotFoundError):
                    return self._read(path, encoding, request)
            if not self.exists(request.key):
                return None
        raise StorageError(f"{self.url}/{request.key}: it is being replaced all the time")

    def _read(self, path: str, encoding: str | None, request: Get) -> Blob:
        data: bytes = self._fs.cat_file(path, *(request.byte_range or ()))
        url = f"{self.url}/{request.key}"
        if request.byte_range is not None:
            if encoding is not None:
                raise request.compressed(encoding, url)
            if len(data) != request.byte_range[1] - request.byte_range[0]:
                raise request.past_end(None, url)
        request.check_size(len(data), url)
        return Blob(data, encoding)

    def get_versioned(self, request: Get) -> Versioned:
        with self._lock:
            return Versioned(self.get(request), self._version(request.key))

    def put(self, request: Put) -> None:
        paths = dict(self._candidates(request.key))
        target = paths.pop(request.content_encoding)
        with self._lock:
            self._check(request.key, request.expected)
            try:
                self._fs.pipe_file(target, bytes(request.data))
            except OSError as error:
                raise StorageError(f"{self.url}/{request.key}: {error!r}") from error
            for other in paths.values():
                self._remove(other)

    def delete(self, request: Delete) -> None:
        with self._lock:
            self._check(request.key, request.expected)
            for _, path in self._candidates(request.key):
                self._remove(path)

    def _check(self, key: str, expected: Version | None) -> None:
        if expected is not None and self._version(key) != expected:
            raise changed(f"{self.url}/{key}")

    def _version(self, key: str) -> Version:
        """A number that an object is given when it is first looked at."""
        for _, path in self._candidates(key):
            file = self._fs.store.get(path)
            if file is not None:
                if not hasattr(file, "precomputed_version"):
                    file.precomputed_version = next(_numbers)
                return Version(f"{file.precomputed_version}:{file.modified.timestamp()}")
        return ABSENT

    def exists(self, key: str) -> bool:
        return any(self._fs.isfile(path) for _, path in self._candidates(key))

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
