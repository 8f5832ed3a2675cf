"""`copy`: a layer → another place, form or part of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from precomputed_store.copying.job import prepare
from precomputed_store.copying.plan import CopyPlan
from precomputed_store.copying.request import (
    CopyMode,
    CopyRegion,
    CopyRequest,
    CopySharding,
    ScaleSelectors,
)
from precomputed_store.grid import XYZ
from precomputed_store.layer import Layer
from precomputed_store.writer import Compress

if TYPE_CHECKING:
    from dask.delayed import Delayed

__all__ = ["copy"]


def copy(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    scales: ScaleSelectors = None,
    region: CopyRegion = None,
    encoding: str | None = None,
    encoding_options: Mapping[str, Any] | None = None,
    chunk_size: XYZ | None = None,
    sharding: CopySharding = "same",
    compress: Compress = "auto",
    compress_level: int | None = None,
    linked: bool = False,
    verify: bool = False,
    allow_misread: bool = False,
    mode: CopyMode = "w-",
    resume: bool = False,
    dry_run: bool = False,
    compute: bool = True,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
    source_storage_options: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
    source_root: str | os.PathLike[str] | None = None,
    missing_statuses: Iterable[int] = (404,),
) -> Layer | Delayed | CopyPlan:
    """Copy a layer, some of its scales, or a region of it.

    What can be copied without decoding is: shard files as they are, encoded chunks from
    any sharding to any other or to none, jpeg to jxl and back. The rest is decoded and
    encoded block by block. Chunks that are not stored stay so, and those that are empty
    or whose shard is damaged are errors; bytes that are not decoded on their way are not
    looked at any further unless ``verify=True``.

    Parameters
    ----------
    source : str or path
        The layer, as in `open_layer`.
    destination : str or path
        Where the copy goes; not into the source.
    scales : int, str, (float, float, float), or list of them; optional
        Which scales, as in `open_volume`. Several are a list; a tuple of three numbers is
        a resolution. Default: all.
    region : Box or mapping of str to slice, optional
        Which voxels of the finest of these scales, in absolute coordinates:
        ``{"x": slice(0, 64)}`` (all of y and z). Other scales are cut to the voxels that
        hold the region. The copy keeps these coordinates.
    encoding : str, optional
        Default: that of the source. ``"jxl"`` keeps a jpeg's coefficients, and ``"jpeg"``
        gives the same bytes back, where no options are given.
    encoding_options : mapping, optional
        Parameters of the encoding under their names in `info`.
    chunk_size : (int, int, int), optional
        Default: that of the source.
    sharding : "same", None, "auto", ShardTarget or ShardingSpec
        None: each chunk is an object. ``"auto"``: see `ShardTarget`.
    compress : {"auto", "gzip", "br", "zstd", False}
        Compression around unsharded chunks. ``"auto"``: as they are stored, where source
        and copy are of the same kind, disks or object stores; else as in
        `to_precomputed`.
    compress_level : int, optional
        Compress anew with this level.
    linked : bool
        Also copy the folders that `info` links (meshes, skeletons, segment properties),
        object by object. Otherwise the copy does not link any.
    verify : bool
        Decode every chunk on the way.
    allow_misread : bool
        Change even to an encoding that the Neuroglancer client is known to show wrongly.
    mode : {"w-", "w"}
        ``"w-"`` creates a layer, ``"w"`` replaces one with all of its chunks.
    resume : bool
        Go on with an interrupted copy of the same arguments.
    dry_run : bool
        Touch nothing, and return the plan: what is copied how, and why so. `print` shows it.
    compute : bool
        False makes the empty layer now and returns a `dask.delayed.Delayed` that copies.
    progress : bool, optional
        Show a progress bar. Default: for long copies on a terminal.
    storage_options, source_storage_options : mapping, optional
        Passed to fsspec for the destination and for the source.
    root, source_root : str or path, optional
        Folders above the destination and the source (or those) that keys, links and redirects
        may not lead out of; see `open_layer`.
    missing_statuses : iterable of int
        HTTP statuses by which the source says that a chunk is not stored.

    Returns
    -------
    Layer, dask.delayed.Delayed or CopyPlan
        The copy. With ``compute=False``, what computes to that.

    Raises
    ------
    FileExistsError
        There is a layer already, and ``mode="w-"``.
    VolumeNotFoundError, MetadataError
        See `open_layer`.
    ValueError, TypeError, IndexError
        The arguments do not fit the source, or the destination overlaps it. Nothing was
        touched.
    ChunkError
        A chunk is damaged; names it. What was copied stays, for ``resume=True``.
    StorageError
        A storage refused or failed.

    Examples
    --------
    >>> import numpy as np, precomputed_store as ps
    >>> labels = np.arange(64**3, dtype=np.uint64).reshape(64, 64, 64) // 4096
    >>> _ = ps.to_precomputed(
    ...     labels, "memory://example/chunks", dims="xyz", resolution=(8, 8, 8),
    ...     chunk_size=(16, 16, 16),
    ... )
    >>> layer = ps.copy("memory://example/chunks", "memory://example/shards", sharding="auto")
    >>> layer.scale(0).sharding.hash
    'identity'
    """
    job = prepare(
        CopyRequest(
            source=source,
            destination=destination,
            scales=scales,
            region=region,
            encoding=encoding,
            encoding_options=encoding_options,
            chunk_size=chunk_size,
            sharding=sharding,
            compress=compress,
            compress_level=compress_level,
            linked=linked,
            verify=verify,
            allow_misread=allow_misread,
            mode=mode,
            resume=resume,
            storage_options=storage_options,
            source_storage_options=source_storage_options,
            root=root,
            source_root=source_root,
            missing_statuses=missing_statuses,
        )
    )
    if dry_run:
        return job.plan
    if not job.is_done:
        job.begin()
    return job.run(progress=progress) if compute else job.graph.delayed()
