"""A mesh as a small picture for notebooks: an SVG, no library needed."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.mesh import vertices as merging

__all__ = ["as_svg"]

Points: TypeAlias = npt.NDArray[np.float64]

_MAX_TRIANGLES = 3000
_CELLS = (64, 48, 36, 27, 20, 15, 11, 8, 6, 4)
_SIZE = 240
_STEPS = 4
_VIEW = np.array([[0.8, -0.6, 0.0], [0.3, 0.4, -0.866], [0.52, 0.693, 0.5]])
"""Rows: to the right, downwards, and away from the eye."""


def as_svg(vertices: npt.NDArray[np.float32], faces: npt.NDArray[np.uint32]) -> str:
    """Shaded triangles, the nearest last; of a large mesh a coarser version."""
    if not len(faces):
        return ""
    points, faces = _coarse(vertices.astype(np.float64) @ _VIEW.T, faces)
    corners = points[faces]
    low, high = points.min(axis=0), points.max(axis=0)
    scale = _STEPS * _SIZE / max(*(high - low)[:2], 1e-9)
    flat = np.rint((corners[..., :2] - low[:2]) * scale).astype(int).reshape(-1, 6).tolist()
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1)
    light = np.abs(normals[:, 2]) / np.where(length > 0, length, 1)
    grey = (70 + 150 * light).astype(int).tolist()
    order = np.argsort(-corners[..., 2].mean(axis=1), kind="stable")
    if merging.is_closed(faces):
        # What is turned away is hidden by what is not.
        order = order[normals[order, 2] < 0]
    parts = [
        '<path d="M{} {}L{} {} {} {}z" fill="#{:02x}{:02x}{:02x}"/>'.format(
            *flat[i], grey[i], grey[i], min(255, grey[i] + 25)
        )
        for i in order.tolist()
    ]
    side = _STEPS * _SIZE
    return (
        f'<svg width="{_SIZE}" height="{_SIZE}" viewBox="0 0 {side} {side}">{"".join(parts)}</svg>'
    )


def _coarse(points: Points, faces: npt.NDArray[np.uint32]) -> tuple[Points, Any]:
    """A mesh that is small enough to be drawn: vertices that share a cell become their mean."""
    low = points.min(axis=0)
    extent = max((points.max(axis=0) - low).max(), 1e-9)
    for cells in _CELLS:
        if len(faces) <= _MAX_TRIANGLES:
            break
        place = ((points - low) / extent * (cells - 1)).astype(np.uint32)
        _, group = merging.unique_rows(place)
        counts = np.bincount(group)
        points = np.stack([np.bincount(group, column) / counts for column in points.T], axis=1)
        faces = merging.without_collapsed(group[faces].astype(np.uint32))
    return points, faces
