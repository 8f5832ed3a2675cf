"""`to_precomputed`: an array → a layer."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from precomputed_store.grid import XYZ
from precomputed_store.layer import ScaleSelector
from precomputed_store.pyramid_plan import Pyramid
from precomputed_store.volume import Volume
from precomputed_store.write_plan import Unaligned
from precomputed_store.writer import Compress, WriteOptions
from precomputed_store.writing.layers import Place, WriteMode, plan_target
from precomputed_store.writing.place import Region, Resolution
from precomputed_store.writing.pyramid import MethodName, resolve_method
from precomputed_store.writing.run import LayerWrite
from precomputed_store.writing.source import as_source
from precomputed_store.writing.target import LayerType, LayerWish, Sharding

if TYPE_CHECKING:
    from dask.delayed import Delayed

__all__ = ["to_precomputed"]


def to_precomputed(
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
    method: MethodName = "auto",
    compress: Compress = "auto",
    compress_level: int | None = None,
    write_empty_chunks: bool = False,
    mode: WriteMode = "w-",
    scale: ScaleSelector | None = None,
    region: Region | None = None,
    unaligned: Unaligned = "raise",
    allow_misread: bool = False,
    resume: bool = False,
    compute: bool = True,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Volume | Delayed:
    """Write an array as a Precomputed layer, or into one.

    Everything is checked before anything is touched. Then `info` is written, with the scale
    of the array, then the chunks; coarser scales are named there when they are written. A
    small file beside `info`, ``write-in-progress.json``, says that a write has not ended; with
    ``resume=True`` the same call goes on with it. A dask array is cut so that no two tasks
    touch the same object; each task may safely run twice. Arrays that are larger than
    memory are written block by block. `plan` says beforehand what a write will do.

    Parameters
    ----------
    array : xarray.DataArray, xarray.Dataset, dask array, numpy array, or sliceable
        A dataset must have one variable. Axes may be in any order; a missing channel
        axis is added.
    url : str or path
        Local path, ``file://``, ``memory://``, ``gs://``, ``s3://`` or any fsspec chain that
        can be written to.
    dims : iterable of str, optional
        Which axis is which: ``"x"``, ``"y"``, ``"z"``, ``"channel"`` (or ``"c"``), in the order
        of the array's axes. Required unless the array has names of its own.
    layer_type : {"image", "segmentation"}, optional
        Default: that of the layer that the array was read from; else its name, if that is
        one of the two; else images for uint8, int8 and floats, segmentations for uint32
        and uint64. Other data types need the word.
    encoding : str, optional
        ``"raw"``, ``"jpeg"``, ``"png"``, ``"jxl"``, ``"compressed_segmentation"``,
        ``"compresso"``, ``"crackle"``, ``"fpzip"``, ``"zfpc"``. Default: that of the layer that
        the array was read from; else compressed_segmentation for a segmentation of
        uint32 or uint64, raw for the rest.
    encoding_options : mapping, optional
        Parameters of the encoding under their names in `info`, such as
        ``{"jpeg_quality": 90}``.
    resolution : (float, float, float), optional
        Size of a voxel along x, y, z in nanometres. Default: the distance between the
        coordinates (nanometres, unless their attribute `units` names another length),
        else that of the layer that the array was read from.
    voxel_offset : (int, int, int), optional
        Absolute coordinates x, y, z of the array's first voxel. Default: from the
        coordinates, which are centres of voxels, ``(i + 0.5) * resolution``; else from the
        layer that the array was read from; else zero.
    chunk_size : (int, int, int), optional
        Extent of a chunk along x, y, z in voxels. Default: that of the layer that the
        array was read from, else (64, 64, 64) or less where the array is smaller.
    key : str, optional
        Name of the scale's folder. Default: the resolution, as in ``"8_8_8"``.
    sharding : None, "auto", ShardTarget or ShardingSpec
        None: each chunk is an object of its own. ``"auto"``: shards that are boxes of chunks,
        of about 128 MiB each (`ShardTarget` changes that). A dask array is written with one
        object per task, or one per few tasks where a shard's voxels do not fit into memory.
        With parameters under which shards are no boxes of chunks (a hash, too few bits), the
        encoded chunks of a dask array are stored in ``<key>.staging`` first.
    pyramid : None, "auto", str, int or sequence of (int, int, int)
        Coarser scales. ``"auto"``: at each step those axes are halved that are finest, until
        the scale fits into a chunk; an integer: as many such steps. ``"2x2x1"``: this factor
        again and again until the scale fits into a chunk. A sequence: these factors along
        x, y, z, each relative to the scale before.
    method : {"auto", "mean", "mode", "min", "max", "stride"}
        How a voxel is made from those that it covers: ``"auto"`` is mean for images and mode
        for segmentations. A coarse voxel i covers the voxels [i·f, (i+1)·f) of the absolute
        grid, so scales lie exactly on each other whatever the offset; bounds are rounded
        outward, and at them only the voxels that there are count. See
        `downsampling.downsample` for what each method does with ties and rounding. Each
        scale is made from the one before as it is stored.
    compress : {"auto", "gzip", "br", "zstd", False}
        Compression around the encoding. ``"auto"``: gzip on object stores for raw,
        compressed_segmentation, compresso and crackle; none otherwise.
    compress_level : int, optional
        Level of that compression.
    write_empty_chunks : bool
        Store chunks that hold only zeros. By default they are not stored, which reads
        the same, and those that exist are removed.
    mode : {"w-", "w", "a", "r+"}
        ``"w-"`` creates a layer, ``"w"`` replaces one with all of its chunks (meshes and the
        like stay), ``"r+"`` writes into one, ``"a"`` does that if there is one and creates
        it otherwise. With `region`, ``"w-"`` means ``"r+"``. A lazy array may be written
        into the layer that it is computed from only if each voxel depends on none but
        those of its own chunk.
    scale : int, str or (float, float, float), optional
        Which scale of an existing layer. Default: the one that has the array's
        resolution.
    region : Box, mapping of str to slice, or "auto", optional
        Which voxels of an existing layer to replace, in absolute coordinates:
        ``{"x": slice(0, 64)}`` (all of y and z), or the place that coordinates say.
        Default: `voxel_offset`, coordinates, or the whole scale if it is as large.
    unaligned : {"raise", "read-modify-write", "unguarded-read-modify-write"}
        What to do with a region that covers chunks (shards, where there are shards) only in
        part: refuse it, or change what is stored. ``"read-modify-write"`` loses nothing of
        what others write into the same object at the same time; the unguarded kind is for
        a single writer on storages that cannot promise that, which say so.
    resume : bool
        Go on with a write of a new layer that was interrupted: objects that are stored are
        left as they are. Refused if that was another job: another array shape, encoding,
        sharding, pyramid or method. What the voxels are is not compared. If there is nothing
        to resume, the layer is made; if it is complete, nothing is done.
    allow_misread : bool
        Write even what the Neuroglancer client is known to show wrongly.
    compute : bool
        False writes `info` now and returns a `dask.delayed.Delayed` that writes the
        chunks.
    progress : bool, optional
        Show a progress bar. Default: for long writes on a terminal.
    storage_options : mapping, optional
        Passed to fsspec.
    root : str or path, optional
        A folder above the layer's (or that one) that it may not lead out of; see `open_layer`.

    Returns
    -------
    Volume or dask.delayed.Delayed
        The scale that was written. With ``compute=False``, what computes to that.

    Raises
    ------
    FileExistsError
        There is a layer already, or what is left of one, and ``mode="w-"``.
    VolumeNotFoundError
        There is none, and ``mode="r+"``.
    ValueError, TypeError, IndexError
        The arguments do not fit each other, the array or the layer. Nothing was touched.
    UnsupportedError
        A library is missing, or the storage cannot do what it takes. Nothing was touched.
    ChunkError, StorageError
        A chunk could not be encoded or written. Chunks already written stay.

    Examples
    --------
    >>> import numpy as np, precomputed_store as ps
    >>> labels = np.zeros((100, 80, 60), np.uint64)
    >>> labels[10:20, 30:40, 5:9] = 7
    >>> volume = ps.to_precomputed(
    ...     labels, "memory://example/labels", dims=("x", "y", "z"), resolution=(8, 8, 40)
    ... )
    >>> volume.layer_type, int(volume[15, 35, 6].item())
    ('segmentation', 7)
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
    options = WriteOptions(
        compress=compress,
        compress_level=compress_level,
        write_empty_chunks=write_empty_chunks,
        unaligned=unaligned,
    )
    place = Place(
        url=url,
        mode=mode,
        scale=scale,
        region=region,
        resume=resume,
        storage_options=storage_options,
        root=root,
    )
    target = plan_target(source, wish, place, pyramid)
    write = LayerWrite(
        source=source,
        target=target,
        options=options,
        method=resolve_method(method, layer_type=target.volume.layer_type),
    )
    write.check(allow_misread=allow_misread)
    if not target.is_done:
        write.begin()
    return write.run(progress=progress) if compute else write.delayed()
