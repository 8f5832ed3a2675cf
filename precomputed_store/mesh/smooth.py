"""Smoothing of surfaces without shrinking them. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from precomputed_store.mesh.mesh import Mesh

__all__ = ["smooth"]

_SHRINK, _SWELL = 0.5, -0.53


def smooth(mesh: Mesh, rounds: int) -> Mesh:
    """Taubin smoothing: each vertex moves towards its neighbours, then a little further back.

    Parameters
    ----------
    mesh : Mesh
    rounds : int
        How often; 10 takes the steps off a surface of voxels.
    """
    if not rounds or not len(mesh.faces):
        return mesh
    start = mesh.vertices[0].astype(np.float64)
    points = mesh.vertices - start
    edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.intp)
    count = np.maximum(1, np.bincount(edges[:, 0], minlength=len(points)))[:, None]
    for _ in range(rounds):
        for step in (_SHRINK, _SWELL):
            points = points + step * (_sums(points, edges) / count - points)
    return Mesh(vertices=points + start, faces=mesh.faces)


def _sums(points: npt.NDArray[np.float64], edges: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Sums of the neighbours of each vertex."""
    columns = [
        np.bincount(edges[:, 0], weights=column[edges[:, 1]], minlength=len(points))
        for column in points.T
    ]
    return np.stack(columns, axis=1)
