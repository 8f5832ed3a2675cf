"""compresso, compiled: boxes of a chunk, decoded. Axes are z, y, x."""

from __future__ import annotations

import ctypes
import enum
import functools
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from precomputed_store._native.library import ZYX, check_box, integers, is_target, kernels

__all__ = ["Outcome", "decode_box", "is_available"]


class Outcome(enum.IntEnum):
    """What became of a chunk."""

    DONE = 0
    DAMAGED = 1
    """Its header, sections, windows or index cannot be."""
    TOO_FEW = 2
    """Its windows need more ids or locations than there are."""
    OUTSIDE = 3
    """A location copies from a voxel outside of the chunk."""
    WRONG_INDEX = 4
    """A slice has fewer labels or locations than the index says."""
    NO_MEMORY = 5


def is_available() -> bool:
    """Whether the kernel was compiled when the package was installed."""
    return _library() is not None


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = kernels()
    if library is None or sys.byteorder != "little":
        return None
    if not hasattr(library, "decode_compresso_uint64"):
        return None  # of an older installation, whose other kernels are the same
    address, sizes = ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64)
    for name in ("uint8", "uint16", "uint32", "uint64"):
        # As attributes, which keep their types: each library["…"] is a new function.
        decode = getattr(library, f"decode_compresso_{name}")
        decode.argtypes = [address, ctypes.c_uint64, sizes, sizes, address, sizes]
        decode.restype = ctypes.c_int
    return library


def decode_box(
    data: bytes | bytearray | memoryview,
    *,
    shape: ZYX,
    box: tuple[tuple[int, int], ...],
    out: npt.NDArray[Any],
) -> Outcome | None:
    """Decode a box of a chunk into `out`, or None if that is not for the kernel.

    If it is not done, `out` may hold anything. Only slices that have some of the box are
    looked at, if the chunk has an index of them.

    Parameters
    ----------
    data : bytes-like
        The chunk.
    shape : (int, int, int)
        Its voxels.
    box : three (int, int)
        First voxel and the one after the last, within the chunk.
    out : numpy.ndarray
        Of the box's shape, any strides; unsigned integers.

    Raises
    ------
    MemoryError
        There is no memory for the slices that are decoded together.
    """
    library = _library()
    if library is None or not is_target(out):
        return None
    check_box(box, shape, out)
    encoded = np.frombuffer(data, np.uint8)
    status = getattr(library, f"decode_compresso_uint{8 * out.itemsize}")(
        encoded.ctypes.data,
        encoded.size,
        integers(shape),
        integers((*(a for a, _ in box), *(b for _, b in box))),
        out.ctypes.data,
        integers(out.strides),
    )
    outcome = Outcome(status)
    if outcome is Outcome.NO_MEMORY:
        raise MemoryError(f"no memory to decode a chunk of {shape} voxels")
    return outcome
