"""Where an array belongs: its resolution, its first voxel, its region of a layer. Pure."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from precomputed_store.grid import XYZ, Box
from precomputed_store.metadata import Scale
from precomputed_store.writing.source import WriteSource

__all__ = [
    "Region",
    "Resolution",
    "UnknownResolutionError",
    "find_box",
    "find_position",
    "find_region",
    "find_resolution",
    "is_close",
    "triple",
]

Region: TypeAlias = Box | Mapping[str, slice] | Literal["auto"]
Resolution: TypeAlias = tuple[float, float, float]

_CLOSE = 1e-6


class UnknownResolutionError(ValueError):
    """Neither the caller nor the array says how large its voxels are."""


def find_resolution(source: WriteSource) -> Resolution:
    """Size of a voxel in nanometres: from coordinates, else from where the array was read.

    Raises
    ------
    UnknownResolutionError
        The array does not say.
    ValueError
        Coordinates are not evenly spaced, or have an unknown unit.
    """
    remembered = source.remembered
    found: list[float | None] = []
    for axis, name in enumerate("xyz"):
        coordinate = source.coordinate(name)
        known = None if remembered is None else remembered.resolution[axis]
        step = None if coordinate is None else coordinate.step
        if coordinate is not None and coordinate.kind == "physical" and step is not None:
            exact = known is not None and math.isclose(step, known, rel_tol=_CLOSE)
            found.append(known if exact else step)
        else:
            found.append(known)
    if None in found:
        unknown = ", ".join(n for n, value in zip("xyz", found, strict=True) if value is None)
        raise UnknownResolutionError(
            f"the array does not say how large its voxels are along {unknown}: pass "
            "resolution=(x, y, z) in nanometres"
        )
    x, y, z = triple(found, "resolution")
    return x, y, z


def find_position(
    source: WriteSource,
    resolution: Resolution,
    *,
    default: int | None = None,
    within: Scale | None = None,
) -> XYZ:
    """Absolute coordinates of the array's first voxel.

    Parameters
    ----------
    source : WriteSource
    resolution : (float, float, float)
        Of its voxels, nanometres.
    default : int, optional
        What to take along an axis of which nothing is known.
    within : Scale, optional
        A scale that fills an axis of which nothing is known, if it is as long.

    Raises
    ------
    ValueError
        It cannot be known.
    """
    x, y, z = (
        _first_voxel(source, axis, resolution[axis], default=default, within=within)
        for axis in range(3)
    )
    return x, y, z


def _first_voxel(
    source: WriteSource,
    axis: int,
    resolution: float,
    *,
    default: int | None,
    within: Scale | None,
) -> int:
    name, size = "xyz"[axis], source.size[axis]
    coordinate = source.coordinate(name)
    if coordinate is not None:
        return coordinate.voxel(resolution)
    remembered = source.remembered
    if remembered is not None:
        if remembered.size[axis] == size:
            return remembered.voxel_offset[axis]
        raise ValueError(
            f"the array was cut along {name} from {remembered.size[axis]} to {size} voxels and "
            "has no coordinates to say where: pass voxel_offset=(x, y, z)"
        )
    if within is not None and within.size[axis] == size:
        return within.voxel_offset[axis]
    if default is None:
        raise ValueError(
            f"the array does not say where it belongs along {name}: pass region= or voxel_offset="
        )
    return default


def find_region(
    scale: Scale, source: WriteSource, *, region: Region | None, voxel_offset: XYZ | None
) -> Box:
    """The voxels of an existing scale that the array is to replace.

    Raises
    ------
    ValueError
        The array does not fit into the region, or does not say where it belongs.
    """
    if region is None or (isinstance(region, str) and region == "auto"):
        box = _placed(scale, source, voxel_offset, only_coordinates=region is not None)
    else:
        box = find_box(scale, region)
    if box.shape != source.size:
        raise ValueError(f"region {box} is {box.shape} voxels (x, y, z), the array {source.size}")
    return box


def _placed(
    scale: Scale, source: WriteSource, start: XYZ | None, *, only_coordinates: bool
) -> Box:
    if only_coordinates:
        missing = [name for name in "xyz" if name not in source.coordinates]
        if missing:
            raise ValueError(
                f"region='auto' takes the place from coordinates, and there is none along "
                f"{', '.join(missing)}"
            )
        start = None
    if start is None:
        start = find_position(source, scale.resolution, within=scale)
    x, y, z = (a + n for a, n in zip(start, source.size, strict=True))
    return Box(start, (x, y, z))


def find_box(scale: Scale, region: object) -> Box:
    """The voxels of a scale that a caller names.

    Raises
    ------
    TypeError, ValueError
    """
    if isinstance(region, Box):
        return region
    if not isinstance(region, Mapping):
        raise TypeError(
            f"region is {region!r}; expected a Box, 'auto', or slices by axis such as "
            "{'x': slice(0, 64)} in absolute voxel coordinates"
        )
    if unknown := set(region) - set("xyz"):
        raise ValueError(f"region names {sorted(map(str, unknown))}; its axes are x, y and z")
    bounds = scale.grid.bounds
    edges = [
        _edges(region.get(name, slice(None)), name, start, stop)
        for name, start, stop in zip("xyz", bounds.start, bounds.stop, strict=True)
    ]
    (x0, x1), (y0, y1), (z0, z1) = edges
    return Box((x0, y0, z0), (x1, y1, z1))


def _edges(item: object, name: str, start: int, stop: int) -> tuple[int, int]:
    if not isinstance(item, slice) or item.step not in (None, 1):
        raise ValueError(f"region along {name} is {item!r}; expected a slice without a step")
    return (
        start if item.start is None else operator.index(item.start),
        stop if item.stop is None else operator.index(item.stop),
    )


def triple(value: Any, name: str) -> Any:
    """Three numbers along x, y, z; whole ones as integers.

    Raises
    ------
    ValueError
        `value` is something else.
    """
    numbers = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else []
    numbers = [number.item() if isinstance(number, np.generic) else number for number in numbers]
    if len(numbers) != 3 or not all(
        isinstance(n, int | float) and not isinstance(n, bool) for n in numbers
    ):
        raise ValueError(f"{name} is {value!r}; expected three numbers (x, y, z)")
    return tuple(int(n) if float(n).is_integer() else n for n in numbers)


def is_close(a: Resolution, b: Resolution) -> bool:
    return all(math.isclose(p, q, rel_tol=_CLOSE) for p, q in zip(a, b, strict=True))
