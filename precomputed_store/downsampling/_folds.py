"""Reductions that combine voxels two by two: minimum, maximum, and sums for the mean.

All take voxels ``(z, y, x)`` that are a whole number of windows, and a window ``(z, y, x)``.
Rows are combined first, a row of voxels at a time, and along x last, when little is left.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.downsampling.windows import ZYX

__all__ = ["maximum", "mean", "minimum", "native"]

Array: TypeAlias = npt.NDArray[Any]


def native(voxels: Array) -> Array:
    """The same voxels in C order and the machine's byte order."""
    return np.ascontiguousarray(voxels, voxels.dtype.newbyteorder("="))


def minimum(voxels: Array, window: ZYX) -> Array:
    return _fold(np.minimum, native(voxels), window)


def maximum(voxels: Array, window: ZYX) -> Array:
    return _fold(np.maximum, native(voxels), window)


def mean(voxels: Array, window: ZYX) -> Array:
    """The mean of each window, of the dtype of `voxels`; integers round half to even."""
    voxels = native(voxels)
    if voxels.dtype.kind == "f":
        return _float_mean(voxels, window)
    unsigned = np.dtype(f"u{voxels.dtype.itemsize}")
    if voxels.dtype == unsigned:
        return _unsigned_mean(voxels, window)
    # Shifting all values by an even number changes neither the rounding nor what is even.
    sign = unsigned.type(1 << 8 * unsigned.itemsize - 1)
    shifted: Array = _unsigned_mean(voxels.view(unsigned) ^ sign, window) ^ sign
    return shifted.view(voxels.dtype)


def _fold(combine: np.ufunc, voxels: Array, window: ZYX) -> Array:
    wz, wy, wx = window
    rows: Array = voxels[::wz, ::wy]
    if wz * wy > 1:
        rows = rows.copy()
    for z, y in itertools.islice(np.ndindex(wz, wy), 1, None):
        combine(rows, voxels[z::wz, y::wy], out=rows)
    if wx == 1:
        return rows
    folded: Array = combine(rows[..., ::wx], rows[..., 1::wx])
    for x in range(2, wx):
        combine(folded, rows[..., x::wx], out=folded)
    return folded


def _float_mean(voxels: Array, window: ZYX) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        sums = _fold(np.add, voxels.astype(np.float64), window)
        return (sums / math.prod(window)).astype(voxels.dtype)


def _unsigned_mean(voxels: Array, window: ZYX) -> Array:
    count = math.prod(window)
    if voxels.dtype.itemsize == 8:
        return _uint64_mean(voxels, window)
    needed = count * int(np.iinfo(voxels.dtype).max) + count // 2
    dtype = np.min_scalar_type(needed)
    return _rounded_quotient(_sums(voxels, window, dtype), count).astype(voxels.dtype)


def _uint64_mean(voxels: Array, window: ZYX) -> Array:
    """Sums of the upper and lower halves, divided by hand: exact for up to 2**31 voxels."""
    count = math.prod(window)
    quotient, rest = np.divmod(_fold(np.add, voxels >> 32, window), count)
    lower = _fold(np.add, voxels & 0xFFFFFFFF, window)
    return (quotient << 32) + _rounded_quotient((rest << 32) + lower, count)


def _rounded_quotient(sums: Array, count: int) -> Array:
    """``sums / count``, half to even."""
    half = count // 2
    rounding = half if count % 2 else (sums // count & 1) + (half - 1)
    quotient: Array = (sums + rounding) // count
    return quotient


def _sums(voxels: Array, window: ZYX, dtype: np.dtype[Any]) -> Array:
    wz, wy, wx = window
    if wx % 2 == 0:
        voxels, wx = _pair_sums(voxels), wx // 2
    return _fold(np.add, voxels.astype(dtype, copy=False), (wz, wy, wx))


def _pair_sums(voxels: Array) -> Array:
    """Sums of two neighbours along x, in integers of twice their width.

    Reading each pair as one integer takes both apart without steps of two in memory.
    """
    bits = 8 * voxels.dtype.itemsize
    pairs: Array = voxels.view(f"u{2 * voxels.dtype.itemsize}")
    sums: Array = pairs & ((1 << bits) - 1)
    sums += pairs >> bits
    return sums
