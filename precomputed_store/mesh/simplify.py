"""Coarser versions of a mesh. Pure, through fast-simplification."""

from __future__ import annotations

import math
import threading
from typing import Literal

import numpy as np

from precomputed_store.codecs.base import require
from precomputed_store.forks import restart_in_children
from precomputed_store.mesh.mesh import Mesh

__all__ = ["levels_of_detail", "simplify"]

_FACES_PER_NODE = 20_000
_MAX_LODS = 6
_FEWEST_FACES = 16


class _Turns:
    """One thread at a time: the library keeps the mesh that it is at in global variables."""

    def __init__(self) -> None:
        restart_in_children(self)

    def restart(self) -> None:
        self.lock = threading.Lock()


_turns = _Turns()


def simplify(mesh: Mesh, num_faces: int) -> Mesh:
    """The surface with about so many triangles, by collapsing edges that matter least.

    Raises
    ------
    UnsupportedError
        fast-simplification is not installed.
    """
    if len(mesh.faces) <= num_faces:
        return mesh
    library = require("fast_simplification", extra="meshes", purpose="simplification")
    # Near the origin: the library computes in single precision.
    origin = mesh.vertices.min(axis=0)
    near = np.ascontiguousarray(mesh.vertices - origin)
    faces = np.ascontiguousarray(mesh.faces, np.int32)
    with _turns.lock:
        near, faces = library.simplify(near, faces, target_count=num_faces)
    return Mesh(vertices=near + origin, faces=faces)


def levels_of_detail(mesh: Mesh, lods: int | Literal["auto"], *, reduction: float) -> list[Mesh]:
    """The mesh, and coarser ones, each with `reduction` times fewer triangles.

    Parameters
    ----------
    mesh : Mesh
    lods : int or "auto"
        How many; automatically so many that a node of the octree has about 20,000 triangles.
    reduction : float
    """
    shares = math.log(max(1.0, len(mesh.faces) / _FACES_PER_NODE), 4)
    count = min(_MAX_LODS, 1 + math.ceil(shares)) if lods == "auto" else lods
    levels = [mesh]
    while len(levels) < count:
        target = max(_FEWEST_FACES, int(len(levels[-1].faces) / reduction))
        levels.append(simplify(levels[-1], target))
    return levels
