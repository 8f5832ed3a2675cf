"""`plan`: what a write will do, and cost, before anything is written."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from precomputed_store.engine import ChunkedArray
from precomputed_store.grid import XYZ, Box, ChunkGrid
from precomputed_store.layer import ScaleSelector
from precomputed_store.metadata import Scale, ShardingSpec
from precomputed_store.pyramid_plan import Pyramid
from precomputed_store.shard_shape import ShardTarget, expected_ratio, shard_cells
from precomputed_store.sharding import locate_many, shard_index_bytes
from precomputed_store.write_plan import unit_grid
from precomputed_store.writer import RegionWriter, WriteOptions
from precomputed_store.writing.layers import Place, WriteMode, plan_target
from precomputed_store.writing.place import Region, Resolution
from precomputed_store.writing.planned import ScalePlan, WritePlan, bytes_text
from precomputed_store.writing.run import LayerWrite
from precomputed_store.writing.source import as_source
from precomputed_store.writing.target import LayerType, LayerWish, Sharding
from precomputed_store.writing.tiling import Tiling

__all__ = ["plan"]

_MOST_COUNTED_CELLS = 1_000_000


def plan(
    array: Any,
    url: str | os.PathLike[str],
    *,
    dims: Iterable[Hashable] | None = None,
    layer_type: LayerType | None = None,
    encoding: str | None = None,
    encoding_options: Mapping[str, Any] | None = None,
    resolution: Resolution | None = None,
    voxel_offset: XYZ | None = None,
    chunk_size: XYZ | None = None,
    key: str | None = None,
    sharding: Sharding = None,
    pyramid: Pyramid = None,
    mode: WriteMode = "w-",
    scale: ScaleSelector | None = None,
    region: Region | None = None,
    storage_options: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> WritePlan:
    """What `to_precomputed` would do with these arguments. Touches nothing.

    It takes those that decide which objects are written.

    Parameters
    ----------
    array, url, dims, layer_type, encoding, encoding_options, resolution, voxel_offset, \
chunk_size, key, sharding, pyramid, mode, scale, region, storage_options, root
        See `to_precomputed`.

    Returns
    -------
    WritePlan
        For each scale: chunks in a shard, number and size of objects, sizes of indices,
        tasks and their memory, requests that reading takes.

    Examples
    --------
    >>> import dask.array as da, precomputed_store as ps
    >>> array = da.zeros((2000, 4000, 4000), dtype="uint64", chunks=(64, 512, 512))
    >>> print(
    ...     ps.plan(
    ...         array, "memory://planned", dims=("z", "y", "x"), resolution=(8, 8, 8),
    ...         sharding="auto",
    ...     )
    ... )
    memory://planned
    sharding: the largest boxes of chunks of at most 128 MiB (taking compressed_segmentation \
to be 40 times smaller than its voxels) and at most 2.0 GiB decoded
    scale 8_8_8: 4000×4000×2000 voxels, compressed_segmentation, 127,008 chunks of 64×64×64
      objects       128, shards of 16×8×8 chunks (identity, preshift 9, minishard 1, shard 7 bits)
      object size   about 51 MiB, 2.0 GiB decoded
      indices       32 B for each shard, at most 12 KiB for each minishard
      requests      3 for the first chunk of a neighbourhood, 1 for the next
      tasks         2,048, about 307 MiB of memory each
    """
    source = as_source(array, dims=dims)
    wish = LayerWish(
        layer_type=layer_type,
        encoding=encoding,
        encoding_options=encoding_options,
        resolution=resolution,
        voxel_offset=voxel_offset,
        chunk_size=chunk_size,
        key=key,
        sharding=sharding,
    )
    place = Place(
        url=url, mode=mode, scale=scale, region=region, storage_options=storage_options, root=root
    )
    target = plan_target(source, wish, place, pyramid)
    options = WriteOptions(unaligned="read-modify-write")
    write = LayerWrite(source=source, target=target, options=options)
    block = _largest_block_bytes(target.array, write.tiling)
    # Blocks come in pieces, which are joined.
    held = _Held(voxels=2 * block, encoded=2 if write.is_staged else 0)
    base = _scale_plan(write.writer, write.tiling, held=held)
    coarse = [
        _scale_plan(
            sink.writer, sink.tiling, held=_Held(voxels=sink.largest_voxel_bytes, encoded=1)
        )
        for sink in write.pyramid.sinks()
    ]
    choice = _choice(wish.sharding, target.array.scale)
    return WritePlan(url=target.volume.url, scales=(base, *coarse), choice=choice)


def _choice(sharding: Sharding, scale: Scale) -> str | None:
    """What the sharding of each scale was chosen for."""
    if sharding is None or isinstance(sharding, ShardingSpec) or scale.sharding is None:
        return None
    target = sharding if isinstance(sharding, ShardTarget) else ShardTarget()
    ratio = expected_ratio(scale.codec)
    return (
        f"sharding: the largest boxes of chunks of at most {bytes_text(target.shard_bytes)} "
        f"(taking {scale.encoding} to be {ratio:g} times smaller than its voxels) and at most "
        f"{bytes_text(target.decoded_bytes)} decoded"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What a task has in memory: bytes of voxels, and how often the encoded chunks of a block."""

    voxels: int
    encoded: int


def _scale_plan(writer: RegionWriter, tiling: Tiling, *, held: _Held) -> ScalePlan:
    array = writer.array
    scale, grid, spec = array.scale, array.grid, array.scale.sharding
    voxel_bytes = array.num_channels * array.dtype.itemsize
    ratio = expected_ratio(scale.codec, compressed=writer.content_encoding is not None)
    decoded = _object_voxels(scale, grid) * voxel_bytes
    shard = 0 if spec is None else round(decoded / ratio)
    block = 0 if spec is None else round(_largest_block_bytes(array, tiling) / ratio)
    is_staged = held.encoded > 1
    encoded = shard if tiling.grouped is not None and not is_staged else held.encoded * block
    return ScalePlan(
        scale=scale,
        num_chunks=_num_cells(grid, tiling.region),
        chunks_per_shard=None if spec is None else shard_cells(grid, spec),
        num_objects=_num_objects(scale, tiling.region),
        decoded_object_bytes=decoded,
        expected_object_bytes=round(decoded / ratio),
        shard_index_bytes=0 if spec is None else shard_index_bytes(spec),
        minishard_index_bytes=0 if spec is None else 24 * _chunks_per_minishard(scale),
        num_tasks=tiling.num_blocks,
        # Encoded chunks, beside the voxels of more of them, or the shard that they become.
        task_bytes=max(encoded, shard) + max(held.voxels, shard),
        staged_bytes=(
            round(math.prod(tiling.region.shape) * voxel_bytes / ratio) if is_staged else 0
        ),
        cold_requests=1 if spec is None else 3,
        warm_requests=1,
    )


def _largest_block_bytes(array: ChunkedArray, tiling: Tiling) -> int:
    return math.prod(tiling.largest_block) * array.num_channels * array.dtype.itemsize


def _object_voxels(scale: Scale, grid: ChunkGrid) -> int:
    if scale.sharding is not None and shard_cells(grid, scale.sharding) is None:
        return -(-math.prod(scale.size) // _num_objects(scale, grid.bounds))
    sizes = zip(unit_grid(scale).chunk_size, scale.size, strict=True)
    return math.prod(min(unit, size) for unit, size in sizes)


def _num_objects(scale: Scale, region: Box) -> int:
    """Objects that a region has voxels of."""
    spec = scale.sharding
    if spec is None or shard_cells(scale.grid, spec) is not None:
        return _num_cells(unit_grid(scale), region)
    cells = _num_cells(scale.grid, region)
    if cells > _MOST_COUNTED_CELLS:
        return min(1 << spec.shard_bits, cells)
    ids = scale.grid.chunk_ids(scale.grid.cell_array(region))
    return len(np.unique(locate_many(spec, ids)[0]))


def _num_cells(grid: ChunkGrid, region: Box) -> int:
    """Cells that a region has voxels of."""
    return math.prod(
        -(-(b - o) // c) - (a - o) // c
        for a, b, o, c in zip(
            region.start, region.stop, grid.voxel_offset, grid.chunk_size, strict=True
        )
    )


def _chunks_per_minishard(scale: Scale) -> int:
    """Chunks of a full minishard, where chunks are spread evenly."""
    spec = scale.sharding
    assert spec is not None
    minishards = 1 << (spec.minishard_bits + spec.shard_bits)
    evenly = -(-scale.grid.num_cells // minishards)
    return min(max(1 << spec.preshift_bits, evenly), scale.grid.num_cells)
