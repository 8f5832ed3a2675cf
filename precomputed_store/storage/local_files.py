"""Single files of a local disk: what objects are stored in, and their names until complete."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator

from precomputed_store.codecs.content import SUFFIXES
from precomputed_store.errors import StorageError
from precomputed_store.storage.base import Blob, Get
from precomputed_store.storage.locks import LOCK_FILE
from precomputed_store.storage.pieces import OpenFile

__all__ = [
    "MISSING",
    "changed_lately",
    "create",
    "failed",
    "identity_of",
    "is_temporary",
    "logical_name",
    "opened",
    "our_errors",
    "read_blob",
    "sweep_temporaries",
    "temporary_name",
]

MISSING = (FileNotFoundError, NotADirectoryError)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
# No chunk, shard or metadata name begins with a dot.
_TEMPORARY = (".precomputed-", ".tmp")
_LATELY_S = 0.1


def create(path: str) -> int:
    for _ in range(10):
        try:
            return os.open(path, _CREATE, 0o666)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
    return os.open(path, _CREATE, 0o666)


def read_blob(fd: int, path: str, encoding: str | None, request: Get) -> Blob:
    found = os.fstat(fd)
    data = _read(fd, path, request, found)
    return Blob(data, encoding, True, (found.st_ino, found.st_mtime_ns, found.st_size))


def opened(fd: int, path: str, encoding: str | None, request: Get) -> OpenFile:
    found = os.fstat(fd)
    _check_regular(found, path)
    request.check_size(found.st_size, path)
    return OpenFile(fd=fd, path=path, size=found.st_size, content_encoding=encoding)


def _check_regular(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        raise StorageError(f"{path}: {kind}; expected a file")


def _read(fd: int, path: str, request: Get, found: os.stat_result) -> bytes:
    _check_regular(found, path)
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
    try:
        data = _read_some(fd, size, start)
    except MemoryError as error:
        raise StorageError(f"{path}: {size} bytes do not fit into memory") from error
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


def temporary_name() -> str:
    return f"{_TEMPORARY[0]}{os.getpid()}-{os.urandom(8).hex()}{_TEMPORARY[1]}"


def is_temporary(name: str) -> bool:
    """Whether a name is one that `LocalBackend.put` gives until a file is complete."""
    return name.startswith(_TEMPORARY[0]) and name.endswith(_TEMPORARY[1])


def logical_name(folder: str, name: str) -> str | None:
    """The key that `get` takes for a file; None where another file stands for the same."""
    if is_temporary(name):
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


def changed_lately(folder: str) -> bool:
    """Whether what a folder holds may have changed since a moment ago."""
    try:
        return time.time() - os.stat(folder).st_mtime < _LATELY_S
    except OSError:
        return False


def identity_of(fd: int) -> tuple[int, ...]:
    """A new version is a new file; what other programs change in place shows in size and time."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def our_errors(path: str) -> Iterator[None]:
    """Errors of the operating system become ours; what is missing stays missing."""
    try:
        yield
    except (StorageError, *MISSING):
        raise
    except OSError as error:
        raise failed(path, error) from error


def failed(path: str, error: OSError) -> StorageError:
    reason = error.strerror or str(error)
    return StorageError(f"{path}: {reason}")


def sweep_temporaries(folder: str, *, older_than_s: float = 3600.0) -> int:
    """Remove what killed writers left behind in a folder and below it.

    Parameters
    ----------
    folder : str
    older_than_s : float
        Younger files may still be being written, and stay.

    Returns
    -------
    int
        Number of files removed.
    """
    removed = 0
    oldest = time.time() - older_than_s
    for parent, _, names in os.walk(folder):
        for name in filter(is_temporary, names):
            if name == LOCK_FILE:
                # Whoever holds it would not hold the one that is made in its place.
                continue
            path = os.path.join(parent, name)
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_mtime <= oldest:
                    os.unlink(path)
                    removed += 1
    return removed
