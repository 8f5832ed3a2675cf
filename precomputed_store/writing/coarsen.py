"""`downsample`: coarser scales for a layer that is there."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from precomputed_store.grid import XYZ
from precomputed_store.info_edits import edit_info, with_scales
from precomputed_store.layer import Layer, ScaleSelector, open_layer
from precomputed_store.metadata import VolumeInfo
from precomputed_store.pyramid_plan import Pyramid
from precomputed_store.volume import Volume
from precomputed_store.writer import Compress, WriteOptions
from precomputed_store.writing.coarse_scales import Finish, PyramidWrite
from precomputed_store.writing.erase import left_over, plan_removal
from precomputed_store.writing.graph import WriteGraph
from precomputed_store.writing.pyramid import (
    Level,
    MethodName,
    plan_levels,
    resolve_method,
)
from precomputed_store.writing.record import RECORD_KEY, WriteRecord, recorded_scales
from precomputed_store.writing.target import Sharding, make_codec

if TYPE_CHECKING:
    from dask.delayed import Delayed

__all__ = ["downsample"]


def downsample(
    url: str | os.PathLike[str],
    pyramid: Pyramid = "auto",
    *,
    scale: ScaleSelector = -1,
    method: MethodName = "auto",
    encoding: str | None = None,
    encoding_options: Mapping[str, Any] | None = None,
    chunk_size: XYZ | None = None,
    sharding: Sharding | Literal["same"] = "same",
    compress: Compress = "auto",
    compress_level: int | None = None,
    write_empty_chunks: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    compute: bool = True,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Volume | Delayed:
    """Add coarser scales to a layer.

    Each is made from the one before, as it is stored, by tasks of dask: with the threads of
    this process, or on a cluster if a client of `dask.distributed` is active. `info` names
    the new scales when all of them are written.

    Parameters
    ----------
    url : str or path
        The layer.
    pyramid : "auto", str, int or sequence of (int, int, int)
        Which scales; see `to_precomputed`.
    scale : int, str or (float, float, float)
        The scale to start from. Default: the coarsest that there is.
    method : {"auto", "mean", "mode", "min", "max", "stride"}
        See `to_precomputed`.
    encoding, encoding_options, chunk_size
        Of the new scales. Default: those of the scale that is started from.
    sharding : "same", None, "auto", ShardTarget or ShardingSpec
        Of the new scales; see `to_precomputed`.
    compress, compress_level, write_empty_chunks
        How chunks are stored; see `to_precomputed`.
    overwrite : bool
        Replace scales of the same keys, and chunks that lie in their folders.
    resume : bool
        Go on with a job that was interrupted: what is stored already is left as it is. Name
        `scale` then, as what is the coarsest changes when the job is done.
    compute : bool
        False returns a `dask.delayed.Delayed` that does the work.
    progress : bool, optional
        Show a progress bar. Default: no.
    storage_options : mapping, optional
        Passed to fsspec.
    root : str or path, optional
        A folder above the layer's (or that one) that it may not lead out of; see `open_layer`.

    Returns
    -------
    Volume or dask.delayed.Delayed
        The scale that was started from; its `scales` has the new ones.

    Raises
    ------
    ValueError
        The layer has such a scale, or the arguments do not fit each other.
    FileExistsError
        A job was begun there and has not ended, or a new scale's folder is not empty.
    VolumeNotFoundError, MetadataError, ChunkError, StorageError

    Examples
    --------
    >>> import numpy as np, precomputed_store as ps
    >>> labels = np.repeat(np.arange(8, dtype="uint64"), 512).reshape(16, 16, 16)
    >>> volume = ps.to_precomputed(
    ...     labels, "memory://downsampled", dims=("x", "y", "z"), resolution=(8, 8, 8)
    ... )
    >>> volume = ps.downsample("memory://downsampled", "2x2x2", compute=True)
    >>> [scale.key for scale in volume.scales]
    ['8_8_8']
    >>> volume = ps.downsample("memory://downsampled", [(2, 2, 1), (2, 2, 2)])
    >>> [scale.key for scale in volume.scales]
    ['8_8_8', '16_16_8', '32_32_16']
    """
    layer = open_layer(url, storage_options=storage_options, root=root)
    resuming = resume and layer.storage.exists(RECORD_KEY)
    volume = Volume(layer=layer, scale_index=_source_index(layer, scale, resuming=resuming))
    levels = _levels(
        volume,
        pyramid,
        sharding=volume.scale.sharding if sharding == "same" else sharding,
        encoding=encoding,
        encoding_options=encoding_options,
        chunk_size=chunk_size,
    )
    write = PyramidWrite(
        volume=volume,
        levels=levels,
        method=resolve_method(method, layer_type=layer.info.layer_type),
        options=WriteOptions(
            compress=compress,
            compress_level=compress_level,
            write_empty_chunks=write_empty_chunks,
        ),
        resuming=resuming,
    )
    if not levels or (resume and not write.resuming and _is_done(layer, levels)):
        graph = WriteGraph(stages=[], finish=Finish(volume=volume, is_job=False))
    else:
        write.check()
        _begin(write, overwrite=overwrite)
        graph = WriteGraph(stages=write.stages(None), finish=write.finish)
    return graph.compute(progress=bool(progress)) if compute else graph.delayed()


def _source_index(layer: Layer, scale: ScaleSelector, *, resuming: bool) -> int:
    """The scale to start from. The job that is resumed may have named its own in `info`."""
    info = layer.info
    recorded = recorded_scales(layer.storage) if resuming else ()
    if all(other.key in recorded for _, other in info.usable_scales):
        return info.scale_index(scale)
    before = _without(info, recorded)
    return info.scales.index(before.scales[before.scale_index(scale)])


def _levels(
    volume: Volume,
    pyramid: Pyramid,
    *,
    sharding: Sharding,
    encoding: str | None,
    encoding_options: Mapping[str, Any] | None,
    chunk_size: XYZ | None,
) -> tuple[Level, ...]:
    base = volume.scale
    if encoding is not None or encoding_options:
        name = base.encoding if encoding is None else encoding.lower()
        remembered = base.codec.to_parameters() if name == base.encoding else None
        codec = make_codec(name, encoding_options or {}, remembered=remembered)
        base = replace(base, codec=codec)
    if chunk_size is not None:
        base = replace(base, chunk_sizes=(chunk_size,), sharding=None)
    voxel_bytes = volume.info.num_channels * volume.dtype.itemsize
    return plan_levels(base, pyramid, sharding=sharding, voxel_bytes=voxel_bytes)


def _is_done(layer: Layer, levels: tuple[Level, ...]) -> bool:
    return all(level.scale in layer.info.scales for level in levels)


def _begin(write: PyramidWrite, *, overwrite: bool) -> None:
    """Make room for the new scales, and leave a record of the job.

    Raises
    ------
    ValueError, FileExistsError
        There is no room, or the job that is to be resumed is another one.
    """
    storage, info = write.volume.layer.storage, write.volume.info
    keys = [level.scale.key for level in write.levels]
    kept = tuple(scale for scale in info.scales if scale.key not in keys)
    planned = with_scales(replace(info, scales=kept), *(level.scale for level in write.levels))
    job = WriteRecord(info=planned, scales=tuple(keys), method=write.method, options=write.options)
    if write.resuming:
        job.is_under_way(storage)
        return
    source = write.volume.scale.key
    if source in keys:
        raise ValueError(f"a new scale would replace {source!r}, its own source")
    if source in recorded_scales(storage):
        raise FileExistsError(
            f"{storage.url}: scale {source!r} is being written, or its writing was interrupted: "
            "go on with that, to_precomputed(resume=True), before coarser scales are made of it"
        )
    if not overwrite:
        _refuse_what_is_there(write, keys)
    elif len(kept) < len(info.scales):
        edit_info(storage, lambda old: _without(old, keys))
    plan_removal(storage, keys=keys).carry_out()
    job.begin(storage)


def _refuse_what_is_there(write: PyramidWrite, keys: list[str]) -> None:
    storage = write.volume.layer.storage
    if storage.exists(RECORD_KEY):
        raise FileExistsError(
            f"{storage.url}: a write was begun there and has not ended: resume=True goes on with "
            "it, overwrite=True begins anew"
        )
    taken = [scale.key for scale in write.volume.scales if scale.key in keys]
    if taken:
        raise ValueError(
            f"{storage.url}: the layer has scale(s) {', '.join(map(repr, taken))} already; start "
            "from the coarsest, scale=-1, or pass overwrite=True"
        )
    left = left_over(storage, keys)
    if left is not None:
        raise FileExistsError(
            f"{storage.url}: info names no such scale, but there are chunks of it, such as "
            f"{left!r}: overwrite=True removes them"
        )


def _without(info: VolumeInfo, keys: Collection[str]) -> VolumeInfo:
    return replace(info, scales=tuple(scale for scale in info.scales if scale.key not in keys))
