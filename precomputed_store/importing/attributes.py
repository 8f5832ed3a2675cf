"""Voxel size, offset and axes in the attributes of HDF5 and zarr arrays. Pure.

`resolution` or `voxel_size` (funlib, daisy, CREMI) and `element_size_um` (ilastik,
PlantSeg, BigDataViewer), one number for each spatial axis in the order of the array;
`offset` in the same unit; `units`; `axis_names`; `axistags` (ilastik, vigra).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from precomputed_store.importing.physical import first_voxels, in_nanometres

__all__ = ["USUAL_AXES", "Placing", "axis_letter", "read_axes", "read_placing"]

USUAL_AXES = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}
"""What the axes of an unnamed array are taken for, by their number."""

_LENGTHS = {"resolution": "nm", "voxel_size": "nm", "element_size_um": "um"}


class Placing(NamedTuple):
    """Voxel size in nanometres and first voxel along each axis of an array."""

    resolution: tuple[float | None, ...]
    voxel_offset: tuple[int | None, ...]
    notes: tuple[str, ...]


def read_placing(attributes: Mapping[str, Any], axes: str) -> Placing:
    """What attributes say of an array with these axes."""
    name = next((name for name in _LENGTHS if name in attributes), None)
    if name is None:
        return Placing((None,) * len(axes), (None,) * len(axes), ())
    units = _units(attributes, default=_LENGTHS[name], axes=axes)
    lengths = _spread(attributes[name], axes)
    resolution = tuple(map(_length, lengths, units))
    places = _spread(attributes.get("offset"), axes)
    starts = tuple(
        None if place is None else place * (in_nanometres(1, unit) or 1)
        for place, unit in zip(places, units, strict=True)
    )
    return Placing(resolution, *first_voxels(starts, resolution, axes))


def _length(value: float | None, unit: str) -> float | None:
    return None if value is None else in_nanometres(value, unit)


def _spread(value: Any, axes: str) -> tuple[float | None, ...]:
    """Numbers for the axes of an array: for all, or for the spatial ones alone."""
    numbers = [] if value is None else np.asarray(value).ravel().tolist()
    spatial = [axis for axis in axes if axis in "xyz"]
    if not all(isinstance(number, int | float) for number in numbers):
        return (None,) * len(axes)
    if len(numbers) == len(axes):
        return tuple(n if a in "xyz" else None for n, a in zip(numbers, axes, strict=True))
    if len(numbers) == 1:
        numbers = numbers * len(spatial)
    if len(numbers) != len(spatial):
        return (None,) * len(axes)
    known = dict(zip(spatial, numbers, strict=True))
    return tuple(known.get(axis) for axis in axes)


def _units(attributes: Mapping[str, Any], *, default: str, axes: str) -> tuple[str, ...]:
    if default != "nm":
        return (default,) * len(axes)
    said = attributes.get("units", attributes.get("unit"))
    names = _texts(said) or [default]
    if len(names) == len(axes):
        return tuple(names)
    spatial = [axis for axis in axes if axis in "xyz"]
    if len(names) == len(spatial):
        known = dict(zip(spatial, names, strict=True))
        return tuple(known.get(axis, default) for axis in axes)
    return (names[0],) * len(axes)


def read_axes(attributes: Mapping[str, Any], ndim: int) -> str | None:
    """The axes that attributes name, a letter for each; None if they name none."""
    for names in (_axistags(attributes.get("axistags")), _texts(attributes.get("axis_names"))):
        if len(names) == ndim:
            return "".join(map(axis_letter, names))
    return None


def axis_letter(name: str) -> str:
    """``"channel^"`` → ``"c"``, ``"Z"`` → ``"z"``."""
    return name.strip().lower()[:1] or "?"


def _axistags(value: Any) -> list[str]:
    try:
        return [str(axis["key"]) for axis in json.loads(value)["axes"]]
    except (ValueError, TypeError, KeyError):
        return []


def _texts(value: Any) -> list[str]:
    if isinstance(value, str | bytes):
        value = [value]
    if not isinstance(value, Iterable):
        return []
    return [item.decode() if isinstance(item, bytes) else str(item) for item in value]
