"""Pieces of surface from all blocks → meshes of whole segments, stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from precomputed_store.mesh import Mesh, legacy
from precomputed_store.mesh.simplify import simplify
from precomputed_store.mesh.smooth import smooth
from precomputed_store.mesh_writer import MeshWriter
from precomputed_store.meshing.blocks import Pieces
from precomputed_store.metadata import ShardingSpec
from precomputed_store.object_steps import Request, Steps, run_steps
from precomputed_store.sharding import ByteRange, locate_many
from precomputed_store.storage import Storage

__all__ = ["Group", "MergeTask", "PieceTable", "Shaping"]

_GROUP_BYTES = 64 << 20


class PieceTable(NamedTuple):
    """Every piece of every segment, ordered by segment.

    Attributes
    ----------
    ids, blocks, starts, sizes : (n,)
        Segment, block, and place in the block's file.
    """

    ids: npt.NDArray[np.uint64]
    blocks: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, found: Sequence[tuple[int, Pieces]], *, min_voxels: int) -> PieceTable:
        """The table of all blocks; segments of fewer voxels are left out."""
        columns = [
            (
                pieces.ids,
                np.full(len(pieces.ids), block, np.uint64),
                pieces.starts,
                pieces.sizes,
                pieces.voxels,
            )
            for block, pieces in found
        ]
        empty = [np.empty(0, np.uint64)] * 5
        joined = [np.concatenate(parts) for parts in zip(empty, *columns, strict=True)]
        if min_voxels:
            present, group = np.unique(joined[0], return_inverse=True)
            total = np.bincount(group.ravel(), weights=joined[4], minlength=len(present))
            joined = [column[total[group.ravel()] >= min_voxels] for column in joined]
        order = np.argsort(joined[0], kind="stable")
        ids, blocks, starts, sizes, _ = (column[order] for column in joined)
        return cls(ids, blocks, starts, sizes)

    def groups(self, sharding: ShardingSpec | None) -> Iterator[Group]:
        """Parts that can be stored by themselves: shards, or a few segments each."""
        if not len(self.ids):
            return
        if sharding is None:
            whole, first = np.unique(self.ids, return_index=True)
            size = np.add.reduceat(self.sizes, first)
            group = ((np.cumsum(size) - size) // np.uint64(_GROUP_BYTES))[
                np.searchsorted(whole, self.ids)
            ]
        else:
            group = locate_many(sharding, self.ids)[0]
        for number in np.unique(group):
            chosen = group == number
            yield Group(int(number), PieceTable(*(column[chosen] for column in self)))


class Group(NamedTuple):
    """Segments that one task stores."""

    number: int
    table: PieceTable

    @property
    def mark(self) -> str:
        """Name of the object that says that they are stored."""
        return f"stored-{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping:
    """From voxels to nanometres, and what is done to surfaces.

    Attributes
    ----------
    resolution, origin_nm : (float, float, float)
        Extent of a voxel and place of the volume's corner, x, y, z in nanometres.
    smooth : int
        Rounds of smoothing.
    simplify : float
        How many times fewer triangles the finest level is to have.
    """

    resolution: tuple[float, float, float]
    origin_nm: tuple[float, float, float]
    smooth: int
    simplify: float

    def apply(self, pieces: Sequence[Mesh]) -> Mesh:
        """The mesh of a segment, from its pieces in voxels."""
        mesh = Mesh.concatenate(*pieces).deduplicate()
        physical = mesh.vertices.astype(np.float64) * self.resolution + self.origin_nm
        mesh = smooth(Mesh(vertices=physical, faces=mesh.faces), self.smooth)
        if self.simplify > 1:
            mesh = simplify(mesh, int(len(mesh.faces) / self.simplify))
        return mesh


@dataclass(frozen=True, kw_only=True)
class MergeTask:
    """Puts segments together and stores them.

    Attributes
    ----------
    pieces : Storage
        Where the pieces were put away.
    writer : MeshWriter
    shaping : Shaping
    """

    pieces: Storage
    writer: MeshWriter
    shaping: Shaping

    def __call__(self, group: Group) -> int:
        count = self.writer.write(self._meshes(group.table))
        self.pieces.put(group.mark, b"1", content_type="text/plain")
        return count

    def _meshes(self, table: PieceTable) -> Iterator[tuple[int, Any]]:
        whole, first = np.unique(table.ids, return_index=True)
        for segment_id, start, stop in zip(
            whole.tolist(), first, [*first[1:], len(table.ids)], strict=True
        ):
            rows = list(zip(*(column[start:stop].tolist() for column in table[1:]), strict=True))
            (pieces,) = run_steps(self.pieces, [rows], _read)
            yield segment_id, self.shaping.apply(pieces)


def _read(rows: Sequence[tuple[int, int, int]]) -> Steps[list[Mesh]]:
    blobs = yield [
        Request(str(block), ByteRange(start, start + size)) for block, start, size in rows
    ]
    found = []
    for (block, _, _), blob in zip(rows, blobs, strict=True):
        if blob is None:
            raise FileNotFoundError(f"the pieces of block {block} have vanished meanwhile")
        found.append(legacy.decode_fragment(blob.data))
    return found
