"""The jxl encoding: JPEG XL.

Specification: volume.rst, "jxl"; ISO/IEC 18181-1 (codestream) and 18181-2 (container).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from precomputed_store.codecs import _image
from precomputed_store.codecs.base import CZYX, Buffer, ChunkArray, Codec, require
from precomputed_store.codecs.checks import library_errors
from precomputed_store.errors import FormatError

__all__ = ["Jxl", "check_jxl"]

_DEFAULT_QUALITY = 85
_DEFAULT_EFFORT = 5
_DEFAULT_DECODING_SPEED = 0

_MAX_SIDE = 1 << 18
"""Of the format's level 5, which every decoder reads."""

_CODESTREAM = b"\xff\x0a"
_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_BOX = struct.Struct(">I4s")
_HEADER_BYTES = 64
"""More than the fields of a header that are read here can take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jxl(Codec):
    """Parameters: ``jxl_quality`` (0 to 100, default 85, 100 is lossless), ``jxl_effort``
    (1 to 10, default 5) and ``jxl_decodingspeed`` (0 to 4, default 0).
    """

    name: ClassVar[str] = "jxl"
    data_types: ClassVar[tuple[str, ...]] = ("uint8",)
    channels: ClassVar[tuple[int, ...] | None] = (1, 3, 4)
    content_type: ClassVar[str] = "image/jxl"

    jxl_quality: int | None = None
    jxl_effort: int | None = None
    jxl_decodingspeed: int | None = None

    def __post_init__(self) -> None:
        limits = {"jxl_quality": (0, 100), "jxl_effort": (1, 10), "jxl_decodingspeed": (0, 4)}
        _image.set_integers(self, limits)

    @property
    def lossless(self) -> bool:
        return self.jxl_quality is not None and self.jxl_quality >= 100

    def neuroglancer_misreads(self, num_channels: int, dtype: np.dtype[Any]) -> str | None:
        if num_channels > 1:
            return "Neuroglancer scrambles or fails to read jxl chunks of several channels"
        return None

    def decode(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        check_jxl(data, shape=shape, dtype=dtype)
        imagecodecs = require("imagecodecs", extra="images", purpose="decoding jxl")
        with library_errors("jxl"):
            # The first frame only, and no threads besides the engine's own.
            image = imagecodecs.jpegxl_decode(data, 0, numthreads=1)
        return _image.to_chunk(Jxl, image, shape=shape, dtype=dtype)

    def encode(self, array: ChunkArray) -> bytes:
        image = _image.to_image(Jxl, array, max_side=_MAX_SIDE)
        components = image.shape[2]
        imagecodecs = require("imagecodecs", extra="images", purpose="encoding jxl")
        with library_errors("jxl"):
            data: bytes = imagecodecs.jpegxl_encode(
                image[..., 0] if components == 1 else image,
                _default(self.jxl_quality, _DEFAULT_QUALITY),
                lossless=self.lossless,
                effort=_default(self.jxl_effort, _DEFAULT_EFFORT),
                decodingspeed=_default(self.jxl_decodingspeed, _DEFAULT_DECODING_SPEED),
                photometric="GRAY" if components == 1 else "RGB",
                numthreads=1,
            )
        return data

    def max_encoded_bytes(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        # Lossless noise takes a little more than itself; the rest is for metadata.
        return 2 * math.prod(shape) + (1 << 20)

    def recognises(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> bool:
        return bytes(data[:12]).startswith((_CODESTREAM, _CONTAINER))


def check_jxl(data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> None:
    """Raise FormatError unless this begins like a jxl chunk of this shape and data type."""
    _image.check_header(Jxl, _read_header(data, channels=shape[0]), shape=shape, dtype=dtype)


def _default(value: int | None, default: int) -> int:
    return default if value is None else value


def _read_header(data: Buffer, *, channels: int) -> _image.ImageHeader:
    """Size, depth and number of extra channels; the rest the decoder may find out.

    Specification: ISO/IEC 18181-1, "SizeHeader" and "ImageMetadata".
    """
    codestream = _codestream(data)
    if not codestream.startswith(_CODESTREAM):
        raise FormatError("jxl image has no codestream, or one that does not begin like it")
    bits = _Bits(codestream[len(_CODESTREAM) :])
    width, height = _read_size(bits)
    sample_bits, extra_channels = 8, 0
    if not bits.read(1):  # not all default
        if bits.read(1):  # extra fields
            bits.read(3)  # orientation
            if bits.read(1):
                _read_size(bits)  # intrinsic size
            if bits.read(2):
                raise FormatError("jxl image has a preview or is an animation")
        if bits.read(1):
            raise FormatError("jxl image has floating-point samples")
        sample_bits = bits.choose((0, 8), (0, 10), (0, 12), (6, 1))
        bits.read(1)  # 16-bit buffers suffice
        extra_channels = bits.choose((0, 0), (0, 1), (4, 2), (12, 1))
    if extra_channels != (channels == 4):
        raise FormatError(f"jxl image has {extra_channels} channels besides its colours")
    return _image.ImageHeader(width, height, None, sample_bits)


_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _read_size(bits: _Bits) -> tuple[int, int]:
    def side() -> int:
        if small:
            return 8 * (bits.read(5) + 1)
        return bits.choose((9, 1), (13, 1), (18, 1), (30, 1))

    small = bits.read(1)
    height = side()
    ratio = bits.read(3)
    if ratio == 0:
        return side(), height
    numerator, denominator = _RATIOS[ratio - 1]
    return height * numerator // denominator, height


class _Bits:
    """Reads little-endian bit fields."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise FormatError("jxl image is truncated in its header")
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        return value

    def choose(self, *fields: tuple[int, int]) -> int:
        """One of four (number of bits, least value), as the next two bits say."""
        count, least = fields[self.read(2)]
        return least + self.read(count)


def _codestream(data: Buffer) -> bytes:
    """The beginning of the codestream, bare or in its container.

    Specification: ISO/IEC 18181-2, "jxlc" and "jxlp" boxes.
    """
    if bytes(data[:2]) == _CODESTREAM:
        return bytes(data[:_HEADER_BYTES])
    if bytes(data[:12]) != _CONTAINER:
        raise FormatError("not a jxl image")
    beginning = b""
    for kind, content in _boxes(memoryview(data)):
        if kind == b"jxlc":
            return bytes(content[:_HEADER_BYTES])
        if kind == b"jxlp":  # in parts, each with its number in front
            beginning += content[4 : 4 + _HEADER_BYTES]
        if len(beginning) >= _HEADER_BYTES:
            break
    return beginning


def _boxes(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Type and content of each box, the last one cut short where the file is."""
    position = 0
    while position + 16 <= len(view):
        size, kind = _BOX.unpack_from(view, position)
        start = position + 8
        if size == 1:
            size = int.from_bytes(view[start : start + 8], "big")
            start += 8
        if size == 0:  # up to the end of the file
            size = len(view) - position
        if size < start - position:
            raise FormatError("jxl image has a box shorter than its own header")
        yield kind, view[start : position + size]
        position += size
