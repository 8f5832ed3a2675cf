"""A block of voxels → the pieces of surface in it, put away until all blocks are done.

A cell of marching cubes lies between the centres of eight voxels. A block has the cells
whose upper voxel is one of its own, and so reads one layer of voxels more in front; the
last one along an axis has the cells beyond the volume's face too. So each triangle is made
once, and vertices on the border of two blocks are the same numbers in both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from precomputed_store.engine import ChunkedArray
from precomputed_store.grid import XYZ
from precomputed_store.mesh import Mesh, legacy
from precomputed_store.mesh.extract import Extractor
from precomputed_store.object_steps import Request, Steps
from precomputed_store.sharding import ByteRange
from precomputed_store.storage import Storage

__all__ = ["Block", "BlockTask", "Pieces", "block_shape_for", "blocks_of", "stored_pieces"]

_MOST_VOXELS = 1 << 23
_BINARY = "application/octet-stream"
_COUNT_BYTES = 8
_ROW_BYTES = 4 * 8


class Block(NamedTuple):
    """Voxels [start, stop) of a scale, from zero, and the number of the block."""

    number: int
    start: XYZ
    stop: XYZ


def blocks_of(size: XYZ, block_shape: XYZ) -> Iterator[Block]:
    """Blocks that cover all voxels."""
    starts = [range(0, n, step) for n, step in zip(size, block_shape, strict=True)]
    for number, (x, y, z) in enumerate(itertools.product(*starts)):
        stop = [
            min(n, at + step) for n, at, step in zip(size, (x, y, z), block_shape, strict=True)
        ]
        yield Block(number, (x, y, z), (stop[0], stop[1], stop[2]))


def block_shape_for(size: XYZ, chunk_size: XYZ) -> XYZ:
    """Blocks of whole chunks, as near to a cube as they come, of bounded size."""
    shape = list(chunk_size)
    while True:
        # Only what is shorter than the volume can grow.
        short = [axis for axis in range(3) if shape[axis] < size[axis]]
        axis = min(short, key=lambda axis: shape[axis], default=None)
        if axis is None or 2 * math.prod(shape) > _MOST_VOXELS:
            break
        shape[axis] *= 2
    while math.prod(shape) > 2 * _MOST_VOXELS:
        axis = max(range(3), key=lambda axis: shape[axis])
        shape[axis] = -(-shape[axis] // 2)
    x, y, z = shape
    return x, y, z


class Pieces(NamedTuple):
    """What a block has of each segment: where in the block's file, and how much.

    The file begins with the number of segments and, for each, these four numbers, so that a job
    that goes on with another one need not make the pieces again.

    Attributes
    ----------
    ids, sizes, faces, voxels : uint64 (n,)
        Segments; bytes of each piece, one after another; triangles; voxels, if counted.
    """

    ids: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.uint64]
    faces: npt.NDArray[np.uint64]
    voxels: npt.NDArray[np.uint64]

    @property
    def starts(self) -> npt.NDArray[np.uint64]:
        """Where each piece begins in the file."""
        before = np.uint64(_COUNT_BYTES + _ROW_BYTES * len(self.ids))
        return before + np.cumsum(self.sizes, dtype=np.uint64) - self.sizes

    def to_bytes(self) -> bytes:
        """What the file begins with."""
        return np.uint64(len(self.ids)).tobytes() + np.stack(self, axis=1).tobytes()


def stored_pieces(number: int) -> Steps[Pieces | None]:
    """What a block has that was put away before; None if that was not done."""
    (blob,) = yield [Request(str(number), ByteRange(0, _COUNT_BYTES))]
    if blob is None:
        return None
    count = int(np.frombuffer(blob.data, np.uint64)[0])
    table = np.empty((0, 4), np.uint64)
    if count:
        place = ByteRange(_COUNT_BYTES, _COUNT_BYTES + _ROW_BYTES * count)
        (blob,) = yield [Request(str(number), place)]
        if blob is None:
            return None
        table = np.frombuffer(blob.data, np.uint64).reshape(-1, 4)
    return Pieces(*table.T)


@dataclass(frozen=True, kw_only=True)
class BlockTask:
    """Makes the pieces of blocks.

    Attributes
    ----------
    array : ChunkedArray
        The segmentation, ``(channel, z, y, x)`` from zero.
    extractor : callable
        See `mesh.extract.Extractor`.
    storage : Storage
        Where pieces are put away.
    ids : tuple of int or None
        Only these segments.
    count_voxels : bool
    """

    array: ChunkedArray
    extractor: Extractor
    storage: Storage
    ids: tuple[int, ...] | None
    count_voxels: bool

    def __call__(self, block: Block) -> Pieces:
        labels = self._labels(block)
        found: list[tuple[int, int, int]] = []
        data: list[bytes] = []
        shift = np.array(block.start) - 0.5
        for label, vertices, faces in self.extractor(labels):
            # In voxels from the volume's corner: halves, which float32 holds exactly.
            piece = legacy.encode_fragment(Mesh(vertices=vertices + shift, faces=faces))
            found.append((label, len(piece), len(faces)))
            data.append(piece)
        ids, sizes, faces = np.array(found, np.uint64).reshape(-1, 3).T
        pieces = Pieces(ids, sizes, faces, self._count(labels, block, ids))
        stored = b"".join([pieces.to_bytes(), *data])
        self.storage.put(str(block.number), stored, content_type=_BINARY)
        return pieces

    def _labels(self, block: Block) -> npt.NDArray[Any]:
        """The block's voxels (x, y, z), one layer in front, and background around the volume."""
        size = self.array.shape[:0:-1]
        low = [max(0, at - 1) for at in block.start]
        x, y, z = (range(a, b) for a, b in zip(low, block.stop, strict=True))
        read = self.array.read((range(1), z, y, x), warn=False)[0].transpose()
        around = [
            (int(at == 0), int(stop == n))
            for at, stop, n in zip(block.start, block.stop, size, strict=True)
        ]
        labels = np.ascontiguousarray(np.pad(read, around))
        if labels.dtype.kind == "i":
            labels = labels.view(f"u{labels.itemsize}")
        if self.ids is not None:
            labels[~np.isin(labels, np.array(self.ids, np.uint64).astype(labels.dtype))] = 0
        return labels

    def _count(
        self, labels: npt.NDArray[Any], block: Block, ids: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.uint64]:
        if not self.count_voxels:
            return np.zeros(len(ids), np.uint64)
        own = labels[
            tuple(slice(1, 1 + b - a) for a, b in zip(block.start, block.stop, strict=True))
        ]
        present, counts = np.unique(own, return_counts=True)
        at = np.searchsorted(present, ids).clip(max=len(present) - 1)
        return np.where(present[at] == ids, counts[at], 0).astype(np.uint64)
