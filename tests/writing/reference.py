"""A coarser scale made voxel by voxel, as plainly as can be."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["coarse", "coarse_start"]


def coarse_start(start: tuple[int, ...], factor: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a // f for a, f in zip(start, factor, strict=True))


def coarse(
    voxels: np.ndarray, start: tuple[int, ...], factor: tuple[int, ...], method: str
) -> np.ndarray:
    """Of an array ``(x, y, z)`` whose first voxel has the absolute coordinates `start`."""
    first = coarse_start(start, factor)
    last = [-(-(a + n) // f) for a, n, f in zip(start, voxels.shape, factor, strict=True)]
    out = np.zeros([b - a for a, b in zip(first, last, strict=True)], voxels.dtype)
    for index in np.ndindex(out.shape):
        window = tuple(
            slice(max(0, (i + a) * f - s), (i + a + 1) * f - s)
            for i, a, f, s in zip(index, first, factor, start, strict=True)
        )
        out[index] = _ONE[method](voxels[window].ravel(order="F"))
    return out


def _mean(values: np.ndarray) -> Any:
    if values.dtype.kind == "f":
        return values.astype(np.float64).mean()
    whole, rest = divmod(sum(map(int, values)), len(values))
    up = 2 * rest > len(values) or (2 * rest == len(values) and whole % 2 == 1)
    return whole + up


def _mode(values: np.ndarray) -> Any:
    found, counts = np.unique(values, return_counts=True)
    return found[np.argmax(counts)]


_ONE = {
    "mean": _mean,
    "mode": _mode,
    "min": np.min,
    "max": np.max,
    "stride": lambda values: values[0],
}
