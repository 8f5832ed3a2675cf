"""Which chunks share a shard, and how to choose that well. Pure.

Specification: sharded.md, "Sharding specification"; volume.md, "Sharded chunk storage".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from precomputed_store.codecs.base import Codec
from precomputed_store.grid import XYZ, ChunkGrid
from precomputed_store.metadata import ShardingSpec

__all__ = ["ShardTarget", "choose_id_sharding", "choose_sharding", "expected_ratio", "shard_cells"]

_LARGEST_MINISHARD_BITS = 32

# Decoded bytes for each encoded one, as seen on electron microscopy and its segmentations,
# gzip included where it is the default. What it is for a given volume, only writing tells.
_RATIOS = {
    "raw": 1.2,
    "jpeg": 6.0,
    "png": 1.6,
    "jxl": 8.0,
    "compressed_segmentation": 40.0,
    "compresso": 80.0,
    "crackle": 80.0,
    "fpzip": 2.0,
    "kempressed": 2.0,
    "zfpc": 3.0,
}
_UNCOMPRESSED_RATIOS = {"raw": 1.0, "compressed_segmentation": 10.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTarget:
    """What ``sharding="auto"`` aims at.

    Parameters
    ----------
    shard_bytes : int
        Expected size of a shard file (see `expected_ratio`).
    decoded_bytes : int
        Most bytes of the decoded voxels of a shard: what a reader or writer of all of it
        has to go through.
    minishard_index_bytes : int
        Most bytes of a minishard index, not compressed: what a reader fetches, and keeps,
        for the chunks of one neighbourhood.
    shard_index_bytes : int
        Most bytes of the index at the start of each shard.
    """

    shard_bytes: int = 128 << 20
    decoded_bytes: int = 2 << 30
    minishard_index_bytes: int = 12 << 10
    shard_index_bytes: int = 64 << 10

    def __post_init__(self) -> None:
        for name, least in (
            ("shard_bytes", 1),
            ("decoded_bytes", 1),
            ("minishard_index_bytes", 24),
            ("shard_index_bytes", 16),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value!r}; expected an integer from {least} on")


def expected_ratio(codec: Codec, *, compressed: bool = True) -> float:
    """Decoded bytes for each encoded one that are usual for an encoding.

    Parameters
    ----------
    codec : Codec
    compressed : bool
        Whether chunks are compressed once more where that is the default of the encoding.
    """
    usual = _RATIOS.get(codec.name, 1.0)
    return usual if compressed else _UNCOMPRESSED_RATIOS.get(codec.name, usual)


def choose_sharding(
    grid: ChunkGrid,
    codec: Codec,
    *,
    voxel_bytes: int,
    target: ShardTarget,
    data_encoding: Literal["raw", "gzip"] | None = None,
) -> ShardingSpec:
    """Sharding parameters under which a shard is a box of chunks.

    The identity hash keeps neighbours together: a minishard is a box of chunks, a shard is
    a box of minishards, and no two boxes share a file.

    Parameters
    ----------
    grid : ChunkGrid
    codec : Codec
    voxel_bytes : int
        Size of all channels of a voxel.
    target : ShardTarget
    data_encoding : {"raw", "gzip"}, optional
        Default: gzip for the encodings that gain from it.
    """
    bits = grid.num_chunk_id_bits
    chunk_bytes = math.prod(grid.chunk_size) * voxel_bytes
    most = min(target.shard_bytes * expected_ratio(codec), target.decoded_bytes)
    in_shard = min(bits, _whole_log2(most / chunk_bytes))
    preshift = min(in_shard, _whole_log2(target.minishard_index_bytes / 24))
    minishard = min(
        in_shard - preshift, _whole_log2(target.shard_index_bytes / 16), _LARGEST_MINISHARD_BITS
    )
    preshift = in_shard - minishard
    return ShardingSpec(
        hash="identity",
        preshift_bits=preshift,
        minishard_bits=minishard,
        shard_bits=bits - in_shard,
        minishard_index_encoding="gzip",
        data_encoding=data_encoding or ("gzip" if codec.compressible else "raw"),
    )


def choose_id_sharding(
    *,
    num_objects: int,
    num_bytes: int,
    target: ShardTarget,
    data_encoding: Literal["raw", "gzip"] = "gzip",
) -> ShardingSpec:
    """Sharding parameters for objects whose ids are spread in no order over 64 bits.

    The hash spreads them evenly, so that shards and minishards come out about equal.

    Parameters
    ----------
    num_objects : int
    num_bytes : int
        Of all of them, as they are to be stored.
    target : ShardTarget
    data_encoding : {"raw", "gzip"}
    """
    shard_bits = _log2_up(num_bytes / target.shard_bytes)
    in_shard = num_objects / (1 << shard_bits)
    minishard_bits = min(
        _log2_up(24 * in_shard / target.minishard_index_bytes),
        _whole_log2(target.shard_index_bytes / 16),
    )
    return ShardingSpec(
        hash="murmurhash3_x86_128",
        preshift_bits=0,
        minishard_bits=minishard_bits,
        shard_bits=shard_bits,
        minishard_index_encoding="gzip",
        data_encoding=data_encoding,
    )


def _log2_up(value: float) -> int:
    return max(0, math.ceil(math.log2(value))) if value > 1 else 0


def _whole_log2(value: float) -> int:
    return max(0, math.floor(math.log2(value)))


def shard_cells(grid: ChunkGrid, spec: ShardingSpec) -> XYZ | None:
    """Extent in chunks, along x, y, z, of a shard that is a box of chunks; None if it is none.

    The boxes lie side by side from the first chunk on, like chunks of a coarser grid.
    """
    in_shard = spec.preshift_bits + spec.minishard_bits
    if spec.hash != "identity" or in_shard + spec.shard_bits < grid.num_chunk_id_bits:
        return None
    return grid.low_bits_cells(in_shard)
