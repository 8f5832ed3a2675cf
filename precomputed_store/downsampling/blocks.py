"""`downsample`: a block of fine voxels → the coarse voxels it covers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from precomputed_store.downsampling._folds import maximum, mean, minimum
from precomputed_store.downsampling._mode import mode
from precomputed_store.downsampling.windows import ZYX, coarse_box, pieces
from precomputed_store.grid import XYZ, Box

__all__ = ["METHODS", "Method", "downsample"]

Method: TypeAlias = Literal["mean", "mode", "min", "max", "stride"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)

Array: TypeAlias = npt.NDArray[Any]

PIECE_VOXELS: Final = 1 << 18
"""Voxels that are worked on at a time, so that what is made of them stays in cache."""


def downsample(block: Array, *, factor: XYZ, start: XYZ, method: Method) -> Array:
    """Make the coarse voxels that a block of fine voxels falls into.

    Coarse voxel ``i`` along an axis stands for fine voxels ``[i * f, (i + 1) * f)``, absolute.
    The windows at the ends of the block may lie in it only in part: then the voxels that are
    there decide. Blocks cut at multiples of `factor` give the same voxels as one large block.

    ``"mean"``
        Integers: the exact mean, rounded to the nearest and half to even, without overflow.
        Floating point: summed in float64 and rounded once to the dtype; NaN propagates.
    ``"mode"``
        The most frequent value; of several, the smallest. Zero counts like any other value.
        Floating point: all NaN are one value, larger than any other; -0.0 is 0.0.
    ``"min"``, ``"max"``
        NaN propagates.
    ``"stride"``
        The first voxel of the window, or, where the block begins inside the window, the first
        one that is there.

    Parameters
    ----------
    block : ndarray, (channel, z, y, x)
        Fine voxels of any integer or floating-point dtype, in any memory order. Each channel
        is reduced alone.
    factor : (int, int, int)
        Fine voxels per coarse voxel along x, y and z, each at least 1.
    start : (int, int, int)
        The absolute x, y, z of the block's first voxel.
    method : {"mean", "mode", "min", "max", "stride"}

    Returns
    -------
    ndarray, (channel, z, y, x)
        The voxels of ``coarse_box``, in C order, of the dtype of `block`.

    Notes
    -----
    The work is done in pieces of 2**18 voxels, which bounds the memory that it takes besides
    block and result: about 5 MiB for labels and images, at most 16 MiB for noise. Only a
    window that is itself larger is one piece, and takes several times its size.

    Examples
    --------
    >>> labels = np.array([[[[7, 7, 5, 5, 5, 9]]]], np.uint64)
    >>> downsample(labels, factor=(2, 1, 1), start=(0, 0, 0), method="mode")
    array([[[[7, 5, 5]]]], dtype=uint64)
    >>> downsample(labels, factor=(2, 1, 1), start=(-1, 0, 0), method="max")
    array([[[[7, 7, 5, 9]]]], dtype=uint64)
    """
    block = np.asarray(block)
    factor, start = _checked(block, factor, start, method)
    channels, z, y, x = block.shape
    box = coarse_box(Box(start, (start[0] + x, start[1] + y, start[2] + z)), factor)
    result = np.empty((channels, *box.shape[::-1]), block.dtype)
    for piece in pieces(start[::-1], (z, y, x), factor[::-1], max_voxels=PIECE_VOXELS):
        reduce = _stride if piece.window == (1, 1, 1) else _REDUCTIONS[method]
        for source, target in zip(block, result, strict=True):
            target[piece.coarse] = reduce(source[piece.fine], piece.window)
    return result


def _checked(block: Array, factor: XYZ, start: XYZ, method: str) -> tuple[XYZ, XYZ]:
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    if block.ndim != 4:
        raise ValueError(f"block has {block.ndim} axes; expected (channel, z, y, x)")
    if block.dtype.kind not in "iuf" or block.dtype.itemsize > 8:
        raise TypeError(f"block is {block.dtype}; expected integers or floats of up to 64 bits")
    if min(factor) < 1:
        raise ValueError(f"factor is {factor}; expected at least 1 along x, y and z")
    fx, fy, fz = map(operator.index, factor)
    x, y, z = map(operator.index, start)
    return (fx, fy, fz), (x, y, z)


def _stride(piece: Array, window: ZYX) -> Array:
    wz, wy, wx = window
    return piece[::wz, ::wy, ::wx]


_REDUCTIONS: Final[dict[Method, Callable[[Array, ZYX], Array]]] = {
    "mean": mean,
    "mode": mode,
    "min": minimum,
    "max": maximum,
    "stride": _stride,
}
