"""The jpeg encoding.

Specification: volume.rst, "jpeg".
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from precomputed_store.codecs import _image
from precomputed_store.codecs.base import CZYX, Buffer, ChunkArray, Codec, require
from precomputed_store.codecs.checks import library_errors
from precomputed_store.errors import FormatError

__all__ = ["Jpeg", "check_jpeg"]

_DEFAULT_QUALITY = 85
"""CloudVolume's; TensorStore's is 75."""

_MAX_SIDE = 65500
"""What libjpeg takes; the format's own limit is 65535."""

_MAX_SCANS = 200
"""Each costs a pass over the image for a dozen bytes of file. Encoders write up to a few dozen."""

_START_OF_SCAN = 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SEGMENT = struct.Struct(">BBH")
_FRAME = struct.Struct(">BHHB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Jpeg(Codec):
    """Parameters: ``jpeg_quality``, 0 to 100, default 85."""

    name: ClassVar[str] = "jpeg"
    data_types: ClassVar[tuple[str, ...]] = ("uint8",)
    channels: ClassVar[tuple[int, ...] | None] = (1, 3)
    content_type: ClassVar[str] = "image/jpeg"

    jpeg_quality: int | None = None

    def __post_init__(self) -> None:
        _image.set_integers(self, {"jpeg_quality": (0, 100)})

    @property
    def lossless(self) -> bool:
        return False

    def decode(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        check_jpeg(data, shape=shape, dtype=dtype)
        simplejpeg = require("simplejpeg", extra=None, purpose="decoding jpeg")
        colorspace = "GRAY" if shape[0] == 1 else "RGB"
        with library_errors("jpeg"):
            # Strict: a truncated image is an error, not one that ends in grey.
            image = simplejpeg.decode_jpeg(data, colorspace, strict=True)
        return _image.to_chunk(Jpeg, image, shape=shape, dtype=dtype)

    def encode(self, array: ChunkArray) -> bytes:
        image = _image.to_image(Jpeg, array, max_side=_MAX_SIDE)
        simplejpeg = require("simplejpeg", extra=None, purpose="encoding jpeg")
        # Full resolution in all three components: they are channels, not a photograph's colour.
        colorspace, subsampling = ("GRAY", "GRAY") if image.shape[2] == 1 else ("RGB", "444")
        quality = _DEFAULT_QUALITY if self.jpeg_quality is None else self.jpeg_quality
        with library_errors("jpeg"):
            data: bytes = simplejpeg.encode_jpeg(image, quality, colorspace, subsampling)
        return data

    def max_encoded_bytes(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        # Noise at quality 100 takes up to two bytes per sample; the rest is for metadata.
        return 4 * math.prod(shape) + (1 << 20)

    def recognises(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> bool:
        return bytes(data[:3]) == b"\xff\xd8\xff"


def check_jpeg(data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> None:
    """Raise FormatError unless this begins like a jpeg chunk of this shape and data type."""
    _image.check_header(Jpeg, _read_header(data), shape=shape, dtype=dtype)


def _read_header(data: Buffer) -> _image.ImageHeader:
    """Walk the segments in front of the first scan; refuse a file of countless scans."""
    if bytes(data[:2]) != b"\xff\xd8":
        raise FormatError("not a jpeg image")
    position = 2
    frame: tuple[int, int, int, int] | None = None
    progressive = False
    try:
        while True:
            prefix, marker, length = _SEGMENT.unpack_from(data, position)
            if prefix != 0xFF:
                raise FormatError(f"jpeg image: no marker at byte {position}")
            if marker == 0xFF:  # a fill byte
                position += 1
                continue
            if marker == _START_OF_SCAN:
                break
            if marker in _FRAMES:
                frame = _FRAME.unpack_from(data, position + 4)
                progressive = marker in _PROGRESSIVE
            position += 2 + length
        components_in_scan = data[position + 4]
    except (struct.error, IndexError):
        raise FormatError("jpeg image is truncated") from None
    if frame is None:
        raise FormatError("jpeg image has no frame header")
    bits, height, width, components = frame
    if (progressive or components_in_scan != components) and _num_scans(data) > _MAX_SCANS:
        raise FormatError(f"jpeg image has more than {_MAX_SCANS} scans")
    return _image.ImageHeader(width, height, components, bits)


def _num_scans(data: Buffer) -> int:
    # In entropy-coded data 0xFF is followed by 0x00, so this overestimates by no more than
    # what lies in the metadata.
    return bytes(data).count(bytes([0xFF, _START_OF_SCAN]))
