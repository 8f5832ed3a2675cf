"""`open_meshes`: the meshes of a folder, by segment id."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike

from precomputed_store.errors import ObjectError, UnsupportedError, VolumeNotFoundError
from precomputed_store.indexed_source import IndexedSource
from precomputed_store.keyed_reader import check_id
from precomputed_store.mesh import Manifest, Mesh, NmBox
from precomputed_store.mesh_layouts import (
    FileLayout,
    LegacyLayout,
    ListedLayout,
    MeshLayout,
    ShardLayout,
)
from precomputed_store.mesh_pieces import ExchangedError, Wanted
from precomputed_store.metadata.document import MAX_BYTES, load_document
from precomputed_store.metadata.mesh import MeshInfo
from precomputed_store.object_steps import Steps, plain_bytes, run_steps
from precomputed_store.storage import Storage, open_storage

__all__ = ["MeshSource", "linked_meshes", "open_meshes", "read_mesh_info"]

T = TypeVar("T")
_MOST_TRIES = 10

MissingMesh = Literal["raise", "omit"]


class MissingMeshError(ObjectError, KeyError):
    """A segment has no mesh."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, kw_only=True, repr=False)
class MeshSource(IndexedSource):
    """The meshes of a folder, by segment id.

    ``source[segment_id]`` is a `Mesh`, ``segment_id in source`` tells whether there is one,
    `get` reads many at once. Made by `open_meshes` or `Volume.meshes`. Immutable and
    picklable; it holds no connection.

    Attributes
    ----------
    storage : Storage
        The folder.
    info : MeshInfo
        How the meshes are stored.
    manifests : bool
        False: legacy fragments are found by listing the folder; no manifest is read.
    """

    storage: Storage
    info: MeshInfo
    manifests: bool = True

    @property
    def layout(self) -> MeshLayout:
        """Where the meshes are in the folder."""
        if self.info.kind == "legacy":
            kind = LegacyLayout if self.manifests else ListedLayout
            return kind(storage=self.storage)
        if self.info.sharding is None:
            return FileLayout(storage=self.storage, info=self.info)
        return ShardLayout(storage=self.storage, info=self.info)

    @property
    def url(self) -> str:
        return self.storage.url

    def __getitem__(self, segment_id: int) -> Mesh:
        """The mesh of a segment in full detail, as it is stored.

        Raises
        ------
        MissingMeshError
            There is none; it is a `KeyError` as well.
        """
        return self.get([segment_id])[check_id(segment_id)]

    def __contains__(self, segment_id: object) -> bool:
        if isinstance(segment_id, bool) or not isinstance(segment_id, int | np.integer):
            return False
        if not 0 <= int(segment_id) < 2**64:
            return False
        return self._run([int(segment_id)], lambda layout, one: layout.presence_steps(one))[0]

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids())

    def ids(self) -> list[int]:
        """Every segment that has a mesh, ascending.

        Raises
        ------
        UnsupportedError
            The storage cannot list its objects.
        """
        return sorted(self.layout.ids())

    @overload
    def get(
        self, segment_ids: Iterable[int], *, lod: int = ..., fuse: Literal[False] = ...,
        deduplicate: bool = ..., box: NmBox | None = ..., missing: MissingMesh = ...,
    ) -> dict[int, Mesh]: ...  # fmt: skip
    @overload
    def get(
        self, segment_ids: Iterable[int], *, lod: int = ..., fuse: Literal[True],
        deduplicate: bool = ..., box: NmBox | None = ..., missing: MissingMesh = ...,
    ) -> Mesh: ...  # fmt: skip

    def get(
        self,
        segment_ids: Iterable[int],
        *,
        lod: int = 0,
        fuse: bool = False,
        deduplicate: bool = False,
        box: NmBox | None = None,
        missing: MissingMesh = "raise",
    ) -> dict[int, Mesh] | Mesh:
        """Read meshes, many of them at once.

        Parameters
        ----------
        segment_ids : iterable of int
        lod : int
            Level of detail: 0 is the finest, -1 the coarsest that a mesh has.
        fuse : bool
            One mesh of all segments, rather than one for each.
        deduplicate : bool
            Merge equal vertices: those of neighbouring fragments, which are stored in each.
            See `Mesh.deduplicate` for doing so on the faces of chunks only.
        box : pair of (x, y, z), optional
            Lower and upper corner in nanometres: only triangles within. Of multi-resolution
            meshes no more than the fragments that touch it is read.
        missing : {"raise", "omit"}
            What a segment without a mesh means.

        Returns
        -------
        dict of int to Mesh, or Mesh
            In the order of `segment_ids`.

        Raises
        ------
        MissingMeshError
            A segment has no mesh, and ``missing="raise"``.
        IndexError
            A mesh has no such level of detail.
        ObjectError
            What is stored is damaged.
        """
        ids = list(dict.fromkeys(check_id(segment_id) for segment_id in segment_ids))
        if missing not in ("raise", "omit"):
            raise ValueError(f"missing is {missing!r}; expected 'raise' or 'omit'")
        wanted = Wanted(lod=lod, box=None if box is None else _box(box))
        found = self._run(ids, lambda layout, one: layout.mesh_steps(one, wanted))
        meshes = {one: mesh for one, mesh in zip(ids, found, strict=True) if mesh is not None}
        if missing == "raise" and len(meshes) < len(ids):
            absent = [one for one in ids if one not in meshes]
            raise MissingMeshError(
                f"{self.url}: no mesh of {_listed(absent)}; missing='omit' leaves it out"
            )
        if fuse:
            fused = Mesh.concatenate(*meshes.values())
            return fused.deduplicate() if deduplicate else fused
        if deduplicate:
            return {one: mesh.deduplicate() for one, mesh in meshes.items()}
        return meshes

    def query(
        self, box_nm: ArrayLike, *, lod: int = 0, index: str | os.PathLike[str] | None = None
    ) -> dict[int, Mesh]:
        """The whole meshes that a box meets; see `query_ids`.

        Indices may name segments too small for a mesh; those are left out.
        """
        return self.get(self.query_ids(box_nm, index=index), lod=lod, missing="omit")

    def manifest(self, segment_id: int) -> Manifest:
        """Levels of detail and fragments of a multi-resolution mesh.

        Raises
        ------
        MissingMeshError
            There is no mesh.
        UnsupportedError
            The meshes are legacy ones.
        """
        if self.info.kind == "legacy":
            raise UnsupportedError(f"{self.url}: legacy meshes have no levels of detail")
        found = self._run([check_id(segment_id)], _manifest_steps)[0]
        if found is None:
            raise MissingMeshError(f"{self.url}: no mesh of segment {segment_id}")
        return found

    def _run(self, ids: list[int], steps: Callable[[MeshLayout, int], Steps[T]]) -> list[T]:
        """The results of steps, begun anew if a shard is exchanged for another meanwhile."""
        for _ in range(_MOST_TRIES - 1):
            with contextlib.suppress(ExchangedError):
                return self._run_once(ids, steps)
        return self._run_once(ids, steps)

    def _run_once(self, ids: list[int], steps: Callable[[MeshLayout, int], Steps[T]]) -> list[T]:
        layout = self.layout.prepared(ids)
        return run_steps(self.storage, ids, lambda one: steps(layout, one))

    def __repr__(self) -> str:
        text = "legacy meshes"
        if self.info.kind == "multilod":
            where = "unsharded" if self.info.sharding is None else "sharded"
            text = f"multi-resolution meshes, {where}, {self.info.vertex_quantization_bits} bits"
        return f"<precomputed_store.MeshSource {self.url}: {text}>"


def _manifest_steps(layout: MeshLayout, segment_id: int) -> Steps[Manifest | None]:
    assert isinstance(layout, FileLayout | ShardLayout)
    return layout.manifest_steps(segment_id)


def open_meshes(
    url: str | os.PathLike[str],
    *,
    manifests: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> MeshSource:
    """Open a folder of meshes: one request for its `info`.

    Parameters
    ----------
    url : str or path
        A folder of meshes, or a volume whose `info` links one. As in `open_layer`.
    manifests : bool
        False for a folder of legacy fragments without manifests, whose names begin with the
        segment id: the folder is listed instead.
    storage_options : mapping, optional
        Passed to fsspec.

    Returns
    -------
    MeshSource
        A folder without `info` is one of legacy meshes, as the specification has it.

    Raises
    ------
    VolumeNotFoundError
        A volume links no meshes; or there is nothing at this address.
    MetadataError
        `info` breaks the specification.

    Examples
    --------
    >>> source = open_meshes("memory://doc/meshes")
    Traceback (most recent call last):
        ...
    precomputed_store.errors.VolumeNotFoundError: memory://doc/meshes: there is nothing here
    """
    storage = open_storage(url, storage_options=storage_options)
    document = _document(storage)
    if document is not None and "scales" in document:
        return replace(linked_meshes(storage, document.get("mesh")), manifests=manifests)
    if document is None and _is_known_to_be_empty(storage):
        raise VolumeNotFoundError(f"{storage.url}: there is nothing here")
    info = _info(storage, document)
    return MeshSource(storage=storage, info=info, manifests=manifests)


def linked_meshes(volume: Storage, folder: object) -> MeshSource:
    """The meshes in the folder that a volume's `info` names."""
    if not isinstance(folder, str) or not folder:
        raise VolumeNotFoundError(
            f"{volume.url}: the volume's info links no meshes; make_meshes makes some"
        )
    storage = volume.child(folder)
    return MeshSource(storage=storage, info=read_mesh_info(storage))


def read_mesh_info(storage: Storage) -> MeshInfo:
    """The `info` of a folder of meshes; without one they are legacy meshes."""
    return _info(storage, _document(storage))


def _info(storage: Storage, document: dict[str, Any] | None) -> MeshInfo:
    if document is None:
        return MeshInfo(kind="legacy")
    return MeshInfo.from_json(document, source=f"{storage.url}/info")


def _document(storage: Storage) -> dict[str, Any] | None:
    blob = storage.get("info", max_bytes=MAX_BYTES)
    if blob is None:
        return None
    return load_document(plain_bytes(blob, max_bytes=MAX_BYTES), source=f"{storage.url}/info")


def _is_known_to_be_empty(storage: Storage) -> bool:
    try:
        return storage.first_child() is None
    except (OSError, UnsupportedError):
        return False


def _box(box: NmBox) -> NmBox:
    low, high = np.asarray(box[0], float), np.asarray(box[1], float)
    if low.shape != (3,) or high.shape != (3,) or not (low <= high).all():
        raise ValueError(f"box {box}: expected a lower and an upper corner (x, y, z), in nm")
    return low.tolist(), high.tolist()


def _listed(ids: list[int]) -> str:
    shown = ", ".join(map(str, ids[:5])) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return f"segment{'s' if len(ids) > 1 else ''} {shown}"
