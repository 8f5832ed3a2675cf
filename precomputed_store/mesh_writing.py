"""`write_meshes` and `delete_meshes`: meshes by segment id into a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from precomputed_store.keyed_reader import check_id
from precomputed_store.mesh import as_mesh
from precomputed_store.mesh_encoding import LevelOptions, check_libraries
from precomputed_store.mesh_source import MeshSource, open_meshes
from precomputed_store.mesh_target import (
    MeshWish,
    link_meshes,
    mesh_sharding,
    open_target,
    put_info,
)
from precomputed_store.mesh_writer import MeshWriter
from precomputed_store.metadata import ShardingSpec
from precomputed_store.metadata.mesh import MeshKind

__all__ = ["MeshItems", "delete_meshes", "write_meshes"]

MeshItems: TypeAlias = Mapping[int, Any] | Iterable[tuple[int, Any]]
"""Meshes by segment id: a mapping, or pairs, which may be made one by one."""


def write_meshes(
    url: str | os.PathLike[str],
    meshes: MeshItems,
    *,
    kind: MeshKind | None = None,
    sharding: ShardingSpec | Literal["auto"] | None = None,
    lods: int | Literal["auto"] = "auto",
    reduction: float = 4.0,
    vertex_quantization_bits: Literal[10, 16] | None = None,
    draco_level: int = 7,
    storage_options: Mapping[str, Any] | None = None,
) -> MeshSource:
    """Write meshes by segment id; those that are there already are replaced.

    Parameters
    ----------
    url : str or path
        A folder of meshes, or a volume: then its folder of meshes, by default ``mesh``. A
        folder that lies in a volume is linked from the volume's `info`.
    meshes : mapping of int to mesh, or iterable of (int, mesh)
        A mapping is checked as a whole before anything is written. In nanometres; whatever
        `precomputed_store.mesh.as_mesh` takes. For
        ``kind="multilod"`` also a list of levels of detail, the finest first.
    kind : {"multilod", "legacy"}, optional
        By default what the folder has, or ``"multilod"``.
    sharding : ShardingSpec, "auto" or None
        Pack meshes into shards rather than two files for each. Automatically, all of them
        are held in memory first, as their number and size decide.
    lods : int or "auto"
        Levels of detail, made by simplification.
    reduction : float
        How many times fewer triangles each level has than the finer one.
    vertex_quantization_bits : {10, 16}, optional
        Vertices are rounded to this many steps along a node of the octree. By default what the
        folder has, or 16.
    draco_level : int
        Effort of the compression, 0 to 10.
    storage_options : mapping, optional
        Passed to fsspec.

    Returns
    -------
    MeshSource
        What is stored now.

    Raises
    ------
    ValueError
        The folder stores meshes in another way; nothing is written then. Or a mesh is none.
    UnsupportedError
        DracoPy or fast-simplification is not installed: ``precomputed-store[meshes]``.
    """
    levels = LevelOptions(lods=lods, reduction=reduction, draco_level=draco_level)
    wish = MeshWish(
        kind=kind, vertex_quantization_bits=vertex_quantization_bits, sharding=sharding
    )
    target = open_target(url, storage_options=storage_options)
    info = wish.info(target)
    if isinstance(meshes, Mapping):
        for one, mesh in meshes.items():
            check_id(one)
            _check_mesh(mesh)
    pairs = iter(meshes.items() if isinstance(meshes, Mapping) else meshes)
    if target.info is None and sharding == "auto":
        pairs = iter(listed := list(pairs))
        faces = sum(_num_faces(mesh) for _, mesh in listed)
        info = replace(info, sharding=mesh_sharding(len(listed), faces))
    check_libraries(info, levels)
    if target.info is None:
        put_info(target.storage, info)
    MeshWriter(storage=target.storage, info=info, levels=levels).write(pairs)
    if target.volume is not None:
        link_meshes(target.volume, target.storage)
    return MeshSource(storage=target.storage, info=info)


def _check_mesh(mesh: Any) -> None:
    for level in mesh if isinstance(mesh, list) else [mesh]:
        as_mesh(level)


def _num_faces(mesh: Any) -> int:
    return len(as_mesh(mesh[0] if isinstance(mesh, list) else mesh).faces)


def delete_meshes(
    url: str | os.PathLike[str],
    segment_ids: Iterable[int],
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Remove meshes, with all fragments; segments that have none are passed over.

    Parameters
    ----------
    url : str or path
        A folder of meshes, or a volume whose `info` links one.
    segment_ids : iterable of int
    storage_options : mapping, optional
        Passed to fsspec.
    """
    source = open_meshes(url, storage_options=storage_options)
    ids = [check_id(one) for one in segment_ids]
    MeshWriter(storage=source.storage, info=source.info).delete(ids)
