"""The png encoding.

Specification: volume.rst, "png".
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from precomputed_store.codecs import _image
from precomputed_store.codecs._png_pixels import SIGNATURE, Layout, first_rows, in_runs
from precomputed_store.codecs.base import CZYX, Buffer, ChunkArray, Codec, Ranges, require
from precomputed_store.codecs.checks import library_errors
from precomputed_store.errors import FormatError, UnsupportedError

__all__ = ["Png"]

_DEFAULT_LEVEL = 6
"""9, CloudVolume's, takes six times as long on labels for 12 % less, and gains nothing on EM."""

_MAX_SIDE = 1_000_000
"""What libpng reads unless told otherwise; the format's own limit is 2**31 - 1."""

_CHUNK = struct.Struct(">I4s")
_HEADER = struct.Struct(">IIBB")
_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
"""Number of components → colour type."""
_COMPONENTS = {colour: components for components, colour in _COLOURS.items()}
_PALETTE = 3

_SPNG_DECODES = frozenset({(1, 1), (1, 3), (1, 4), (2, 4)})
"""(bytes per sample, components) that imagecodecs decodes with libspng."""

_REPETITIVE = 4
"""Compressed to this part by runs alone, an image has strings that come again, like a mask."""

_PIXELS = (b"IHDR", b"IDAT", b"IEND")

_GREY16 = (2, 1)
"""(bytes per sample, components)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Png(Codec):
    """Parameters: ``png_level``, zlib's 0 to 9.

    Without it, level 6, or what is as small and several times faster to make of images as
    noisy as those of microscopes: no search for strings that come again.
    """

    name: ClassVar[str] = "png"
    data_types: ClassVar[tuple[str, ...]] = ("uint8", "uint16")
    channels: ClassVar[tuple[int, ...] | None] = (1, 2, 3, 4)
    content_type: ClassVar[str] = "image/png"
    decodes_boxes: ClassVar[bool] = True

    png_level: int | None = None

    def __post_init__(self) -> None:
        _image.set_integers(self, {"png_level": (0, 9)})

    def neuroglancer_misreads(self, num_channels: int, dtype: np.dtype[Any]) -> str | None:
        if num_channels > 1 and dtype.itemsize == 2:
            return "Neuroglancer scrambles the bytes of 16-bit png chunks of several channels"
        return None

    def decode(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        chunks, layout = _read_image(data, shape=shape, dtype=dtype)
        image = first_rows(chunks, layout, layout.height)
        if image is None:
            image = _decode(_pixels_of(data, chunks), components=shape[0], itemsize=dtype.itemsize)
        return _image.to_chunk(Png, image, shape=shape, dtype=dtype)

    def decode_box(self, data: Buffer, *, shape: CZYX, box: Ranges, out: ChunkArray) -> bool:
        chunks, layout = _read_image(data, shape=shape, dtype=out.dtype)
        plane = shape[2] * shape[3]
        (z, z_stop), *others = box
        # Rows of an image need not be rows of the chunk.
        image = first_rows(chunks, layout, -(-z_stop * plane // layout.width))
        if image is None:
            return False
        voxels = image.reshape(-1, shape[0])[z * plane : z_stop * plane]
        planes = np.moveaxis(voxels.reshape(-1, *shape[2:], shape[0]), -1, 0)
        out[...] = planes[:, :, *(slice(*axis) for axis in others)]
        return True

    def encode(self, array: ChunkArray) -> bytes:
        image = _image.to_image(Png, array, max_side=_MAX_SIDE)
        return _encode(image, level=self.png_level)

    def max_encoded_bytes(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        # Samples as they are and one filter byte per row, of which there are at most as
        # many as pixels; the rest is for chunk headers and metadata.
        pixels = math.prod(shape[1:])
        return (math.prod(shape) * dtype.itemsize + pixels) * 17 // 16 + (1 << 20)

    def recognises(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> bool:
        return bytes(data[:8]) == SIGNATURE


def _read_image(
    data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]
) -> tuple[list[tuple[bytes, memoryview]], Layout]:
    """The chunks of an image that can hold such a chunk, and how its samples lie."""
    if bytes(data[:8]) != SIGNATURE:
        raise FormatError("not a png image")
    view = memoryview(data)
    chunks = list(_chunks(view))
    if chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 12 + 13:
        raise FormatError("png image does not begin with its header")
    width, height, bits, colour = _HEADER.unpack_from(view, 16)
    if colour == _PALETTE:
        raise FormatError("png image has a palette; expected samples")
    if colour not in _COMPONENTS:
        raise FormatError(f"png image has the unknown colour type {colour}")
    components = _COMPONENTS[colour]
    header = _image.ImageHeader(width, height, components, bits)
    _image.check_header(Png, header, shape=shape, dtype=dtype)
    return chunks, Layout(width, height, components, dtype.itemsize)


def _pixels_of(data: Buffer, chunks: list[tuple[bytes, memoryview]]) -> Buffer:
    """An image of nothing but pixels: no metadata to be inflated or applied."""
    pixels = [chunk for kind, chunk in chunks if kind in _PIXELS]
    return data if len(pixels) == len(chunks) else b"".join([SIGNATURE, *pixels])


def _chunks(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Type and bytes of each chunk up to the last."""
    position, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        if position + 12 > len(view):
            raise FormatError("png image is truncated")
        length, kind = _CHUNK.unpack_from(view, position)
        end = position + 12 + length
        if end > len(view):
            raise FormatError(f"png image is truncated in its chunk {kind!r}")
        if kind[0] & 0x20 == 0 and kind not in (*_PIXELS, b"PLTE"):
            raise FormatError(f"png image has the unknown critical chunk {kind!r}")
        yield kind, view[position:end]
        position = end


@cache
def _imagecodecs() -> Any | None:
    try:
        import imagecodecs
    except ImportError:
        return None
    return imagecodecs


def _decode(data: Buffer, *, components: int, itemsize: int) -> ChunkArray:
    imagecodecs = _imagecodecs()
    if imagecodecs is None or (itemsize, components) not in _SPNG_DECODES:
        # Not imagecodecs' libpng: each refusal loses memory and a reference to None there, and
        # after some ten thousand of them Python before 3.12 crashes.
        return _decode_with_pyspng(bytes(data), components=components, itemsize=itemsize)
    with library_errors("png"):
        image: ChunkArray = imagecodecs.spng_decode(data)
    return image


def _encode(image: ChunkArray, *, level: int | None) -> bytes:
    runs = None
    if level is None:
        runs = in_runs(image, colour=_COLOURS[image.shape[2]]) or _runs_by_libpng(image)
        if runs is not None and len(runs) * _REPETITIVE > image.nbytes:
            return runs
    try:
        strings = _encode_strings(image, level=_DEFAULT_LEVEL if level is None else level)
    except UnsupportedError:
        if runs is None:
            raise
        return runs
    return strings if runs is None else min(runs, strings, key=len)


def _runs_by_libpng(image: ChunkArray) -> bytes | None:
    imagecodecs = _imagecodecs()
    if imagecodecs is None:
        return None
    with library_errors("png"):
        runs: bytes = imagecodecs.png_encode(
            image, strategy=imagecodecs.PNG.STRATEGY.RLE, filter=imagecodecs.PNG.FILTER.ALL
        )
    return runs


def _encode_strings(image: ChunkArray, *, level: int) -> bytes:
    imagecodecs = _imagecodecs()
    if imagecodecs is None:
        return _encode_with_pyspng(image, level=level)
    with library_errors("png"):
        strings: bytes = imagecodecs.spng_encode(image, level=level)
    return strings


def _check_sums(data: Buffer) -> None:
    for kind, chunk in _chunks(memoryview(data)):
        if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise FormatError(f"png image has a wrong checksum in its chunk {kind!r}")


def _decode_with_pyspng(data: bytes, *, components: int, itemsize: int) -> ChunkArray:
    pyspng = require("pyspng", extra=None, purpose="decoding png")
    _check_sums(data)  # which pyspng does not
    if (itemsize, components) != _GREY16:
        with library_errors("png"):
            image: ChunkArray = pyspng.load(data)
        # libspng adds an opaque component to 16-bit colours that have none.
        return image[..., :components] if image.ndim == 3 else image
    with library_errors("png"):
        halves: ChunkArray = pyspng.load(_relabelled(data, bits=8, colour=_COLOURS[2]))
        return halves.view(">u2")[..., 0].astype(np.uint16)


def _encode_with_pyspng(image: ChunkArray, *, level: int) -> bytes:
    pyspng = require("pyspng", extra=None, purpose="encoding png")
    pixel = (image.itemsize, image.shape[2])
    if pixel == (2, 3):
        raise UnsupportedError(
            "writing 16-bit png of 3 channels needs the package 'imagecodecs': "
            "pip install 'precomputed-store[images]'"
        )
    if pixel == _GREY16:
        image = image.astype(">u2").view(np.uint8)
    with library_errors("png"):
        data: bytes = pyspng.encode(image, compress_level=level)
    return _relabelled(data, bits=16, colour=_COLOURS[1]) if pixel == _GREY16 else data


def _relabelled(data: bytes, *, bits: int, colour: int) -> bytes:
    """The same image under another header.

    pyspng has no 16-bit grey. One pixel of it is stored like one of 8-bit grey and alpha:
    two bytes, the same filters.
    """
    header = bytearray(data[12:29])
    header[12:14] = bits, colour
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]
