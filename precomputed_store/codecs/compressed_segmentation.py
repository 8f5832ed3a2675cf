"""The compressed_segmentation encoding: blocks of table indices, a few bits per voxel.

A kernel of our own decodes and encodes, if it could be compiled. Else the library does, which
reads wherever the bytes point to, so every offset, bit width and table index is checked first.
Blocks of more than 65,536 labels, which the library decodes to one label and never finishes
encoding, are handled here.

Specification: Neuroglancer, sliceview/compressed_segmentation/README.md.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from precomputed_store._native import segmentation as native
from precomputed_store.codecs import _segmentation_blocks as blocks
from precomputed_store.codecs.base import (
    CZYX,
    Buffer,
    ChunkArray,
    Codec,
    Cut,
    Ranges,
    require,
)
from precomputed_store.codecs.checks import (
    check_holds,
    conform,
    integer_parameter,
    library_errors,
    parameter_error,
)
from precomputed_store.errors import FormatError
from precomputed_store.grid import XYZ

__all__ = ["CompressedSegmentation"]

_BLOCK_SIZE = "compressed_segmentation_block_size"
_MAX_BLOCK_VOXELS = 1 << 24
"""As many as a table offset can address; bounds what a hostile block size can cost."""

_MAX_LIBRARY_LABELS = 1 << 16
_MOST_CUT = 0.75
"""Share of a chunk's blocks from which on cutting out costs more than decoding all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedSegmentation(Codec):
    """Parameters: the block size, in voxels along x, y, z."""

    name: ClassVar[str] = "compressed_segmentation"
    data_types: ClassVar[tuple[str, ...]] = ("uint32", "uint64")
    content_type: ClassVar[str] = "image/x.compressed_segmentation"
    compressible: ClassVar[bool] = True
    brief: ClassVar[bool] = True
    decodes_boxes: ClassVar[bool] = True
    can_cut: ClassVar[bool] = True

    compressed_segmentation_block_size: XYZ

    def __post_init__(self) -> None:
        size = _block_size(self.compressed_segmentation_block_size)
        object.__setattr__(self, _BLOCK_SIZE, size)

    def decode(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        check_holds(type(self), shape, dtype)
        out = np.empty(shape, dtype)
        whole = (0, shape[1]), (0, shape[2]), (0, shape[3])
        if self.decode_box(data, shape=shape, box=whole, out=out):
            return out
        words = _words(data)
        geometry = self._geometry(shape)
        entry_words = dtype.itemsize // 4
        starts = _channel_starts(words, shape[0])
        channels = [
            blocks.read_channel(words[start:], geometry, entry_words=entry_words)
            for start in starts
        ]
        wide = [np.flatnonzero(channel.bits == 32) for channel in channels]
        encoded = bytes(data)
        if any(found.size for found in wide):
            encoded = _without_wide_blocks(words, starts, wide)
        array = self._decode_in_library(encoded, shape=shape, dtype=dtype)
        for channel, found, target in zip(channels, wide, array, strict=True):
            for block in found:
                blocks.decode_block(channel, int(block), geometry, out=target)
        return conform(array, shape=shape, dtype=dtype)

    def decode_box(self, data: Buffer, *, shape: CZYX, box: Ranges, out: ChunkArray) -> bool:
        if not native.is_available():
            return False
        words = _words(data)
        geometry = self._geometry(shape)
        return all(
            native.decode_box(
                words[start:], shape=geometry.shape, block=geometry.block, box=box, out=channel
            )
            for start, channel in zip(_channel_starts(words, shape[0]), out, strict=True)
        )

    def cut(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any], box: Ranges) -> Cut | None:
        check_holds(type(self), shape, dtype)
        geometry = self._geometry(shape)
        found = blocks.blocks_of(geometry, box)
        if found.num_blocks > _MOST_CUT * geometry.num_blocks:
            return None
        words = _words(data)
        channels = []
        for start in _channel_starts(words, shape[0]):
            channel = blocks.cut_channel(words[start:], geometry, found)
            if channel is None:
                return None
            channels.append(channel)
        starts = itertools.accumulate(map(len, channels[:-1]), initial=len(channels))
        header = np.fromiter(starts, "<u4", len(channels))
        encoded = np.concatenate([header, *channels]).tobytes()
        return Cut(encoded, (shape[0], *found.shape), found.start)

    def _decode_in_library(
        self, encoded: bytes, *, shape: CZYX, dtype: np.dtype[Any]
    ) -> ChunkArray:
        library = require(
            "compressed_segmentation", extra=None, purpose="decoding compressed_segmentation"
        )
        with library_errors(self.name):
            array: ChunkArray = library.decompress(
                encoded,
                shape[::-1],
                dtype.newbyteorder("="),
                self.compressed_segmentation_block_size,
                order="F",
            )
        return array.T

    def encode(self, array: ChunkArray) -> bytes:
        check_holds(type(self), array.shape, array.dtype)
        channels = [self._encode_channel(channel) for channel in array]
        sizes = [len(channel) // 4 for channel in channels]
        if max(sizes) > blocks.MAX_CHANNEL_WORDS:
            raise blocks.channel_too_large()
        starts = itertools.accumulate(sizes[:-1], initial=len(channels))
        header = np.fromiter(starts, "<u4", len(channels)).tobytes()
        return b"".join([header, *channels])

    def _encode_channel(self, labels: ChunkArray) -> bytes | memoryview:
        geometry = self._geometry((1, *labels.shape))
        most_words = self.max_encoded_bytes(shape=(1, *labels.shape), dtype=labels.dtype) // 4
        most_words = min(most_words, blocks.MAX_CHANNEL_WORDS)
        words = native.encode_channel(labels, block=geometry.block, most_words=most_words)
        if words is not None:
            if not words.size:
                raise blocks.channel_too_large()
            return words.data.cast("B")
        dtype = labels.dtype.newbyteorder("=")
        if math.prod(geometry.extent) > _MAX_LIBRARY_LABELS:
            return blocks.encode_channel(np.asarray(labels, dtype), geometry)
        library = require(
            "compressed_segmentation", extra=None, purpose="encoding compressed_segmentation"
        )
        # The library takes the address of a writable buffer and assumes its strides.
        volume = np.require(labels, dtype, ["C", "W"]).T
        try:
            encoded = library.compress(
                volume, block_size=self.compressed_segmentation_block_size, order="F"
            )
        except OverflowError as error:
            raise blocks.channel_too_large() from error
        return memoryview(encoded)[4:]

    def _geometry(self, shape: CZYX) -> blocks.Geometry:
        x, y, z = self.compressed_segmentation_block_size
        return blocks.block_geometry(shape[1:], (z, y, x))

    def max_encoded_bytes(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        geometry = self._geometry(shape)
        values_bytes = 4 * geometry.block_voxels
        table_bytes = dtype.itemsize * math.prod(geometry.extent)
        per_channel = geometry.num_blocks * (8 + values_bytes + table_bytes)
        return shape[0] * (4 + per_channel)

    def recognises(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> bool:
        num_headers = shape[0] * self._geometry(shape).num_blocks
        if len(data) % 4 or len(data) < 4 * shape[0] + 8 * num_headers:
            return False
        return int.from_bytes(data[:4], "little") == shape[0]


def _block_size(value: object) -> XYZ:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise parameter_error(_BLOCK_SIZE, value, "3 integers [x, y, z]")
    x, y, z = (
        integer_parameter(_BLOCK_SIZE, item, minimum=1, maximum=_MAX_BLOCK_VOXELS)
        for item in value
    )
    if x * y * z > _MAX_BLOCK_VOXELS:
        raise parameter_error(_BLOCK_SIZE, value, f"at most {_MAX_BLOCK_VOXELS} voxels")
    return x, y, z


def _words(data: Buffer) -> npt.NDArray[np.uint32]:
    if len(data) % 4:
        raise FormatError(
            f"compressed_segmentation chunk is {len(data)} bytes; expected a multiple of 4"
        )
    return np.frombuffer(data, "<u4")


def _channel_starts(words: npt.NDArray[np.uint32], num_channels: int) -> list[int]:
    starts: list[int] = words[:num_channels].tolist()
    if len(starts) < num_channels or starts[0] != num_channels:
        raise FormatError(
            f"compressed_segmentation chunk of {4 * words.size} bytes begins with {starts[:4]}; "
            f"expected the offsets of {num_channels} channels, the first being {num_channels}"
        )
    if max(starts) > words.size:
        raise FormatError(
            f"compressed_segmentation channel begins at word {max(starts)}; "
            f"the chunk has {words.size}"
        )
    return starts


def _without_wide_blocks(
    words: npt.NDArray[np.uint32], starts: list[int], wide: list[npt.NDArray[np.intp]]
) -> bytes:
    """The chunk with blocks of 32 bits declared as one-label blocks, which are safe to decode."""
    copy = words.copy()
    for start, found in zip(starts, wide, strict=True):
        copy[start + 2 * found] &= 0xFFFFFF
    return copy.tobytes()
