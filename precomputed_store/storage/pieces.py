"""Objects that are changed in part without being held: read and stored in pieces.

What stays as it is goes from the old object to the new one by its place in the old. Where a
storage cannot do that, `held` makes an ordinary change of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from precomputed_store.codecs.base import Buffer
from precomputed_store.errors import StorageError
from precomputed_store.storage.base import Blob, ByteRange, Put

__all__ = [
    "HeldObject",
    "OpenFile",
    "Piece",
    "PutFile",
    "Rewrite",
    "Stored",
    "held",
    "write_pieces",
]

Piece: TypeAlias = Buffer | ByteRange
"""Bytes, or the place of bytes in the object that is replaced."""

_COPIED_AT_ONCE = 1 << 20
# File systems that differ, and those that cannot: then the bytes are read and written.
_CANNOT_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


class Stored(Protocol):
    """An object as it is stored, read where it is needed."""

    @property
    def content_encoding(self) -> str | None: ...

    @property
    def size(self) -> int: ...

    def read(self, start: int, stop: int) -> Buffer:
        """Bytes `start` to `stop`, which lie in the object."""


Rewrite: TypeAlias = Callable[[Stored | None], Sequence[Piece] | None]
"""What to store instead of what is stored (None: nothing). May be called several times."""


@dataclass(frozen=True, slots=True)
class HeldObject:
    """An object that has been read as a whole."""

    blob: Blob

    @property
    def content_encoding(self) -> str | None:
        return self.blob.content_encoding

    @property
    def size(self) -> int:
        return len(self.blob.data)

    def read(self, start: int, stop: int) -> Buffer:
        return memoryview(self.blob.data)[start:stop]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """A file that is open. Needs `os.pread`."""

    fd: int
    path: str
    size: int
    content_encoding: str | None

    def read(self, start: int, stop: int) -> bytes:
        parts = []
        while start < stop:
            part = os.pread(self.fd, stop - start, start)
            if not part:
                raise StorageError(f"{self.path}: it shrank from {self.size} bytes while read")
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PutFile:
    """One write of a whole object out of a file; otherwise as `Put`."""

    key: str
    file: OpenFile
    content_type: str
    content_encoding: str | None = None
    cache_control: str | None = None

    def put(self, data: Buffer) -> Put:
        return Put(
            key=self.key,
            data=data,
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            cache_control=self.cache_control,
        )

    def held(self) -> Put:
        """The same write of bytes that are read at once."""
        return self.put(self.file.read(0, self.file.size))

    def md5(self) -> bytes:
        """The digest of the bytes, which are read for that."""
        digest = hashlib.md5(usedforsecurity=False)
        for start in range(0, self.file.size, _COPIED_AT_ONCE):
            digest.update(self.file.read(start, min(self.file.size, start + _COPIED_AT_ONCE)))
        return digest.digest()


def held(rewrite: Rewrite) -> Callable[[Blob | None], Buffer | None]:
    """The same change for a storage that reads and stores whole objects."""

    def change(blob: Blob | None) -> Buffer | None:
        stored = None if blob is None else HeldObject(blob)
        pieces = rewrite(stored)
        if pieces is None:
            return None
        return b"".join(_bytes_of(piece, stored) for piece in pieces)

    return change


def _bytes_of(piece: Piece, stored: Stored | None) -> Buffer:
    if not isinstance(piece, tuple):
        return piece
    assert stored is not None
    return stored.read(*piece)


def write_pieces(fd: int, pieces: Sequence[Piece], old: OpenFile | None) -> None:
    """Write pieces to a new file, those of an old file without holding them."""
    for piece in pieces:
        if not isinstance(piece, tuple):
            _write(fd, piece)
            continue
        assert old is not None
        start, stop = piece
        start += _copied(old.fd, fd, start, stop)
        while start < stop:
            part = old.read(start, min(stop, start + _COPIED_AT_ONCE))
            _write(fd, part)
            start += len(part)


def _copied(source: int, target: int, start: int, stop: int) -> int:
    """How many of the bytes the system has copied by itself, from the first on."""
    done = 0
    if hasattr(os, "copy_file_range"):
        try:
            while n := os.copy_file_range(source, target, stop - start - done, start + done):
                done += n
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
    return done


def _write(fd: int, data: Buffer) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(fd, rest) :]
