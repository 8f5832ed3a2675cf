"""The fpzip encoding: predictive coding of floating-point numbers.

A stream carries neither its length nor a checksum, but equal numbers have equal streams.

A kernel of our own decodes, if it could be compiled, no further than the last plane that is
wanted. It refuses what an encoder would not have written, so that what it has read to the end
is certain. What depends on how the library was compiled (the bits of sums of two different
NaNs), and other versions than are known, it leaves to the library.

Malformed bytes crash the library whatever its header says, so it runs in a worker. From a
damaged stream it decodes numbers all the same, or what its memory held: so what was decoded is
encoded again, and is certain exactly if that gives the same bytes.

Specification: https://github.com/LLNL/fpzip; CloudVolume's ``chunks.py`` for the axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from precomputed_store._native import fpzip as native
from precomputed_store.codecs._fpzip_stream import (
    HEADER_BYTES,
    begins_like_fpzip,
    checked_header,
)
from precomputed_store.codecs.base import (
    CZYX,
    Buffer,
    ChunkArray,
    Codec,
    Place,
    Ranges,
    require,
)
from precomputed_store.codecs.checks import (
    check_holds,
    conform,
    integer_parameter,
    library_errors,
)
from precomputed_store.errors import FormatError

__all__ = [
    "Fpzip",
    "decode_fields",
    "decode_fields_box",
    "encode_fields",
    "max_fields_bytes",
]

_SPARE_NUMBERS: Final = 28
"""Numbers by which the library's output buffer exceeds its input, and does not check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fpzip(Codec):
    """Parameters: the bits of each number to keep; None or 0 for all."""

    name: ClassVar[str] = "fpzip"
    place: ClassVar[Place] = "worker"
    decodes_boxes: ClassVar[bool] = True
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
        chunk = self.decode_as_box(data, shape=shape, dtype=dtype)
        if chunk is not None:
            return chunk
        return decode_fields(data, self.name, shape=shape, dtype=dtype)

    def decode_box(self, data: Buffer, *, shape: CZYX, box: Ranges, out: ChunkArray) -> bool:
        check_holds(type(self), shape, out.dtype)
        fields_box = (0, shape[0]), *box
        return decode_fields_box(data, self.name, shape=shape, box=fields_box, out=out)

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


def decode_fields(
    data: Buffer, encoding: str, *, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> ChunkArray:
    """Decode a stream of ``(field, z, y, x)`` numbers by the library, and make sure of them.

    Raises
    ------
    FormatError
        The stream is of another shape or data type, damaged or truncated.
    """
    precision = checked_header(data, encoding, shape=shape, dtype=dtype).precision
    library = require("fpzip", extra=None, purpose=f"the encoding {encoding}")
    stream, room = bytes(data), max_fields_bytes(shape, dtype)
    with library_errors(encoding):
        fields: ChunkArray = library.decompress(stream + bytes(room), order="C")
        if len(stream) <= _capacity(fields):
            is_sound = library.compress(fields, precision=precision, order="C") == stream
        else:
            other = library.decompress(stream + b"\xff" * room, order="C")
            is_sound = other.tobytes() == fields.tobytes()
    if not is_sound:
        raise _damaged(data, encoding)
    return conform(fields, shape=shape, dtype=dtype)  # type: ignore[arg-type]


def decode_fields_box(
    data: Buffer,
    encoding: str,
    *,
    shape: tuple[int, ...],
    box: tuple[tuple[int, int], ...],
    out: ChunkArray,
) -> bool:
    """Decode a box of a stream of ``(field, z, y, x)`` numbers, if that is for the kernel.

    Returns whether it was. Its end is checked if the last plane of the stream is in the box.

    Raises
    ------
    FormatError
        The stream is of another shape or data type, damaged or truncated.
    """
    outcome = native.decode_box(data, shape=shape, box=box, out=out)
    if outcome is native.Outcome.DAMAGED:
        checked_header(data, encoding, shape=shape, dtype=out.dtype)
        raise _damaged(data, encoding)
    return outcome is native.Outcome.DONE


def _damaged(data: Buffer, encoding: str) -> FormatError:
    return FormatError(f"{encoding} chunk of {len(data)} bytes is damaged or truncated")


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
    return HEADER_BYTES + sum(_field_bytes(field, kept) for field in fields)


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
