"""The manifest of a multi-resolution mesh: bytes ⇄ `Manifest`. Pure.

Specification: meshes.md, "Multi-resolution mesh manifest file format".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from precomputed_store.codecs.base import Buffer
from precomputed_store.errors import FormatError

__all__ = ["MAX_MANIFEST_BYTES", "Manifest", "z_order"]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.uint32]

MAX_MANIFEST_BYTES: Final = 64 << 20
"""Four million fragments: far above any real one, to bound what is read."""

_HEADER: Final = struct.Struct("<3f3fI")
_LOD_BYTES: Final = 4 + 12 + 4
_FRAGMENT_BYTES: Final = 12 + 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Manifest:
    """Levels of detail of one mesh, and the octree nodes (fragments) of each.

    Attributes
    ----------
    chunk_shape, grid_origin : float32 (3,)
        Extent of the finest octree node, and where the octree begins, along x, y, z in
        stored coordinates.
    lod_scales : float32 (num_lods,)
        Scale of each level; 0 for one without data.
    vertex_offsets : float32 (num_lods, 3)
        What is added to the vertices of each level.
    fragment_positions : tuple of uint32 (n, 3)
        For each level, x, y, z of its nodes, in Z-order.
    fragment_sizes : tuple of uint32 (n,)
        For each level, bytes of each fragment; 0 for an empty node.

    Raises
    ------
    FormatError
        Something is not finite, not positive, or does not fit together.
    """

    chunk_shape: Floats
    grid_origin: Floats
    lod_scales: Floats
    vertex_offsets: Floats
    fragment_positions: tuple[Integers, ...]
    fragment_sizes: tuple[Integers, ...]

    def __post_init__(self) -> None:
        for name, shape in (
            ("chunk_shape", (3,)),
            ("grid_origin", (3,)),
            ("lod_scales", (self.num_lods,)),
            ("vertex_offsets", (self.num_lods, 3)),
        ):
            values = getattr(self, name)
            if values.shape != shape or not np.isfinite(values).all():
                raise FormatError(
                    f"{name}: expected finite numbers {shape}, got {values.ravel()[:6]}"
                )
        if (self.chunk_shape <= 0).any():
            raise FormatError(f"chunk_shape: expected positive lengths, got {self.chunk_shape}")
        if (self.lod_scales < 0).any():
            raise FormatError(f"lod_scales: expected none below 0, got {self.lod_scales}")
        for lod, (positions, sizes) in enumerate(
            zip(self.fragment_positions, self.fragment_sizes, strict=True)
        ):
            if positions.shape != (len(sizes), 3):
                raise FormatError(f"lod {lod}: {len(sizes)} sizes for {len(positions)} fragments")

    @property
    def num_lods(self) -> int:
        return len(self.fragment_sizes)

    @property
    def data_bytes(self) -> int:
        """Bytes of the fragments of all levels."""
        return sum(int(sizes.sum(dtype=np.uint64)) for sizes in self.fragment_sizes)

    def fragment_starts(self, lod: int) -> npt.NDArray[np.uint64]:
        """Where each fragment of a level begins in the fragment data; one more for the end."""
        before = sum(int(sizes.sum(dtype=np.uint64)) for sizes in self.fragment_sizes[:lod])
        starts = np.zeros(len(self.fragment_sizes[lod]) + 1, np.uint64)
        np.cumsum(self.fragment_sizes[lod], dtype=np.uint64, out=starts[1:])
        return starts + np.uint64(before)

    def node_shape(self, lod: int) -> npt.NDArray[np.float64]:
        """Extent of an octree node of a level, in stored coordinates."""
        shape: npt.NDArray[np.float64] = self.chunk_shape.astype(np.float64) * 2.0**lod
        return shape

    def node_origins(self, lod: int) -> npt.NDArray[np.float64]:
        """Lower corner (n, 3) of each node of a level, in stored coordinates."""
        origin = self.grid_origin.astype(np.float64) + self.vertex_offsets[lod]
        corners: npt.NDArray[np.float64] = (
            origin + self.node_shape(lod) * self.fragment_positions[lod]
        )
        return corners

    @classmethod
    def from_bytes(cls, data: Buffer) -> Manifest:
        """Read a manifest.

        Raises
        ------
        FormatError
            It is shorter or longer than it says, or what it says is not possible.
        """
        view = memoryview(data).cast("B")
        if len(view) < _HEADER.size:
            raise FormatError(f"manifest is {len(view)} bytes; expected at least {_HEADER.size}")
        *shape_and_origin, num_lods = _HEADER.unpack_from(view)
        at = _HEADER.size
        if num_lods * _LOD_BYTES > len(view) - at:
            raise FormatError(f"manifest of {len(view)} bytes has no room for {num_lods} lods")
        scales = np.frombuffer(view, "<f4", num_lods, at)
        offsets = np.frombuffer(view, "<f4", 3 * num_lods, at + 4 * num_lods)
        counts = np.frombuffer(view, "<u4", num_lods, at + 16 * num_lods)
        at += _LOD_BYTES * num_lods
        expected = at + _FRAGMENT_BYTES * int(counts.sum(dtype=np.uint64))
        if expected != len(view):
            raise FormatError(f"manifest is {len(view)} bytes; it says that it has {expected}")
        positions, sizes = [], []
        for count in counts.tolist():
            positions.append(np.frombuffer(view, "<u4", 3 * count, at).reshape(3, count).T)
            sizes.append(np.frombuffer(view, "<u4", count, at + 12 * count))
            at += _FRAGMENT_BYTES * count
        return cls(
            chunk_shape=np.asarray(shape_and_origin[:3], np.float32),
            grid_origin=np.asarray(shape_and_origin[3:], np.float32),
            lod_scales=scales,
            vertex_offsets=offsets.reshape(num_lods, 3),
            fragment_positions=tuple(positions),
            fragment_sizes=tuple(sizes),
        )

    def to_bytes(self) -> bytes:
        """The manifest as it is stored."""
        header = _HEADER.pack(*self.chunk_shape, *self.grid_origin, self.num_lods)
        counts = np.asarray([len(sizes) for sizes in self.fragment_sizes], "<u4")
        parts = [header, self.lod_scales.astype("<f4").tobytes()]
        parts += [self.vertex_offsets.astype("<f4").tobytes(), counts.tobytes()]
        for positions, sizes in zip(self.fragment_positions, self.fragment_sizes, strict=True):
            parts += [positions.T.astype("<u4").tobytes(), sizes.astype("<u4").tobytes()]
        return b"".join(parts)


def z_order(positions: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
    """The order of octree nodes (n, 3) along the Z-curve, on which x varies fastest.

    Examples
    --------
    >>> z_order(np.array([[2, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]])).tolist()
    [3, 1, 2, 0]
    """
    codes = np.zeros(len(positions), np.uint64)
    columns = positions.astype(np.uint64).T
    for bit in range(21):
        for axis, column in enumerate(columns):
            one = column >> np.uint64(bit) & np.uint64(1)
            codes |= one << np.uint64(3 * bit + axis)
    return np.argsort(codes, kind="stable")
