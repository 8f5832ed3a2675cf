"""The sharded format: chunk id → shard and minishard, index bytes → byte ranges. Pure.

Specification: sharded.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.codecs.base import Buffer
from precomputed_store.errors import FormatError
from precomputed_store.metadata import ShardingSpec

__all__ = [
    "ByteRange",
    "MinishardIndex",
    "ShardLocation",
    "check_placement",
    "coalesce",
    "locate",
    "locate_many",
    "murmurhash3_x86_128",
    "parse_minishard_index",
    "parse_shard_index_entry",
    "shard_index_bytes",
    "shard_name",
]

MAX_MINISHARD_INDEX_BYTES = 1 << 30

_MASK32 = 0xFFFFFFFF
_MASK64 = 0xFFFFFFFFFFFFFFFF

ChunkIds: TypeAlias = npt.NDArray[np.uint64]


class ByteRange(NamedTuple):
    """Half-open range of bytes in a file."""

    start: int
    stop: int


class ShardLocation(NamedTuple):
    """Where a chunk id belongs."""

    shard: int
    minishard: int


def locate(spec: ShardingSpec, chunk_id: int) -> ShardLocation:
    """The shard and minishard of a chunk id.

    Specification: sharded.md, "Sharding specification".
    """
    shifted = chunk_id >> spec.preshift_bits
    hashed = shifted if spec.hash == "identity" else murmurhash3_x86_128(shifted)
    minishard = hashed & ((1 << spec.minishard_bits) - 1)
    shard = (hashed >> spec.minishard_bits) & ((1 << spec.shard_bits) - 1)
    return ShardLocation(shard, minishard)


def locate_many(spec: ShardingSpec, chunk_ids: ChunkIds) -> tuple[ChunkIds, ChunkIds]:
    """`locate` for many chunk ids at once: their shards, and their minishards in them."""
    hashed = chunk_ids >> np.uint64(spec.preshift_bits) if spec.preshift_bits < 64 else 0
    hashed = np.broadcast_to(np.asarray(hashed, np.uint64), chunk_ids.shape)
    if spec.hash != "identity":
        hashed = _murmurhash_many(hashed)
    minishards = hashed & np.uint64((1 << spec.minishard_bits) - 1)
    rest = hashed >> np.uint64(spec.minishard_bits)
    shards = rest & np.uint64((1 << spec.shard_bits) - 1)
    return shards, minishards


def shard_name(spec: ShardingSpec, shard: int) -> str:
    """File name of a shard below the scale's key: lower-case hexadecimal, zero-padded."""
    return f"{shard:0{max(1, -(-spec.shard_bits // 4))}x}.shard"


def shard_index_bytes(spec: ShardingSpec) -> int:
    """Size of the shard index at the start of each shard."""
    return 16 << spec.minishard_bits


def parse_shard_index_entry(entry: Buffer, spec: ShardingSpec) -> ByteRange | None:
    """The minishard index's place in the shard, or None if the minishard is empty.

    Parameters
    ----------
    entry : bytes of length 16
        Start and end offset, relative to the end of the shard index.

    Raises
    ------
    FormatError
        The end lies before the start, or past what a file can hold.
    """
    start, stop = (int.from_bytes(entry[i : i + 8], "little") for i in (0, 8))
    if start == stop:
        return None
    base = shard_index_bytes(spec)
    if stop < start or base + stop > _MASK64 >> 1:
        raise FormatError(f"shard index entry says bytes {start} to {stop}")
    return ByteRange(base + start, base + stop)


@dataclass(frozen=True, slots=True, eq=False)
class MinishardIndex:
    """Chunk ids of one minishard, ascending, with the byte range of each in the shard."""

    chunk_ids: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.uint64]
    stops: npt.NDArray[np.uint64]

    def find(self, chunk_id: int) -> ByteRange | None:
        """The bytes of a chunk in the shard, or None if the minishard has no such chunk."""
        at = int(np.searchsorted(self.chunk_ids, np.uint64(chunk_id)))
        if at == len(self.chunk_ids) or int(self.chunk_ids[at]) != chunk_id:
            return None
        return ByteRange(int(self.starts[at]), int(self.stops[at]))

    @property
    def nbytes(self) -> int:
        return self.chunk_ids.nbytes * 3


def parse_minishard_index(data: Buffer, spec: ShardingSpec) -> MinishardIndex:
    """Undo the delta coding of a minishard index (content encoding already undone).

    Specification: sharded.md, "Minishard index format".

    Raises
    ------
    FormatError
        Not a multiple of 24 bytes, a chunk id twice, or a byte range that wraps around or
        lies over the shard index.
    """
    if len(data) % 24:
        raise FormatError(f"minishard index is {len(data)} bytes; expected a multiple of 24")
    ids, gaps, sizes = np.frombuffer(data, dtype="<u8").reshape(3, -1).astype(np.uint64)
    chunk_ids = np.cumsum(ids, dtype=np.uint64)
    stops = np.cumsum(gaps + sizes, dtype=np.uint64) + np.uint64(shard_index_bytes(spec))
    starts = stops - sizes
    if np.any(starts > stops) or np.any(stops > np.uint64(_MASK64 >> 1)):
        raise FormatError("minishard index has a byte range past the end of any file")
    if np.any(starts < np.uint64(shard_index_bytes(spec))):
        raise FormatError("minishard index has a byte range within the shard index")
    order = np.argsort(chunk_ids, kind="stable")
    chunk_ids, starts, stops = chunk_ids[order], starts[order], stops[order]
    if np.any(chunk_ids[1:] == chunk_ids[:-1]):
        raise FormatError("minishard index has a chunk id twice")
    return MinishardIndex(chunk_ids, starts, stops)


def check_placement(index: MinishardIndex, spec: ShardingSpec, location: ShardLocation) -> None:
    """Make sure that chunks belong to the minishard whose index names them.

    Raises
    ------
    FormatError
        They do not: what was taken for an index is something else, or damaged.
    """
    shards, minishards = locate_many(spec, index.chunk_ids)
    if np.any(shards != location.shard) or np.any(minishards != location.minishard):
        raise FormatError("it has chunks that belong elsewhere")


def coalesce(
    ranges: Iterable[ByteRange], *, max_gap: int, max_bytes: int
) -> list[tuple[ByteRange, list[ByteRange]]]:
    """Join byte ranges that lie close together into fewer requests.

    Returns
    -------
    list of (ByteRange, list of ByteRange)
        Each request with the ranges that it answers, in order of their start.
    """
    joined: list[tuple[ByteRange, list[ByteRange]]] = []
    for each in sorted(ranges):
        if joined:
            whole, members = joined[-1]
            stop = max(whole.stop, each.stop)
            if each.start - whole.stop <= max_gap and stop - whole.start <= max_bytes:
                joined[-1] = (ByteRange(whole.start, stop), [*members, each])
                continue
        joined.append((each, [each]))
    return joined


def murmurhash3_x86_128(key: int) -> int:
    """Low 64 bits of MurmurHash3_x86_128, seed 0, of the key's 8 little-endian bytes."""
    # Eight bytes fill no 16-byte block: only the tail (two 32-bit lanes) is mixed in.
    h1 = _scramble(key & _MASK32, 0x239B961B, 15, 0xAB0E9789)
    h2 = _scramble(key >> 32 & _MASK32, 0xAB0E9789, 16, 0x38B34AE5)
    h1, h2, h3, h4 = h1 ^ 8, h2 ^ 8, 8, 8
    h1 = (h1 + h2 + h3 + h4) & _MASK32
    h2, h3, h4 = (h2 + h1) & _MASK32, (h3 + h1) & _MASK32, (h4 + h1) & _MASK32
    h1, h2, h3, h4 = _avalanche(h1), _avalanche(h2), _avalanche(h3), _avalanche(h4)
    h1 = (h1 + h2 + h3 + h4) & _MASK32
    h2 = (h2 + h1) & _MASK32
    return h2 << 32 | h1


def _murmurhash_many(keys: ChunkIds) -> ChunkIds:
    """`murmurhash3_x86_128` of many keys."""
    mask, eight = np.uint64(_MASK32), np.uint64(8)
    h1 = _scramble_many(keys & mask, 0x239B961B, 15, 0xAB0E9789) ^ eight
    h2 = _scramble_many(keys >> np.uint64(32), 0xAB0E9789, 16, 0x38B34AE5) ^ eight
    h1 = (h1 + h2 + eight + eight) & mask
    h2, rest = (h2 + h1) & mask, (eight + h1) & mask
    h1, h2, rest = _avalanche_many(h1), _avalanche_many(h2), _avalanche_many(rest)
    h1 = (h1 + h2 + rest + rest) & mask
    return (((h2 + h1) & mask) << np.uint64(32)) | h1


def _scramble_many(lanes: ChunkIds, first: int, rotation: int, second: int) -> ChunkIds:
    mask = np.uint64(_MASK32)
    lanes = lanes * np.uint64(first) & mask
    lanes = (lanes << np.uint64(rotation) | lanes >> np.uint64(32 - rotation)) & mask
    return lanes * np.uint64(second) & mask


def _avalanche_many(h: ChunkIds) -> ChunkIds:
    mask = np.uint64(_MASK32)
    h = (h ^ h >> np.uint64(16)) * np.uint64(0x85EBCA6B) & mask
    h = (h ^ h >> np.uint64(13)) * np.uint64(0xC2B2AE35) & mask
    return h ^ h >> np.uint64(16)


def _scramble(lane: int, first: int, rotation: int, second: int) -> int:
    lane = lane * first & _MASK32
    lane = (lane << rotation | lane >> (32 - rotation)) & _MASK32
    return lane * second & _MASK32


def _avalanche(h: int) -> int:
    h = (h ^ h >> 16) * 0x85EBCA6B & _MASK32
    h = (h ^ h >> 13) * 0xC2B2AE35 & _MASK32
    return h ^ h >> 16
