"""`write_skeletons` and `delete_skeletons`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from precomputed_store.errors import MetadataError, VolumeNotFoundError
from precomputed_store.info_edits import edit_info
from precomputed_store.keyed_writer import Keyed, KeyedWriter
from precomputed_store.metadata import ShardingSpec, VolumeInfo
from precomputed_store.metadata.document import MAX_BYTES
from precomputed_store.metadata.skeleton import IDENTITY, SkeletonInfo, VertexAttribute
from precomputed_store.shard_shape import ShardTarget, choose_id_sharding
from precomputed_store.skeleton import Skeleton, as_skeleton, encode_skeleton
from precomputed_store.skeleton_source import SkeletonSource, skeletons_in
from precomputed_store.storage import Storage, open_storage

__all__ = ["delete_skeletons", "write_skeletons"]

_DEFAULT_ATTRIBUTES = (VertexAttribute("radius"), VertexAttribute("vertex_types", "uint8"))


def write_skeletons(
    url: str | os.PathLike[str],
    skeletons: Mapping[int, Any] | Iterable[tuple[int, Any]],
    *,
    sharding: Literal["auto"] | ShardingSpec | None = None,
    attributes: Sequence[VertexAttribute] = _DEFAULT_ATTRIBUTES,
    transform: Sequence[float] = IDENTITY,
    mode: Literal["put", "replace"] = "put",
    storage_options: Mapping[str, Any] | None = None,
) -> SkeletonSource:
    """Store skeletons in a folder, which is made or added to.

    A folder within a layer that links no skeletons yet is linked from the layer's `info`.

    Parameters
    ----------
    url : str or path
        Of the folder of skeletons.
    skeletons : mapping of int to Skeleton, or iterable of (int, Skeleton)
        By segment id; objects of kimimaro, CloudVolume and the like too. An iterable is read
        once, a few at a time.
    sharding : ShardingSpec or "auto", optional
        Default: one object for each. ``"auto"`` needs a mapping. Of a folder that exists it
        is not asked.
    attributes : sequence of VertexAttribute
        What is stored of each vertex; by default what CloudVolume expects.
    transform : sequence of 12 float
        Takes stored positions to nm.
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
        An id is given twice, or an attribute does not fit; those before it may be stored.
    MetadataError
        There is an `info` of something else.
    StorageError
    """
    if mode not in ("put", "replace"):
        raise ValueError(f"mode is {mode!r}; expected 'put' or 'replace'")
    storage = open_storage(url, storage_options=storage_options)
    items = skeletons.items() if isinstance(skeletons, Mapping) else skeletons
    try:
        info = skeletons_in(storage).info
    except VolumeNotFoundError:
        info = SkeletonInfo(transform=tuple(transform), vertex_attributes=tuple(attributes))
        info = replace(info, sharding=_sharding(sharding, skeletons, info))
        storage.put(
            "info",
            info.to_bytes(),
            content_type="application/json",
            cache_control="no-cache",
        )
    _writer(storage, info).put(_encoded(items, info), replace=mode == "replace")
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
    _writer(source.storage, source.info).delete(segment_ids)


def _writer(storage: Storage, info: SkeletonInfo) -> KeyedWriter:
    compress: Literal["gzip"] | None = "gzip" if storage.has_headers else None
    return KeyedWriter(
        storage=storage, sharding=info.sharding, compress=compress, cache_control="no-cache"
    )


def _encoded(items: Iterable[tuple[int, Any]], info: SkeletonInfo) -> Iterator[tuple[int, Keyed]]:
    for segment_id, each in items:
        try:
            data = encode_skeleton(_skeleton(each), info=info)
        except ValueError as error:
            raise ValueError(f"skeleton {segment_id}: {error}") from error
        yield segment_id, Keyed(data)


def _skeleton(value: Any) -> Skeleton:
    return value if isinstance(value, Skeleton) else as_skeleton(value)


def _sharding(
    wanted: Literal["auto"] | ShardingSpec | None, skeletons: object, info: SkeletonInfo
) -> ShardingSpec | None:
    if wanted is None or isinstance(wanted, ShardingSpec):
        return wanted
    if wanted != "auto":
        raise ValueError(f"sharding is {wanted!r}; expected 'auto', a ShardingSpec or None")
    if not isinstance(skeletons, Mapping):
        raise ValueError(
            "sharding='auto' needs a mapping, to know how many skeletons there are; give a "
            "ShardingSpec for an iterable"
        )
    per_vertex = 12 + sum(a.dtype.itemsize * a.num_components for a in info.vertex_attributes)
    each = (_skeleton(value) for value in skeletons.values())
    num_bytes = sum(8 + per_vertex * len(s.vertices) + 8 * len(s.edges) for s in each)
    return choose_id_sharding(
        num_objects=len(skeletons), num_bytes=num_bytes, target=ShardTarget()
    )


def _link(storage: Storage) -> None:
    """Name the folder in the `info` of the layer that it lies in, unless that names another."""
    above, _, name = storage.url.rpartition("/")
    if not name or "::" in storage.url or above.endswith(":/"):
        return

    def linked(info: VolumeInfo) -> VolumeInfo:
        return info if info.skeletons is not None else replace(info, skeletons=name)

    layer = replace(storage, url=above)
    if layer.get("info", max_bytes=MAX_BYTES) is None:
        return
    # What lies above may be the info of something else than a volume.
    with contextlib.suppress(MetadataError):
        edit_info(layer, linked)
