"""Changing which scales an `info` document names, without losing what others change.

Each change reads the document, changes it and writes it back under the condition that
nobody else wrote it meanwhile, where the storage knows conditions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from precomputed_store.codecs import content
from precomputed_store.errors import StorageError, UnsupportedError, VolumeNotFoundError
from precomputed_store.layer import Layer
from precomputed_store.metadata import DamagedScale, Scale, ScaleSelector, VolumeInfo
from precomputed_store.storage import Blob, Storage, Update, open_storage

__all__ = ["add_scale", "edit_info", "remove_scale", "reset_scales", "with_scales"]

_LARGEST_INFO = 16 << 20


def edit_info(storage: Storage, change: Callable[[VolumeInfo], VolumeInfo]) -> VolumeInfo:
    """Change the `info` of a layer.

    Parameters
    ----------
    storage : Storage
        The layer's folder.
    change : callable
        Gives the new document for the old one. Called again if somebody else has written
        `info` in between.

    Returns
    -------
    VolumeInfo
        What is stored now.

    Raises
    ------
    VolumeNotFoundError
        There is no `info`.
    MetadataError
        The one that is there cannot be read, or the new one breaks the specification.
    ConflictError
        Others wrote it again and again.
    """
    new: list[VolumeInfo] = []

    def changed(stored: Blob | None) -> bytes:
        if stored is None:
            raise VolumeNotFoundError(f"{storage.url}: there is no info file")
        data = stored.data
        if stored.content_encoding is not None:
            data = content.undo(data, stored.content_encoding, limit=_LARGEST_INFO)
        old = VolumeInfo.from_json(bytes(data), source=f"{storage.url}/info")
        new[:] = [change(old)]
        return new[0].to_bytes()

    storage.apply(
        Update(
            key="info",
            change=changed,
            content_type="application/json",
            cache_control="no-cache",
            # Where nothing can be guarded, editing by hand could not be either.
            guarded=False,
        )
    )
    return new[0]


def with_scales(info: VolumeInfo, *scales: Scale) -> VolumeInfo:
    """A document with more scales, each behind those that are finer.

    A scale that it has already, equal in everything, stays where it is.

    Raises
    ------
    ValueError
        Another scale has the same key.
    """
    present: list[Scale | DamagedScale] = list(info.scales)
    for scale in scales:
        twin = next((other for other in present if other.key == scale.key), None)
        if twin == scale:
            continue
        if twin is not None:
            raise ValueError(f"there is another scale with the key {scale.key!r}: remove it first")
        present.insert(_position(present, scale), scale)
    return replace(info, scales=tuple(present))


def _position(present: list[Scale | DamagedScale], scale: Scale) -> int:
    volume = math.prod(scale.resolution)
    finer = [
        index
        for index, other in enumerate(present)
        if isinstance(other, Scale) and math.prod(other.resolution) <= volume
    ]
    return finer[-1] + 1 if finer else 0


def add_scale(
    url: str | os.PathLike[str],
    scale: Scale | Mapping[str, Any],
    *,
    allow_unwritten: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Layer:
    """Name another scale in the `info` of a layer, in its place from fine to coarse.

    `downsample` does this for the scales that it makes.

    Parameters
    ----------
    url : str or path
        The layer.
    scale : Scale or mapping
        The scale, or its entry in `info`.
    allow_unwritten : bool
        Name it although nothing is stored for it yet. Viewers show it as empty.
    storage_options : mapping, optional
        Passed to fsspec.
    root : str or path, optional
        A folder above the layer's (or that one) that it may not lead out of; see `open_layer`.

    Returns
    -------
    Layer

    Raises
    ------
    ValueError
        Nothing is stored for it, or another scale has its key.
    VolumeNotFoundError, MetadataError, StorageError
        See `open_layer`.
    """
    if not isinstance(scale, Scale):
        scale = Scale.from_json(scale)
    storage = open_storage(url, storage_options=storage_options, root=root)
    if not allow_unwritten and _is_empty(storage, scale.key):
        raise ValueError(
            f"{storage.url}: nothing is stored in {scale.key!r}, so viewers would show an empty "
            "scale: write it first, or pass allow_unwritten=True"
        )
    added = scale
    info = edit_info(storage, lambda old: with_scales(old, added))
    return Layer(storage=storage, info=info)


def remove_scale(
    url: str | os.PathLike[str],
    scale: ScaleSelector,
    *,
    storage_options: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Layer:
    """Leave a scale out of the `info` of a layer. Its chunks stay where they are.

    Parameters
    ----------
    url : str or path
        The layer.
    scale : int, str or (float, float, float)
        Index, key, or resolution in nanometres.
    storage_options : mapping, optional
        Passed to fsspec.
    root : str or path, optional
        A folder above the layer's (or that one) that it may not lead out of; see `open_layer`.

    Raises
    ------
    ValueError, IndexError
        There is no such scale, or it is the only one.
    """
    storage = open_storage(url, storage_options=storage_options, root=root)

    def without(old: VolumeInfo) -> VolumeInfo:
        index = old.scale_index(scale)
        if len(old.usable_scales) == 1:
            raise ValueError(
                f"{storage.url}: {old.scales[index].key!r} is the only scale that can be used; a "
                "layer has at least one"
            )
        return replace(old, scales=old.scales[:index] + old.scales[index + 1 :])

    return Layer(storage=storage, info=edit_info(storage, without))


def reset_scales(
    url: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Layer:
    """Leave every scale but the finest out of the `info` of a layer. Their chunks stay.

    Parameters
    ----------
    url : str or path
        The layer.
    storage_options : mapping, optional
        Passed to fsspec.
    root : str or path, optional
        A folder above the layer's (or that one) that it may not lead out of; see `open_layer`.
    """
    storage = open_storage(url, storage_options=storage_options, root=root)

    def first(old: VolumeInfo) -> VolumeInfo:
        index, _ = old.usable_scales[0]
        return replace(old, scales=(old.scales[index],))

    return Layer(storage=storage, info=edit_info(storage, first))


def _is_empty(storage: Storage, folder: str) -> bool:
    """Whether nothing lies in a folder; False where that cannot be known."""
    try:
        return storage.first_child(folder) is None
    except (StorageError, UnsupportedError):
        return False
