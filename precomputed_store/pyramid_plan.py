"""By which factors the scales of a pyramid shrink, and what their geometry is. Pure arithmetic.

Triples are ``(x, y, z)``.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from precomputed_store.downsampling.windows import coarse_box
from precomputed_store.grid import XYZ, Box

__all__ = ["MAX_STEPS", "Pyramid", "ScaleGeometry", "coarse_scale_geometry", "parse_pyramid"]

Pyramid: TypeAlias = str | int | Iterable[XYZ] | None
"""What a user may ask for: see `parse_pyramid`."""

MAX_STEPS: Final = 32

_FACTOR = re.compile(r"(\d{1,9})[x×](\d{1,9})[x×](\d{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleGeometry:
    """Where the voxels of a scale lie."""

    size: XYZ
    """Voxels."""
    voxel_offset: XYZ
    """Voxels."""
    resolution: tuple[float, float, float]
    """Nanometres per voxel."""


def coarse_scale_geometry(fine: ScaleGeometry, factor: XYZ) -> ScaleGeometry:
    """The scale whose voxels stand for `factor` voxels of `fine` each, on the absolute grid.

    Its first voxel is rounded down and its end up, so that it covers all of `fine`. A
    resolution that is a whole number becomes an int.

    Examples
    --------
    >>> fine = ScaleGeometry(size=(5, 4, 3), voxel_offset=(3, 0, -1), resolution=(8, 8, 40.5))
    >>> coarse_scale_geometry(fine, (2, 2, 1))
    ScaleGeometry(size=(3, 2, 3), voxel_offset=(1, 0, -1), resolution=(16, 16, 40.5))
    """
    (x, y, z), (nx, ny, nz) = fine.voxel_offset, fine.size
    box = coarse_box(Box((x, y, z), (x + nx, y + ny, z + nz)), factor)
    rx, ry, rz = (_plain(r * f) for r, f in zip(fine.resolution, factor, strict=True))
    return ScaleGeometry(size=box.shape, voxel_offset=box.start, resolution=(rx, ry, rz))


def parse_pyramid(
    pyramid: Pyramid,
    *,
    resolution: tuple[float, float, float],
    size: XYZ,
    chunk_size: XYZ,
    voxel_offset: XYZ = (0, 0, 0),
) -> tuple[XYZ, ...]:
    """The factor from each scale to the next coarser one, finest first.

    Parameters
    ----------
    pyramid : None, "auto", str, int or iterable of (int, int, int)
        None: no coarser scales.
        ``"auto"``: every step doubles the voxels along the axes along which they are finest,
        so that they become about isotropic and stay so, until a scale fits into one chunk.
        ``"2x2x1"``: this factor, until a scale fits into one chunk along the axes it shrinks.
        A number: so many steps of ``"auto"``, fewer if there is nothing left to shrink.
        Factors: each relative to the scale before it, taken as they are.
    resolution : (float, float, float)
        Nanometres per voxel of the finest scale.
    size, chunk_size, voxel_offset : (int, int, int)
        Of the finest scale, in voxels. Coarser scales have chunks of the same size.

    Raises
    ------
    ValueError
        `pyramid` is none of these, a factor shrinks nothing, or there are more than 32 steps.

    Notes
    -----
    ``"auto"`` doubles an axis if its resolution is less than √2 times the finest one: then no
    axis is ever left further from the others than it must be. Axes of a single voxel, and what
    their resolution is, are left out.

    Examples
    --------
    >>> volume = dict(resolution=(4, 4, 40), size=(1000, 1000, 100), chunk_size=(64, 64, 64))
    >>> parse_pyramid("auto", **volume)
    ((2, 2, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2))
    >>> parse_pyramid("4x4x1", **volume)
    ((4, 4, 1), (4, 4, 1))
    >>> parse_pyramid(1, **volume)
    ((2, 2, 1),)
    """
    if pyramid is None:
        return ()
    fine = ScaleGeometry(size=size, voxel_offset=voxel_offset, resolution=resolution)
    if isinstance(pyramid, str):
        return _named(pyramid, fine, chunk_size)
    if isinstance(pyramid, Iterable):
        return _bounded(_factor(step, pyramid) for step in pyramid)
    return _bounded(itertools.islice(_steps(fine, _auto_factor, _never), _number(pyramid)))


def _named(pyramid: str, fine: ScaleGeometry, chunk_size: XYZ) -> tuple[XYZ, ...]:
    def fits(scale: ScaleGeometry) -> bool:
        return all(n <= c for n, c in zip(scale.size, chunk_size, strict=True))

    if pyramid == "auto":
        return _bounded(_steps(fine, _auto_factor, fits))
    match = _FACTOR.fullmatch(pyramid)
    if match is None:
        raise _unknown(pyramid)
    factor = _factor(tuple(map(int, match.groups())), pyramid)

    def fits_where_shrunk(scale: ScaleGeometry) -> bool:
        axes = zip(scale.size, chunk_size, factor, strict=True)
        return all(n <= c for n, c, f in axes if f > 1)

    return _bounded(_steps(fine, lambda _: factor, fits_where_shrunk))


def _steps(
    scale: ScaleGeometry,
    choose: Callable[[ScaleGeometry], XYZ],
    is_last: Callable[[ScaleGeometry], bool],
) -> Iterator[XYZ]:
    """The factors that `choose` names, until a scale is the last or does not shrink."""
    while not is_last(scale):
        factor = choose(scale)
        coarse = coarse_scale_geometry(scale, factor)
        if (coarse.size, coarse.voxel_offset) == (scale.size, scale.voxel_offset):
            return
        yield factor
        scale = coarse


def _never(_: ScaleGeometry) -> bool:
    return False


def _auto_factor(scale: ScaleGeometry) -> XYZ:
    """2 along the axes to double, (1, 1, 1) if none can be."""
    halved = coarse_scale_geometry(scale, (2, 2, 2))
    before = zip(scale.size, scale.voxel_offset, strict=True)
    after = zip(halved.size, halved.voxel_offset, strict=True)
    # Not only single voxels: -1 and 0 stay two voxels for ever.
    shrinks = [n > 1 and (n, o) != new for (n, o), new in zip(before, after, strict=True)]
    finest = min((r for r, s in zip(scale.resolution, shrinks, strict=True) if s), default=0)
    x, y, z = (
        2 if s and r * r < 2 * finest * finest else 1
        for r, s in zip(scale.resolution, shrinks, strict=True)
    )
    return x, y, z


def _bounded(steps: Iterable[XYZ]) -> tuple[XYZ, ...]:
    found = tuple(itertools.islice(steps, MAX_STEPS + 1))
    if len(found) > MAX_STEPS:
        raise ValueError(f"pyramid has more than {MAX_STEPS} steps")
    return found


def _number(pyramid: object) -> int:
    if not isinstance(pyramid, bool):
        try:
            steps = operator.index(pyramid)  # type: ignore[arg-type]
        except TypeError:
            pass
        else:
            if 0 <= steps <= MAX_STEPS:
                return steps
            raise ValueError(f"pyramid is {steps}; expected from 0 to {MAX_STEPS} steps")
    raise _unknown(pyramid)


def _factor(step: object, pyramid: object) -> XYZ:
    if not isinstance(step, Iterable) or isinstance(step, str):
        raise _unknown(pyramid)
    axes = tuple(step)
    if len(axes) != 3 or any(isinstance(n, bool) or not hasattr(n, "__index__") for n in axes):
        raise ValueError(f"factor {axes} in pyramid; expected three integers (x, y, z)")
    x, y, z = map(operator.index, axes)
    if min(x, y, z) < 1:
        raise ValueError(f"factor {(x, y, z)} in pyramid; expected at least 1 along x, y and z")
    if (x, y, z) == (1, 1, 1):
        raise ValueError("factor (1, 1, 1) in pyramid makes nothing coarser")
    return x, y, z


def _unknown(pyramid: object) -> ValueError:
    return ValueError(
        f'pyramid is {pyramid!r}; expected None, "auto", a factor such as "2x2x1", '
        "a number of steps, or a list of factors such as [(2, 2, 1), (2, 2, 2)]"
    )


def _plain(value: float) -> float:
    return int(value) if value == int(value) else value
