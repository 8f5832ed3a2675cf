"""Carrying a write out: from memory, block by block, or as tasks of dask."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from precomputed_store.cached import cached_property
from precomputed_store.downsampling import Method
from precomputed_store.grid import XYZ
from precomputed_store.progress import Advance, progress_bar
from precomputed_store.shard_writer import EncodedChunks, ShardWriter
from precomputed_store.volume import Volume
from precomputed_store.writer import RegionWriter, WriteOptions, as_layer_dtype, writer_for
from precomputed_store.writing.blocks import LARGEST_BLOCK_BYTES
from precomputed_store.writing.coarse_scales import Finish, PyramidWrite, check_encoding
from precomputed_store.writing.done import pending
from precomputed_store.writing.graph import WriteGraph
from precomputed_store.writing.layers import Target
from precomputed_store.writing.record import WriteRecord
from precomputed_store.writing.source import WriteSource
from precomputed_store.writing.stages import Pending, array_stage, scatters
from precomputed_store.writing.staging import Staging, staging_folder
from precomputed_store.writing.tasks import ArraySink
from precomputed_store.writing.tiling import Tiling, tile

if TYPE_CHECKING:
    from dask.delayed import Delayed

__all__ = ["LayerWrite"]

_LONG_WRITE = 256
"""Chunks from which on a write shows its progress on a terminal."""


@dataclass(frozen=True, kw_only=True)
class LayerWrite:
    """One array on its way into one region of one scale, and the scales that follow from it."""

    source: WriteSource
    target: Target
    options: WriteOptions
    method: Method = "mean"

    @property
    def writer(self) -> RegionWriter:
        return writer_for(self.target.array, self.options, keep_stored=self.target.resuming)

    @cached_property
    def pyramid(self) -> PyramidWrite:
        return PyramidWrite(
            volume=self.target.volume,
            levels=self.target.levels,
            method=self.method,
            options=self.options,
            resuming=self.target.resuming,
        )

    def check(self, *, allow_misread: bool) -> None:
        """Refuse what would fail later, or be misread elsewhere; touches nothing.

        Raises
        ------
        ValueError, IndexError
            The region cannot be written so, or Neuroglancer would misread it.
        UnsupportedError
            The encoding's library is not installed.
        """
        writer, array = self.writer, self.target.array
        writer.check(self.target.region)
        misread = array.scale.codec.neuroglancer_misreads(array.num_channels, array.dtype)
        if misread is not None and not allow_misread:
            raise ValueError(
                f"{misread}. Choose another encoding, or pass allow_misread=True to write it "
                "for other readers"
            )
        check_encoding(writer)

    @property
    def job(self) -> WriteRecord:
        """The parameters of the job that decide what it writes."""
        return self.target.job(method=self.method, options=self.options)

    def begin(self) -> None:
        """Make the layer, and leave a record of the job if it makes one.

        Raises
        ------
        ValueError
            Another job than this was begun there.
        """
        if self.target.resuming:
            self.job.is_under_way(self.target.volume.layer.storage)
        self.target.prepare(self.job)

    def run(self, *, progress: bool | None) -> Volume:
        """Write everything."""
        shown = self._is_long() if progress is None else progress
        if self.target.is_done:
            return self.target.volume
        if self._by_dask:
            return self._graph().compute(progress=shown)  # type: ignore[no-any-return]
        self._write_blocks(progress=shown)
        finish = self._finish(by_dask=False)
        if not self.target.levels:
            return finish()
        stages = self.pyramid.stages(None)
        return WriteGraph(stages=stages, finish=finish).compute(  # type: ignore[no-any-return]
            progress=shown
        )

    def delayed(self) -> Delayed:
        """Everything as one delayed value."""
        if self.target.is_done:
            return WriteGraph(stages=[], finish=self._finish(by_dask=False)).delayed()
        return self._graph().delayed()

    @property
    def _by_dask(self) -> bool:
        return self.source.is_dask or (self._scatters and not self._in_memory)

    @property
    def _scatters(self) -> bool:
        return scatters(self.tiling, self._sink)

    def _finish(self, *, by_dask: bool) -> Finish:
        staged = by_dask and self._scatters
        return replace(
            self.pyramid.finish,
            staging=self._staging if staged else None,
            tiling=self.tiling if staged else None,
            is_job=self.target.is_new or self.target.resuming,
        )

    @property
    def is_staged(self) -> bool:
        """Whether encoded chunks are stored twice for a while."""
        return self._by_dask and self._scatters

    @property
    def _staging(self) -> Staging:
        array = self.target.array
        return Staging(storage=array.storage, folder=staging_folder(array.scale.key))

    def _is_long(self) -> bool:
        if not sys.stderr.isatty():
            return False
        x, y, z = self.tiling.region.shape
        cx, cy, cz = self.target.array.scale.chunk_size
        return (x // cx + 1) * (y // cy + 1) * (z // cz + 1) > _LONG_WRITE

    @cached_property
    def tiling(self) -> Tiling:
        present = self.source.chunk_lengths()
        array = self.target.array
        return tile(
            array.scale,
            self.target.region,
            voxel_bytes=array.num_channels * array.dtype.itemsize,
            present=None if present is None else (present[3], present[2], present[1]),
            smallest=None if present is not None else LARGEST_BLOCK_BYTES,
        )

    @cached_property
    def _sink(self) -> ArraySink:
        return ArraySink(writer=self.writer, tiling=self.tiling)

    @property
    def _pending(self) -> Pending:
        return pending(self._sink) if self.target.resuming else None

    def _write_blocks(self, *, progress: bool) -> None:
        """Write from memory, or from what is read block by block."""
        tiling, writer = self.tiling, self.writer
        todo = None if self._scatters else self._pending
        total = sum(1 for _ in self.target.array.grid.cells(tiling.region))
        with progress_bar("writing", total=total, enabled=progress) as bar:
            advance = bar if progress else None
            if self._in_memory and (todo is None or self._scatters):
                # What is in memory as it is needed is not cut for memory's sake.
                data = self.source.read((slice(None),) * 4)
                writer.write(tiling.region, data, advance=advance)
                return
            for index in tiling.objects.indices():
                if todo is None or index in todo:
                    self._write_object(index, advance)

    @property
    def _in_memory(self) -> bool:
        return self.source.is_numpy and self.source.dtype == self.target.array.dtype

    def _write_object(self, index: XYZ, advance: Advance | None) -> None:
        tiling, writer = self.tiling, self.writer
        if tiling.grouped is None:
            box = tiling.box(index)
            writer.write(box, self._block(index), advance=advance)
            return
        assert isinstance(writer, ShardWriter)
        chunks: dict[int, bytes | None] = {}
        for member in tiling.members(index):
            encoded: EncodedChunks = writer.encode(
                tiling.box(member), self._block(member), advance=advance
            )
            chunks |= encoded
        writer.store_region(tiling.objects.box(index), chunks)

    def _block(self, index: XYZ) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
        box, start = self.tiling.box(index), self.target.region.start
        x, y, z = (
            slice(a - origin, b - origin)
            for a, b, origin in zip(box.start, box.stop, start, strict=True)
        )
        data = self.source.read((slice(None), z, y, x))
        return as_layer_dtype(data, self.target.array.dtype)

    def _graph(self) -> WriteGraph:
        x, y, z = self.tiling.spans
        array = self.source.as_dask(((self.source.shape[0],), z, y, x))
        base = array_stage(array, self._sink, pending=self._pending, staging=self._staging)
        stages = [base, *self.pyramid.stages(base)]
        return WriteGraph(stages=stages, finish=self._finish(by_dask=True))
