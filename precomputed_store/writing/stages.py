"""The tasks that write one scale, as a graph of dask. Nothing is run here.

Tasks pass voxels on only from the array to its first writing. Coarser scales are made from
what has been stored: a task waits for those that store the finer voxels it needs, and reads
them. So what a cluster holds in memory is bounded by the tasks that run, blocks that were
written before a job was interrupted need not be computed again, and an encoding that loses
something gives the same pyramid however often a job was interrupted.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from precomputed_store.downsampling import fine_box
from precomputed_store.grid import XYZ, Box
from precomputed_store.shard_shape import shard_cells
from precomputed_store.shard_writer import ShardWriter
from precomputed_store.writing.staging import Staging
from precomputed_store.writing.tasks import (
    ArraySink,
    CoarseSink,
    encode_block,
    encode_coarse,
    stage_block,
    store_blocks,
    store_coarse,
    store_staged,
    write_block,
    write_coarse,
    write_scattered,
)
from precomputed_store.writing.tiling import Tiling

if TYPE_CHECKING:
    from dask.array import Array

__all__ = ["Pending", "Stage", "array_stage", "coarse_stage", "scatters", "unique_name"]

Key: TypeAlias = Hashable

Pending: TypeAlias = Collection[Any] | None
"""What is to be written, the rest being done: objects of a tiling, or, of a scale that is
scattered, shards. None: everything."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Tasks that write one scale.

    Attributes
    ----------
    name : str
        Of the tasks that store.
    layers : mapping
        Graphs by name.
    dependencies : mapping
        Names of the graphs that each graph refers to.
    tiling : Tiling
        Of the objects, or unions of objects, that each task stores.
    pending : collection of (int, int, int), optional
        Those of them that have tasks; None: all.
    scattered : tuple, optional
        The keys, where each object has voxels from everywhere.
    written : dask.array.Array, optional
        The same as an array with an element for each task, if all of them are to be done.
    """

    name: str
    layers: Mapping[str, Any]
    dependencies: Mapping[str, set[str]]
    tiling: Tiling
    pending: Collection[XYZ] | None = None
    scattered: tuple[Key, ...] | None = None
    written: Array | None = None

    def tasks(self, box: Box | None = None) -> Iterator[Key]:
        """The tasks after which the voxels of a box (default: all) are stored."""
        if self.scattered is not None:
            yield from self.scattered
            return
        indices = self.tiling.indices() if box is None else self.tiling.meeting(box)
        for x, y, z in indices:
            if self.pending is None or (x, y, z) in self.pending:
                yield (self.name, 0, z, y, x)


def unique_name(kind: str) -> str:
    """A name for tasks that no other run has, not even one with the same arguments.

    A scheduler takes a task for done, or failed, that it remembers under the same name. But
    what a task writes may have been removed since, and a failed one is to be tried again.
    """
    return f"{kind}-{uuid.uuid4().hex}"


def scatters(tiling: Tiling, sink: ArraySink | CoarseSink) -> bool:
    """Whether a scale has to be written shard by shard, with chunks from everywhere in each."""
    scale = sink.writer.array.scale
    if scale.sharding is None or shard_cells(scale.grid, scale.sharding) is not None:
        return False
    return tiling.grouped is not None


def array_stage(array: Array, sink: ArraySink, *, pending: Pending, staging: Staging) -> Stage:
    """Tasks that write a dask array.

    Parameters
    ----------
    array : dask.array.Array
        ``(channel, z, y, x)``, cut as the sink's tiling is.
    sink : ArraySink
    pending : collection, optional
        What is to be written.
    staging : Staging
        For a scale that is scattered.
    """
    if scatters(sink.tiling, sink):
        return _staged_stage(array, sink, staging, pending)
    if sink.tiling.grouped is None:
        written = _map(write_block, array, sink, name=unique_name("write-precomputed"))
    else:
        name = unique_name("encode-precomputed")
        encoded = _map(encode_block, array, sink, name=name, dtype=object)
        x, y, z = sink.tiling.grouped
        grouped: Array = encoded.rechunk(((1,), z, y, x))  # type: ignore[no-untyped-call]
        written = _map(store_blocks, grouped, sink, name=unique_name("write-precomputed"))
    graph: Any = written.__dask_graph__()
    return Stage(
        name=written.name,
        layers=graph.layers,
        dependencies=graph.dependencies,
        tiling=sink.tiling.objects,
        pending=pending,
        written=written if pending is None else None,
    )


def _map(function: Any, array: Array, *arguments: Any, name: str, dtype: Any = np.bool_) -> Array:
    """A dask array of one element for each block of another."""
    import dask.array as da

    mapped: Array = da.map_blocks(  # type: ignore[no-untyped-call]
        function,
        array,
        *arguments,
        name=name,
        dtype=dtype,
        chunks=tuple((1,) * len(lengths) for lengths in array.chunks),
        meta=np.empty((0,) * 4, dtype),
    )
    return mapped


def _staged_stage(array: Array, sink: ArraySink, staging: Staging, pending: Pending) -> Stage:
    staged = _map(stage_block, array, sink, staging, name=unique_name("stage-precomputed"))
    graph: Any = staged.__dask_graph__()
    name, barrier = unique_name("write-precomputed"), unique_name("staged-precomputed")
    blocks = [(staged.name, 0, z, y, x) for x, y, z in sink.tiling.indices()]
    tasks = {
        (name, shard): (store_staged, sink, staging, shard, barrier)
        for shard in _shards(sink, pending)
    }
    return Stage(
        name=name,
        layers={**graph.layers, barrier: {barrier: (all_done, blocks)}, name: tasks},
        dependencies={**graph.dependencies, barrier: {staged.name}, name: {barrier}},
        tiling=sink.tiling,
        scattered=tuple(tasks),
    )


def coarse_stage(sink: CoarseSink, finer: Stage | None, *, pending: Pending) -> Stage:
    """Tasks that make a coarser scale.

    Parameters
    ----------
    sink : CoarseSink
    finer : Stage or None
        What stores the finer scale; None: it is stored.
    pending : collection, optional
        What is to be made.
    """
    name = unique_name("coarsen-precomputed")
    waits = {finer.name} if finer is not None else set()
    if scatters(sink.tiling, sink):
        return _scattered_stage(sink, finer, name, pending)

    def after(box: Box) -> list[Key]:
        return [] if finer is None else list(finer.tasks(fine_box(box, sink.factor)))

    objects = sink.tiling.objects
    tasks: dict[Key, Any] = {}
    encoding: dict[Key, Any] = {}
    for index in objects.indices() if pending is None else pending:
        x, y, z = index
        if sink.tiling.grouped is None:
            tasks[name, 0, z, y, x] = (write_coarse, sink, index, after(objects.box(index)))
            continue
        members = []
        for member in sink.tiling.members(index):
            members.append((f"{name}-encode", *member))
            encoding[members[-1]] = (
                encode_coarse, sink, member, after(sink.tiling.box(member)),
            )  # fmt: skip
        tasks[name, 0, z, y, x] = (store_coarse, sink, index, members)
    layers, dependencies = {name: tasks}, {name: waits}
    if encoding:
        layers[f"{name}-encode"], dependencies[f"{name}-encode"] = encoding, waits
        dependencies[name] = {f"{name}-encode"}
    return Stage(
        name=name, layers=layers, dependencies=dependencies, tiling=objects, pending=pending
    )


def _scattered_stage(sink: CoarseSink, finer: Stage | None, name: str, pending: Pending) -> Stage:
    barrier = f"{name}-after"
    before = [] if finer is None else list(finer.tasks())
    tasks = {
        (name, shard): (write_scattered, sink, shard, barrier) for shard in _shards(sink, pending)
    }
    return Stage(
        name=name,
        layers={barrier: {barrier: (all_done, before)}, name: tasks},
        dependencies={barrier: {finer.name} if finer is not None else set(), name: {barrier}},
        tiling=sink.tiling,
        scattered=tuple(tasks),
    )


def _shards(sink: ArraySink | CoarseSink, pending: Pending) -> list[int]:
    """The shards of a scattered scale that are to be written."""
    assert isinstance(sink.writer, ShardWriter)
    shards = sink.writer.shards_of(sink.tiling.region)
    return shards if pending is None else [shard for shard in shards if shard in pending]


def all_done(_before: object) -> bool:
    """What waits for many tasks, in the place of them."""
    return True
