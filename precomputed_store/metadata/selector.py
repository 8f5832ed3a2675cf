"""Finding a scale by its index, key or resolution."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TypeAlias

import numpy as np

from precomputed_store.errors import MetadataError
from precomputed_store.metadata.document import show
from precomputed_store.metadata.scale import DamagedScale, Scale

__all__ = ["ScaleSelector", "describe_scales", "find_scale"]

ScaleSelector: TypeAlias = int | str | Iterable[float]
"""A scale: its index (from the end if negative), its key, or its resolution in nm."""

_TOLERANCE = 1e-6


def find_scale(scales: Sequence[Scale | DamagedScale], selector: ScaleSelector) -> int:
    """Index of the scale that `selector` means; see `VolumeInfo.scale_index`."""
    if isinstance(selector, str):
        index = _by_key(scales, selector)
    elif isinstance(selector, Iterable) and not isinstance(selector, bytes | Set | Mapping):
        index = _by_resolution(scales, selector)
    else:
        index = _by_index(scales, selector)
    scale = scales[index]
    if isinstance(scale, DamagedScale):
        usable = [f"{i} ({s.key!r})" for i, s in enumerate(scales) if isinstance(s, Scale)]
        raise MetadataError(
            scale.problems, source=f"scale {index} cannot be used, only {', '.join(usable)}"
        )
    return index


def _by_index(scales: Sequence[Scale | DamagedScale], selector: object) -> int:
    try:
        if isinstance(selector, bool | np.bool_):
            raise TypeError
        index = operator.index(selector)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            "scale: expected an index, a key or a resolution (x, y, z) in nm, "
            f"got {type(selector).__name__}"
        ) from None
    if -len(scales) <= index < len(scales):
        return index % len(scales)
    raise IndexError(f"no scale with index {show(index)}; {describe_scales(scales)}")


def _by_key(scales: Sequence[Scale | DamagedScale], key: str) -> int:
    for index, scale in enumerate(scales):
        if scale.key == key:
            return index
    raise ValueError(f"no scale with key {key!r}; {describe_scales(scales)}")


def _by_resolution(scales: Sequence[Scale | DamagedScale], resolution: Iterable[float]) -> int:
    try:
        wanted = [operator.truediv(value, 1.0) for value in resolution]
    except TypeError:
        raise TypeError(
            f"scale: expected a resolution of three numbers, got {resolution!r}"
        ) from None
    distances = {
        index: _distance(wanted, scale.resolution)
        for index, scale in enumerate(scales)
        if isinstance(scale, Scale) and len(wanted) == 3
    }
    nearest = min(distances, key=distances.__getitem__, default=None)
    if nearest is not None and distances[nearest] <= _TOLERANCE:
        return nearest
    text = ", ".join(f"{value:g}" for value in wanted)
    raise ValueError(f"no scale with resolution ({text}) nm; {describe_scales(scales)}")


def _distance(wanted: Sequence[float], resolution: tuple[float, float, float]) -> float:
    """The largest relative difference."""
    pairs = zip(wanted, resolution, strict=True)
    largest = max(abs(a / b - 1) for a, b in pairs)
    return math.inf if math.isnan(largest) else largest


def describe_scales(scales: Sequence[Scale | DamagedScale]) -> str:
    """One line for each scale: index, key, resolution, size, or why it cannot be used."""
    lines = [f"  {index}: {_describe(scale)}" for index, scale in enumerate(scales)]
    return "\n".join(["this volume has:", *lines])


def _describe(scale: Scale | DamagedScale) -> str:
    if isinstance(scale, DamagedScale):
        first, *others = scale.problems or ("damaged",)
        more = f" (and {len(others)} more problems)" if others else ""
        return f"key {scale.key!r}, unusable: {first}{more}"
    return f"key {scale.key!r}, resolution {scale.resolution} nm, size {scale.size}"
