"""Blocks of a compressed_segmentation channel, in numpy: their check, a decoder, an encoder.

Offsets are in 32-bit words from the start of the channel; axes are z, y, x.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.codecs.base import ChunkArray, Ranges
from precomputed_store.errors import FormatError

__all__ = [
    "MAX_CHANNEL_WORDS",
    "BlockBox",
    "Channel",
    "Geometry",
    "block_geometry",
    "blocks_of",
    "channel_too_large",
    "cut_channel",
    "decode_block",
    "encode_channel",
    "read_channel",
]

ZYX: TypeAlias = tuple[int, int, int]
Ints: TypeAlias = npt.NDArray[np.integer[Any]]

MAX_CHANNEL_WORDS: Final = 1 << 24
"""What is written stays below: table offsets have 24 bits, and TensorStore reads only 24 of
the 32 bits of a values offset."""

_WIDTHS: Final = (0, 1, 2, 4, 8, 16, 32)
_BEYOND: Final = 1 << 40
_BATCH_VOXELS: Final = 1 << 20
_MASKS: Final = np.array([(1 << bits) - 1 for bits in range(33)], "<u4")


class Geometry(NamedTuple):
    """How a channel divides into blocks."""

    shape: ZYX
    block: ZYX
    grid: ZYX
    extent: ZYX
    """Voxels of the first block that lie in the chunk: no block has more."""
    num_blocks: int
    block_voxels: int
    value_words: Ints
    """Words that the values of a block take, by bit width; past any end if that is invalid."""


@functools.lru_cache(maxsize=256)
def block_geometry(shape: ZYX, block: ZYX) -> Geometry:
    """The blocks of a channel of `shape` voxels."""
    gz, gy, gx = (-(-s // b) for s, b in zip(shape, block, strict=True))
    ez, ey, ex = map(min, shape, block)
    value_words = np.full(256, _BEYOND)
    for bits in _WIDTHS:
        value_words[bits] = -(-bits * math.prod(block) // 32)
    value_words[0] = -_BEYOND  # nothing is stored, so it may begin anywhere
    value_words.flags.writeable = False
    return Geometry(
        shape, block, (gz, gy, gx), (ez, ey, ex), gz * gy * gx, math.prod(block), value_words
    )


class BlockBox(NamedTuple):
    """A box of whole blocks of a channel."""

    ranges: tuple[slice, slice, slice]
    """Blocks along z, y, x."""
    start: ZYX
    """Its first voxel."""
    shape: ZYX
    """Its voxels, cropped to the channel."""
    num_blocks: int


def blocks_of(geometry: Geometry, box: Ranges) -> BlockBox:
    """The blocks that hold a box of voxels."""
    firsts = [first // size for (first, _), size in zip(box, geometry.block, strict=True)]
    lasts = [-(-stop // size) for (_, stop), size in zip(box, geometry.block, strict=True)]
    z, y, x = (slice(a, b) for a, b in zip(firsts, lasts, strict=True))
    sz, sy, sx = (a * size for a, size in zip(firsts, geometry.block, strict=True))
    nz, ny, nx = (
        min(b * size, extent) - a * size
        for a, b, size, extent in zip(firsts, lasts, geometry.block, geometry.shape, strict=True)
    )
    count = math.prod(b - a for a, b in zip(firsts, lasts, strict=True))
    return BlockBox((z, y, x), (sz, sy, sx), (nz, ny, nx), count)


def cut_channel(
    words: npt.NDArray[np.uint32], geometry: Geometry, box: BlockBox
) -> npt.NDArray[np.uint32] | None:
    """A channel of some of the blocks of another, with all of its tables and values.

    None where a block refers to the headers, which then cannot be left out. What the
    blocks refer to is not checked: that is `read_channel`'s part.

    Raises
    ------
    FormatError
        Headers are missing.
    """
    count = 2 * geometry.num_blocks
    if words.size < count:
        raise _headers_error(words, geometry)
    headers = words[:count].reshape(*geometry.grid, 2)[box.ranges].reshape(-1, 2).copy()
    left_out = count - 2 * box.num_blocks
    # Blocks of one label have no values: where those would begin says nothing.
    values = np.where(headers[:, 0] >> 24, headers[:, 1], count)
    if np.any(headers[:, 0] & 0xFFFFFF < count) or np.any(values < count):
        return None
    headers[:, 0] -= left_out
    headers[:, 1] = values - left_out
    return np.concatenate([headers.ravel(), words[count:]])


class Channel(NamedTuple):
    """A channel's words and the headers of its blocks, x fastest."""

    words: npt.NDArray[np.uint32]
    bits: Ints
    tables: Ints
    values: Ints
    entry_words: int
    """Words per table entry: 1 or 2."""


def read_channel(
    words: npt.NDArray[np.uint32], geometry: Geometry, *, entry_words: int
) -> Channel:
    """Read the block headers of a channel and check that all they point to is there.

    Raises
    ------
    FormatError
        A header is missing, or a block's values, or a table entry that they refer to.
    """
    count = 2 * geometry.num_blocks
    if words.size < count:
        raise _headers_error(words, geometry)
    first = words[:count:2]
    bits = first >> 24
    channel = Channel(words, bits, first & 0xFFFFFF, words[1:count:2], entry_words)
    values_stop = channel.values + geometry.value_words[bits]
    if values_stop.max() > words.size:
        raise _values_error(channel, geometry, int(values_stop.argmax()))
    tables_stop = channel.tables + _whole_table_words(entry_words)[bits]
    doubtful = np.flatnonzero(tables_stop > words.size)
    step = max(1, _BATCH_VOXELS // math.prod(geometry.extent))
    for start in range(0, doubtful.size, step):
        _check_entries(channel, geometry, doubtful[start : start + step])
    return channel


def _headers_error(words: npt.NDArray[np.uint32], geometry: Geometry) -> FormatError:
    return FormatError(
        f"compressed_segmentation channel has {words.size} words; expected at least "
        f"{2 * geometry.num_blocks}, for the headers of {geometry.num_blocks} blocks"
    )


@functools.lru_cache
def _whole_table_words(entry_words: int) -> Ints:
    """Words that a table takes if it has an entry for every value, by bit width."""
    return np.array([entry_words << bits for bits in range(33)])


def _values_error(channel: Channel, geometry: Geometry, block: int) -> FormatError:
    bits = int(channel.bits[block])
    where = _name(geometry, block)
    if bits not in _WIDTHS:
        return FormatError(f"{where} has {bits} bits per value; expected one of {_WIDTHS}")
    start = int(channel.values[block])
    stop = start + int(geometry.value_words[bits])
    return FormatError(
        f"{where} has its values in words {start} to {stop}; the channel has {channel.words.size}"
    )


def _check_entries(channel: Channel, geometry: Geometry, chosen: Ints) -> None:
    """Check the largest table index of blocks whose whole table would not fit."""
    index = _indices(channel, geometry, chosen)
    largest = index.max(axis=(1, 2, 3)).astype(np.int64)
    stop = channel.tables[chosen] + channel.entry_words * (largest + 1)
    wrong = np.flatnonzero(stop > channel.words.size)
    if wrong.size:
        raise FormatError(
            f"{_name(geometry, int(chosen[wrong[0]]))} refers to a table entry in word "
            f"{int(stop[wrong[0]]) - 1}; the channel has {channel.words.size}"
        )


def _indices(channel: Channel, geometry: Geometry, chosen: Ints) -> Ints:
    """Table indices of some blocks, ``(block, z, y, x)``; 0 outside the chunk."""
    (ez, ey, ex), (_, by, bx) = geometry.extent, geometry.block
    z, y, x = np.ogrid[:ez, :ey, :ex]
    bits = channel.bits[chosen].astype(np.int64).reshape(-1, 1, 1, 1)
    values = np.where(bits, channel.values[chosen].reshape(bits.shape), 0)
    offset = bits * (x + bx * (y + by * z))
    words = channel.words[values + (offset >> 5)]
    index: Ints = (words >> (offset & 31).astype(np.uint32)) & _MASKS[bits]
    cells = np.unravel_index(chosen, geometry.grid)
    for axis, cell in enumerate(cells):
        last = geometry.grid[axis] - 1
        inside = geometry.shape[axis] - last * geometry.block[axis]
        index[(cell == last, *[slice(None)] * axis, slice(inside, None))] = 0
    return index


def decode_block(channel: Channel, block: int, geometry: Geometry, *, out: ChunkArray) -> None:
    """Write the labels of one block into its place in `out`, the channel's ``(z, y, x)``."""
    place = _place(geometry, block)
    target = out[place]
    z, y, x = target.shape
    index = _indices(channel, geometry, np.array([block]))[0, :z, :y, :x].astype(np.int64)
    entries = int(channel.tables[block]) + channel.entry_words * index
    target[...] = channel.words[entries]
    if channel.entry_words == 2:
        target |= channel.words[entries + 1].astype(out.dtype) << np.uint64(32)


def encode_channel(labels: ChunkArray, geometry: Geometry) -> bytes:
    """Encode ``(z, y, x)`` labels, however many a block has.

    Raises
    ------
    FormatError
        The result would be larger than what offsets reach.
    """
    stored = labels.dtype.newbyteorder("<")
    headers = np.zeros((geometry.num_blocks, 2), "<u4")
    parts = [b""]
    size = headers.size
    tables: dict[bytes, int] = {}
    for block in range(geometry.num_blocks):
        voxels = labels[_place(geometry, block)]
        labels_found, index = np.unique(voxels, return_inverse=True)
        table = labels_found.astype(stored).tobytes()
        bits = next(width for width in _WIDTHS if labels_found.size <= 1 << width)
        values = _packed(index.reshape(voxels.shape), bits, geometry.block)
        parts.append(values)
        start, size = size, size + len(values) // 4
        if table not in tables:
            tables[table] = size
            parts.append(table)
            size += len(table) // 4
        if size > MAX_CHANNEL_WORDS:
            raise channel_too_large()
        headers[block] = tables[table] | bits << 24, start
    parts[0] = headers.tobytes()
    return b"".join(parts)


def _packed(index: Ints, bits: int, block: ZYX) -> bytes:
    """The indices of a block, padded with zeros to its full size, `bits` for each."""
    if not bits:
        return b""
    per_word = 32 // bits
    z, y, x = index.shape
    padded = np.zeros(-(-math.prod(block) // per_word) * per_word, "<u4")
    padded[: math.prod(block)].reshape(block)[:z, :y, :x] = index
    shifted = padded.reshape(-1, per_word) << np.arange(0, 32, bits, dtype="<u4")
    packed: Ints = np.bitwise_or.reduce(shifted, axis=1)
    return packed.tobytes()


def _place(geometry: Geometry, block: int) -> tuple[slice, ...]:
    """Where a block lies in the channel."""
    cell = np.unravel_index(block, geometry.grid)
    return tuple(
        slice(int(c) * b, (int(c) + 1) * b) for c, b in zip(cell, geometry.block, strict=True)
    )


def _name(geometry: Geometry, block: int) -> str:
    z, y, x = map(int, np.unravel_index(block, geometry.grid))
    return f"compressed_segmentation block ({x}, {y}, {z})"


def channel_too_large() -> FormatError:
    """What encoding raises for more than `MAX_CHANNEL_WORDS`."""
    return FormatError(
        "compressed_segmentation takes more than 64 MiB for one channel of this chunk, which "
        "is as far as its 24-bit offsets reach: use a smaller chunk size or another encoding"
    )
