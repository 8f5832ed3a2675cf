"""`write_skeletons` and `delete_skeletons`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from precomputed_store.errors import MetadataError, VolumeNotFoundError
from precomputed_store.info_edits import edit_info
from precomputed_store.keyed_reader import check_id
from precomputed_store.keyed_writer import Keyed, KeyedWriter
from precomputed_store.metadata import ShardingSpec, VolumeInfo
from precomputed_store.metadata.document import MAX_BYTES
from precomputed_store.metadata.skeleton import SkeletonInfo, VertexAttribute
from precomputed_store.skeleton import as_skeleton, encode_skeleton
from precomputed_store.skeleton_layout import Layout
from precomputed_store.skeleton_source import SkeletonSource, skeletons_in
from precomputed_store.storage import Storage, open_storage

__all__ = ["delete_skeletons", "write_skeletons"]


def write_skeletons(
    url: str | os.PathLike[str],
    skeletons: Mapping[int, Any] | Iterable[tuple[int, Any]],
    *,
    sharding: Literal["auto"] | ShardingSpec | None = None,
    attributes: Sequence[VertexAttribute] | None = None,
    transform: Sequence[float] | None = None,
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
        `sharding`, `attributes` or `transform` are not those of the folder that exists; an
        id is given twice; an attribute does not fit.
    MetadataError
        There is an `info` of something else.
    StorageError
    """
    if mode not in ("put", "replace"):
        raise ValueError(f"mode is {mode!r}; expected 'put' or 'replace'")
    storage = open_storage(url, storage_options=storage_options)
    layout = Layout(sharding=sharding, attributes=attributes, transform=transform)
    try:
        info = skeletons_in(storage).info
    except VolumeNotFoundError:
        info, skeletons = layout.make(skeletons)
        is_new = True
    else:
        layout.check(info, url=storage.url)
        is_new = False
    if isinstance(skeletons, Mapping) and info.sharding is None:
        for segment_id, _ in _encoded(skeletons.items(), info):
            check_id(segment_id)
    items = skeletons.items() if isinstance(skeletons, Mapping) else skeletons
    _writer(storage, info).put(_encoded(items, info), replace=mode == "replace")
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
    _writer(source.storage, source.info).delete(segment_ids)


def _writer(storage: Storage, info: SkeletonInfo) -> KeyedWriter:
    compress: Literal["gzip"] | None = "gzip" if storage.has_headers else None
    return KeyedWriter(
        storage=storage, sharding=info.sharding, compress=compress, cache_control="no-cache"
    )


def _encoded(items: Iterable[tuple[int, Any]], info: SkeletonInfo) -> Iterator[tuple[int, Keyed]]:
    for segment_id, each in items:
        try:
            data = encode_skeleton(as_skeleton(each), info=info)
        except ValueError as error:
            raise ValueError(f"skeleton {segment_id}: {error}") from error
        yield segment_id, Keyed(data)


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
