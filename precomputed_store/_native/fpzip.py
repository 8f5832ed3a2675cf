"""fpzip, compiled: boxes of a chunk, decoded. Axes are field, z, y, x."""

from __future__ import annotations

import ctypes
import enum
import functools
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from precomputed_store._native.library import check_box, integers, is_target, kernels

__all__ = ["Outcome", "decode_box", "is_available"]


class Outcome(enum.IntEnum):
    """What became of a chunk."""

    DONE = 0
    DAMAGED = 1
    """No encoder writes these bytes for this shape and data type."""
    LEFT_TO_THE_LIBRARY = 2
    """Of another version or precision than are known, or what it holds depends on how the
    library was compiled."""
    NO_MEMORY = 3


def is_available() -> bool:
    """Whether the kernel was compiled when the package was installed."""
    return _library() is not None


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = kernels()
    if library is None or sys.byteorder != "little":
        return None
    if not hasattr(library, "decode_fpzip_float64"):
        return None  # of an older installation, whose other kernels are the same
    address, sizes = ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64)
    for name in ("float32", "float64"):
        # As attributes, which keep their types: each library["…"] is a new function.
        decode = getattr(library, f"decode_fpzip_{name}")
        decode.argtypes = [address, ctypes.c_uint64, sizes, sizes, address, sizes]
        decode.restype = ctypes.c_int
    return library


def decode_box(
    data: bytes | bytearray | memoryview,
    *,
    shape: tuple[int, ...],
    box: tuple[tuple[int, int], ...],
    out: npt.NDArray[Any],
) -> Outcome | None:
    """Decode a box of a chunk into `out`, or None if that is not for the kernel.

    If it is not done, `out` may hold anything. Numbers behind the last plane that is wanted are
    not looked at; the end of the stream is checked if that is the last of the chunk.

    Parameters
    ----------
    data : bytes-like
        The chunk.
    shape : (int, int, int, int)
        Its numbers.
    box : four (int, int)
        First number and the one after the last, within the chunk.
    out : numpy.ndarray
        Of the box's shape, any strides; float32 or float64.

    Raises
    ------
    MemoryError
        There is no memory for two planes of the chunk.
    """
    library = _library()
    if library is None or not is_target(out):
        return None
    check_box(box, shape, out)
    encoded = np.frombuffer(data, np.uint8)
    status = getattr(library, f"decode_fpzip_{out.dtype.name}")(
        encoded.ctypes.data,
        encoded.size,
        integers(shape),
        integers((*(a for a, _ in box), *(b for _, b in box))),
        out.ctypes.data,
        integers(out.strides),
    )
    outcome = Outcome(status)
    if outcome is Outcome.NO_MEMORY:
        raise MemoryError(f"no memory to decode a chunk of {shape} numbers")
    return outcome
