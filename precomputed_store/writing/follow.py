"""`update_scales`: coarser scales made anew where a finer one was changed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from precomputed_store.downsampling import coarse_box
from precomputed_store.errors import UnsupportedError
from precomputed_store.grid import XYZ
from precomputed_store.layer import ScaleSelector, open_layer
from precomputed_store.metadata import Scale, VolumeInfo
from precomputed_store.volume import Volume
from precomputed_store.write_plan import Unaligned
from precomputed_store.writer import Compress, WriteOptions
from precomputed_store.writing.coarse_scales import Finish, PyramidWrite
from precomputed_store.writing.graph import WriteGraph
from precomputed_store.writing.place import Region, find_box
from precomputed_store.writing.pyramid import Level, MethodName, resolve_method

__all__ = ["update_scales"]


def update_scales(
    url: str | os.PathLike[str],
    region: Region | None = None,
    *,
    scale: ScaleSelector = 0,
    method: MethodName = "auto",
    unaligned: Unaligned = "read-modify-write",
    compress: Compress = "auto",
    compress_level: int | None = None,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Volume:
    """Make the coarser scales of a layer anew where a finer one was changed.

    Parameters
    ----------
    url : str or path
        The layer.
    region : Box or mapping of str to slice, optional
        The voxels that were changed, in absolute coordinates of `scale`, as
        `to_precomputed` takes them. Default: all.
    scale : int, str or (float, float, float)
        The scale that was changed. Those behind it in `info` are made from it, each from
        the one before.
    method : {"auto", "mean", "mode", "min", "max", "stride"}
        See `to_precomputed`. The one that the scales were made with, for the same voxels.
    unaligned : {"raise", "read-modify-write"}
        What to do where a coarser scale's objects are covered in part.
    compress, compress_level
        How chunks are stored; see `to_precomputed`.
    progress : bool, optional
        Show a progress bar. Default: no.
    storage_options : mapping, optional
        Passed to fsspec.
    root : str or path, optional
        A folder above the layer's (or that one) that it may not lead out of; see `open_layer`.

    Returns
    -------
    Volume
        The scale that was changed.

    Raises
    ------
    IndexError
        The region reaches outside the scale that was changed.
    ValueError
        A coarser scale's objects are covered in part, and ``unaligned="raise"``.
    UnsupportedError
        A scale's voxels are not made up of whole voxels of the one before.
    """
    layer = open_layer(url, storage_options=storage_options, root=root)
    index = layer.info.scale_index(scale)
    volume = Volume(layer=layer, scale_index=index)
    write = PyramidWrite(
        volume=volume,
        levels=_levels_that_follow(layer.info, index),
        method=resolve_method(method, layer_type=layer.info.layer_type),
        options=WriteOptions(
            compress=compress, compress_level=compress_level, unaligned=unaligned
        ),
        region=volume.bounds if region is None else find_box(volume.scale, region),
    )
    write.check()
    finish = Finish(volume=volume, is_job=False)
    graph = WriteGraph(stages=write.stages(None), finish=finish)
    return graph.compute(progress=bool(progress))  # type: ignore[no-any-return]


def _levels_that_follow(info: VolumeInfo, index: int) -> tuple[Level, ...]:
    finer, levels = info.scales[index], []
    for scale in info.scales[index + 1 :]:
        if not isinstance(scale, Scale):
            continue
        assert isinstance(finer, Scale)
        levels.append(Level(scale=scale, factor=_factor(finer, scale)))
        finer = scale
    return tuple(levels)


def _factor(finer: Scale, coarser: Scale) -> XYZ:
    """How many voxels of a scale make one of the next, where the next lies on it exactly."""
    ratios = [b / a for a, b in zip(finer.resolution, coarser.resolution, strict=True)]
    factor = [round(ratio) for ratio in ratios]
    x, y, z = factor
    whole = all(
        f >= 1 and math.isclose(f, ratio, rel_tol=1e-6)
        for f, ratio in zip(factor, ratios, strict=True)
    )
    if not whole or coarse_box(finer.grid.bounds, (x, y, z)) != coarser.grid.bounds:
        raise UnsupportedError(
            f"scale {coarser.key!r} {coarser.grid.bounds} does not lie on {finer.key!r} "
            f"{finer.grid.bounds} voxel for voxel, so it was not made from it by this package's "
            "rule: make it anew with downsample(url, overwrite=True)"
        )
    return x, y, z
