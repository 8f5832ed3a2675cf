"""Single zfp streams with their header.

zfp reads as many bits as a stream's header asks for, whatever its length. So the header is
checked here, and the library is given as many bytes as it may read.

Specification: zfp documentation, "Header" of the high-level C API.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

from precomputed_store.codecs.base import ChunkArray, require
from precomputed_store.codecs.checks import library_errors
from precomputed_store.errors import FormatError

__all__ = [
    "EXPERT",
    "FIXED_ACCURACY",
    "FIXED_PRECISION",
    "FIXED_RATE",
    "REVERSIBLE",
    "TYPES",
    "decode_stream",
    "encode_stream",
    "max_stream_bytes",
]

TYPES: Final = {"int32": 1, "int64": 2, "float32": 3, "float64": 4}
EXPERT, FIXED_RATE, FIXED_PRECISION, FIXED_ACCURACY, REVERSIBLE = 1, 2, 3, 4, 5

_MAGIC: Final = b"zfp\x05"
_MAX_HEADER_BYTES: Final = 19
_META_BITS: Final = 52
_LONG_MODE: Final = 0xFFF
_LAST_SHORT_RATE: Final = 0x7FF
_BLOCK_OVERHEAD_BITS: Final = 32
"""At least the exponent and precision that precede the numbers of a block."""
_MIN_RATE: Final = 0.25
"""Bits per number; far below it the library's output buffers are too small."""


def encode_stream(array: ChunkArray, encoding: str, *, mode: int, level: float | None) -> bytes:
    """Encode an array of 1 to 4 dimensions, the last varying fastest for zfp."""
    if mode == FIXED_RATE and (level is None or level < _MIN_RATE):
        raise FormatError(f"{encoding} rate {level}; expected at least {_MIN_RATE} bits")
    library = require("imagecodecs", extra="float", purpose=f"the encoding {encoding}")
    with library_errors(encoding):
        encoded = library.zfp_encode(np.ascontiguousarray(array), level, mode=mode)
    return bytes(encoded)


def decode_stream(
    data: memoryview, encoding: str, *, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> ChunkArray:
    """Decode a stream of `shape` (1 to 4 dimensions) numbers.

    Raises
    ------
    FormatError
        The stream is of another shape or data type, or shorter than its header says.
    """
    header = _read_header(data, encoding)
    if header.shape != shape or header.type_code != TYPES[dtype.name]:
        raise FormatError(
            f"{encoding} stream holds {header.shape} numbers of zfp type {header.type_code}; "
            f"expected {shape} of type {TYPES[dtype.name]} ({dtype})"
        )
    num_blocks = _num_blocks(shape)
    if num_blocks * header.min_bits > 8 * len(data):
        raise FormatError(
            f"{encoding} stream is {len(data)} bytes; its {num_blocks} blocks take at least "
            f"{header.min_bits} bits each"
        )
    room = _MAX_HEADER_BYTES + num_blocks * _block_bytes(shape, dtype)
    padded = np.zeros(max(room, len(data)) + 8, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    library = require("imagecodecs", extra="float", purpose=f"the encoding {encoding}")
    with library_errors(encoding):
        decoded: ChunkArray = library.zfp_decode(padded)
    if decoded.shape != shape:
        raise FormatError(f"{encoding} stream decoded to {decoded.shape}; expected {shape}")
    return decoded


def max_stream_bytes(shape: tuple[int, ...], dtype: np.dtype[Any], *, rate: float) -> int:
    """An upper bound of a stream's length; `rate` in bits per number, 0 if it is not fixed."""
    numbers_per_block: int = 4 ** len(shape)
    fixed = math.ceil(rate * numbers_per_block / 8) + 1
    per_block = max(fixed, _block_bytes(shape, dtype))
    return _MAX_HEADER_BYTES + 16 + _num_blocks(shape) * per_block


class _Header(NamedTuple):
    type_code: int
    shape: tuple[int, ...]
    min_bits: int
    """That every block takes, however few it needs."""


def _read_header(data: memoryview, encoding: str) -> _Header:
    if len(data) < 12 or bytes(data[:4]) != _MAGIC:
        raise FormatError(
            f"{encoding} stream of {len(data)} bytes begins with {bytes(data[:4])!r}; "
            f"expected {_MAGIC!r}"
        )
    bits = int.from_bytes(data[4:_MAX_HEADER_BYTES], "little")
    num_dimensions = (bits >> 2 & 3) + 1
    width = 48 // num_dimensions
    sizes = bits >> 4
    shape = tuple(
        (sizes >> width * i & (1 << width) - 1) + 1 for i in reversed(range(num_dimensions))
    )
    mode = bits >> _META_BITS & 0xFFF
    if mode == _LONG_MODE:
        min_bits = (bits >> _META_BITS + 12 & 0x7FFF) + 1
    else:
        min_bits = mode + 1 if mode <= _LAST_SHORT_RATE else 1
    return _Header((bits & 3) + 1, shape, min_bits)


def _num_blocks(shape: tuple[int, ...]) -> int:
    return math.prod(-(-n // 4) for n in shape)


def _block_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """The most that a block takes: each bit plane of each number, and where it begins."""
    numbers: int = 4 ** len(shape)
    return -(-(_BLOCK_OVERHEAD_BITS + numbers * (8 * dtype.itemsize + 1)) // 8)
