"""Which fine voxels a coarse voxel stands for, and how a block divides into such windows.

Pure arithmetic on absolute voxels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from precomputed_store.grid import XYZ, Box

__all__ = ["ZYX", "Piece", "coarse_box", "fine_box", "pieces"]

ZYX: TypeAlias = tuple[int, int, int]


def coarse_box(box: Box, factor: XYZ) -> Box:
    """The coarse voxels that fine voxels of `box` fall into.

    Parameters
    ----------
    box : Box
        Fine voxels, absolute; its start may be negative.
    factor : (int, int, int)
        Fine voxels per coarse voxel along x, y and z.

    Returns
    -------
    Box
        Its start is rounded down and its stop up. An axis that was empty stays empty.

    Examples
    --------
    >>> print(coarse_box(Box((-3, 0, 5), (4, 4, 6)), (2, 2, 1)))
    [-2:2, 0:2, 5:6]
    """
    (x0, x1), (y0, y1), (z0, z1) = (
        (a // f, -(-b // f) if b > a else a // f)
        for a, b, f in zip(box.start, box.stop, factor, strict=True)
    )
    return Box((x0, y0, z0), (x1, y1, z1))


def fine_box(box: Box, factor: XYZ) -> Box:
    """The fine voxels that the coarse voxels of `box` stand for, not cropped to any volume.

    Examples
    --------
    >>> print(fine_box(Box((-2, 0, 5), (2, 2, 6)), (2, 2, 1)))
    [-4:4, 0:4, 5:6]
    """
    (x0, x1), (y0, y1), (z0, z1) = (
        (a * f, b * f) for a, b, f in zip(box.start, box.stop, factor, strict=True)
    )
    return Box((x0, y0, z0), (x1, y1, z1))


class Piece(NamedTuple):
    """A part of a block whose windows are all of one shape, ``(z, y, x)``."""

    fine: tuple[slice, slice, slice]
    coarse: tuple[slice, slice, slice]
    window: ZYX


def pieces(start: ZYX, shape: ZYX, factor: ZYX, *, max_voxels: int) -> Iterator[Piece]:
    """Divide a block of fine voxels.

    Windows that the block holds in part, at its ends, make pieces of their own. Pieces have at
    most `max_voxels` voxels, or else are a single window.
    """
    stretches = map(_stretches, start, shape, factor)
    for axes in itertools.product(*stretches):
        tile = _tile(axes, max_voxels)
        for z, y, x in itertools.product(*map(_Stretch.divided, axes, tile)):
            yield Piece(
                (z.fine, y.fine, x.fine),
                (z.coarse, y.coarse, x.coarse),
                (z.window, y.window, x.window),
            )


class _Stretch(NamedTuple):
    """Windows in a row along one axis, each of `window` fine voxels."""

    fine_start: int
    coarse_start: int
    window: int
    num_windows: int

    @property
    def fine(self) -> slice:
        return slice(self.fine_start, self.fine_start + self.num_windows * self.window)

    @property
    def coarse(self) -> slice:
        return slice(self.coarse_start, self.coarse_start + self.num_windows)

    def divided(self, most: int) -> Iterator[_Stretch]:
        """The same in stretches of at most `most` windows."""
        for done in range(0, self.num_windows, most):
            yield _Stretch(
                self.fine_start + done * self.window,
                self.coarse_start + done,
                self.window,
                min(most, self.num_windows - done),
            )


def _stretches(start: int, length: int, factor: int) -> list[_Stretch]:
    """The windows of an axis: one cut at its start, whole ones, one cut at its end."""
    head = min(-start % factor, length)
    whole, tail = divmod(length - head, factor)
    has_head = int(head > 0)
    found = (
        _Stretch(0, 0, head, has_head),
        _Stretch(head, has_head, factor, whole),
        _Stretch(length - tail, has_head + whole, tail, int(tail > 0)),
    )
    return [stretch for stretch in found if stretch.num_windows]


def _tile(axes: tuple[_Stretch, ...], max_voxels: int) -> ZYX:
    """Windows per piece along z, y and x: long rows first."""
    z, y, x = axes
    budget = max(1, max_voxels // (z.window * y.window * x.window))
    nx = min(x.num_windows, budget)
    ny = min(y.num_windows, budget // nx)
    nz = min(z.num_windows, budget // (nx * ny))
    return nz, ny, nx
