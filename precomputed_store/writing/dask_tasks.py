"""Writing a dask array: one task per block, no two of which touch the same object."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from precomputed_store.array_door import ArrayDoor
from precomputed_store.codecs.base import ChunkArray
from precomputed_store.errors import StorageError
from precomputed_store.grid import Box
from precomputed_store.progress import Advance, progress_bar
from precomputed_store.storage import Storage
from precomputed_store.volume import Volume
from precomputed_store.writer import RegionWriter, as_layer_dtype
from precomputed_store.writing.blocks import Spans, block_box

if TYPE_CHECKING:
    from dask.array import Array
    from dask.delayed import Delayed

__all__ = ["DaskWrite", "plan_dask_write"]


@dataclass(frozen=True, kw_only=True)
class BlockSink:
    """Where the blocks of an array go. Each task gets this one object.

    Attributes
    ----------
    writer : RegionWriter
    region : Box
        Voxels that the whole array replaces.
    starts : tuple of three tuples of int
        Where the blocks begin in the array, along x, y, z.
    """

    writer: RegionWriter
    region: Box
    starts: Spans

    def __dask_tokenize__(self) -> tuple[object, ...]:
        target = ArrayDoor(self.writer.array).__dask_tokenize__()
        place = (self.region.start, self.region.stop, self.starts)
        return "precomputed_store.BlockSink", target, repr(self.writer.options), place


@dataclass(frozen=True, kw_only=True)
class DaskWrite:
    """A write as dask arrays: `written` has one element for each block that is done."""

    written: Array
    volume: Volume

    @property
    def num_blocks(self) -> int:
        return int(self.written.npartitions)

    def delayed(self) -> Delayed:
        """The whole write as one delayed value: the volume that was written."""
        import dask.array as da
        from dask.blockwise import optimize_blockwise
        from dask.delayed import Delayed

        written = self.written
        # Reading, computing and writing a block become one task; the graph stays symbolic,
        # and so is the last layer, which takes every block.
        fused = optimize_blockwise(  # type: ignore[no-untyped-call]
            written.__dask_graph__(), keys=[written.name]
        )
        blocks = da.Array(  # type: ignore[no-untyped-call]
            fused, written.name, written.chunks, meta=written._meta
        )
        done: Array = da.blockwise(  # type: ignore[no-untyped-call]
            finish,
            "",
            blocks,
            "czyx",
            result=Result(volume=self.volume),
            name=f"to-precomputed-{written.name.rpartition('-')[2]}",
            dtype=np.bool_,
            meta=np.empty((), np.bool_),
        )
        return Delayed((done.name,), done.__dask_graph__(), layer=done.name)  # type: ignore[no-untyped-call]

    def compute(self, *, progress: bool) -> None:
        """Write, with whichever scheduler is active."""
        if not progress:
            self.written.compute()  # type: ignore[no-untyped-call]
            return
        with progress_bar("writing", total=self.num_blocks, enabled=True, unit="blocks") as done:
            client = _client()
            if client is None:
                with _counting(self.written.name, done):
                    self.written.compute()  # type: ignore[no-untyped-call]
            else:
                _follow(client, self.written, done)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished write gives back."""

    volume: Volume


def plan_dask_write(
    array: Array, writer: RegionWriter, *, region: Box, volume: Volume
) -> DaskWrite:
    """Tasks that write a dask array, one for each of its blocks. Nothing is written yet.

    Parameters
    ----------
    array : dask.array.Array
        ``(channel, z, y, x)`` of the region's shape; its blocks are unions of whole
        objects (see `blocks.merged_spans`).
    writer : RegionWriter
    region : Box
    volume : Volume
        What a finished write gives back.
    """
    import dask.array as da
    from dask.base import tokenize

    _, z, y, x = (tuple(itertools.accumulate(lengths[:-1], initial=0)) for lengths in array.chunks)
    sink = BlockSink(writer=writer, region=region, starts=(x, y, z))
    written: Array = da.map_blocks(  # type: ignore[no-untyped-call]
        write_block,
        array,
        sink,
        name=f"write-precomputed-{tokenize(array.name, sink)}",
        dtype=np.bool_,
        chunks=tuple((1,) * len(lengths) for lengths in array.chunks),
        meta=np.empty((0,) * 4, np.bool_),
    )
    return DaskWrite(written=written, volume=volume)


def write_block(
    block: ChunkArray, sink: BlockSink, block_id: tuple[int, ...] | None = None
) -> ChunkArray:
    """Write one block; doing it twice, or on two workers at once, changes nothing."""
    if block_id is None:
        raise TypeError("write_block must be called with block_id")
    _check_shared(sink.writer.array.storage)
    z, y, x = block_id[1:]
    start = [axis[i] for axis, i in zip(sink.starts, (x, y, z), strict=True)]
    data = as_layer_dtype(block, sink.writer.array.dtype)
    c, nz, ny, nx = data.shape
    sink.writer.write(block_box(sink.region, start, (c, nz, ny, nx)), data)
    return np.ones((1, 1, 1, 1), np.bool_)


def _check_shared(storage: Storage) -> None:
    """Refuse a worker that would write where nobody else looks.

    Raises
    ------
    StorageError
    """
    if storage.threaded and not storage.exists("info"):
        raise StorageError(
            f"{storage.url}: the layer to be written into cannot be seen from this worker: "
            "write to a disk or a bucket that all workers share"
        )


def finish(blocks: Sequence[object], *, result: Result) -> Volume:
    """What comes after every block."""
    return result.volume


def _client() -> Any:
    """The dask.distributed client in use, or None."""
    from dask.base import get_scheduler

    owner = getattr(get_scheduler(), "__self__", None)  # type: ignore[no-untyped-call]
    return owner if hasattr(owner, "persist") else None


def _counting(name: str, done: Advance) -> AbstractContextManager[object]:
    """Counts the blocks that a scheduler of this process finishes."""
    from dask.callbacks import Callback

    def finished(key: object, *_: object) -> None:
        if isinstance(key, tuple) and key[0] == name:
            done(1)

    return Callback(posttask=finished)  # type: ignore[no-untyped-call]


def _follow(client: Any, written: Array, done: Advance) -> None:
    from distributed import as_completed, futures_of

    futures = futures_of(client.persist(written))  # type: ignore[no-untyped-call]
    for future in as_completed(futures):  # type: ignore[no-untyped-call]
        future.result()
        done(1)
