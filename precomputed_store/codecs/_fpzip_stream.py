"""The header of an fpzip stream, which is coded like all that follows.

Specification: https://github.com/LLNL/fpzip.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from precomputed_store.codecs.base import Buffer
from precomputed_store.errors import FormatError

__all__ = ["HEADER_BYTES", "Header", "begins_like_fpzip", "checked_header"]

HEADER_BYTES: Final = 28
"""That a decoder has taken once it has the header."""

_WORD: Final = 0xFFFFFFFF


class Header(NamedTuple):
    magic: bytes
    version: int
    item_bytes: int
    precision: int
    shape: tuple[int, int, int, int]
    """Along field, z, y, x."""


def begins_like_fpzip(data: Buffer) -> bool:
    """Whether a stream's magic number is there."""
    if len(data) < HEADER_BYTES:
        return False
    reader = _RangeReader(bytes(data[:HEADER_BYTES]))
    return bytes(reader.read(8) & 0xFF for _ in range(4)) == b"fpz\0"


def checked_header(
    data: Buffer, encoding: str, *, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Header:
    if len(data) < HEADER_BYTES:
        raise FormatError(f"{encoding} chunk is {len(data)} bytes; its header has 28")
    header = _read_header(data)
    if header.magic != b"fpz\0" or header.version != 0x0110:
        raise FormatError(
            f"{encoding} chunk begins with {header.magic!r}, version {header.version:#x}; "
            "expected b'fpz\\x00', version 0x110"
        )
    if header.shape != shape or header.item_bytes != dtype.itemsize:
        raise FormatError(
            f"{encoding} chunk holds {header.shape} numbers (field, z, y, x) of "
            f"{header.item_bytes} bytes; expected {shape} of {dtype.itemsize}"
        )
    return header


def _read_header(data: Buffer) -> Header:
    reader = _RangeReader(bytes(data[:HEADER_BYTES]))
    magic = bytes(reader.read(8) & 0xFF for _ in range(4))
    version = reader.read(16)
    reader.read(8)  # how the library was compiled; it refuses what it cannot read
    item_bytes = 8 if reader.read(1) else 4
    precision = reader.read(7)
    x, y, z, field = (reader.read(16) | reader.read(16) << 16 for _ in range(4))
    return Header(magic, version, item_bytes, precision, (field, z, y, x))


class _RangeReader:
    """The range decoder of fpzip, as far as plain integers go."""

    def __init__(self, data: bytes) -> None:
        self._code = int.from_bytes(data[:4], "big")
        self._rest = iter(data[4:])
        self._low = 0
        self._range = _WORD

    def read(self, num_bits: int) -> int:
        """The next integer of at most 16 bits."""
        self._range >>= num_bits
        if not self._range:
            return 0
        number = ((self._code - self._low) & _WORD) // self._range
        self._low = (self._low + self._range * number) & _WORD
        while not (self._low ^ (self._low + self._range) & _WORD) >> 24:
            self._shift(1)
            self._range = self._range << 8 & _WORD
        if not self._range >> 16:
            self._shift(2)
            self._range = -self._low & _WORD
        return number

    def _shift(self, num_bytes: int) -> None:
        for _ in range(num_bytes):
            self._code = (self._code << 8 | next(self._rest, 0)) & _WORD
            self._low = self._low << 8 & _WORD
