"""The pixels of a png image: written, and read down to the last row that is wanted.

Inflating is a third of the time that libspng and libpng take; the rest is their loops over
filtered bytes, which wait for mispredicted branches. What is refused here (the kernel is not
installed, the image is interlaced or damaged) is for the library, which says why.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from precomputed_store._native import png_rows as native
from precomputed_store.codecs.base import ChunkArray
from precomputed_store.codecs.content import zlib_library

__all__ = ["SIGNATURE", "Layout", "first_rows", "in_runs"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_HEADER_BYTES = 25
"""Of the chunk IHDR, with its length, type and checksum."""
_PLAIN = bytes(3)
"""Compression, filter and interlace method: deflate, adaptive, none."""
_HEADER = struct.Struct(">IIBB3s")
_LEVEL, _WINDOW_BITS, _MEMORY_LEVEL = 6, 15, 9


class Layout(NamedTuple):
    """How the samples of an image lie in its bytes."""

    width: int
    height: int
    components: int
    sample_bytes: int

    @property
    def pixel_bytes(self) -> int:
        return self.components * self.sample_bytes

    @property
    def row_bytes(self) -> int:
        return self.width * self.pixel_bytes


def first_rows(
    chunks: Sequence[tuple[bytes, memoryview]], layout: Layout, num_rows: int
) -> ChunkArray | None:
    """The first rows ``(num_rows, width, component)`` of an image, or None if not here.

    Parameters
    ----------
    chunks : sequence of (bytes, memoryview)
        Type and bytes of each chunk of the image.
    layout : Layout
        What the header says.
    num_rows : int
        How many rows, at most its height.
    """
    if not native.is_available() or not _is_sound(chunks):
        return None
    stream = [chunk[8:-4] for kind, chunk in chunks if kind == b"IDAT"]
    coded = _inflated(
        stream[0] if len(stream) == 1 else b"".join(stream),
        num_rows * (layout.row_bytes + 1),
        whole=num_rows == layout.height,
    )
    if coded is None:
        return None
    rows = native.restore_rows(
        coded,
        num_rows=num_rows,
        row_bytes=layout.row_bytes,
        pixel_bytes=layout.pixel_bytes,
    )
    if rows is None:
        return None
    if layout.sample_bytes == 2:
        rows = rows.view(">u2").astype(np.uint16)
    return rows.reshape(num_rows, layout.width, layout.components)


def _is_sound(chunks: Sequence[tuple[bytes, memoryview]]) -> bool:
    """Whether the image is of the plain kind, and every checksum is right."""
    crc32 = zlib_library().crc32
    kind, header = chunks[0]
    if kind != b"IHDR" or len(header) != _HEADER_BYTES or bytes(header[18:21]) != _PLAIN:
        return False
    return all(
        crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        for kind, chunk in chunks
        if kind in (b"IHDR", b"IDAT", b"IEND")
    )


def _inflated(stream: bytes | memoryview, size: int, *, whole: bool) -> bytes | None:
    """The first `size` bytes of a zlib stream, which has no more if that is the whole image."""
    library = zlib_library()
    inflating = library.decompressobj(15)
    try:
        # With room for one byte more, the end of the stream and its checksum are looked at.
        coded: bytes = inflating.decompress(stream, size + 1 if whole else size)
    except library.error:
        return None
    if len(coded) != size or (whole and not inflating.eof):
        return None
    return coded


def in_runs(image: ChunkArray, *, colour: int) -> bytes | None:
    """An image ``(height, width, component)`` as png without a search for strings that come again.

    Each row has the filter that libpng would choose, too. None: the kernel is not installed.

    Parameters
    ----------
    image : numpy.ndarray
        Of 8 or 16 bits, C order.
    colour : int
        The format's number for that many components.
    """
    if not native.is_available():
        return None
    height, width, components = image.shape
    stored = image.astype(image.dtype.newbyteorder(">"), copy=False)
    rows = stored.view(np.uint8).reshape(height, -1)
    filtered = native.filter_rows(rows, pixel_bytes=components * image.itemsize)
    if filtered is None:
        return None  # no memory
    deflating = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_RLE)
    pixels = deflating.compress(filtered.data) + deflating.flush()
    header = _HEADER.pack(width, height, 8 * image.itemsize, colour, _PLAIN)
    chunks = (b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")
    return b"".join([SIGNATURE, *(_chunk(*each) for each in chunks)])


def _chunk(kind: bytes, content: bytes) -> bytes:
    crc32 = zlib_library().crc32
    checksum = crc32(content, crc32(kind))
    return b"".join([len(content).to_bytes(4, "big"), kind, content, checksum.to_bytes(4, "big")])
