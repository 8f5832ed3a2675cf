"""`make_meshes`: surfaces of the segments of a volume, into its folder of meshes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from precomputed_store.grid import XYZ
from precomputed_store.keyed_reader import check_id
from precomputed_store.layer import Layer, open_layer
from precomputed_store.mesh.extract import Extractor, extract_surfaces
from precomputed_store.mesh_encoding import LevelOptions
from precomputed_store.mesh_source import MeshSource
from precomputed_store.mesh_target import MeshWish, Target, link_meshes, open_target
from precomputed_store.meshing.job import MeshJob, MeshMode, SurfaceOptions
from precomputed_store.metadata import ScaleSelector, ShardingSpec
from precomputed_store.metadata.mesh import MeshKind

__all__ = ["make_meshes"]


def make_meshes(
    url: str | os.PathLike[str],
    *,
    scale: ScaleSelector = 0,
    ids: Iterable[int] | None = None,
    kind: MeshKind | None = None,
    folder: str | None = None,
    sharding: ShardingSpec | Literal["auto"] | None = None,
    lods: int | Literal["auto"] = "auto",
    reduction: float = 4.0,
    vertex_quantization_bits: Literal[10, 16] | None = None,
    draco_level: int = 7,
    min_voxels: int = 0,
    smooth: int = 0,
    simplify: float = 1.0,
    block_shape: XYZ | None = None,
    extractor: Extractor = extract_surfaces,
    mode: MeshMode = "a",
    resume: bool = False,
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> MeshSource:
    """Make meshes of the segments of a volume.

    Tasks of dask: one for each block of voxels, then one for each shard or group of
    segments. Between them, pieces of surface lie in a temporary folder beside the meshes.
    Surfaces are closed, at the faces of the volume too; voxel i spans [i, i + 1) times the
    resolution.

    Parameters
    ----------
    url : str or path
        A segmentation.
    scale : int, str or (float, float, float)
        Index, key, or resolution in nanometres of the scale to take the voxels of.
    ids : iterable of int, optional
        Only these segments. Default: all but 0.
    kind : {"multilod", "legacy"}, optional
        Default: what the folder has, or ``"multilod"``.
    folder : str, optional
        Where meshes go, relative to the volume. Default: what `info` links, or ``"mesh"``.
    sharding, lods, reduction, vertex_quantization_bits, draco_level
        See `write_meshes`.
    min_voxels : int
        Segments of fewer voxels get no mesh.
    smooth : int
        Rounds of smoothing; 10 takes the steps off.
    simplify : float
        How many times fewer triangles the finest level is to have; 1 keeps all.
    block_shape : (int, int, int), optional
        Voxels of a block along x, y, z: what one task holds, up to about 60 bytes for each.
        Default: whole chunks, up to 8 million voxels.
    extractor : callable
        Another source of surfaces; see `precomputed_store.mesh.extract.Extractor`.
    mode : {"w-", "w", "a"}
        ``"a"`` adds to the meshes that the folder has, or replaces those of the same segments;
        those of segments that there are no more stay (see `delete_meshes`). ``"w"`` replaces
        all meshes of the folder, which may then be stored in another way: they are removed
        when the new surfaces are there, before the new meshes are stored. ``"w-"`` refuses a
        folder that has meshes.
    resume : bool
        Go on with a job of the same arguments that was interrupted: blocks and meshes that
        are done are not made again. What the voxels are is not compared, and an extractor by
        its name only. If there is nothing to resume, all meshes are made. A job that fails
        under ``resume=True`` leaves its pieces for the next one; otherwise they are removed.
    progress : bool
        Show progress bars.
    storage_options : mapping, optional
        Passed to fsspec.

    Returns
    -------
    MeshSource
        Linked from the volume's `info`.

    Raises
    ------
    ValueError
        The volume is no segmentation, or an argument is wrong, or does not fit to the
        meshes that are there; nothing is written then.
    FileExistsError
        There are meshes, and ``mode="w-"``; or the same call was interrupted, or is still
        running elsewhere: ``resume=True`` goes on with it.
    """
    if mode not in ("w-", "w", "a"):
        raise ValueError(f"mode is {mode!r}; expected 'w-', 'w' or 'a'")
    layer = open_layer(url, storage_options=storage_options)
    surfaces = SurfaceOptions(
        scale=layer.info.scale_index(scale),
        ids=None if ids is None else tuple(sorted({check_id(one) for one in ids})),
        min_voxels=min_voxels,
        smooth=smooth,
        simplify=simplify,
        block_shape=block_shape,
        extractor=extractor,
    )
    surfaces.check(layer)
    levels = LevelOptions(lods=lods, reduction=reduction, draco_level=draco_level)
    wish = MeshWish(
        kind=kind, vertex_quantization_bits=vertex_quantization_bits, sharding=sharding
    )
    target = _target(layer, folder)
    job = MeshJob(
        layer=layer,
        surfaces=surfaces,
        levels=levels,
        target=target,
        wish=wish,
        mode=mode,
        resume=resume,
        progress=progress,
    )
    info = job.run()
    if target.volume is not None:
        link_meshes(target.volume, target.storage)
    return MeshSource(storage=target.storage, info=info)


def _target(layer: Layer, folder: str | None) -> Target:
    options = layer.storage.storage_options
    if folder is None:
        return open_target(layer.storage.url, storage_options=options)
    place = layer.storage.child(folder)
    return open_target(place.url, storage_options=options)
