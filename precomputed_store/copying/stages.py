"""The tasks that copy one scale, as a graph of dask. Nothing is run here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from precomputed_store.copying.files import copy_file, copy_file_of_block
from precomputed_store.copying.plan import ScaleCopy
from precomputed_store.copying.tasks import (
    ChunkCopy,
    VoxelCopy,
    copy_block,
    copy_scattered,
)
from precomputed_store.engine import ChunkedArray
from precomputed_store.shard_shape import shard_cells
from precomputed_store.write_plan import unit_spans
from precomputed_store.writer import WriteOptions, writer_for
from precomputed_store.writing.blocks import LARGEST_BLOCK_BYTES
from precomputed_store.writing.done import pending, pending_objects, pending_shards
from precomputed_store.writing.stages import Stage, coarse_stage, unique_name
from precomputed_store.writing.tiling import Tiling, tile

__all__ = ["ScaleTask", "scale_stage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleTask:
    """One scale on its way.

    Attributes
    ----------
    plan : ScaleCopy
    source, target : ChunkedArray
    options : WriteOptions
    verify : bool
        Whether every chunk is decoded on the way.
    resuming : bool
        Whether objects that are stored already are left as they are.
    """

    plan: ScaleCopy
    source: ChunkedArray
    target: ChunkedArray
    options: WriteOptions
    verify: bool = False
    resuming: bool = False


def scale_stage(task: ScaleTask) -> Stage:
    """The tasks that copy a scale."""
    return _voxel_stage(task) if task.plan.way == "voxels" else _chunk_stage(task)


def _voxel_stage(task: ScaleTask) -> Stage:
    target = task.target
    sink = VoxelCopy(
        writer=writer_for(target, task.options, keep_stored=task.resuming),
        finer=task.source,
        factor=(1, 1, 1),
        method="stride",
        tiling=tile(target.scale, target.grid.bounds, voxel_bytes=_voxel_bytes(target)),
    )
    return coarse_stage(sink, None, pending=pending(sink) if task.resuming else None)


def _chunk_stage(task: ScaleTask) -> Stage:
    sink = ChunkCopy(
        source=task.source,
        writer=writer_for(task.target, task.options, keep_stored=task.resuming),
        tiling=_tiling(task.target),
        verify=task.verify,
    )
    name = unique_name("copy-precomputed")
    files = task.plan.way == "shards"
    if _scatters(task.target):
        return _scattered(sink, name, copy_file if files else copy_scattered, task.resuming)
    function = copy_file_of_block if files else copy_block
    todo = pending_objects(task.target, sink.tiling) if task.resuming else None
    tasks = {
        (name, 0, z, y, x): (function, sink, (x, y, z))
        for x, y, z in (sink.tiling.indices() if todo is None else todo)
    }
    return Stage(
        name=name,
        layers={name: tasks},
        dependencies={name: set()},
        tiling=sink.tiling,
        pending=todo,
    )


def _scattered(sink: ChunkCopy, name: str, function: Callable[..., Any], resuming: bool) -> Stage:
    writer, bounds = sink.shard_writer, sink.tiling.region
    shards = sorted(pending_shards(writer, bounds)) if resuming else writer.shards_of(bounds)
    tasks = {(name, shard): (function, sink, shard) for shard in shards}
    return Stage(
        name=name,
        layers={name: tasks},
        dependencies={name: set()},
        tiling=sink.tiling,
        scattered=tuple(tasks),
    )


def _tiling(target: ChunkedArray) -> Tiling:
    """Blocks of chunks that are worth a task each; of a sharded scale, its shards."""
    scale, bounds = target.scale, target.grid.bounds
    if scale.sharding is not None:
        return Tiling(region=bounds, spans=unit_spans(scale, bounds))
    return tile(
        scale,
        bounds,
        voxel_bytes=_voxel_bytes(target),
        smallest=LARGEST_BLOCK_BYTES // 2,
    )


def _scatters(target: ChunkedArray) -> bool:
    sharding = target.scale.sharding
    return sharding is not None and shard_cells(target.grid, sharding) is None


def _voxel_bytes(array: ChunkedArray) -> int:
    return array.num_channels * array.dtype.itemsize
