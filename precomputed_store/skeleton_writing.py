"""`write_skeletons` and `delete_skeletons`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from precomputed_store.errors import VolumeNotFoundError
from precomputed_store.info_edits import edit_info
from precomputed_store.keyed_reader import check_id
from precomputed_store.keyed_writer import Keyed, KeyedWriter
from precomputed_store.metadata import ShardingSpec, VolumeInfo
from precomputed_store.metadata.skeleton import SkeletonInfo, VertexAttribute
from precomputed_store.metadata.spatial_index import SpatialIndexSpec
from precomputed_store.skeleton import Skeleton, as_skeleton, encode_skeleton
from precomputed_store.skeleton_layout import Layout
from precomputed_store.skeleton_source import SkeletonSource, skeletons_in
from precomputed_store.spatial_grid import Boxes, Cell, SpatialGrid
from precomputed_store.spatial_index import SpatialIndex, grid_above, layer_above
from precomputed_store.storage import Storage, open_storage

__all__ = ["delete_skeletons", "write_skeletons"]


def write_skeletons(
    url: str | os.PathLike[str],
    skeletons: Mapping[int, Any] | Iterable[tuple[int, Any]],
    *,
    sharding: Literal["auto"] | ShardingSpec | None = None,
    attributes: Sequence[VertexAttribute] | None = None,
    transform: Sequence[float] | None = None,
    spatial_index: bool | SpatialIndexSpec | None = None,
    mode: Literal["put", "replace"] = "put",
    storage_options: Mapping[str, Any] | None = None,
) -> SkeletonSource:
    """Store skeletons in a folder, which is made or added to.

    A folder within a layer that links no skeletons yet is linked from the layer's `info`.

    Skeletons of a mapping, and any that go into shards, are all encoded before anything is
    stored. Of an iterable without shards, those before a bad one are stored. A new folder
    gets its `info` last.

    Parameters
    ----------
    url : str or path
        Of the folder of skeletons.
    skeletons : mapping of int to Skeleton, or iterable of (int, Skeleton)
        By segment id; objects of kimimaro, CloudVolume and the like too. An iterable is read
        once, a few at a time.
    sharding : ShardingSpec or "auto", optional
        Default: that of a folder that exists, and one object for each in a new one. For a
        new folder, ``"auto"`` needs a mapping.
    attributes : sequence of VertexAttribute, optional
        What is stored of each vertex. Default: what the folder stores; in a new one the
        attributes of all skeletons of a mapping, of the first one of an iterable, integers
        of 8 and 16 bits as float32, because Neuroglancer shows no skeletons with those.
    transform : sequence of 12 float, optional
        Takes stored positions to nm. Default: that of the folder; none in a new one.
    spatial_index : bool or SpatialIndexSpec, optional
        Whether to write an index for `SkeletonSource.query`, with cells of 512 voxels or as
        given; only within a layer. Default: that of a folder that exists is kept up to date,
        which reads all of it; a new one has none.
    mode : {"put", "replace"}
        ``"replace"`` removes the skeletons of all other ids.
    storage_options : mapping, optional
        Passed to fsspec.

    Returns
    -------
    SkeletonSource
        What is stored now.

    Raises
    ------
    ValueError
        `sharding`, `attributes`, `transform` or `spatial_index` are not those of the folder
        that exists; an id is given twice; an attribute does not fit.
    MetadataError
        There is an `info` of something else.
    StorageError
    """
    if mode not in ("put", "replace"):
        raise ValueError(f"mode is {mode!r}; expected 'put' or 'replace'")
    storage = open_storage(url, storage_options=storage_options)
    layout = Layout(
        sharding=sharding, attributes=attributes, transform=transform, spatial_index=spatial_index
    )
    try:
        info = skeletons_in(storage).info
    except VolumeNotFoundError:
        info, skeletons = layout.make(skeletons, storage)
        is_new = True
    else:
        layout.check(info, url=storage.url)
        is_new = False
    if isinstance(skeletons, Mapping) and info.sharding is None:
        for segment_id, _ in _encoded(skeletons.items(), info):
            check_id(segment_id)
    items = skeletons.items() if isinstance(skeletons, Mapping) else skeletons
    index = _IndexChange.of(storage, info)
    _writer(storage, info).put(_encoded(items, info, index), replace=mode == "replace")
    if index is not None:
        index.store(anew=is_new or mode == "replace")
    if is_new:
        storage.put(
            "info",
            info.to_bytes(),
            content_type="application/json",
            cache_control="no-cache",
        )
    _link(storage)
    return SkeletonSource(storage=storage, info=info)


def delete_skeletons(
    url: str | os.PathLike[str],
    segment_ids: Iterable[int],
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Remove skeletons from a folder; they may be absent.

    Parameters
    ----------
    url, storage_options
        As `write_skeletons`.
    segment_ids : iterable of int

    Raises
    ------
    VolumeNotFoundError
        There is no `info` at this address.
    UnsupportedError
        They are in shards, and the storage cannot make a write depend on what is stored.
    """
    source = skeletons_in(open_storage(url, storage_options=storage_options))
    ids = [check_id(segment_id) for segment_id in segment_ids]
    index = _IndexChange.of(source.storage, source.info)
    if index is not None:
        index.ids.update(ids)
        index.store(anew=False)
    _writer(source.storage, source.info).delete(ids)


@dataclass(frozen=True, slots=True)
class _IndexChange:
    """What is to become of the spatial index, gathered while skeletons are encoded."""

    index: SpatialIndex
    grid: SpatialGrid
    boxes: dict[Cell, Boxes] = field(default_factory=dict)
    ids: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, storage: Storage, info: SkeletonInfo) -> _IndexChange | None:
        if info.spatial_index is None:
            return None
        grid = grid_above(storage, info.spatial_index)
        if grid is None:
            resolution = info.spatial_index.resolution
            raise ValueError(
                f"{storage.url}: its spatial index covers a scale of {resolution} nm of the layer "
                "that it lies in, and there is no such scale"
            )
        return cls(SpatialIndex(storage=storage, grid=grid), grid)

    def add(self, segment_id: int, skeleton: Skeleton) -> None:
        self.ids.add(segment_id)
        for cell, box in self.grid.boxes(skeleton.vertices, skeleton.edges).items():
            self.boxes.setdefault(cell, {})[segment_id] = box

    def store(self, *, anew: bool) -> None:
        if anew:
            self.index.write(self.boxes)
        else:
            self.index.change(self.boxes, ids=self.ids)


def _writer(storage: Storage, info: SkeletonInfo) -> KeyedWriter:
    compress: Literal["gzip"] | None = "gzip" if storage.has_headers else None
    return KeyedWriter(
        storage=storage, sharding=info.sharding, compress=compress, cache_control="no-cache"
    )


def _encoded(
    items: Iterable[tuple[int, Any]], info: SkeletonInfo, index: _IndexChange | None = None
) -> Iterator[tuple[int, Keyed]]:
    for segment_id, each in items:
        skeleton = as_skeleton(each)
        try:
            data = encode_skeleton(skeleton, info=info)
        except ValueError as error:
            raise ValueError(f"skeleton {segment_id}: {error}") from error
        if index is not None:
            index.add(check_id(segment_id), skeleton)
        yield segment_id, Keyed(data)


def _link(storage: Storage) -> None:
    """Name the folder in the `info` of the layer that it lies in, unless that names another."""
    found = layer_above(storage)
    if found is None or found[1].skeletons is not None:
        return
    name = storage.url.rpartition("/")[2]

    def linked(info: VolumeInfo) -> VolumeInfo:
        return info if info.skeletons is not None else replace(info, skeletons=name)

    edit_info(found[0], linked)
