"""Locks between the writers of a local folder: threads, processes, hosts that share a disk.

One empty file per folder, ``.precomputed-lock``, locked by the operating system at one byte
per object, for the instant in which a version is checked and a file gets its name. The
lock ends with its process, however that ends: the file that stays behind means nothing.

Each holder opens the file itself, so threads exclude each other as processes do. On Linux
these are "open file description" locks, which NFS and SMB share with other hosts;
elsewhere ``flock`` (of the whole file), and on Windows ``msvcrt.locking``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import sys
import time
import zlib
from collections.abc import Iterator

from precomputed_store.errors import StorageError, UnsupportedError

__all__ = ["LOCK_NAME", "Lock", "remove_lock_file"]

LOCK_NAME = ".precomputed-lock"
_PATIENCE_S = 60.0
_LONGEST_WAIT_S = 0.005
_OPEN = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
_BUSY = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF})
_MISSING = (FileNotFoundError, NotADirectoryError)

# Descriptors that a forked child must give back: they would keep a dead parent's lock.
_held: set[int] = set()


def _give_back() -> None:
    for fd in _held:
        with contextlib.suppress(OSError):
            os.close(fd)
    _held.clear()


if sys.platform == "win32":  # pragma: no cover
    # Written after the documentation; not tested on Windows.
    import msvcrt

    def _take(fd: int, place: int | None) -> None:
        os.lseek(fd, place or 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

    def _release(fd: int, place: int | None) -> None:
        os.lseek(fd, place or 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl
    import struct

    os.register_at_fork(after_in_child=_give_back)

    def _range(kind: int, place: int | None) -> bytes:
        # struct flock: type, whence, start, length (0: to the end), process
        start, length = (0, 0) if place is None else (place, 1)
        return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)

    def _take(fd: int, place: int | None) -> None:
        if sys.platform == "linux":
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _range(fcntl.F_WRLCK, place))
        else:  # pragma: no cover
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _release(fd: int, place: int | None) -> None:
        if sys.platform == "linux":
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _range(fcntl.F_UNLCK, place))
        else:  # pragma: no cover
            fcntl.flock(fd, fcntl.LOCK_UN)


class Lock:
    """The lock of one object in a folder.

    Parameters
    ----------
    path : str
        The object's file, under its plain name.
    """

    def __init__(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        self.file = f"{folder}/{LOCK_NAME}"
        # Objects of equal hash wait for each other, which does no harm.
        self._place = zlib.crc32(name.encode("utf-8", "surrogateescape")) & 0x7FFF_FFFF

    def announce(self) -> None:
        """Make the lock's file, so that whoever writes into the folder from now on locks too.

        Raises
        ------
        OSError
        """
        # Into a folder that is not there nobody else writes either.
        with contextlib.suppress(*_MISSING):
            os.close(_open(self.file, os.O_CREAT))

    @contextlib.contextmanager
    def held(self, *, create: bool = True) -> Iterator[None]:
        """Hold the lock while the block runs, on a file that is made if need be.

        Raises
        ------
        UnsupportedError
            The file system has no locks.
        StorageError
            Another process has held it for a minute, as one that was stopped does.
        OSError
        """
        fd = self._acquire(os.O_CREAT if create else 0)
        try:
            yield
        finally:
            _close(fd, self._place)

    @contextlib.contextmanager
    def held_if_in_use(self) -> Iterator[None]:
        """Hold the lock if anybody uses locks in this folder."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(UnsupportedError, *_MISSING):
                stack.enter_context(self.held(create=False))
            yield

    def _acquire(self, create: int) -> int:
        until = time.monotonic() + _PATIENCE_S
        wait_s = 0.00005
        while True:
            fd = self._try(create)
            if fd is not None:
                return fd
            if time.monotonic() > until:
                raise StorageError(
                    f"{self.file}: another process has held this lock for {_PATIENCE_S:g} s; "
                    "is one stopped (ctrl-Z, a debugger)?"
                )
            time.sleep(random.uniform(0, wait_s))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _try(self, create: int) -> int | None:
        """The descriptor that holds the lock, or None if somebody else does."""
        fd = _open(self.file, create)
        _held.add(fd)
        try:
            _take(fd, self._place)
            if _is_current(fd, self.file):
                return fd
        except OSError as error:
            _forget(fd)
            if error.errno in _BUSY:
                return None
            if error.errno in _NO_LOCKS:
                raise _unsupported(self.file, error) from error
            raise
        except BaseException:
            _forget(fd)
            raise
        # It was removed between opening and locking: what counts is the file of that name.
        _forget(fd)
        return None


def remove_lock_file(path: str) -> bool:
    """Remove the lock file of a folder unless somebody uses it; whether it was removed."""
    with contextlib.suppress(OSError):
        fd = _open(path)
        _held.add(fd)
        try:
            # All of it: whoever waits for a part finds the file gone, and makes another.
            _take(fd, None)
            if _is_current(fd, path):
                os.unlink(path)
                return True
        finally:
            _forget(fd)
    return False


def _open(path: str, create: int = 0) -> int:
    try:
        return os.open(path, _OPEN | create, 0o666)
    except PermissionError:
        # Another user's; for reading it may be locked too, but on NFS.
        return os.open(path, _OPEN & ~os.O_RDWR | os.O_RDONLY)


def _is_current(fd: int, path: str) -> bool:
    try:
        named = os.stat(path, follow_symlinks=False)
    except _MISSING:
        return False
    return os.path.samestat(named, os.fstat(fd))


def _close(fd: int, place: int | None) -> None:
    # A forked child may hold a copy of the descriptor, so closing alone releases nothing.
    try:
        _release(fd, place)
    finally:
        _forget(fd)


def _forget(fd: int) -> None:
    _held.discard(fd)
    with contextlib.suppress(OSError):
        os.close(fd)


def _unsupported(path: str, error: OSError) -> UnsupportedError:
    return UnsupportedError(
        f"{path}: this file system has no locks ({error.strerror}), so two writers of one "
        "object cannot be kept apart. Mount it with locks, write whole chunks, or, if nobody else "
        'writes there, say so: unaligned="unsafe-read-modify-write" for volumes'
    )
