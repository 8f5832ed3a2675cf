"""Memory that a decoder process and its client have mapped both.

It has no name to be found by, or only as long as it is mapped: nothing is left over
however the two end.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import tempfile
import weakref
from typing import IO, Any, Final

import numpy as np

from precomputed_store.codecs.base import CZYX, ChunkArray

__all__ = ["SharedMemory", "map_memory", "nameless_file"]

_GRAIN: Final = 1 << 16


def map_memory(handle: int | str, size: int) -> mmap.mmap:
    """Map shared memory by its file descriptor, or on Windows by its name."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size, tagname=f"{handle}-{size}")
    return mmap.mmap(int(handle), size)


class SharedMemory:
    """The client's side: an array's place at the beginning, then bytes; grows as needed."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._mapping: mmap.mmap | None = None
        self.handle: int | str
        if sys.platform == "win32":
            self.handle = f"precomputed-store-{os.getpid()}-{os.urandom(8).hex()}"
            return
        self._file = nameless_file()
        self.handle = self._file.fileno()
        weakref.finalize(self, self._file.close)

    def put(self, data: memoryview, *, behind: int) -> tuple[int, int, int]:
        """Lay bytes down behind the place of an array of `behind` bytes.

        Returns
        -------
        size, offset, length : int
            Of the whole memory, and of the bytes in it.
        """
        offset = -(-behind // 64) * 64
        stop = offset + len(data)
        mapping = self._mapping
        if mapping is None or len(mapping) < stop:
            mapping = self._grow(stop + stop // 4)
        if self._file is None:
            mapping[offset:stop] = data
        else:
            # So the bytes are not in this process a second time: only the other one maps them.
            _write_all(self._file.fileno(), data, offset)
        return len(mapping), offset, len(data)

    def array(self, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        """The array at the beginning, read-only, without a copy."""
        view: ChunkArray = np.ndarray(shape, dtype, self._mapping)
        view.flags.writeable = False
        return view

    def _grow(self, num_bytes: int) -> mmap.mmap:
        size = (num_bytes // _GRAIN + 1) * _GRAIN
        self._mapping = None
        try:
            if self._file is not None:
                _allocate(self._file, size)
            self._mapping = map_memory(self.handle, size)
        except OSError as error:
            raise MemoryError(f"no {size} bytes of shared memory to decode in: {error}") from error
        return self._mapping


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def nameless_file() -> IO[bytes]:
    """A file in memory where the system has such, else one that vanishes when it is closed."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return os.fdopen(os.memfd_create("precomputed-store"), "r+b", buffering=0)
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return tempfile.TemporaryFile(buffering=0, dir=folder)


def _allocate(file: IO[bytes], size: int) -> None:
    """Make a file larger so that its memory is there: touching a hole can kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    end = file.seek(0, os.SEEK_END)
    while end < size:
        end += file.write(bytes(min(size - end, 1 << 20)))
