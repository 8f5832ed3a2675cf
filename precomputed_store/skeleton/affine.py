"""The transform of `info`: stored positions to nm, and back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from precomputed_store.metadata.skeleton import IDENTITY

__all__ = ["Affine", "scaled_radius", "to_physical", "to_stored"]


class Affine(NamedTuple):
    """Positions as rows times `linear`, plus `offset`; lengths times `scale`."""

    linear: NDArray[np.float64]
    offset: NDArray[np.float64]
    scale: float

    def apply(self, positions: NDArray[Any]) -> NDArray[np.float32]:
        # A file may hold positions that are infinite once transformed.
        with np.errstate(over="ignore", invalid="ignore"):
            moved = positions.astype(np.float64) @ self.linear + self.offset
            return moved.astype(np.float32)


@lru_cache(maxsize=64)
def to_physical(transform: tuple[float, ...]) -> Affine | None:
    """From stored positions to nm; None if they are the same."""
    if transform == IDENTITY:
        return None
    matrix = np.array(transform, dtype=np.float64).reshape(3, 4)
    scale = float(np.cbrt(abs(np.linalg.det(matrix[:, :3]))))
    # A rotation's determinant is 1 but for rounding: radii must not change by it.
    return Affine(matrix[:, :3].T, matrix[:, 3], 1.0 if abs(scale - 1) < 1e-9 else scale)


@lru_cache(maxsize=64)
def to_stored(transform: tuple[float, ...]) -> Affine | None:
    """From nm to stored positions; None if they are the same.

    Raises
    ------
    ValueError
        The transform has no inverse.
    """
    forward = to_physical(transform)
    if forward is None:
        return None
    try:
        linear = np.linalg.inv(forward.linear).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        raise ValueError(
            "transform: the matrix has no inverse, so nothing can be stored with it; "
            "write a new info with another transform"
        ) from None
    return Affine(linear, -forward.offset @ linear, 1 / forward.scale)


def scaled_radius(attributes: Mapping[str, NDArray[Any]], scale: float) -> dict[str, NDArray[Any]]:
    """Attributes with ``radius``, a length, times `scale`; negative ones mean unknown."""
    changed = dict(attributes)
    radius = changed.get("radius")
    if radius is not None and radius.dtype.kind == "f" and scale != 1:
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.where(radius < 0, radius, radius * scale)
            changed["radius"] = scaled.astype(radius.dtype)
    return changed
