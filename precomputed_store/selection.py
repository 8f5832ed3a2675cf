"""What a caller writes between square brackets, made into plain indices. Pure, no I/O."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, TypeAlias

from precomputed_store.grid import Box

__all__ = [
    "BasicSelection",
    "Bounds",
    "BoxSelection",
    "expand",
    "parse_absolute",
    "parse_basic",
]

Bounds: TypeAlias = Literal["raise", "clip", "fill"]
"""What to do with voxels outside the volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicSelection:
    """numpy's basic indexing of a zero-based array.

    Reading `ranges`, then reversing the axes in `reversed_axes`, then dropping the axes
    in `dropped_axes` gives numpy's result.
    """

    ranges: tuple[range, ...]
    reversed_axes: tuple[int, ...]
    dropped_axes: tuple[int, ...]

    def postprocess(self, array: Any) -> Any:
        index = tuple(
            0
            if axis in self.dropped_axes
            else slice(None, None, -1)
            if axis in self.reversed_axes
            else slice(None)
            for axis in range(len(self.ranges))
        )
        return array[index]


def parse_basic(key: Any, shape: tuple[int, ...]) -> BasicSelection:
    """Integers, slices and Ellipsis over a zero-based array, as numpy takes them.

    Raises
    ------
    IndexError
        An integer is outside, or there are more indices than axes.
    TypeError
        Something else than an integer, a slice or Ellipsis was given.
    """
    ranges: list[range] = []
    reversed_axes: list[int] = []
    dropped_axes: list[int] = []
    for axis, (item, length) in enumerate(zip(expand(key, len(shape)), shape, strict=True)):
        if isinstance(item, slice):
            indices = range(length)[item]
            if indices.step < 0:
                reversed_axes.append(axis)
                indices = indices[::-1]
            ranges.append(indices)
        else:
            index = _integer(item)
            if not -length <= index < length:
                raise IndexError(
                    f"index {index} is out of bounds for axis {axis} with size {length}"
                )
            index %= length
            ranges.append(range(index, index + 1))
            dropped_axes.append(axis)
    return BasicSelection(
        ranges=tuple(ranges),
        reversed_axes=tuple(reversed_axes),
        dropped_axes=tuple(dropped_axes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxSelection:
    """Absolute voxel coordinates along x, y, z and channels, and where they land.

    `wanted` are the coordinates asked for, `inside` those that the volume has, and
    `target` where the latter lie in the result. They differ only where
    ``bounds="fill"`` reaches outside.
    """

    wanted: tuple[range, range, range, range]
    inside: tuple[range, range, range, range]
    target: tuple[slice, slice, slice, slice]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.wanted)


def parse_absolute(
    key: Any, volume: Box, *, num_channels: int, bounds: Bounds = "raise"
) -> BoxSelection:
    """Indices ``[x, y, z, channel]`` in absolute voxel coordinates.

    Negative numbers are coordinates, not counted from the end; an integer selects an
    axis of length one. A `Box` selects itself, all channels.

    Raises
    ------
    IndexError
        Outside the volume and ``bounds="raise"``, or more than four indices.
    ValueError
        A step is not positive, or a slice ends before it starts.
    TypeError
        Something else than an integer, a slice, Ellipsis or a Box was given.
    """
    if isinstance(key, Box):
        key = tuple(slice(a, b) for a, b in zip(key.start, key.stop, strict=True))
    starts, stops = (*volume.start, 0), (*volume.stop, num_channels)
    parts = [
        _absolute_axis(item, "xyzc"[axis], starts[axis], stops[axis], bounds)
        for axis, item in enumerate(expand(key, 4))
    ]
    wanted, inside, target = zip(*parts, strict=True)
    return BoxSelection(wanted=wanted, inside=inside, target=target)


def _absolute_axis(
    item: Any, name: str, first: int, end: int, bounds: Bounds
) -> tuple[range, range, slice]:
    wanted = _absolute_range(item, name, first, end)
    low = max(0, -(-(first - wanted.start) // wanted.step))
    high = max(low, min(len(wanted), -(-(end - wanted.start) // wanted.step)))
    inside = wanted[low:high]
    if len(inside) != len(wanted) and bounds == "raise":
        label = "channel" if name == "c" else name
        raise IndexError(
            f"{label} {wanted.start}:{wanted.stop} is outside the volume's {first}:{end}; "
            'use bounds="clip" or bounds="fill" to read across the edge'
        )
    if bounds == "clip":
        return inside, inside, slice(0, len(inside))
    return wanted, inside, slice(low, high)


def _absolute_range(item: Any, name: str, first: int, end: int) -> range:
    if not isinstance(item, slice):
        index = _integer(item)
        return range(index, index + 1)
    start = first if item.start is None else _integer(item.start)
    stop = end if item.stop is None else _integer(item.stop)
    step = 1 if item.step is None else _integer(item.step)
    if step <= 0:
        raise ValueError(f"step along {name} is {step}; expected a positive number")
    if stop < start:
        raise ValueError(
            f"slice {start}:{stop} along {name} ends before it starts "
            "(negative numbers are coordinates here, not counted from the end)"
        )
    return range(start, stop, step)


def expand(key: Any, ndim: int) -> tuple[Any, ...]:
    """One index per axis: Ellipsis and omitted indices become full slices."""
    items = key if isinstance(key, tuple) else (key,)
    ellipses = sum(item is Ellipsis for item in items)
    if ellipses > 1:
        raise IndexError("an index can only have a single Ellipsis")
    if len(items) - ellipses > ndim:
        raise IndexError(f"{len(items) - ellipses} indices for {ndim} axes")
    missing = (slice(None),) * (ndim - len(items) + ellipses)
    if not ellipses:
        return (*items, *missing)
    at = next(i for i, item in enumerate(items) if item is Ellipsis)
    return (*items[:at], *missing, *items[at + 1 :])


def _integer(item: SupportsIndex) -> int:
    if isinstance(item, bool):
        raise TypeError("an index must be an integer, a slice or Ellipsis, not bool")
    try:
        return operator.index(item)
    except TypeError:
        raise TypeError(
            f"an index must be an integer, a slice or Ellipsis, not {type(item).__name__}"
        ) from None
