"""Coarser scales on their way into a layer: their tasks, and what remains at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from precomputed_store.downsampling import Method, coarse_box
from precomputed_store.engine import ChunkedArray
from precomputed_store.grid import XYZ, Box
from precomputed_store.info_edits import edit_info, with_scales
from precomputed_store.metadata import Scale
from precomputed_store.volume import Volume
from precomputed_store.writer import RegionWriter, WriteOptions, writer_for
from precomputed_store.writing.blocks import LARGEST_BLOCK_BYTES
from precomputed_store.writing.done import pending
from precomputed_store.writing.pyramid import Level
from precomputed_store.writing.record import end_record
from precomputed_store.writing.stages import Stage, coarse_stage
from precomputed_store.writing.staging import Staging
from precomputed_store.writing.tasks import CoarseSink
from precomputed_store.writing.tiling import Tiling, tile

__all__ = ["Finish", "PyramidWrite", "check_encoding"]


@dataclass(frozen=True, kw_only=True)
class PyramidWrite:
    """Coarser scales on their way into a layer.

    Attributes
    ----------
    volume : Volume
        The scale that the first of them is made from.
    levels : sequence of Level
    method : str
    options : WriteOptions
    resuming : bool
        Whether objects that are stored already are left as they are.
    region : Box, optional
        Voxels of the first scale that the others are to follow. Default: all.
    """

    volume: Volume
    levels: Sequence[Level]
    method: Method
    options: WriteOptions
    resuming: bool = False
    region: Box | None = None

    def array(self, scale: Scale) -> ChunkedArray:
        """A scale that `info` need not name yet."""
        return replace(self.volume.array, scale=scale, missing="fill")

    def check(self) -> None:
        """Refuse what would fail in a task; touches nothing.

        Raises
        ------
        ValueError, IndexError
            A scale cannot be written so.
        MetadataError
            A scale's folder leads out of the root.
        UnsupportedError
            The encoding's library is not installed.
        """
        region = self._region
        if not self.volume.bounds.contains(region):
            raise IndexError(f"region {region} reaches outside the volume {self.volume.bounds}")
        # What is read and what is written has to lie within the root.
        self.volume.layer.storage.child(self.volume.scale.key)
        for sink in self.sinks():
            sink.writer.check(sink.tiling.region)
            check_encoding(sink.writer)

    @property
    def _region(self) -> Box:
        return self.volume.bounds if self.region is None else self.region

    def sinks(self) -> list[CoarseSink]:
        """What the tasks of each level get."""
        finer, sinks = self.array(self.volume.scale), []
        region = self._region
        for level in self.levels:
            array, region = self.array(level.scale), coarse_box(region, level.factor)
            sinks.append(
                CoarseSink(
                    writer=writer_for(array, self.options, keep_stored=self.resuming),
                    finer=finer,
                    factor=level.factor,
                    method=self.method,
                    tiling=coarse_tiling(array, region, level.factor),
                )
            )
            finer = array
        return sinks

    def stages(self, base: Stage | None) -> list[Stage]:
        """The tasks of each level; the first waits for those of the base."""
        stages: list[Stage] = []
        finer = base
        for sink in self.sinks():
            finer = coarse_stage(sink, finer, pending=pending(sink) if self.resuming else None)
            stages.append(finer)
        return stages

    @property
    def finish(self) -> Finish:
        return Finish(volume=self.volume, scales=tuple(level.scale for level in self.levels))


def check_encoding(writer: RegionWriter) -> None:
    """Encode and compress a few voxels, to see that everything it takes is there."""
    array = writer.array
    sample = np.zeros((array.num_channels, 8, 8, 8), array.dtype)
    writer.compress(array.scale.codec.encode(sample))


def coarse_tiling(array: ChunkedArray, region: Box, factor: XYZ) -> Tiling:
    """Blocks of a coarser scale that are made of few enough finer voxels to hold at once."""
    fx, fy, fz = factor
    return tile(
        array.scale,
        region,
        voxel_bytes=array.num_channels * array.dtype.itemsize * fx * fy * fz,
        largest=LARGEST_BLOCK_BYTES,
    )


@dataclass(frozen=True, kw_only=True)
class Finish:
    """What remains when every object is stored. Doing it twice changes nothing.

    Attributes
    ----------
    volume : Volume
        What the write gives back.
    scales : tuple of Scale
        Those that `info` is to name now.
    staging : Staging or None
        What is to be cleared, with the blocks in `tiling`.
    is_job : bool
        Whether there is a record to be removed.
    """

    volume: Volume
    scales: tuple[Scale, ...] = ()
    staging: Staging | None = None
    tiling: Tiling | None = None
    is_job: bool = True

    def __call__(self) -> Volume:
        storage, volume = self.volume.layer.storage, self.volume
        if self.staging is not None and self.tiling is not None:
            self.staging.clear(self.tiling.indices())
        if self.scales:
            info = edit_info(storage, lambda old: with_scales(old, *self.scales))
            volume = replace(
                volume,
                layer=replace(volume.layer, info=info),
                scale_index=info.scale_index(volume.scale.key),
            )
        if self.is_job:
            end_record(storage)
        return volume
