"""A mesh as a small picture for notebooks: an SVG, no library needed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["as_svg"]

_MAX_TRIANGLES = 3000
_SIZE = 240
_VIEW = np.array([[0.8, -0.6, 0.0], [0.3, 0.4, -0.866], [0.52, 0.693, 0.5]])
"""Rows: to the right, downwards, and towards the eye."""


def as_svg(vertices: npt.NDArray[np.float32], faces: npt.NDArray[np.uint32]) -> str:
    """Shaded triangles, the nearest last; of a large mesh a part of them, evenly spread."""
    if not len(faces):
        return ""
    shown = faces[:: -(-len(faces) // _MAX_TRIANGLES)]
    corners = (vertices[shown].astype(np.float64) @ _VIEW.T).reshape(-1, 3, 3)
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    scale = _SIZE / max(*(high - low)[:2], 1e-9)
    flat = (corners[..., :2] - low[:2]) * scale
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1)
    light = np.abs(normals[:, 2]) / np.where(length > 0, length, 1)
    grey = (70 + 150 * light).astype(int)
    parts = [
        f'<path d="M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f} {c[0]:.1f} {c[1]:.1f}z" '
        f'fill="rgb({grey[i]},{grey[i]},{min(255, grey[i] + 25)})"/>'
        for i in np.argsort(corners[..., 2].mean(axis=1), kind="stable")
        for a, b, c in [flat[i]]
    ]
    return f'<svg width="{_SIZE}" height="{_SIZE}">{"".join(parts)}</svg>'
