"""The layer that is written: made, replaced or opened, after everything has been checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from precomputed_store.engine import ChunkedArray
from precomputed_store.errors import CompatibilityWarning, VolumeNotFoundError, warn_caller
from precomputed_store.grid import Box
from precomputed_store.info_edits import with_scales
from precomputed_store.layer import Layer, ScaleSelector, create, open_layer
from precomputed_store.metadata import VolumeInfo
from precomputed_store.pyramid_plan import Pyramid
from precomputed_store.storage import Storage, open_storage
from precomputed_store.volume import Volume
from precomputed_store.writer import WriteOptions
from precomputed_store.writing.erase import Replacement, left_over, plan_replacement
from precomputed_store.writing.origin import urls_read
from precomputed_store.writing.place import Region, find_region
from precomputed_store.writing.pyramid import Level, plan_levels
from precomputed_store.writing.record import RECORD_KEY, WriteRecord
from precomputed_store.writing.source import WriteSource
from precomputed_store.writing.target import LayerWish, check_matches, choose_scale, new_info

__all__ = ["Place", "Target", "WriteMode", "plan_target", "refuse_what_is_there"]

WriteMode: TypeAlias = Literal["w-", "w", "a", "r+"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the caller wants an array; see `precomputed_store.to_precomputed`."""

    url: str | os.PathLike[str]
    mode: WriteMode = "w-"
    scale: ScaleSelector | None = None
    region: Region | None = None
    resume: bool = False
    storage_options: Mapping[str, Any] | None = None
    root: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("w-", "w", "a", "r+"):
            raise ValueError(f"mode is {self.mode!r}; expected 'w-', 'w', 'a' or 'r+'")
        if self.mode == "w" and (self.region is not None or self.scale is not None):
            raise ValueError(
                "mode='w' replaces a whole layer; region= and scale= write into one: mode='r+'"
            )
        if self.resume and not self.creates:
            raise ValueError(
                "resume=True goes on with the making of a layer; what is written into one that "
                "is there, mode='r+' or region=, is written as a whole"
            )

    @property
    def creates(self) -> bool:
        return self.mode == "w" or (self.mode == "w-" and self.region is None)

    @property
    def storage(self) -> Storage:
        return open_storage(self.url, storage_options=self.storage_options, root=self.root)


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
    levels : tuple of Level
        Scales that follow from it, and that `info` is to name at the end.
    resuming : bool
        Whether an interrupted write is gone on with: objects that are stored are done.
    is_done : bool
        Whether nothing is left to do of what was to be resumed.
    """

    volume: Volume
    region: Box
    is_new: bool
    replaces: Replacement | None = None
    levels: tuple[Level, ...] = ()
    resuming: bool = False
    is_done: bool = False

    @property
    def array(self) -> ChunkedArray:
        return self.volume.array

    @property
    def planned_info(self) -> VolumeInfo:
        """The metadata of the layer when everything is written."""
        return with_scales(self.volume.info, *(level.scale for level in self.levels))

    def job(self, *, method: str, options: WriteOptions) -> WriteRecord:
        """The parameters of the job that makes the layer."""
        keys = (self.volume.scale.key, *(level.scale.key for level in self.levels))
        return WriteRecord(info=self.planned_info, scales=keys, method=method, options=options)

    def prepare(self, job: WriteRecord) -> None:
        """Make the layer: the first thing that touches the storage.

        What was there goes first, then the record comes, then `info`: an interruption in
        between is never taken for a job that has been begun on what is left of another.
        """
        if self.replaces is not None:
            self.replaces.carry_out()
        storage = self.volume.layer.storage
        if self.is_new and not self.resuming:
            job.begin(storage)
        if self.is_new:
            create(
                storage.url,
                self.volume.info,
                storage_options=storage.storage_options,
                allow_misread=True,  # whoever writes has been asked already
            )


def plan_target(source: WriteSource, wish: LayerWish, place: Place, pyramid: Pyramid) -> Target:
    """Find or design the layer for an array; touches nothing.

    Raises
    ------
    FileExistsError, VolumeNotFoundError
        There is a layer, or none, against what `mode` says.
    ValueError, TypeError
        Array, wishes and layer do not fit each other.
    """
    if place.creates:
        return _plan_new(source, wish, place, pyramid)
    try:
        layer = open_layer(place.url, storage_options=place.storage_options, root=place.root)
    except VolumeNotFoundError:
        if place.mode != "a" or place.region is not None:
            raise
        return _plan_new(source, wish, place, pyramid)
    if pyramid is not None:
        raise ValueError(
            "pyramid= makes the coarser scales of a new layer; those of one that is there are "
            "made by downsample(url), when it has been written"
        )
    return _plan_existing(source, wish, place, layer)


def _plan_new(source: WriteSource, wish: LayerWish, place: Place, pyramid: Pyramid) -> Target:
    if place.scale is not None:
        raise ValueError(
            "scale= selects a scale of an existing layer: mode='r+' writes into it. "
            "A new scale is named by key="
        )
    info = new_info(source, wish)
    storage = place.storage
    (base,) = (scale for _, scale in info.usable_scales)
    voxel_bytes = info.num_channels * info.dtype.itemsize
    levels = plan_levels(base, pyramid, sharding=wish.sharding, voxel_bytes=voxel_bytes)
    volume = Volume(layer=Layer(storage=storage, info=info), scale_index=0)
    target = Target(volume=volume, region=volume.bounds, is_new=True, levels=levels)
    if place.resume and storage.exists(RECORD_KEY):
        return replace(target, is_new=not storage.exists("info"), resuming=True)
    if place.resume and (finished := _finished(target)) is not None:
        return finished
    keys = [base.key, *(level.scale.key for level in levels)]
    if place.mode == "w":
        _refuse_own_source(source, storage)
        target = replace(target, replaces=plan_replacement(storage, keys=keys))
    else:
        refuse_what_is_there(storage, keys)
    _warn(info, storage.url)
    return target


def _finished(target: Target) -> Target | None:
    """The target as done, if the layer is there as the job would leave it."""
    storage, planned = target.volume.layer.storage, target.planned_info
    if not storage.exists("info"):
        return None
    layer = open_layer(storage.url, storage_options=storage.storage_options, root=storage.root)
    names = ("layer_type", "data_type", "num_channels", "scales")
    if any(getattr(layer.info, name) != getattr(planned, name) for name in names):
        return None
    index = layer.info.scale_index(target.volume.scale.key)
    volume = Volume(layer=layer, scale_index=index)
    return replace(target, volume=volume, is_new=False, levels=(), is_done=True)


def _refuse_own_source(source: WriteSource, storage: Storage) -> None:
    if storage.url in urls_read(source.array):
        raise ValueError(
            f"the array is read lazily from {storage.url}, which mode='w' would remove "
            "first: write it elsewhere, or load it, array.load()"
        )


def refuse_what_is_there(storage: Storage, keys: Iterable[str]) -> None:
    """Refuse to make a layer where there is one, or what is left of one."""
    if storage.exists(RECORD_KEY):
        raise FileExistsError(
            f"{storage.url}: a write was begun there and has not ended: resume=True goes on with "
            "it, mode='w' replaces what it left"
        )
    if storage.exists("info"):
        raise FileExistsError(
            f"{storage.url}: there is a layer already. mode='w' replaces it; mode='r+' or region= "
            "writes into it"
        )
    left = left_over(storage, keys)
    if left is not None:
        raise FileExistsError(
            f"{storage.url}: there is no layer, but chunks of one, such as {left!r}: mode='w' "
            "removes them"
        )


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
