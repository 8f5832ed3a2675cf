"""Segment id → mesh, whichever way a folder of meshes is laid out.

Legacy fragments, multi-resolution meshes in files of their own, and in shards.
Specification: meshes.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from precomputed_store.codecs import content
from precomputed_store.codecs.base import Buffer
from precomputed_store.errors import FormatError, MetadataError
from precomputed_store.keyed_reader import KeyedReader
from precomputed_store.mesh import Manifest, Mesh, legacy
from precomputed_store.mesh.manifest import MAX_MANIFEST_BYTES
from precomputed_store.mesh_pieces import ManifestPieces, Wanted, check_version, mesh_error
from precomputed_store.metadata.mesh import MeshInfo
from precomputed_store.object_steps import Request, Steps, plain_bytes
from precomputed_store.shard_batch import Found
from precomputed_store.storage import Storage

__all__ = [
    "FileLayout",
    "LegacyLayout",
    "ListedLayout",
    "MeshLayout",
    "ShardLayout",
    "manifest_name",
]

MAX_FRAGMENT_BYTES = 4 << 30
_SUFFIX = ".index"
_FRAGMENT = re.compile(r"(0|[1-9][0-9]{0,19})(?:[:.].*)?")


class MeshLayout(Protocol):
    """Where the meshes of one folder are."""

    def mesh_steps(self, segment_id: int, wanted: Wanted) -> Steps[Mesh | None]:
        """Read a mesh; None if there is none."""

    def presence_steps(self, segment_id: int) -> Steps[bool]:
        """Whether there is a mesh."""

    def ids(self) -> Iterator[int]:
        """Every segment that has a mesh, in no promised order."""

    def prepared(self, segment_ids: Sequence[int]) -> MeshLayout:
        """The same, once it is known where these meshes are, if that has to be looked up."""


@dataclass(frozen=True, kw_only=True)
class LegacyLayout:
    """A manifest that names fragments, and the fragments.

    Specification: meshes.md, "Legacy single-resolution mesh format".
    """

    storage: Storage

    def mesh_steps(self, segment_id: int, wanted: Wanted) -> Steps[Mesh | None]:
        if wanted.lod not in (0, -1):
            raise IndexError(f"lod {wanted.lod}: legacy meshes have one level of detail, 0")
        names = yield from self.names_steps(segment_id)
        if names is None:
            return None
        blobs = yield [Request(name, None, MAX_FRAGMENT_BYTES) for name in names]
        fragments = []
        for name, blob in zip(names, blobs, strict=True):
            try:
                if blob is None:
                    raise FormatError(
                        f"no such fragment, though {legacy.manifest_key(segment_id)} names it"
                    )
                data = plain_bytes(blob, max_bytes=MAX_FRAGMENT_BYTES)
                fragments.append(legacy.decode_fragment(data))
            except FormatError as error:
                raise mesh_error(self.storage, name, error) from error
        whole = fragments[0] if len(fragments) == 1 else Mesh.concatenate(*fragments)
        return whole if wanted.box is None else whole.crop(wanted.box)

    def names_steps(self, segment_id: int) -> Steps[list[str] | None]:
        """Names of a segment's fragments; None if it has no manifest."""
        key = legacy.manifest_key(segment_id)
        (blob,) = yield [Request(key, None, MAX_MANIFEST_BYTES)]
        if blob is None:
            return None
        source = f"{self.storage.url}/{key}"
        try:
            data = plain_bytes(blob, max_bytes=MAX_MANIFEST_BYTES)
        except FormatError as error:
            raise MetadataError(str(error), source=source) from error
        return legacy.parse_manifest(data, source=source)

    def presence_steps(self, segment_id: int) -> Steps[bool]:
        return (yield from self.names_steps(segment_id)) is not None

    def prepared(self, segment_ids: Sequence[int]) -> LegacyLayout:
        return self

    def ids(self) -> Iterator[int]:
        for name in self.storage.list_names():
            segment_id = legacy.segment_of(name)
            if segment_id is not None:
                yield segment_id


@dataclass(frozen=True, kw_only=True)
class ListedLayout(LegacyLayout):
    """Fragments that no manifest names, by the segment ids that their names begin with.

    As they are before manifests are made: ``17:0:0-512_0-512_0-100``, ``17.frag`` or ``17``.

    Attributes
    ----------
    names : mapping of int to list of str
        Fragments of each segment, as far as they were looked up.
    """

    names: Mapping[int, list[str]] = field(default_factory=dict)

    def prepared(self, segment_ids: Sequence[int]) -> ListedLayout:
        return replace(self, names=self._listed())

    def names_steps(self, segment_id: int) -> Steps[list[str] | None]:
        yield []
        return self.names.get(segment_id)

    def ids(self) -> Iterator[int]:
        return iter(self._listed())

    def _listed(self) -> dict[int, list[str]]:
        names: dict[int, list[str]] = {}
        for name in sorted(self.storage.list_names()):
            match = _FRAGMENT.fullmatch(name)
            if match and legacy.segment_of(name) is None and int(match[1]) < 1 << 64:
                names.setdefault(int(match[1]), []).append(name)
        return names


@dataclass(frozen=True, kw_only=True)
class FileLayout:
    """Multi-resolution meshes, each in two files.

    Specification: meshes.md, "Unsharded storage of multi-resolution mesh manifest".
    """

    storage: Storage
    info: MeshInfo

    def mesh_steps(self, segment_id: int, wanted: Wanted) -> Steps[Mesh | None]:
        manifest = yield from self.manifest_steps(segment_id)
        if manifest is None:
            return None
        pieces = ManifestPieces(self.storage, self.info, str(segment_id), 0)
        return (yield from pieces.mesh_steps(manifest, wanted))

    def manifest_steps(self, segment_id: int) -> Steps[Manifest | None]:
        """The manifest of a segment; None if it has none."""
        key = manifest_name(segment_id)
        (blob,) = yield [Request(key, None, MAX_MANIFEST_BYTES)]
        if blob is None:
            return None
        try:
            return Manifest.from_bytes(plain_bytes(blob, max_bytes=MAX_MANIFEST_BYTES))
        except FormatError as error:
            raise mesh_error(self.storage, key, error) from error

    def presence_steps(self, segment_id: int) -> Steps[bool]:
        return (yield from self.manifest_steps(segment_id)) is not None

    def prepared(self, segment_ids: Sequence[int]) -> FileLayout:
        return self

    def ids(self) -> Iterator[int]:
        for name in self.storage.list_names():
            number = name.removesuffix(_SUFFIX)
            if number != name and number.isascii() and number.isdecimal():
                yield int(number)


@dataclass(frozen=True, kw_only=True)
class ShardLayout:
    """Multi-resolution meshes in shards: the fragments lie immediately before the manifest.

    Specification: meshes.md, "Sharded storage of multi-resolution mesh manifest".

    Attributes
    ----------
    storage : Storage
    info : MeshInfo
    places : mapping of int to Found or None
        Where manifests are, as far as that was looked up.
    """

    storage: Storage
    info: MeshInfo
    places: Mapping[int, Found | None] = field(default_factory=dict)

    @property
    def reader(self) -> KeyedReader:
        """Reads manifests."""
        return KeyedReader(
            storage=self.storage,
            sharding=self.info.sharding,
            max_bytes=MAX_MANIFEST_BYTES,
            noun="mesh manifest",
        )

    def prepared(self, segment_ids: Sequence[int]) -> ShardLayout:
        return replace(self, places=self.reader.locate(segment_ids))

    def mesh_steps(self, segment_id: int, wanted: Wanted) -> Steps[Mesh | None]:
        manifest = yield from self.manifest_steps(segment_id)
        place = self.places[segment_id]
        if manifest is None or place is None:
            return None
        start = place.place.start - manifest.data_bytes
        if start < 0:
            message = f"{manifest.data_bytes} bytes of fragments of segment {segment_id}, but "
            message += f"only {place.place.start} before its manifest"
            raise mesh_error(self.storage, place.key, FormatError(message))
        pieces = ManifestPieces(self.storage, self.info, place.key, start, place.version)
        return (yield from pieces.mesh_steps(manifest, wanted))

    def manifest_steps(self, segment_id: int) -> Steps[Manifest | None]:
        """The manifest of a segment that was looked up; None if it has none."""
        place = self.places[segment_id]
        if place is None:
            return None
        data: Buffer = b""
        if place.place.start < place.place.stop:
            (blob,) = yield [Request(place.key, place.place)]
            check_version(self.storage, place.key, blob, place.version)
            data = b"" if blob is None else blob.data
        try:
            if self.info.sharding is not None and self.info.sharding.data_encoding == "gzip":
                data = content.undo(data, "gzip", limit=MAX_MANIFEST_BYTES, allow_zlib=True)
            return Manifest.from_bytes(data)
        except FormatError as error:
            message = FormatError(f"segment {segment_id}: {error}")
            raise mesh_error(self.storage, place.key, message) from error

    def presence_steps(self, segment_id: int) -> Steps[bool]:
        yield []
        return self.places[segment_id] is not None

    def ids(self) -> Iterator[int]:
        return self.reader.ids()


def manifest_name(segment_id: int) -> str:
    """Name of a multi-resolution manifest that is a file of its own."""
    return f"{segment_id}{_SUFFIX}"
