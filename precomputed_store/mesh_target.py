"""Which folder of meshes an address means, how it stores them, and the volume to link it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

from precomputed_store.errors import (
    MetadataError,
    StorageError,
    UnsupportedError,
    VolumeNotFoundError,
)
from precomputed_store.info_edits import edit_info
from precomputed_store.mesh import legacy
from precomputed_store.mesh_source import read_mesh_info
from precomputed_store.metadata import ShardingSpec, VolumeInfo
from precomputed_store.metadata.mesh import MeshInfo, MeshKind
from precomputed_store.shard_shape import ShardTarget, choose_id_sharding
from precomputed_store.storage import Storage, open_storage

__all__ = [
    "JSON_TYPE",
    "MeshWish",
    "Target",
    "link_meshes",
    "mesh_sharding",
    "open_target",
    "put_info",
]

JSON_TYPE: Final = "application/json"
_DEFAULT_FOLDER: Final = "mesh"
# Of all levels of detail, as measured on surfaces of voxels at 16 bits.
_BYTES_PER_FACE: Final = 6


class Target(NamedTuple):
    """Where meshes go.

    Attributes
    ----------
    storage : Storage
        The folder of meshes.
    info : MeshInfo or None
        How it stores meshes, if it has any.
    volume : Storage or None
        The layer that is to link it.
    """

    storage: Storage
    info: MeshInfo | None
    volume: Storage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshWish:
    """How a caller wishes meshes to be stored; None leaves it open.

    Attributes
    ----------
    kind : {"multilod", "legacy"}, optional
    vertex_quantization_bits : {10, 16}, optional
    sharding : ShardingSpec or "auto", optional
    """

    kind: MeshKind | None = None
    vertex_quantization_bits: Literal[10, 16] | None = None
    sharding: ShardingSpec | Literal["auto"] | None = None

    def info(self, target: Target) -> MeshInfo:
        """The `info` of a folder, which may be new; parameters of shards are not chosen here.

        Raises
        ------
        ValueError
            The folder stores meshes in another way; or the wish is none.
        """
        wanted = MeshInfo(
            kind=self.kind or "multilod",
            vertex_quantization_bits=self.vertex_quantization_bits or 16,
            sharding=None if self.sharding == "auto" else self.sharding,
        )
        found, url = target.info, target.storage.url
        if (found or wanted).kind == "legacy" and self.sharding is not None:
            raise ValueError(f"{url}: legacy meshes cannot be sharded")
        if found is None:
            return wanted
        if self.kind not in (None, found.kind):
            raise ValueError(f"{url}: there are {found.kind} meshes, not {self.kind} ones")
        bits = self.vertex_quantization_bits
        if found.kind == "multilod" and bits not in (None, found.vertex_quantization_bits):
            raise ValueError(
                f"{url}: meshes there have vertices of {found.vertex_quantization_bits} bits, not "
                f"of {bits}"
            )
        if self.sharding not in (None, "auto", found.sharding):
            there = "in files of their own" if found.sharding is None else "sharded in another way"
            raise ValueError(f"{url}: meshes there are {there}, not as {self.sharding} says")
        return found


def mesh_sharding(num_meshes: int, num_faces: int) -> ShardingSpec:
    """Sharding parameters for so many meshes of so many triangles altogether."""
    num_bytes = _BYTES_PER_FACE * num_faces
    return choose_id_sharding(num_objects=num_meshes, num_bytes=num_bytes, target=ShardTarget())


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
    """The `info` of a folder; of legacy meshes that have none as well."""
    if storage.exists("info") or _has_legacy_meshes(storage):
        return read_mesh_info(storage)
    return None


def _has_legacy_meshes(storage: Storage) -> bool:
    try:
        return any(legacy.segment_of(name) is not None for name in storage.list_names())
    except UnsupportedError:
        return False


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
