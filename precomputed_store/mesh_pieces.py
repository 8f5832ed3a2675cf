"""The fragments that a manifest describes → a mesh: what is to be read, and in how many requests.

Specification: meshes.md, "Multi-resolution mesh fragment data file format".
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from precomputed_store.codecs.base import Buffer
from precomputed_store.concurrency import share_out
from precomputed_store.errors import FormatError, ObjectError
from precomputed_store.mesh import Manifest, Mesh, NmBox
from precomputed_store.mesh.fragments import (
    DecodedFragment,
    Fragment,
    assemble,
    decode_fragment,
    nodes_within,
)
from precomputed_store.metadata.mesh import MeshInfo
from precomputed_store.object_steps import Request, Steps
from precomputed_store.shard_cache import forget_shard
from precomputed_store.sharding import ByteRange
from precomputed_store.storage import Blob, Storage

__all__ = ["ExchangedError", "ManifestPieces", "Wanted", "check_version", "mesh_error"]

_MAX_GAP_BYTES = 256 << 10
# A fragment is about half a millisecond of work, another thread's help a fiftieth of one.
_FRAGMENTS_PER_THREAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is wanted of a mesh: a level of detail (from the coarsest if negative), a box."""

    lod: int = 0
    box: NmBox | None = None


class ExchangedError(ObjectError):
    """A shard was exchanged for another while a mesh was read from it."""


def mesh_error(storage: Storage, key: str, error: Exception) -> ObjectError:
    """A damaged object, by its name."""
    return ObjectError(f"{storage.url}/{key}: {error}", key=key)


def check_version(storage: Storage, key: str, blob: Blob | None, version: Hashable) -> None:
    """Make sure that bytes are of the shard that said where they are."""
    if blob is None or blob.version != version:
        forget_shard(storage, key)
        raise ExchangedError(
            f"{storage.url}/{key}: it was exchanged for another while it was read", key=key
        )


@dataclass(frozen=True, slots=True)
class ManifestPieces:
    """The fragments that a manifest describes, in the object `key` from byte `start` on."""

    storage: Storage
    info: MeshInfo
    key: str
    start: int
    version: Hashable = None

    def mesh_steps(self, manifest: Manifest, wanted: Wanted) -> Steps[Mesh]:
        lod = self._lod(manifest, wanted.lod)
        starts = manifest.fragment_starts(lod).tolist()
        nodes: Sequence[int] = range(len(starts) - 1)
        if wanted.box is not None:
            nodes = nodes_within(manifest, lod, wanted.box, self.info)
        nodes = [node for node in nodes if starts[node] < starts[node + 1]]
        runs = _runs(nodes, starts)
        blobs = yield [
            Request(
                self.key, ByteRange(self.start + starts[run[0]], self.start + starts[run[-1] + 1])
            )
            for run in runs
        ]
        pieces: dict[Fragment, Buffer] = {}
        for run, blob in zip(runs, blobs, strict=True):
            data = self._checked(blob, starts[run[-1] + 1] - starts[run[0]], lod)
            for node in run:
                place = slice(starts[node] - starts[run[0]], starts[node + 1] - starts[run[0]])
                pieces[Fragment(lod, node)] = data[place]
        try:
            whole = assemble(self._decoded(pieces), manifest, self.info)
        except FormatError as error:
            raise mesh_error(self.storage, self.key, error) from error
        return whole if wanted.box is None else whole.crop(wanted.box)

    def _checked(self, blob: Blob | None, size: int, lod: int) -> memoryview:
        """The bytes of fragments that lie one after another."""
        if self.version is not None:
            check_version(self.storage, self.key, blob, self.version)
        if blob is None or len(blob.data) != size:
            found = "there is no such object" if blob is None else f"got {len(blob.data)}"
            message = f"fragments of lod {lod}: expected {size} bytes, {found}"
            raise mesh_error(self.storage, self.key, FormatError(message))
        return memoryview(blob.data)

    def _decoded(self, pieces: dict[Fragment, Buffer]) -> list[DecodedFragment]:
        decoded: dict[Fragment, DecodedFragment] = {}

        def decode(fragment: Fragment) -> None:
            try:
                decoded[fragment] = decode_fragment(pieces[fragment], fragment, self.info)
            except FormatError as error:
                message = FormatError(f"fragment {fragment.node} of lod {fragment.lod}: {error}")
                raise mesh_error(self.storage, self.key, message) from error

        share_out(decode, list(pieces), least=_FRAGMENTS_PER_THREAD)
        return [decoded[fragment] for fragment in pieces]

    def _lod(self, manifest: Manifest, lod: int) -> int:
        if not -manifest.num_lods <= lod < manifest.num_lods:
            raise IndexError(
                f"lod {lod}: {self.storage.url}/{self.key} has {manifest.num_lods} levels of "
                "detail, the finest 0 and the coarsest -1"
            )
        return lod % manifest.num_lods


def _runs(nodes: Sequence[int], starts: Sequence[int]) -> list[list[int]]:
    """Nodes that lie close together, to be fetched with one request."""
    runs: list[list[int]] = []
    for node in nodes:
        if runs and starts[node] - starts[runs[-1][-1] + 1] <= _MAX_GAP_BYTES:
            runs[-1].append(node)
        else:
            runs.append([node])
    return runs
