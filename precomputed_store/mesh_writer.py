"""`write_meshes` and `delete_meshes`: meshes by segment id into a folder."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

from precomputed_store.codecs.base import Buffer
from precomputed_store.concurrency import bounded, num_cores, run_batches
from precomputed_store.keyed_reader import check_id
from precomputed_store.keyed_writer import Keyed, KeyedWriter
from precomputed_store.mesh import Manifest, as_mesh, legacy
from precomputed_store.mesh_encoding import (
    LevelOptions,
    check_libraries,
    encode_legacy,
    encode_multilod,
)
from precomputed_store.mesh_layouts import LegacyLayout, manifest_name
from precomputed_store.mesh_source import MeshSource
from precomputed_store.mesh_target import JSON_TYPE, link_meshes, open_target, put_info
from precomputed_store.metadata import ShardingSpec
from precomputed_store.metadata.mesh import MeshInfo, MeshKind
from precomputed_store.object_steps import run_steps
from precomputed_store.shard_shape import ShardTarget, choose_id_sharding
from precomputed_store.storage import Storage, run_sync

__all__ = [
    "MeshItems",
    "MeshWriter",
    "delete_all",
    "delete_meshes",
    "mesh_sharding",
    "write_meshes",
]

MeshItems: TypeAlias = Mapping[int, Any] | Iterable[tuple[int, Any]]
"""Meshes by segment id: a mapping, or pairs, which may be made one by one."""

_BINARY = "application/octet-stream"
# Of all levels of detail, as measured on surfaces of voxels at 16 bits.
_BYTES_PER_FACE = 6


class Put(NamedTuple):
    """An object to be stored."""

    key: str
    data: Buffer
    content_type: str = _BINARY


@dataclass(frozen=True, kw_only=True)
class MeshWriter:
    """Stores meshes in a folder whose `info` says how.

    Attributes
    ----------
    storage : Storage
    info : MeshInfo
    levels : LevelOptions
    """

    storage: Storage
    info: MeshInfo
    levels: LevelOptions = field(default_factory=LevelOptions)

    def write(self, items: Iterable[tuple[int, Any]]) -> int:
        """Store meshes, a group of them at a time; how many there were."""
        groups = _groups((check_id(one), mesh) for one, mesh in items)
        if self.info.sharding is not None:
            return self._keyed.put(pair for group in groups for pair in self._packed(group))
        count = 0
        for group in groups:
            self._write_files(group)
            count += len(group)
        return count

    @property
    def _keyed(self) -> KeyedWriter:
        return KeyedWriter(
            storage=self.storage,
            sharding=self.info.sharding,
            cache_control="no-cache",
            # Where nothing can be guarded, a single writer is as safe as files are.
            guarded=self.storage.can_guard,
            before_bytes=lambda manifest: Manifest.from_bytes(manifest).data_bytes,
        )

    def _packed(self, group: Sequence[tuple[int, Any]]) -> list[tuple[int, Keyed]]:
        """Manifests, each with its fragments before it, encoded on every core."""
        packed: dict[int, Keyed] = {}

        def encode(pair: tuple[int, Any]) -> None:
            encoded = encode_multilod(pair[1], self.info, self.levels)
            packed[pair[0]] = Keyed(encoded.manifest, (encoded.data,))

        run_batches(encode, group, workers=num_cores())
        return [(one, packed[one]) for one, _ in group]

    def _write_files(self, group: Sequence[tuple[int, Any]]) -> None:
        puts: dict[int, list[Put]] = {}

        def encode(pair: tuple[int, Any]) -> None:
            puts[pair[0]] = self._objects(*pair)

        run_batches(encode, group, workers=num_cores())
        # Never a new manifest beside old data, or the other way round.
        self._remove_old(list(puts))
        put_all(self.storage, list(itertools.chain.from_iterable(puts.values())))

    def _objects(self, segment_id: int, mesh: Any) -> list[Put]:
        """What is to be stored of a mesh, in this order."""
        if self.info.kind == "legacy":
            name = f"{legacy.manifest_key(segment_id)}:0"
            manifest = legacy.encode_manifest([name])
            return [
                Put(name, encode_legacy(mesh)),
                Put(legacy.manifest_key(segment_id), manifest, JSON_TYPE),
            ]
        encoded = encode_multilod(mesh, self.info, self.levels)
        return [
            Put(str(segment_id), encoded.data),
            Put(manifest_name(segment_id), encoded.manifest),
        ]

    def _remove_old(self, segment_ids: Sequence[int]) -> None:
        if self.info.kind == "legacy":
            # Fragments may have any names.
            self.delete(segment_ids)
        else:
            self._forget(segment_ids)

    def _forget(self, segment_ids: Sequence[int]) -> None:
        """Remove meshes: first what names the data, then the data."""
        delete_all(self.storage, [self._manifest_key(one) for one in segment_ids])

    def delete(self, segment_ids: Sequence[int]) -> None:
        """Remove meshes and everything that belongs to them; some may be absent."""
        if self.info.sharding is not None:
            self._keyed.delete(segment_ids)
            return
        data = [str(one) for one in segment_ids]
        if self.info.kind == "legacy":
            layout = LegacyLayout(storage=self.storage)
            listed = run_steps(self.storage, segment_ids, layout.names_steps)
            data = [name for names in listed for name in names or []]
        self._forget(segment_ids)
        delete_all(self.storage, data)

    def _manifest_key(self, segment_id: int) -> str:
        legacy_kind = self.info.kind == "legacy"
        return (legacy.manifest_key if legacy_kind else manifest_name)(segment_id)


def _groups(pairs: Iterable[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
    remaining = iter(pairs)
    while group := list(itertools.islice(remaining, 4 * num_cores())):
        yield group


def put_all(storage: Storage, puts: Sequence[Put]) -> None:
    """Store objects: those of one mesh stand next to each other, its manifest last."""
    for manifests in (False, True):
        chosen = [put for put in puts if _is_manifest(put.key) == manifests]
        if storage.threaded:
            run_batches(partial(_put, storage), chosen, workers=num_cores())
        elif chosen:
            run_sync(_put_all_async(storage, chosen))


def _is_manifest(key: str) -> bool:
    return key.endswith(".index") or legacy.segment_of(key) is not None


def _put(storage: Storage, put: Put) -> None:
    storage.put(put.key, put.data, content_type=put.content_type, cache_control="no-cache")


async def _put_all_async(storage: Storage, puts: Sequence[Put]) -> None:
    async def one(put: Put) -> None:
        await storage.put_async(
            put.key, put.data, content_type=put.content_type, cache_control="no-cache"
        )

    await bounded(storage.concurrency)(puts, one)


def delete_all(storage: Storage, keys: Sequence[str]) -> None:
    """Remove objects; some may be absent."""
    if storage.threaded:
        run_batches(storage.delete, keys, workers=num_cores())
    elif keys:
        run_sync(_delete_all_async(storage, keys))


async def _delete_all_async(storage: Storage, keys: Sequence[str]) -> None:
    await bounded(storage.concurrency)(keys, storage.delete_async)


def write_meshes(
    url: str | os.PathLike[str],
    meshes: MeshItems,
    *,
    kind: MeshKind | None = None,
    sharding: ShardingSpec | Literal["auto"] | None = None,
    lods: int | Literal["auto"] = "auto",
    reduction: float = 4.0,
    vertex_quantization_bits: Literal[10, 16] = 16,
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
    vertex_quantization_bits : {10, 16}
        Vertices are rounded to this many steps along a node of the octree.
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
        The folder holds meshes of another kind; nothing is written then. Or a mesh is none.
    UnsupportedError
        DracoPy or fast-simplification is not installed: ``precomputed-store[meshes]``.
    """
    levels = LevelOptions(lods=lods, reduction=reduction, draco_level=draco_level)
    target = open_target(url, storage_options=storage_options)
    if isinstance(meshes, Mapping):
        for one, mesh in meshes.items():
            check_id(one)
            _check_mesh(mesh)
    pairs = iter(meshes.items() if isinstance(meshes, Mapping) else meshes)
    info = target.info
    if info is None:
        spec = None if sharding == "auto" else sharding
        if sharding == "auto":
            pairs = iter(listed := list(pairs))
            spec = mesh_sharding(len(listed), sum(_num_faces(mesh) for _, mesh in listed))
        info = MeshInfo(
            kind=kind or "multilod",
            vertex_quantization_bits=vertex_quantization_bits,
            sharding=spec,
        )
    elif kind not in (None, info.kind):
        raise ValueError(f"{target.storage.url}: there are {info.kind} meshes, not {kind} ones")
    check_libraries(info, levels)
    if target.info is None:
        put_info(target.storage, info)
    MeshWriter(storage=target.storage, info=info, levels=levels).write(pairs)
    if target.volume is not None:
        link_meshes(target.volume, target.storage)
    return MeshSource(storage=target.storage, info=info)


def mesh_sharding(num_meshes: int, num_faces: int) -> ShardingSpec:
    """Sharding parameters for so many meshes of so many triangles altogether."""
    num_bytes = _BYTES_PER_FACE * num_faces
    return choose_id_sharding(num_objects=num_meshes, num_bytes=num_bytes, target=ShardTarget())


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
    from precomputed_store.mesh_source import open_meshes

    source = open_meshes(url, storage_options=storage_options)
    ids = [check_id(one) for one in segment_ids]
    MeshWriter(storage=source.storage, info=source.info).delete(ids)
