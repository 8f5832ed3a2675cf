"""Lengths and places as files state them → nanometres and voxels. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from precomputed_store.xarray_coords import nanometres

__all__ = ["first_voxels", "in_nanometres", "is_length"]

_WHOLE = 1e-3
"""By what part of a voxel a place may miss a voxel."""


def in_nanometres(value: Any, unit: str, *, digits: int = 12) -> float | None:
    """A length in nanometres without its rounding error; None if it is none.

    Parameters
    ----------
    value : number
    unit : str
    digits : int
        How many of its digits mean something: 6 for what was stored as float32.

    Examples
    --------
    >>> in_nanometres(0.1, "um"), in_nanometres(0.1, "furlong"), in_nanometres(0, "um")
    (100.0, None, None)
    """
    factor = nanometres(unit)
    if factor is None or not is_length(value):
        return None
    return float(f"{float(value) * factor:.{digits}g}")


def is_length(value: Any) -> bool:
    try:
        return math.isfinite(value) and value > 0
    except TypeError:
        return False


def first_voxels(
    places: Sequence[float | None],
    resolution: Sequence[float | None],
    axes: Iterable[str],
    *,
    centres: bool = False,
) -> tuple[tuple[int | None, ...], tuple[str, ...]]:
    """Where an array begins, in voxels.

    Parameters
    ----------
    places : sequence of (float or None)
        Where it begins along each axis.
    resolution : sequence of (float or None)
        Size of a voxel in the same unit.
    axes : iterable of str
    centres : bool
        Whether a place may also be the centre of the first voxel.

    Returns
    -------
    voxels : tuple of (int or None)
    notes : tuple of str
        Places that are between voxels.
    """
    voxels: list[int | None] = []
    notes = []
    for place, length, axis in zip(places, resolution, axes, strict=True):
        if place is None or length is None:
            voxels.append(None)
            continue
        voxel = _whole(place / length)
        if voxel is None and centres:
            voxel = _whole(place / length - 0.5)
        voxels.append(voxel)
        if voxel is None:
            notes.append(
                f"the file says that it begins at {place:g} along {axis}, which is not a whole "
                f"number of voxels of {length:g}: its first voxel is voxel 0 there"
            )
    return tuple(voxels), tuple(notes)


def _whole(number: float) -> int | None:
    return round(number) if abs(number - round(number)) <= _WHOLE else None
