"""Layers on a local disk, without fsspec: plain system calls, atomic writes.

An object is looked for under its plain name, then under the suffixed names of
compressed files that CloudVolume and Igneous write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from precomputed_store._native import file_blocks as native
from precomputed_store._native.store_file import Outcome, store_file
from precomputed_store.cached import cached_property
from precomputed_store.codecs.base import ChunkArray
from precomputed_store.codecs.content import SUFFIXES
from precomputed_store.concurrency import num_cores
from precomputed_store.errors import StorageError
from precomputed_store.storage.base import (
    Blob,
    Get,
    Place,
    Put,
    Stat,
    ThreadedBackend,
)
from precomputed_store.storage.blocks import FileBlocks
from precomputed_store.storage.local_files import (
    MISSING,
    changed_lately,
    create,
    failed,
    identity_of,
    logical_name,
    opened,
    our_errors,
    read_blob,
    temporary_name,
)
from precomputed_store.storage.locks import locked
from precomputed_store.storage.pieces import OpenFile, Piece, PutFile, write_pieces
from precomputed_store.storage.update import Update, no_conditions, tries
from precomputed_store.url import local_path

__all__ = ["LocalBackend"]

# Without O_NONBLOCK, opening a pipe would wait for ever; O_NOFOLLOW makes links fail.
_READ = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NONBLOCK", 0)
)  # fmt: skip
_NO_LINKS = _READ | getattr(os, "O_NOFOLLOW", 0)
_MOST_TRUSTED = 100_000
_LOOKS = 8
_REPLACES_OPEN_FILES = os.name != "nt"


_Found: TypeAlias = tuple[int, str, str | None]
"""A file descriptor, the path and the compression of an object."""


class _Old(NamedTuple):
    """An object as it was found, and what tells whether it still is that."""

    content: Blob | OpenFile
    name: str
    identity: tuple[int, ...]


class LocalBackend(ThreadedBackend):
    has_files = hasattr(os, "pread")

    def __init__(self, place: Place) -> None:
        self.has_blocks = native.is_available()
        self._by_one_call = True
        self.concurrency = num_cores()
        self._fsync = place.fsync
        self._folder = local_path(place.url) or ""
        self._root = local_path(place.root) or "/"
        self._trusted: set[str] = set()

    @property
    def write_concurrency(self) -> int:
        # While one thread waits for the disk to have it all, another encodes.
        return 2 * self.concurrency if self._fsync else self.concurrency

    def get(self, request: Get) -> Blob | None:
        found = self._find(self._path(request.key))
        if found is None:
            return None
        fd, path, encoding = found
        try:
            if encoding is not None and request.byte_range is not None:
                raise request.compressed(encoding, path)
            return read_blob(fd, path, encoding, request)
        except StorageError:
            raise
        except OSError as error:
            raise failed(path, error) from error
        finally:
            os.close(fd)

    def read_blocks(self, folder: str, blocks: FileBlocks, out: ChunkArray) -> list[int]:
        beginning = os.fsencode(self._path(f"{folder}/" if folder else ""))
        paths = [beginning + os.fsencode(name) for name in blocks.names]
        done = native.read_blocks(paths, blocks.sizes, blocks.first, blocks.blocks, out)
        return np.flatnonzero(~done).tolist()

    def open_file(self, key: str) -> OpenFile | None:
        """The file of an object, which is to be closed."""
        found = self._find(self._path(key))
        if found is None:
            return None
        try:
            return opened(*found, Get(key=key))
        except BaseException:
            os.close(found[0])
            raise

    def put(self, request: Put) -> None:
        if not (self._by_one_call and self._put_by_one_call(request)):
            self._store(request, [request.data])

    def _put_by_one_call(self, request: Put) -> bool:
        path = self._path(request.key)
        target = _target(path, request.content_encoding)
        outcome = store_file(
            request.data,
            target,
            temporary=f"{os.path.dirname(path)}/{temporary_name()}",
            others=[name for name in _names(path) if name != target],
            sync=self._fsync,
        )
        if outcome is Outcome.NO_LOCK:
            # Nor will it be the next time, and all was written for nothing.
            self._by_one_call = False
        return outcome is Outcome.DONE

    def put_file(self, request: PutFile) -> None:
        self._store(request, [(0, request.file.size)], request.file)

    def _store(
        self, request: Put | PutFile, pieces: Sequence[Piece], old: OpenFile | None = None
    ) -> None:
        path = self._path(request.key)
        target = _target(path, request.content_encoding)
        with self._complete(path, pieces, old) as temporary, locked(os.path.dirname(path)):
            os.replace(temporary, target)
            self._remove(path, keep=target)

    @contextlib.contextmanager
    def _complete(
        self, path: str, pieces: Sequence[Piece], old: OpenFile | None = None
    ) -> Iterator[str]:
        """A file with these bytes beside `path`, which goes if it is not given another name."""
        temporary = f"{os.path.dirname(path)}/{temporary_name()}"
        try:
            self._write(temporary, pieces, old)
            yield temporary
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise failed(path, error) from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def update(self, request: Update) -> None:
        path = self._path(request.key)
        for wait_s in tries(path):
            if wait_s:
                # Sleeping for no time at all would take time.
                time.sleep(wait_s)
            # One look is enough: a wrong one is found out under the lock.
            found = self._find(path, looks=1)
            try:
                old = None if found is None else self._old(found, request)
                if found is not None and not _REPLACES_OPEN_FILES:
                    os.close(found[0])
                    found = None
                if self._change(request, path, old):
                    return
            finally:
                # Open until here: no other file can get its number meanwhile.
                if found is not None:
                    os.close(found[0])

    def _old(self, found: _Found, request: Update) -> _Old:
        fd, name, encoding = found
        look = opened if _in_pieces(request) else read_blob
        try:
            identity = identity_of(fd)
            return _Old(look(fd, name, encoding, request.get()), name, identity)
        except StorageError:
            raise
        except OSError as error:
            raise failed(name, error) from error

    def _change(self, request: Update, path: str, old: _Old | None) -> bool:
        """Store what is to be instead of what was found, if it is still that."""
        new = _new(request, old)
        if new is None and old is None:
            return True
        folder = os.path.dirname(path)
        if new is None:
            # Without the folder, it is not what it was either.
            with contextlib.suppress(*MISSING), our_errors(path), locked(folder) as alone:
                self._check_guard(request, path, alone=alone)
                if self._is_still(path, old):
                    self._remove(path, keep=None)
                    return True
            return False
        target = _target(path, request.content_encoding)
        source = old.content if old is not None and isinstance(old.content, OpenFile) else None
        with self._complete(path, new, source) as temporary, locked(folder) as alone:
            self._check_guard(request, path, alone=alone)
            same = self._is_still(path, old)
            if same:
                os.replace(temporary, target)
                self._remove(path, keep=target)
            return same

    @staticmethod
    def _check_guard(request: Update, path: str, *, alone: bool) -> None:
        if request.guarded and not alone:
            raise no_conditions(path)

    def _is_still(self, path: str, old: _Old | None) -> bool:
        """Whether the file under a name is the one that was read, and as it was then."""
        now = self._find(path, looks=1)
        if now is None or old is None:
            same = now is None and old is None
        else:
            same = now[1] == old.name and identity_of(now[0]) == old.identity
        if now is not None:
            os.close(now[0])
        return same

    def delete(self, key: str) -> None:
        path = self._path(key)
        # Not between another's look at what is stored and its write: that would undo this.
        with contextlib.suppress(*MISSING), our_errors(path), locked(os.path.dirname(path)):
            self._remove(path, keep=None)

    def exists(self, key: str) -> bool:
        found = self._find(self._path(key))
        if found is None:
            return False
        os.close(found[0])
        return True

    def stat(self, key: str) -> Stat | None:
        found = self._find(self._path(key))
        if found is None:
            return None
        fd, _, encoding = found
        status = os.fstat(fd)
        os.close(fd)
        return Stat(status.st_size, encoding) if stat.S_ISREG(status.st_mode) else None

    def names(self) -> Iterator[str]:
        folder = self._folder
        self._trust(folder)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = logical_name(folder, entry.name)
                    if name is not None:
                        yield name
        except MISSING:
            return
        except OSError as error:
            raise failed(folder, error) from error

    def _path(self, key: str) -> str:
        path = f"{self._folder}/{key}"
        folder = path.rpartition("/")[0]
        if folder not in self._trusted:
            self._trust(folder)
        return path

    def _trust(self, folder: str) -> None:
        """Check that no symbolic link leads `folder` out of the root; remember that."""
        self._check_inside(folder)
        if os.path.isdir(folder):
            if len(self._trusted) > _MOST_TRUSTED:
                self._trusted = set()
            self._trusted.add(folder)

    @cached_property
    def _allowed(self) -> tuple[str, ...]:
        # The layer's folder may itself be a link: the caller chose it.
        folders = (os.path.realpath(self._root), os.path.realpath(self._folder))
        return tuple(folder.rstrip(os.sep) + os.sep for folder in folders)

    def _check_inside(self, path: str) -> str:
        real = os.path.realpath(path)
        if (real + os.sep).startswith(self._allowed):
            return real
        raise StorageError(
            f"{path}: a symbolic link leads to {real}, outside of {self._root}, which bounds what "
            "this layer may refer to; open it with a wider root if you trust it"
        )

    def _find(self, path: str, *, looks: int = _LOOKS) -> _Found | None:
        """A file descriptor, the path and the compression of an object, or None."""
        fd = self._open(path)
        if fd is not None:
            return fd, path, None
        # A writer may exchange the plain file for a compressed one, and back, between looks.
        for _ in range(looks):
            for encoding, suffix in SUFFIXES.items():
                if os.access(path + suffix, os.F_OK):
                    fd = self._open(path + suffix)
                    if fd is not None:
                        return fd, path + suffix, encoding
            fd = self._open(path)
            if fd is not None:
                return fd, path, None
            if not changed_lately(path.rpartition("/")[0]):
                return None
        return None

    def _open(self, path: str) -> int | None:
        try:
            return os.open(path, _NO_LINKS)
        except MISSING:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return self._open_link(path)
            raise failed(path, error) from error

    def _open_link(self, path: str) -> int:
        real = self._check_inside(path)
        try:
            return os.open(real, _READ)
        except MISSING as error:
            raise StorageError(
                f"{path}: a symbolic link to {real}, which is not there (annexed, not fetched?)"
            ) from error
        except OSError as error:
            raise failed(path, error) from error

    def _write(self, path: str, pieces: Sequence[Piece], old: OpenFile | None) -> None:
        fd = create(path)
        try:
            write_pieces(fd, pieces, old)
            if self._fsync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _remove(self, path: str, *, keep: str | None) -> None:
        for name in _names(path):
            if name == keep:
                continue
            try:
                os.unlink(name)
            except MISSING:
                pass
            except OSError as error:
                raise failed(name, error) from error


def _names(path: str) -> list[str]:
    """All files that an object may be stored in."""
    return [path, *(path + suffix for suffix in SUFFIXES.values())]


def _target(path: str, content_encoding: str | None) -> str:
    """The file that an object is stored in: its compression is a suffix."""
    return path if content_encoding is None else path + SUFFIXES[content_encoding]


def _in_pieces(request: Update) -> bool:
    return request.rewrite is not None and _REPLACES_OPEN_FILES


def _new(request: Update, old: _Old | None) -> Sequence[Piece] | None:
    """What to store instead of what was found."""
    content = None if old is None else old.content
    if isinstance(content, Blob) or not _in_pieces(request):
        assert not isinstance(content, OpenFile)
        data = request.change(content)
        return None if data is None else [data]
    assert request.rewrite is not None
    return request.rewrite(content)
