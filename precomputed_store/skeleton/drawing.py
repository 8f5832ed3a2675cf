"""A picture of a skeleton for notebooks, bounded in size."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from precomputed_store.skeleton.graph import sections

if TYPE_CHECKING:
    from precomputed_store.skeleton.skeleton import Skeleton

__all__ = ["as_html"]

_SIDE = 240  # Pixels of the longer side.
_POINTS = 2000  # Drawn at most: about 25 kB.


def as_html(skeleton: Skeleton) -> str:
    """Its text, and its projection along the axis in which it extends least."""
    text = escape(repr(skeleton))
    finite = np.all(np.isfinite(skeleton.vertices), axis=1)
    if not finite.any():
        return f"<pre>{text}</pre>"
    positions = skeleton.vertices.astype(np.float64)
    low, high = positions[finite].min(axis=0), positions[finite].max(axis=0)
    across, down = sorted(np.argsort(high - low, kind="stable")[1:].tolist())
    size = np.maximum((high - low)[[across, down]], 1e-9)
    pixels = (positions[:, [across, down]] - low[[across, down]]) * (_SIDE / size.max())
    width, height = np.maximum(size * (_SIDE / size.max()), 1)
    names = f"{'xyz'[across]} {_length(size[0])} × {'xyz'[down]} {_length(size[1])}"
    path = "".join(_strokes(skeleton, pixels, finite))
    return (
        f"<div><pre>{text}</pre>"
        f'<svg width="{width + 8:.0f}" height="{height + 8:.0f}" '
        f'viewBox="-4 -4 {width + 8:.1f} {height + 8:.1f}" xmlns="http://www.w3.org/2000/svg">'
        f'<path d="{path}" fill="none" stroke="currentColor" stroke-width="1.2" '
        f'stroke-linecap="round"/></svg><pre>{names}</pre></div>'
    )


def _strokes(
    skeleton: Skeleton, pixels: NDArray[np.float64], finite: NDArray[np.bool_]
) -> list[str]:
    """Sections, the longest first, thinned until they and their points are few enough."""
    paths = [path for path in sections(skeleton) if finite[path].all()]
    lone = np.setdiff1d(np.flatnonzero(finite), skeleton.edges)
    paths += [np.array([vertex, vertex]) for vertex in lone]
    paths = sorted(paths, key=len, reverse=True)[: _POINTS // 2]
    step = max(1, -(-sum(map(len, paths)) // _POINTS))
    strokes: list[str] = []
    left = _POINTS
    for path in paths:
        chosen = np.append(path[:-1:step], path[-1])
        left -= len(chosen)
        if left < 0:
            break
        points = [f"{x:.1f},{y:.1f}" for x, y in pixels[chosen].tolist()]
        strokes.append("M" + " ".join(points))
    return strokes


def _length(nm: float) -> str:
    return f"{nm / 1000:.3g} µm" if nm >= 1000 else f"{nm:.3g} nm"
