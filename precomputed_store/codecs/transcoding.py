"""From one encoding to another without voxels in between: jpeg ⇄ jxl. Pure.

JPEG XL can hold the coefficients of a jpeg image, and gives its file back byte for byte.
Specification: ISO/IEC 18181-2, "jbrd" box.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from precomputed_store.codecs.base import CZYX, Buffer, Codec, require
from precomputed_store.codecs.jpeg import Jpeg, check_jpeg
from precomputed_store.codecs.jxl import Jxl, check_jxl

__all__ = ["Transcode", "transcoding"]

Transcode: TypeAlias = Callable[[Buffer, CZYX], bytes | None]
"""Chunk bytes and ``(channel, z, y, x)`` shape → chunk bytes; None where it takes voxels."""

_UINT8 = np.dtype(np.uint8)


def transcoding(source: Codec, target: Codec) -> Transcode | None:
    """How to turn chunks of one encoding into another, if there is a way around voxels.

    Only into the target's default parameters: a quality that is asked for is a wish about
    voxels.
    """
    if isinstance(source, Jpeg) and target == Jxl():
        return jpeg_to_jxl
    if isinstance(source, Jxl) and target == Jpeg():
        return jxl_to_jpeg
    return None


def jpeg_to_jxl(data: Buffer, shape: CZYX) -> bytes | None:
    """A jpeg chunk as jxl, from which `jxl_to_jpeg` makes the same bytes again.

    Returns
    -------
    bytes or None
        None for a kind of jpeg that JPEG XL cannot hold, or one that is damaged.

    Raises
    ------
    FormatError
        This is no jpeg chunk of this shape.
    """
    check_jpeg(data, shape=shape, dtype=_UINT8)
    imagecodecs = require("imagecodecs", extra="images", purpose="encoding jxl")
    try:
        encoded: bytes = imagecodecs.jpegxl_encode_jpeg(bytes(data), numthreads=1)
    except (RuntimeError, ValueError):
        return None
    return encoded


def jxl_to_jpeg(data: Buffer, shape: CZYX) -> bytes | None:
    """The jpeg chunk that a jxl chunk was made from.

    Returns
    -------
    bytes or None
        None if it was made from voxels, or is damaged.

    Raises
    ------
    FormatError
        This is no jxl chunk of this shape.
    """
    check_jxl(data, shape=shape, dtype=_UINT8)
    imagecodecs = require("imagecodecs", extra="images", purpose="decoding jxl")
    try:
        decoded: bytes = imagecodecs.jpegxl_decode_jpeg(bytes(data), numthreads=1)
        check_jpeg(decoded, shape=shape, dtype=_UINT8)
    except (RuntimeError, ValueError):
        return None
    return decoded
