"""A lock on a folder of a local disk, for the moment in which a file gets its name."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

__all__ = ["LOCK_FILE", "locked"]

# Where a folder itself cannot be locked (Windows, some network disks), a file in it is:
# it begins like temporary files, and stays.
LOCK_FILE = ".precomputed-lock.tmp"
_CANNOT = (
    errno.EBADF, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK,
    errno.EISDIR, errno.EACCES,
)  # fmt: skip


@contextlib.contextmanager
def locked(folder: str) -> Iterator[bool]:
    """Keep out every other thread and process that does the same. Ends with the process.

    Yields
    ------
    bool
        False where nothing can be locked, as on some network disks.

    Raises
    ------
    OSError
        The folder is not there.
    """
    fd = _lock(folder)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            _unlock(fd)


if sys.platform == "win32":

    def _lock(folder: str) -> int | None:
        import msvcrt

        fd = os.open(f"{folder}/{LOCK_FILE}", os.O_RDWR | os.O_CREAT)
        try:
            # Tries for ten seconds, then fails with EDEADLOCK.
            msvcrt.locking(fd, msvcrt.LK_LOCK, 1)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _unlock(fd: int) -> None:
        os.close(fd)

else:

    def _lock(folder: str) -> int | None:
        lock_file = f"{folder}/{LOCK_FILE}"
        for path, flags in ((folder, os.O_RDONLY), (lock_file, os.O_RDWR | os.O_CREAT)):
            try:
                return _flock(path, flags)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
        return None

    def _flock(path: str, flags: int) -> int:
        import fcntl

        fd = os.open(path, flags, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _unlock(fd: int) -> None:
        import fcntl

        # A process that was forked meanwhile has it open too, and closing would not be enough.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)
