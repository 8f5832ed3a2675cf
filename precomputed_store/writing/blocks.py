"""Blocks of a write: unions of whole objects, small enough for memory, big enough to pay. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

__all__ = ["LARGEST_BLOCK_BYTES", "Spans", "Where", "merged_spans"]

Spans: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Extents of the blocks along x, y, z."""

Where: TypeAlias = tuple[slice, slice, slice, slice]
"""A block of an array ``(channel, z, y, x)``."""

SMALLEST_BLOCK_BYTES = 16 << 20
LARGEST_BLOCK_BYTES = 128 << 20


def merged_spans(
    units: Spans,
    *,
    voxel_bytes: int,
    present: Spans | None = None,
    smallest: int = SMALLEST_BLOCK_BYTES,
    largest: int = LARGEST_BLOCK_BYTES,
) -> Spans:
    """Merge neighbouring units so that each union is written by one task.

    Parameters
    ----------
    units : tuple of three tuples of int
        Extents of the objects along x, y, z, as `write_plan.unit_spans` cuts them.
    voxel_bytes : int
        Size of all channels of a voxel.
    present : tuple of three tuples of int, optional
        How the array is cut into chunks now. Kept as it is where it does not cut through
        an object; else blocks become as long as its chunks are, in whole units.
    smallest : int
        Bytes up to which blocks are doubled while they stay below.
    largest : int
        Most bytes of a block, unless a single unit has more.

    Returns
    -------
    tuple of three tuples of int
        Extents of the blocks along x, y, z.
    """
    if present is not None and all(map(_cuts_between, units, present)):
        return present
    sizes = [max(axis) for axis in units]
    counts = [1, 1, 1]
    if present is not None:
        counts = [
            min(-(-max(axis) // size), len(unit))
            for axis, size, unit in zip(present, sizes, units, strict=True)
        ]

    def weight(numbers: Sequence[int]) -> int:
        return math.prod(map(int.__mul__, numbers, sizes)) * voxel_bytes

    while weight(counts) > largest and max(counts) > 1:
        axis = max(range(3), key=lambda i: (counts[i] > 1, counts[i] * sizes[i]))
        counts[axis] = -(-counts[axis] // 2)
    while 2 * weight(counts) <= min(smallest, largest):
        growing = [i for i in range(3) if counts[i] < len(units[i])]
        if not growing:
            break
        axis = min(growing, key=lambda i: counts[i] * sizes[i])
        counts[axis] *= 2
    x, y, z = (_merged(axis, n) for axis, n in zip(units, counts, strict=True))
    return x, y, z


def _merged(axis: tuple[int, ...], count: int) -> tuple[int, ...]:
    return tuple(sum(axis[i : i + count]) for i in range(0, len(axis), count))


def _cuts_between(units: tuple[int, ...], present: tuple[int, ...]) -> bool:
    """Whether every cut of `present` is a cut of `units` too."""
    return set(itertools.accumulate(present)) <= set(itertools.accumulate(units))
