"""A mesh → the objects to store. Pure but for the libraries that compress and simplify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from precomputed_store.codecs.base import require
from precomputed_store.mesh import Mesh, as_mesh, legacy
from precomputed_store.mesh.octree import EncodedMesh, OctreeOptions, encode_levels
from precomputed_store.mesh.simplify import levels_of_detail
from precomputed_store.metadata.mesh import MeshInfo

__all__ = ["LevelOptions", "check_libraries", "encode_legacy", "encode_multilod"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelOptions:
    """Levels of detail of meshes that are written.

    Attributes
    ----------
    lods : int or "auto"
        How many; automatically more for larger meshes.
    reduction : float
        How many times fewer triangles each level has than the finer one.
    draco_level : int
        Effort of the compression, 0 to 10.

    Raises
    ------
    ValueError
        One is out of its range.
    """

    lods: int | Literal["auto"] = "auto"
    reduction: float = 4.0
    draco_level: int = 7

    def __post_init__(self) -> None:
        if self.lods != "auto" and not (isinstance(self.lods, int) and 1 <= self.lods <= 16):
            raise ValueError(f"lods is {self.lods!r}; expected 'auto' or an integer from 1 to 16")
        if not self.reduction > 1:
            raise ValueError(f"reduction is {self.reduction!r}; expected a number above 1")
        if not 0 <= self.draco_level <= 10:
            raise ValueError(f"draco_level is {self.draco_level!r}; expected 0 to 10")


def check_libraries(info: MeshInfo, options: LevelOptions) -> None:
    """Make sure, before anything is written, that what writing takes is there.

    Raises
    ------
    UnsupportedError
        A library is not installed.
    """
    if info.kind == "multilod":
        require("DracoPy", extra="meshes", purpose="multi-resolution meshes")
        if options.lods != 1:
            require("fast_simplification", extra="meshes", purpose="levels of detail")


def encode_multilod(mesh: Any, info: MeshInfo, options: LevelOptions) -> EncodedMesh:
    """Manifest and data of a mesh, or of a list of its levels of detail, the finest first."""
    if isinstance(mesh, list):
        levels: Sequence[Mesh] = [as_mesh(level) for level in mesh]
    else:
        levels = levels_of_detail(as_mesh(mesh), options.lods, reduction=options.reduction)
    matrix = np.vstack([info.matrix, [0, 0, 0, 1]])
    if not np.array_equal(matrix, np.eye(4)):
        levels = [level.transform(np.linalg.inv(matrix)) for level in levels]
    octree = OctreeOptions(bits=info.vertex_quantization_bits, draco_level=options.draco_level)
    return encode_levels(levels, octree)


def encode_legacy(mesh: Any) -> bytes:
    """The fragment of a mesh."""
    return legacy.encode_fragment(as_mesh(mesh))
