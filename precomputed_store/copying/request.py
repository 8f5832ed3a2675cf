"""What a caller wants copied, and the plan that follows from it and the source. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from precomputed_store.codecs.base import Codec
from precomputed_store.copying.plan import (
    CopyPlan,
    ScaleCopy,
    choose_way,
    moved,
    rescaled,
    with_links,
)
from precomputed_store.errors import MetadataError
from precomputed_store.grid import XYZ, Box
from precomputed_store.layer import Layer
from precomputed_store.metadata import DamagedScale, Scale, ScaleSelector, ShardingSpec, VolumeInfo
from precomputed_store.shard_shape import ShardTarget
from precomputed_store.writer import Compress, WriteOptions
from precomputed_store.writing.place import find_box, triple
from precomputed_store.writing.target import Sharding, make_codec, scale_key, sharded

__all__ = ["CopyMode", "CopyRegion", "CopyRequest", "CopySharding", "ScaleSelectors", "make_plan"]

ScaleSelectors: TypeAlias = ScaleSelector | list[ScaleSelector] | tuple[str, ...] | None
"""One scale, a list of them, or all. A tuple of three numbers is a resolution."""

CopyRegion: TypeAlias = Box | Mapping[str, slice] | None
CopySharding: TypeAlias = Sharding | Literal["same"]
CopyMode: TypeAlias = Literal["w-", "w"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRequest:
    """What a caller says; see `precomputed_store.copy`."""

    source: str | os.PathLike[str]
    destination: str | os.PathLike[str]
    scales: ScaleSelectors = None
    region: CopyRegion = None
    encoding: str | None = None
    encoding_options: Mapping[str, Any] | None = None
    chunk_size: XYZ | None = None
    sharding: CopySharding = "same"
    compress: Compress = "auto"
    compress_level: int | None = None
    linked: bool = False
    verify: bool = False
    allow_misread: bool = False
    mode: CopyMode = "w-"
    resume: bool = False
    storage_options: Mapping[str, Any] | None = None
    source_storage_options: Mapping[str, Any] | None = None
    root: str | os.PathLike[str] | None = None
    source_root: str | os.PathLike[str] | None = None
    missing_statuses: Iterable[int] = (404,)

    def __post_init__(self) -> None:
        if self.mode not in ("w-", "w"):
            raise ValueError(f"mode is {self.mode!r}; expected 'w-' or 'w'")
        known = isinstance(self.sharding, ShardingSpec | ShardTarget | None)
        if not known and self.sharding not in ("same", "auto"):
            raise ValueError(
                f"sharding is {self.sharding!r}; expected 'same', None, 'auto', a ShardTarget or "
                "a ShardingSpec"
            )
        if self.chunk_size is not None:
            object.__setattr__(self, "chunk_size", triple(self.chunk_size, "chunk_size"))
        if not isinstance(self.encoding, str | None):
            raise TypeError(f"encoding is {self.encoding!r}; expected a name such as 'jpeg'")
        if not isinstance(self.encoding_options, Mapping | None):
            raise TypeError(
                f"encoding_options is {self.encoding_options!r}; expected a mapping such as "
                "{'jpeg_quality': 90}"
            )

    @property
    def options(self) -> WriteOptions:
        """How chunks are stored."""
        return WriteOptions(compress=self.compress, compress_level=self.compress_level)


def make_plan(request: CopyRequest, layer: Layer, *, destination: str) -> CopyPlan:
    """How each scale that is asked for is going to be copied; touches nothing.

    Parameters
    ----------
    request : CopyRequest
    layer : Layer
        The source.
    destination : str
        Its address, normalised.

    Raises
    ------
    ValueError, IndexError, TypeError, MetadataError
        The request does not fit the source.
    """
    chosen = _chosen(layer, request.scales)
    regions = _regions(chosen, request.region)
    folders = _folders(layer.info) if request.linked else {}
    keys = _keys(chosen, [new for _, new in folders.values()])
    try:
        scales = tuple(
            _scale_copy(request, layer.info, scale, moved(scale, region, key))
            for scale, region, key in zip(chosen, regions, keys, strict=True)
        )
        whole = replace(layer.info, scales=tuple(scale.target for scale in scales))
        info = with_links(whole, {name: new for name, (_, new) in folders.items()})
    except MetadataError as error:
        # The caller's mistake: what is in the source has been read without one.
        raise ValueError("; ".join(map(str, error.problems))) from None
    return CopyPlan(
        source=layer.storage.url,
        destination=destination,
        info=info,
        scales=scales,
        folders=tuple(folders.values()),
    )


def _chosen(layer: Layer, selectors: ScaleSelectors) -> list[Scale]:
    """The scales that are meant, finest first, each once."""
    info = layer.info
    if selectors is not None:
        indices = {info.scale_index(selector) for selector in _each(selectors)}
        if not indices:
            raise ValueError("scales is empty; None copies all of them")
        return [layer.scale(index) for index in sorted(indices)]
    for index, scale in enumerate(info.scales):
        if isinstance(scale, DamagedScale):
            usable = [i for i, _ in info.usable_scales]
            raise MetadataError(
                scale.problems,
                source=f"{layer.storage.url}: scales[{index}] cannot be copied (scales={usable} "
                "leaves it out)",
            )
    return [scale for _, scale in info.usable_scales]


def _each(selectors: Any) -> list[ScaleSelector]:
    if isinstance(selectors, list):
        return selectors
    texts = isinstance(selectors, tuple) and all(isinstance(item, str) for item in selectors)
    return list(selectors) if texts else [selectors]


def _regions(scales: list[Scale], region: CopyRegion) -> list[Box]:
    """What is copied of each scale."""
    finest = scales[0]
    if region is None:
        return [scale.grid.bounds for scale in scales]
    box = find_box(finest, region)
    if not finest.grid.bounds.contains(box):
        raise IndexError(f"region {box} reaches outside scale {finest.key!r} {finest.grid.bounds}")
    boxes = [box, *(rescaled(box, finest, scale) for scale in scales[1:])]
    for scale, part in zip(scales, boxes, strict=True):
        if part.is_empty:
            raise ValueError(f"region {box} has no voxels in scale {scale.key!r}")
    return boxes


def _folders(info: VolumeInfo) -> dict[str, tuple[str, str]]:
    """Folders that `info` links: where they are, and where they go, within the layer."""
    found: dict[str, tuple[str, str]] = {}
    for name, link in info.links.items():
        own = link.strip("/")
        if not own or ".." in own.split("/"):
            own = own.rpartition("/")[2].strip(".") or name
        found[name] = (link, own)
    return found


def _keys(scales: list[Scale], taken: list[str]) -> list[str]:
    """Folders of the scales, within the layer: their own, or the customary one."""
    keys = [
        scale_key(scale.resolution) if ".." in scale.key.split("/") else scale.key
        for scale in scales
    ]
    every = [key.strip("/") for key in (*keys, *set(taken))]
    if len(set(every)) < len(every):
        twice = sorted({key for key in every if every.count(key) > 1})
        raise ValueError(f"several scales or linked folders would lie in {twice}")
    return keys


def _scale_copy(request: CopyRequest, info: VolumeInfo, source: Scale, region: Scale) -> ScaleCopy:
    codec = _codec(request, source.codec)
    # What the old encoding left unread may be a parameter of the new one.
    extra = {n: v for n, v in source.extra.items() if n not in codec.parameter_names()}
    target = replace(region, codec=codec, sharding=None, extra=extra)
    if request.chunk_size is not None:
        target = replace(target, chunk_sizes=(request.chunk_size,))
    voxel_bytes = info.num_channels * info.dtype.itemsize
    sharding = source.sharding if request.sharding == "same" else request.sharding
    target = sharded(target, sharding, voxel_bytes=voxel_bytes)
    recompress = request.compress_level is not None
    way, reason = choose_way(source, target, recompress=recompress)
    return ScaleCopy(source=source, target=target, way=way, reason=reason)


def _codec(request: CopyRequest, source: Codec) -> Codec:
    """The encoding asked for: the source's parameters stay where no others are given."""
    name = source.name if request.encoding is None else request.encoding.lower()
    if name == source.name and not request.encoding_options:
        return source
    before = source.to_parameters() if name == source.name else None
    return make_codec(name, request.encoding_options or {}, remembered=before)
