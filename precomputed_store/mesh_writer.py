"""Meshes by segment id → objects in a folder, and their removal."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from precomputed_store.concurrency import num_cores, run_threaded
from precomputed_store.keyed_reader import check_id
from precomputed_store.keyed_writer import Keyed, KeyedWriter
from precomputed_store.mesh import Manifest, legacy
from precomputed_store.mesh_encoding import LevelOptions, encode_legacy, encode_multilod
from precomputed_store.mesh_layouts import FileLayout, LegacyLayout, manifest_name
from precomputed_store.mesh_objects import Put, delete_all, put_all
from precomputed_store.mesh_target import JSON_TYPE
from precomputed_store.metadata.mesh import MeshInfo
from precomputed_store.object_steps import run_steps
from precomputed_store.shard_cache import forget_shard
from precomputed_store.storage import Storage

__all__ = ["MeshWriter"]


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

        run_threaded(encode, group, workers=num_cores())
        return [(one, packed[one]) for one, _ in group]

    def _write_files(self, group: Sequence[tuple[int, Any]]) -> None:
        puts: dict[int, list[Put]] = {}

        def encode(pair: tuple[int, Any]) -> None:
            puts[pair[0]] = self._objects(*pair)

        run_threaded(encode, group, workers=num_cores())
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

    def delete_everything(self) -> None:
        """Remove all meshes of the folder.

        Raises
        ------
        UnsupportedError
            The storage cannot list.
        """
        if self.info.sharding is not None:
            reader = self._keyed.reader
            keys = [reader.shard_key(shard) for shard in reader.shards()]
            delete_all(self.storage, keys)
            for key in keys:
                forget_shard(self.storage, key)
            return
        layout: LegacyLayout | FileLayout = LegacyLayout(storage=self.storage)
        if self.info.kind == "multilod":
            layout = FileLayout(storage=self.storage, info=self.info)
        self.delete(list(layout.ids()))

    def _manifest_key(self, segment_id: int) -> str:
        legacy_kind = self.info.kind == "legacy"
        return (legacy.manifest_key if legacy_kind else manifest_name)(segment_id)


def _groups(pairs: Iterable[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
    remaining = iter(pairs)
    while group := list(itertools.islice(remaining, 4 * num_cores())):
        yield group
