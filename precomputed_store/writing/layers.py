"""The layer that is written: made, replaced or opened, after everything has been checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from precomputed_store.engine import ChunkedArray
from precomputed_store.errors import CompatibilityWarning, VolumeNotFoundError, warn_caller
from precomputed_store.grid import Box
from precomputed_store.layer import Layer, ScaleSelector, create, open_layer
from precomputed_store.metadata import VolumeInfo
from precomputed_store.storage import Storage, open_storage
from precomputed_store.volume import Volume
from precomputed_store.writing.erase import Replacement, plan_replacement
from precomputed_store.writing.origin import urls_read
from precomputed_store.writing.place import Region, find_region
from precomputed_store.writing.source import WriteSource
from precomputed_store.writing.target import LayerWish, check_matches, choose_scale, new_info

__all__ = ["Place", "Target", "WriteMode", "plan_target"]

WriteMode: TypeAlias = Literal["w-", "w", "a", "r+"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the caller wants an array; see `precomputed_store.to_precomputed`."""

    url: str | os.PathLike[str]
    mode: WriteMode = "w-"
    scale: ScaleSelector | None = None
    region: Region | None = None
    storage_options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("w-", "w", "a", "r+"):
            raise ValueError(f"mode is {self.mode!r}; expected 'w-', 'w', 'a' or 'r+'")
        if self.mode == "w" and (self.region is not None or self.scale is not None):
            raise ValueError(
                "mode='w' replaces a whole layer; region= and scale= write into one: mode='r+'"
            )

    @property
    def creates(self) -> bool:
        return self.mode == "w" or (self.mode == "w-" and self.region is None)

    @property
    def storage(self) -> Storage:
        return open_storage(self.url, storage_options=self.storage_options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The scale that is written, and what has to happen before its chunks are.

    Attributes
    ----------
    volume : Volume
    region : Box
        Voxels that the array replaces.
    is_new : bool
        Whether the layer still has to be made.
    replaces : Replacement or None
        What has to be removed first.
    """

    volume: Volume
    region: Box
    is_new: bool
    replaces: Replacement | None = None

    @property
    def array(self) -> ChunkedArray:
        return self.volume.array

    def prepare(self) -> None:
        """Make the layer: the first thing that touches the storage."""
        if self.replaces is not None:
            self.replaces.carry_out()
        if self.is_new:
            storage = self.volume.layer.storage
            create(
                storage.url,
                self.volume.info,
                storage_options=storage.storage_options,
                allow_misread=True,  # whoever writes has been asked already
            )


def plan_target(source: WriteSource, wish: LayerWish, place: Place) -> Target:
    """Find or design the layer for an array; touches nothing.

    Raises
    ------
    FileExistsError, VolumeNotFoundError
        There is a layer, or none, against what `mode` says.
    ValueError, TypeError
        Array, wishes and layer do not fit each other.
    """
    if place.creates:
        return _plan_new(source, wish, place)
    try:
        layer = open_layer(place.url, storage_options=place.storage_options)
    except VolumeNotFoundError:
        if place.mode != "a" or place.region is not None:
            raise
        return _plan_new(source, wish, place)
    return _plan_existing(source, wish, place, layer)


def _plan_new(source: WriteSource, wish: LayerWish, place: Place) -> Target:
    if place.scale is not None:
        raise ValueError(
            "scale= selects a scale of an existing layer: mode='r+' writes into it. "
            "A new scale is named by key="
        )
    info = new_info(source, wish)
    storage = place.storage
    replaces = None
    if place.mode == "w":
        if storage.url in urls_read(source.array):
            raise ValueError(
                f"the array is read lazily from {storage.url}, which mode='w' would remove "
                "first: write it elsewhere, or load it, array.load()"
            )
        replaces = plan_replacement(storage, key=info.scales[0].key or "")
    elif storage.exists("info"):
        raise FileExistsError(
            f"{storage.url}: there is a layer already. mode='w' replaces it; mode='r+' or region= "
            "writes into it"
        )
    volume = Volume(layer=Layer(storage=storage, info=info), scale_index=0)
    _warn(info, storage.url)
    return Target(volume=volume, region=volume.bounds, is_new=True, replaces=replaces)


def _warn(info: VolumeInfo, url: str) -> None:
    if info.warnings:
        text = "; ".join(map(str, info.warnings))
        warn_caller(f"{url}: {text}", CompatibilityWarning)


def _plan_existing(source: WriteSource, wish: LayerWish, place: Place, layer: Layer) -> Target:
    if place.region is not None and wish.voxel_offset is not None:
        raise ValueError("region= and voxel_offset= both say where: pass one of them")
    selector = choose_scale(layer.info, source, wish) if place.scale is None else place.scale
    index = layer.info.scale_index(selector)
    scale = layer.scale(index)
    check_matches(source, wish, layer.info, scale)
    region = find_region(scale, source, region=place.region, voxel_offset=wish.voxel_offset)
    volume = Volume(layer=layer, scale_index=index)
    return Target(volume=volume, region=region, is_new=False)
