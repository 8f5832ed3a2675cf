"""What the image encodings share: an image's rows, end to end, are a chunk's voxels.

The components of its pixels are the channels. Any width and height will do whose product
is the number of voxels.

Specification: volume.rst, "2-d image format encodings".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from precomputed_store.codecs.base import CZYX, ChunkArray, Codec
from precomputed_store.codecs.checks import check_holds, integer_parameter
from precomputed_store.errors import FormatError

__all__ = [
    "ImageHeader",
    "check_header",
    "set_integers",
    "to_chunk",
    "to_image",
]


class ImageHeader(NamedTuple):
    """What an image says of itself before its pixels."""

    width: int
    height: int
    components: int | None
    """Samples per pixel; None where the header alone does not tell."""
    bits: int
    """Of one sample."""


def check_header(
    codec: type[Codec], header: ImageHeader, *, shape: CZYX, dtype: np.dtype[Any]
) -> None:
    """Raise FormatError unless an image with this header is a chunk of this shape and type.

    To be called before a decoder allocates what the header asks for.
    """
    check_holds(codec, shape, dtype)
    channels, *zyx = shape
    if header.width * header.height != math.prod(zyx):
        raise FormatError(
            f"{codec.name} image is {header.width} × {header.height} pixels; "
            f"expected {math.prod(zyx)}, as the chunk's (z, y, x) shape is {tuple(zyx)}"
        )
    if header.components not in (None, channels):
        raise FormatError(
            f"{codec.name} image has {header.components} components; "
            f"expected {channels}, one per channel"
        )
    if header.bits != 8 * dtype.itemsize:
        raise FormatError(
            f"{codec.name} image has {header.bits} bits per sample; "
            f"expected {8 * dtype.itemsize} for {dtype.name}"
        )


def to_chunk(
    codec: type[Codec], image: ChunkArray, *, shape: CZYX, dtype: np.dtype[Any]
) -> ChunkArray:
    """A decoded image ``(height, width[, component])`` as ``(channel, z, y, x)``, not copied."""
    channels, *zyx = shape
    components = image.shape[2] if image.ndim == 3 else 1
    if components != channels or image.size != math.prod(shape):
        raise FormatError(f"{codec.name} image decoded to {image.shape}; expected chunk {shape}")
    if image.dtype != dtype.newbyteorder("="):
        raise FormatError(f"{codec.name} image decoded to {image.dtype}; expected {dtype}")
    chunk = np.moveaxis(image.reshape(*zyx, channels), -1, 0)
    return chunk.astype(dtype, copy=False)


def to_image(codec: type[Codec], array: ChunkArray, *, max_side: int) -> ChunkArray:
    """``(channel, z, y, x)`` as a C-contiguous image ``(height, width, component)``.

    As wide as the chunk, which compresses best, unless that makes it higher than
    `max_side` pixels.
    """
    check_holds(codec, array.shape, array.dtype)
    channels, z, y, x = array.shape
    width, height = _image_size(x, y * z, max_side)
    native = array.dtype.newbyteorder("=")
    if channels == 1:
        return np.ascontiguousarray(array, dtype=native).reshape(height, width, 1)
    image = np.empty((z, y, x, channels), dtype=native)
    for channel, voxels in enumerate(array):  # a fourth of the time of one transposed copy
        image[..., channel] = voxels
    return image.reshape(height, width, channels)


def _image_size(x: int, rows: int, max_side: int) -> tuple[int, int]:
    """Width and height of an image that holds `rows` rows of `x` voxels."""
    if 0 < x <= max_side and 0 < rows <= max_side:
        return x, rows
    pixels = x * rows
    if pixels == 0:
        raise FormatError("an image cannot hold a chunk without voxels")
    # Several whole rows side by side, as few as possible; else whatever divides.
    for beside in range(-(-rows // max_side), max_side // x + 1):
        if rows % beside == 0:
            return x * beside, rows // beside
    for width in range(-(-pixels // max_side), max_side + 1):
        if pixels % width == 0:
            return width, pixels // width
    raise FormatError(
        f"{pixels} voxels do not fill an image of at most {max_side} × {max_side} pixels"
    )


def set_integers(codec: Codec, limits: Mapping[str, tuple[int, int]]) -> None:
    """Check the members of a codec that are set, all of them before complaining.

    Raises
    ------
    ValueError
        As `Codec.from_parameters` does.
    """
    wrong: list[object] = []
    for member, (minimum, maximum) in limits.items():
        value = getattr(codec, member)
        if value is None:
            continue
        try:
            whole = integer_parameter(member, value, minimum=minimum, maximum=maximum)
        except ValueError as error:
            wrong.extend(error.args)
        else:
            object.__setattr__(codec, member, whole)
    if wrong:
        raise ValueError(*wrong)
