"""The coarser scales of a layer: what they are, and how each is made from the one before. Pure."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from precomputed_store.downsampling import METHODS, Method
from precomputed_store.grid import XYZ
from precomputed_store.metadata import Scale
from precomputed_store.pyramid_plan import (
    Pyramid,
    ScaleGeometry,
    coarse_scale_geometry,
    parse_pyramid,
)
from precomputed_store.writing.target import Sharding, scale_key, sharded

__all__ = ["Level", "MethodName", "plan_levels", "resolve_method"]

MethodName: TypeAlias = Method | Literal["auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A coarser scale.

    Attributes
    ----------
    scale : Scale
    factor : (int, int, int)
        How many voxels of the scale before make one, along x, y, z.
    """

    scale: Scale
    factor: XYZ


def resolve_method(method: MethodName, *, layer_type: str) -> Method:
    """The method that ``"auto"`` stands for: mean for images, mode for segmentations.

    Raises
    ------
    ValueError
        There is no such method.
    """
    if method == "auto":
        return "mode" if layer_type == "segmentation" else "mean"
    if method not in METHODS:
        close = difflib.get_close_matches(str(method), METHODS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"method is {method!r}; expected 'auto' or one of {METHODS}{hint}")
    return method


def plan_levels(
    base: Scale, pyramid: Pyramid, *, sharding: Sharding, voxel_bytes: int
) -> tuple[Level, ...]:
    """The coarser scales that follow a scale.

    Parameters
    ----------
    base : Scale
        The scale that the first of them is made from; they have its encoding.
    pyramid
        See `precomputed_store.to_precomputed`.
    sharding
        Of each new scale.
    voxel_bytes : int
        Size of all channels of a voxel.

    Raises
    ------
    ValueError
        `pyramid` is none.
    """
    factors = parse_pyramid(
        pyramid,
        resolution=base.resolution,
        size=base.size,
        chunk_size=base.chunk_size,
        voxel_offset=base.voxel_offset,
    )
    levels: list[Level] = []
    scale = base
    for factor in factors:
        scale = _coarser(scale, factor)
        levels.append(
            Level(scale=sharded(scale, sharding, voxel_bytes=voxel_bytes), factor=factor)
        )
    return tuple(levels)


def _coarser(finer: Scale, factor: XYZ) -> Scale:
    fine = ScaleGeometry(
        size=finer.size, voxel_offset=finer.voxel_offset, resolution=finer.resolution
    )
    coarse = coarse_scale_geometry(fine, factor)
    return replace(
        finer,
        key=scale_key(coarse.resolution),
        size=coarse.size,
        voxel_offset=coarse.voxel_offset,
        resolution=coarse.resolution,
        chunk_sizes=(finer.chunk_size,),
        sharding=None,
        hidden=False,
        extra={},
    )
