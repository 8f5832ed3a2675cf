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
from collections.abc import Iterator
from functools import cached_property

from precomputed_store.codecs.base import Buffer
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
from precomputed_store.storage.locks import LOCK_NAME, Lock
from precomputed_store.storage.temporaries import is_temporary, temporary_name
from precomputed_store.url import local_path

__all__ = ["LocalBackend", "logical_name"]

_MISSING = (FileNotFoundError, NotADirectoryError)
# Without O_NONBLOCK, opening a pipe would wait for ever; O_NOFOLLOW makes links fail.
_READ = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NONBLOCK", 0)
)  # fmt: skip
_NO_LINKS = _READ | getattr(os, "O_NOFOLLOW", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_HAS_STAMPS = os.utime in os.supports_fd
_MOST_TRUSTED = 100_000
_LOOKS = 8
_LATELY_S = 0.1


class LocalBackend(ThreadedBackend):
    has_conditions = True

    def __init__(self, place: Place) -> None:
        self.url = place.url
        self.concurrency = num_cores()
        self._fsync = place.fsync
        self._folder = local_path(place.url) or ""
        self._root = local_path(place.root) or "/"
        self._trusted: set[str] = set()

    def get(self, request: Get) -> Blob | None:
        found = self._get(request)
        return None if found is None else found[0]

    def get_versioned(self, request: Get) -> Versioned:
        found = self._get(request)
        return Versioned(None, ABSENT) if found is None else Versioned(found[0], _version(*found))

    def _get(self, request: Get) -> tuple[Blob, os.stat_result] | None:
        found = self._find(self._path(request.key))
        if found is None:
            return None
        fd, path, encoding = found
        try:
            if encoding is not None and request.byte_range is not None:
                raise request.compressed(encoding, path)
            status = os.fstat(fd)
            return Blob(_read(fd, status, path, request), encoding), status
        except StorageError:
            raise
        except OSError as error:
            raise _failed(path, error) from error
        finally:
            os.close(fd)

    def put(self, request: Put) -> None:
        path = self._path(request.key)
        target = path
        if request.content_encoding is not None:
            target += SUFFIXES[request.content_encoding]
        temporary = f"{os.path.dirname(path)}/{temporary_name()}"
        lock = Lock(path)
        try:
            if request.expected is not None:
                lock.announce()
            self._write(temporary, request.data)
            with self._condition(lock, path, request.expected):
                os.replace(temporary, target)
                self._remove(path, keep=target)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            if isinstance(error, OSError) and not isinstance(error, StorageError):
                raise _failed(target, error) from error
            raise

    def delete(self, request: Delete) -> None:
        path = self._path(request.key)
        try:
            with self._condition(Lock(path), path, request.expected):
                self._remove(path, keep=None)
        except _MISSING:
            # There is not even a folder with a lock in it.
            if request.expected not in (None, ABSENT):
                raise changed(path) from None
        except StorageError:
            raise
        except OSError as error:
            raise _failed(path, error) from error

    @contextlib.contextmanager
    def _condition(self, lock: Lock, path: str, expected: Version | None) -> Iterator[None]:
        """Exclude other writers of an object, if it is at the version that is expected."""
        if expected is None:
            # Such a write must not fall between another's look at the version and its own.
            with lock.held_if_in_use():
                yield
            return
        with lock.held():
            found = self._find(path, looks=1)
            version = ABSENT
            if found is not None:
                fd, _, encoding = found
                version = _version(Blob(b"", encoding), os.fstat(fd))
                os.close(fd)
            if version != expected:
                raise changed(path)
            yield

    def exists(self, key: str) -> bool:
        found = self._find(self._path(key))
        if found is None:
            return False
        os.close(found[0])
        return True

    def names(self) -> Iterator[str]:
        folder = self._folder
        self._trust(folder)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = logical_name(folder, entry.name)
                    if name is not None:
                        yield name
        except _MISSING:
            return
        except OSError as error:
            raise _failed(folder, error) from error

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

    def _find(self, path: str, *, looks: int = _LOOKS) -> tuple[int, str, str | None] | None:
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
            if not _changed_lately(path.rpartition("/")[0]):
                return None
        return None

    def _open(self, path: str) -> int | None:
        try:
            return os.open(path, _NO_LINKS)
        except _MISSING:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return self._open_link(path)
            raise _failed(path, error) from error

    def _open_link(self, path: str) -> int:
        real = self._check_inside(path)
        try:
            return os.open(real, _READ)
        except _MISSING as error:
            raise StorageError(
                f"{path}: a symbolic link to {real}, which is not there (annexed, not fetched?)"
            ) from error
        except OSError as error:
            raise _failed(path, error) from error

    def _write(self, path: str, data: Buffer) -> None:
        fd = _create(path)
        try:
            rest = memoryview(data).cast("B")
            while rest:
                rest = rest[os.write(fd, rest) :]
            if _HAS_STAMPS:
                # Clocks of file systems tick too slowly to tell versions apart.
                now = time.time_ns()
                os.utime(fd, ns=(now, now))
            if self._fsync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _remove(self, path: str, *, keep: str | None) -> None:
        for name in (path, *(path + suffix for suffix in SUFFIXES.values())):
            if name == keep:
                continue
            try:
                os.unlink(name)
            except _MISSING:
                pass
            except OSError as error:
                raise _failed(name, error) from error


def _create(path: str) -> int:
    for _ in range(10):
        try:
            return os.open(path, _CREATE, 0o666)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
    return os.open(path, _CREATE, 0o666)


def _version(blob: Blob, status: os.stat_result) -> Version:
    """The version of a file.

    A new version is a new file, made while the old one is still there, so its inode differs
    from that of the version before, and its time stamp from that of any other version. What
    other programs change in place shows in size and times.
    """
    suffix = SUFFIXES[blob.content_encoding] if blob.content_encoding else ""
    identity = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return Version(":".join((suffix, *map(str, identity))))


def _read(fd: int, found: os.stat_result, path: str, request: Get) -> bytes:
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        raise StorageError(f"{path}: {kind}; expected a file")
    if request.byte_range is None:
        start, size = 0, found.st_size
    else:
        start, stop = request.byte_range
        size = stop - start
        if stop > found.st_size:
            raise request.past_end(found.st_size, path)
        if not hasattr(os, "pread"):
            os.lseek(fd, start, os.SEEK_SET)
    request.check_size(size, path)
    data = _read_some(fd, size, start)
    while len(data) < size:
        # Linux hands out at most 2 GiB at a time.
        more = _read_some(fd, size - len(data), start + len(data))
        if not more:
            raise StorageError(f"{path}: it shrank from {size} to {len(data)} bytes while read")
        data += more
    return data


def _read_some(fd: int, size: int, start: int) -> bytes:
    if start and hasattr(os, "pread"):
        return os.pread(fd, size, start)
    return os.read(fd, size)


def logical_name(folder: str, name: str) -> str | None:
    """The key that `get` takes for a file; None where another file stands for the same."""
    if name == LOCK_NAME or is_temporary(name):
        return None
    stem, dot, suffix = name.rpartition(".")
    if not stem or dot + suffix not in SUFFIXES.values():
        return name
    for better in ("", *SUFFIXES.values()):
        if better == dot + suffix:
            break
        if os.path.exists(f"{folder}/{stem}{better}"):
            return None
    return stem


def _changed_lately(folder: str) -> bool:
    """Whether what a folder holds may have changed since a moment ago."""
    try:
        return time.time() - os.stat(folder).st_mtime < _LATELY_S
    except OSError:
        return False


def _failed(path: str, error: OSError) -> StorageError:
    reason = error.strerror or str(error)
    return StorageError(f"{path}: {reason}")
