"""Carrying a write out: from memory, block by block, or as tasks of dask."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from precomputed_store.codecs import content
from precomputed_store.progress import progress_bar
from precomputed_store.write_plan import unit_spans
from precomputed_store.writer import RegionWriter, WriteOptions, as_layer_dtype, writer_for
from precomputed_store.writing.blocks import (
    LARGEST_BLOCK_BYTES,
    Spans,
    blocks_of,
    merged_spans,
)
from precomputed_store.writing.layers import Target
from precomputed_store.writing.source import WriteSource

if TYPE_CHECKING:
    from dask.delayed import Delayed

    from precomputed_store.writing.dask_tasks import DaskWrite

__all__ = ["LayerWrite"]

_LONG_WRITE = 256
"""Chunks from which on a write shows its progress on a terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWrite:
    """One array on its way into one region of one scale."""

    source: WriteSource
    target: Target
    options: WriteOptions

    @property
    def writer(self) -> RegionWriter:
        return writer_for(self.target.array, self.options)

    def check(self, *, allow_misread: bool) -> None:
        """Refuse what would fail later, or be misread elsewhere; touches nothing.

        Raises
        ------
        ValueError, IndexError
            The region cannot be written so, or Neuroglancer would misread it.
        UnsupportedError
            The scale is sharded, or the encoding's library is not installed.
        """
        writer, array = self.writer, self.target.array
        writer.check(self.target.region)
        misread = array.scale.codec.neuroglancer_misreads(array.num_channels, array.dtype)
        if misread is not None and not allow_misread:
            raise ValueError(
                f"{misread}. Choose another encoding, or pass allow_misread=True to write it "
                "for other readers"
            )
        sample = np.zeros((array.num_channels, 8, 8, 8), array.dtype)
        encoded = array.scale.codec.encode(sample)
        if writer.content_encoding is not None:
            content.apply(encoded, writer.content_encoding, level=self.options.compress_level)

    def run(self, *, progress: bool | None) -> None:
        """Write every chunk."""
        shown = self._is_long() if progress is None else progress
        if self.source.is_dask:
            self._dask_write().compute(progress=shown)
        else:
            self._write_blocks(progress=shown)

    def delayed(self) -> Delayed:
        """The write of every chunk as one delayed value."""
        return self._dask_write().delayed()

    def _is_long(self) -> bool:
        if not sys.stderr.isatty():
            return False
        return self._num_chunks > _LONG_WRITE

    @property
    def _num_chunks(self) -> int:
        x, y, z = map(len, self._units)
        return x * y * z

    @property
    def _units(self) -> Spans:
        x, y, z = unit_spans(self.target.array.scale, self.target.region)
        return x, y, z

    @property
    def _voxel_bytes(self) -> int:
        return self.target.array.num_channels * self.target.array.dtype.itemsize

    def _write_blocks(self, *, progress: bool) -> None:
        x, y, z = units = self._units
        if self.source.is_numpy and self.source.dtype == self.target.array.dtype:
            # What is in memory as it is needed is not cut for memory's sake.
            spans: Spans = ((sum(x),), (sum(y),), (sum(z),))
        else:
            spans = merged_spans(
                units, voxel_bytes=self._voxel_bytes, smallest=LARGEST_BLOCK_BYTES
            )
        writer, dtype = self.writer, self.target.array.dtype
        with progress_bar("writing", total=self._num_chunks, enabled=progress) as advance:
            for box, where in blocks_of(self.target.region, spans):
                data = as_layer_dtype(self.source.read(where), dtype)
                writer.write(box, data, advance=advance if progress else None)

    def _dask_write(self) -> DaskWrite:
        from precomputed_store.writing.dask_tasks import plan_dask_write

        present = self.source.chunk_lengths()
        x, y, z = merged_spans(
            self._units,
            voxel_bytes=self._voxel_bytes,
            present=None if present is None else (present[3], present[2], present[1]),
        )
        array = self.source.as_dask(((self.source.shape[0],), z, y, x))
        return plan_dask_write(
            array, self.writer, region=self.target.region, volume=self.target.volume
        )
