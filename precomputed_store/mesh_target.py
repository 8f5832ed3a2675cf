"""Which folder of meshes an address means, and the volume that is to link it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from precomputed_store.errors import MetadataError, StorageError, VolumeNotFoundError
from precomputed_store.info_edits import edit_info
from precomputed_store.mesh_source import read_mesh_info
from precomputed_store.metadata import VolumeInfo
from precomputed_store.metadata.mesh import MeshInfo
from precomputed_store.storage import Storage, open_storage

__all__ = ["JSON_TYPE", "Target", "link_meshes", "open_target", "put_info"]

JSON_TYPE: Final = "application/json"
_DEFAULT_FOLDER: Final = "mesh"


class Target(NamedTuple):
    """Where meshes go.

    Attributes
    ----------
    storage : Storage
        The folder of meshes.
    info : MeshInfo or None
        Its `info`, if it has one.
    volume : Storage or None
        The layer that is to link it.
    """

    storage: Storage
    info: MeshInfo | None
    volume: Storage | None


def open_target(
    url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> Target:
    """The folder of meshes that a URL means: itself, or the one of the volume at it."""
    storage = open_storage(url, storage_options=storage_options)
    volume_info = _volume_info(storage)
    if volume_info is not None:
        folder = storage.child(volume_info.mesh or _DEFAULT_FOLDER)
        return Target(folder, _stored_info(folder), storage)
    parent, name = _parent(storage)
    if parent is not None:
        volume_info = _volume_info(parent, may_fail=True)
        links_another = volume_info is not None and volume_info.mesh not in (None, name)
        if volume_info is None or links_another:
            parent = None
    return Target(storage, _stored_info(storage), parent)


def _stored_info(storage: Storage) -> MeshInfo | None:
    return read_mesh_info(storage) if storage.exists("info") else None


def _volume_info(storage: Storage, *, may_fail: bool = False) -> VolumeInfo | None:
    """The `info` of a volume, or None if there is none (or it may not be read)."""
    from precomputed_store.layer import open_layer

    try:
        layer = open_layer(storage.url, storage_options=storage.storage_options, max_redirects=0)
    except (VolumeNotFoundError, MetadataError):
        return None
    except StorageError:
        # What lies above a folder of meshes need not be ours to read.
        if not may_fail:
            raise
        return None
    return layer.info


def _parent(storage: Storage) -> tuple[Storage | None, str]:
    url, _, name = storage.url.rpartition("/")
    if "://" not in url or url.endswith("//") or "::" in storage.url or "?" in storage.url:
        return None, name
    return replace(storage, url=url, root=None), name


def link_meshes(volume: Storage, folder: Storage) -> None:
    """Name a folder of meshes in the `info` of the layer that it lies in."""
    name = folder.url.removeprefix(volume.url).strip("/")
    edit_info(volume, lambda info: info if info.mesh else replace(info, mesh=name))


def put_info(storage: Storage, info: MeshInfo) -> None:
    """Store the `info` of a folder of meshes."""
    storage.put("info", info.to_bytes(), content_type=JSON_TYPE, cache_control="no-cache")
