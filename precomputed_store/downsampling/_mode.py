"""The most frequent value of each window.

Nearly all windows of a segmentation hold one value only. So windows that hold several are
found first, by comparing whole rows, and only their voxels are gathered and counted.
"""

from __future__ import annotations

import itertools
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.downsampling._folds import native
from precomputed_store.downsampling.windows import ZYX

__all__ = ["mode"]

Array: TypeAlias = npt.NDArray[Any]
Flags: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.intp]

_GATHERED_VOXELS: Final = 1 << 16


def mode(voxels: Array, window: ZYX) -> Array:
    """The most frequent value of each window, the smallest of several.

    Parameters
    ----------
    voxels : ndarray, (z, y, x)
        A whole number of windows.
    window : (int, int, int)
        Its voxels along z, y and x.
    """
    voxels = native(voxels)
    if voxels.dtype.kind == "f":
        return _from_ordered(_integer_mode(_to_ordered(voxels), window), voxels.dtype)
    return _integer_mode(voxels, window)


def _integer_mode(voxels: Array, window: ZYX) -> Array:
    wz, wy, wx = window
    result = voxels[::wz, ::wy, ::wx].copy()
    mixed = np.flatnonzero(_mixed(voxels, window))
    corners = _places(voxels.shape, voxels.shape, window)
    inside = _places(voxels.shape, window, (1, 1, 1))[:, None]
    step = max(1, _GATHERED_VOXELS // inside.size)
    for start in range(0, mixed.size, step):
        chosen = mixed[start : start + step]
        gathered = voxels.reshape(-1).take(corners.take(chosen) + inside)
        result.reshape(-1)[chosen] = _modes(gathered)
    return result


def _places(shape: tuple[int, ...], extent: tuple[int, ...], step: ZYX) -> Ints:
    """Flat indices into an array of `shape` of every `step`-th voxel up to `extent`."""
    _, ny, nx = shape
    (ez, ey, ex), (sz, sy, sx) = extent, step
    z, y, x = np.ogrid[0 : ez * ny * nx : sz * ny * nx, 0 : ey * nx : sy * nx, 0:ex:sx]
    places: Ints = (z + y + x).reshape(-1)
    return places


def _mixed(voxels: Array, window: ZYX) -> Flags:
    """Which windows hold more than one value."""
    wz, wy, wx = window
    rows = voxels[::wz, ::wy]
    differs = np.zeros(rows.shape, np.bool_)
    if wx > 1:
        np.not_equal(rows[..., 1:], rows[..., :-1], out=differs[..., 1:])
        differs[..., ::wx] = False
    scratch = np.empty_like(differs)
    for z, y in itertools.islice(np.ndindex(wz, wy), 1, None):
        differs |= np.not_equal(voxels[z::wz, y::wy], rows, out=scratch)
    mixed: Flags
    if wx in (2, 4, 8):
        mixed = differs.view(f"u{wx}") != 0
        return mixed
    mixed = differs[..., ::wx]
    for x in range(1, wx):
        mixed = mixed | differs[..., x::wx]
    return mixed


def _modes(values: Array) -> Array:
    """The most frequent value of each column, the smallest of several.

    A value that half of the column has wins if it is the smallest, and so does the largest if
    the smallest did not: that settles nearly all columns. The others are sorted.
    """
    half = -(-len(values) // 2)
    low: Array = values.min(axis=0)
    high: Array = values.max(axis=0)
    low_wins = _counts(values == low) >= half
    high_wins = _counts(values == high) >= half
    np.copyto(high, low, where=low_wins)
    open_columns = np.flatnonzero(~(low_wins | high_wins))
    if open_columns.size:
        high[open_columns] = _sorted_modes(values[:, open_columns].T)
    return high


def _counts(flags: Flags) -> npt.NDArray[np.integer[Any]]:
    """Number of set flags in each column."""
    counts: npt.NDArray[np.integer[Any]]
    if len(flags) < 256:
        counts = np.add.reduce(flags.view(np.uint8), axis=0, dtype=np.uint8)
        return counts
    counts = np.count_nonzero(flags, axis=0)
    return counts


def _sorted_modes(values: Array) -> Array:
    """The most frequent value of each row, the smallest of several, by sorting."""
    length = values.shape[1]
    ordered = np.sort(values, axis=1).reshape(-1)
    begins = np.ones(ordered.size + 1, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:-1])
    begins[::length] = True
    starts = np.flatnonzero(begins)
    lengths = starts[1:] - starts[:-1]
    starts = starts[:-1]
    columns = starts - starts // length * length
    first_of_row = np.flatnonzero(columns == 0)
    # The longest run, and of equally long ones the first.
    best = np.maximum.reduceat(lengths * length - columns, first_of_row)
    found: Array = ordered[np.arange(0, ordered.size, length) + -best % length]
    return found


def _to_ordered(voxels: Array) -> Array:
    """Floating-point numbers → unsigned integers that are equal and ordered as they are."""
    size = voxels.dtype.itemsize
    unsigned = np.dtype(f"u{size}")
    plain = np.where(np.isnan(voxels), np.array(np.nan, voxels.dtype), voxels + 0)
    bits = plain.view(unsigned)
    sign = unsigned.type(1 << 8 * size - 1)
    return np.where(bits & sign, ~bits, bits | sign)


def _from_ordered(ordered: Array, dtype: np.dtype[Any]) -> Array:
    sign = ordered.dtype.type(1 << 8 * dtype.itemsize - 1)
    return np.where(ordered & sign, ordered ^ sign, ~ordered).view(dtype)
