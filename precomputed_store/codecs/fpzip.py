"""The fpzip encoding: predictive coding of floating-point numbers.

Malformed bytes crash the library whatever its header says, so it runs in a worker.

A stream carries neither its length nor a checksum, and from a damaged one the library decodes
numbers all the same, or what its memory held. But equal numbers have equal streams: so what
was decoded is encoded again, and is certain exactly if that gives the same bytes.

Specification: https://github.com/LLNL/fpzip; CloudVolume's ``chunks.py`` for the axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from precomputed_store.codecs.base import CZYX, Buffer, ChunkArray, Codec, Place, require
from precomputed_store.codecs.checks import (
    check_holds,
    conform,
    integer_parameter,
    library_errors,
)
from precomputed_store.errors import FormatError

__all__ = ["Fpzip", "begins_like_fpzip", "decode_fields", "encode_fields", "max_fields_bytes"]

_HEADER_BYTES: Final = 28
_WORD: Final = 0xFFFFFFFF
_SPARE_NUMBERS: Final = 28
"""Numbers by which the library's output buffer exceeds its input, and does not check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fpzip(Codec):
    """Parameters: the bits of each number to keep; None or 0 for all."""

    name: ClassVar[str] = "fpzip"
    place: ClassVar[Place] = "worker"
    # Noise takes 3.9 times the chunk.
    working_memory: ClassVar[tuple[int, int]] = (5, 0)
    data_types: ClassVar[tuple[str, ...]] = ("float32", "float64")
    content_type: ClassVar[str] = "image/x.fpzip"
    in_neuroglancer: ClassVar[bool] = False

    fpzip_precision: int | None = None

    def __post_init__(self) -> None:
        if self.fpzip_precision is not None:
            precision = integer_parameter(
                "fpzip_precision", self.fpzip_precision, minimum=0, maximum=64
            )
            object.__setattr__(self, "fpzip_precision", precision)

    def decode(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        check_holds(type(self), shape, dtype)
        return decode_fields(data, self.name, shape=shape, dtype=dtype)

    def encode(self, array: ChunkArray) -> bytes:
        check_holds(type(self), array.shape, array.dtype)
        return encode_fields(array, self.name, precision=self.fpzip_precision or 0)

    def max_encoded_bytes(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        return max_fields_bytes(shape, dtype)

    def recognises(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> bool:
        return begins_like_fpzip(data)


def max_fields_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """An upper bound of a stream: all bits of each number, and 16 for the symbol before them."""
    return 64 + math.prod(shape) * (dtype.itemsize + 2)


def begins_like_fpzip(data: Buffer) -> bool:
    """Whether a stream's magic number is there."""
    if len(data) < _HEADER_BYTES:
        return False
    reader = _RangeReader(bytes(data[:_HEADER_BYTES]))
    return bytes(reader.read(8) & 0xFF for _ in range(4)) == b"fpz\0"


def decode_fields(
    data: Buffer, encoding: str, *, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> ChunkArray:
    """Decode a stream of ``(field, z, y, x)`` numbers.

    Raises
    ------
    FormatError
        The stream is of another shape or data type, damaged or truncated.
    """
    precision = _check_header(data, encoding, shape=shape, dtype=dtype).precision
    library = require("fpzip", extra=None, purpose=f"the encoding {encoding}")
    stream, room = bytes(data), max_fields_bytes(shape, dtype)
    with library_errors(encoding):
        fields = library.decompress(stream + bytes(room), order="C")
        if len(stream) <= _capacity(fields):
            is_sound = library.compress(fields, precision=precision, order="C") == stream
        else:
            other = library.decompress(stream + b"\xff" * room, order="C")
            is_sound = other.tobytes() == fields.tobytes()
    if not is_sound:
        raise FormatError(f"{encoding} chunk of {len(data)} bytes is damaged or truncated")
    return conform(fields, shape=shape, dtype=dtype)  # type: ignore[arg-type]


def encode_fields(array: ChunkArray, encoding: str, *, precision: int) -> bytes:
    """Encode ``(field, z, y, x)`` numbers of any strides.

    Raises
    ------
    FormatError
        The numbers do not compress, or not to this precision.
    """
    step = array.itemsize // 4
    if precision and (precision % step or not 2 * step <= precision <= 32 * step):
        raise FormatError(
            f"{encoding} precision {precision} of {array.dtype}; "
            f"expected a multiple of {step} from {2 * step} to {32 * step}"
        )
    library = require("fpzip", extra=None, purpose=f"the encoding {encoding}")
    numbers = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
    if estimated_bytes(numbers, precision) > 0.99 * _capacity(numbers):
        raise FormatError(
            f"{encoding} would enlarge this chunk, which its library cannot do: "
            "use raw with compression, or zfpc"
        )
    with library_errors(encoding):
        encoded: bytes = library.compress(numbers, precision=precision, order="C")
    return encoded


def _capacity(fields: ChunkArray) -> int:
    """How long a stream the library can write, without checking it."""
    return fields.nbytes + _SPARE_NUMBERS * fields.itemsize


def estimated_bytes(fields: ChunkArray, precision: int) -> float:
    """About how long the stream of these fields is; 0 where it is certainly shorter than they.

    The coder predicts each number from its seven predecessors and stores how many bits the
    error has (entropy-coded), then these bits.
    """
    width = 8 * fields.itemsize
    kept = precision or width
    if kept <= width * 3 // 4:
        return 0
    return _HEADER_BYTES + sum(_field_bytes(field, kept) for field in fields)


def _field_bytes(field: ChunkArray, kept: int) -> float:
    with np.errstate(all="ignore"):
        error = field
        for axis in range(3):
            error = np.diff(error, axis=axis, prepend=field.dtype.type(0))
        predicted = _ordered(field - error, kept)
    actual = _ordered(field, kept)
    distance = np.maximum(actual, predicted) - np.minimum(actual, predicted)
    num_bits = np.frexp(distance.astype(np.float64))[1]
    signed = np.where(actual < predicted, -num_bits, num_bits)
    counts = np.bincount(signed.ravel() + 65)
    counts = counts[counts > 0]
    entropy = float(counts @ np.log2(field.size / counts))
    verbatim = int(np.maximum(num_bits - 1, 0).sum())
    learning = 8 * counts.size
    return (entropy + verbatim + learning) / 8


def _ordered(numbers: ChunkArray, kept: int) -> ChunkArray:
    """The highest `kept` bits of unsigned integers in the order of the numbers."""
    unsigned = np.dtype(f"u{numbers.itemsize}")
    width = 8 * numbers.itemsize
    bits = numbers.view(unsigned)
    top = unsigned.type(1 << (width - 1))
    ordered: ChunkArray = np.where(bits & top, ~bits, bits | top)
    ordered >>= unsigned.type(width - kept)
    return ordered


class _Header(NamedTuple):
    magic: bytes
    version: int
    item_bytes: int
    precision: int
    shape: tuple[int, int, int, int]


def _check_header(
    data: Buffer, encoding: str, *, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> _Header:
    if len(data) < _HEADER_BYTES:
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


def _read_header(data: Buffer) -> _Header:
    reader = _RangeReader(bytes(data[:_HEADER_BYTES]))
    magic = bytes(reader.read(8) & 0xFF for _ in range(4))
    version = reader.read(16)
    reader.read(8)  # how the library was compiled; it refuses what it cannot read
    item_bytes = 8 if reader.read(1) else 4
    precision = reader.read(7)
    x, y, z, field = (reader.read(16) | reader.read(16) << 16 for _ in range(4))
    return _Header(magic, version, item_bytes, precision, (field, z, y, x))


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
