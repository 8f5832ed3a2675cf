"""Fewer vertices, and smoother ones, between the ends and branch points that stay."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from precomputed_store.skeleton.graph import distinct_edges, sections

if TYPE_CHECKING:
    from precomputed_store.skeleton.skeleton import Skeleton

__all__ = ["downsample", "smooth"]


def downsample(skeleton: Skeleton, factor: int) -> Skeleton:
    """One of `factor` vertices of each unbranched section, besides its ends."""
    _check_count("factor", factor)
    if factor == 1:
        return skeleton
    kept = np.zeros(len(skeleton.vertices), dtype=bool)
    kept[np.setdiff1d(np.arange(len(kept)), skeleton.edges)] = True
    edges = [np.empty((0, 2), dtype=np.intp)]
    for path in sections(skeleton):
        # A ring of less than three vertices would be none.
        step = min(factor, len(path) // 3) if path[0] == path[-1] else factor
        chosen = np.append(path[:-1:step], path[-1])
        kept[chosen] = True
        edges.append(np.stack([chosen[:-1], chosen[1:]], axis=1))
    number = np.cumsum(kept) - 1
    joined = distinct_edges(number[np.concatenate(edges)], int(kept.sum()))
    return replace(
        skeleton,
        vertices=skeleton.vertices[kept],
        edges=joined.astype(np.uint32),
        attributes={name: values[kept] for name, values in skeleton.attributes.items()},
    )


def smooth(skeleton: Skeleton, window: int, *, stay_inside: bool) -> Skeleton:
    """Each unbranched section averaged forwards and backwards, its ends held."""
    _check_count("window", window)
    if window == 1:
        return skeleton
    vertices = skeleton.vertices.copy()
    for path in sections(skeleton):
        if len(path) == 2:
            continue
        positions = skeleton.vertices[path].astype(np.float64)
        # Both ways, so that the average does not shift vertices along the path.
        averaged = _average(_average(positions, window)[::-1], window)[::-1]
        vertices[path[1:-1]] = averaged[1:-1]
    if stay_inside:
        _check_inside(skeleton, vertices)
    return replace(skeleton, vertices=vertices)


def _average(positions: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Of each row and the `window` - 1 before it; what lies before the first is mirrored."""
    padded = np.pad(positions, ((window, 0), (0, 0)), mode="symmetric")
    sums = np.cumsum(padded, axis=0)
    return (sums[window:] - sums[:-window]) / window


def _check_inside(skeleton: Skeleton, vertices: NDArray[np.float32]) -> None:
    radius = skeleton.attributes.get("radius")
    if radius is None or radius.ndim != 1:
        raise ValueError("stay_inside needs the attribute radius, one number for each vertex")
    moved = np.linalg.norm(vertices.astype(np.float64) - skeleton.vertices, axis=1)
    outside = np.flatnonzero(moved > np.maximum(radius, 0))
    if len(outside):
        worst = outside[0]
        raise ValueError(
            f"smoothing moves {len(outside)} vertices farther than their radius, first vertex "
            f"{worst} by {moved[worst]:.4g} nm (radius {radius[worst]:.4g} nm); "
            "take a smaller window, or stay_inside=False"
        )


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
