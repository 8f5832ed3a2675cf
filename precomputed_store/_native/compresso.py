"""compresso, compiled: boxes of a chunk, decoded, and whole chunks, encoded. Axes are z, y, x."""

from __future__ import annotations

import ctypes
import enum
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from precomputed_store._native.library import (
    ZYX,
    Box,
    call_box_decoder,
    integers,
    is_target,
    kernels,
)

__all__ = ["Outcome", "decode_box", "encode", "is_available"]

_LARGEST_SIZE = 0xFFFF
_OUT_OF_MEMORY = -1
_TOO_MANY_WINDOWS = 0


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
    if library is None:
        return None
    address, sizes = ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64)
    for name in ("uint8", "uint16", "uint32", "uint64"):
        # As attributes, which keep their types: each library["…"] is a new function.
        encode = getattr(library, f"encode_compresso_{name}")
        encode.argtypes = [address, sizes, sizes, ctypes.POINTER(address)]
        encode.restype = ctypes.c_int64
    library.free_compresso.argtypes = [address]
    library.free_compresso.restype = None
    return library


def decode_box(
    data: bytes | bytearray | memoryview,
    *,
    shape: ZYX,
    box: Box,
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
    function = getattr(library, f"decode_compresso_uint{8 * out.itemsize}")
    outcome = Outcome(call_box_decoder(function, data, shape=shape, box=box, out=out))
    if outcome is Outcome.NO_MEMORY:
        raise MemoryError(f"no memory to decode a chunk of {shape} voxels")
    return outcome


def encode(labels: npt.NDArray[Any]) -> bytes | None:
    """Encode a chunk, or None if that is not for the kernel.

    To the bytes of the compresso library, but with an escape before every label that takes
    more than 32 bits. Not for the kernel are chunks without voxels, with more than 65535 along
    an axis, or with more than 32768 different windows, for which the library takes larger ones.

    Parameters
    ----------
    labels : numpy.ndarray
        ``(z, y, x)``, any strides; unsigned integers.

    Raises
    ------
    MemoryError
        There is no memory for the chunk and a slice.
    """
    library = _library()
    if library is None or not labels.size or max(labels.shape) > _LARGEST_SIZE:
        return None
    labels = np.require(labels, labels.dtype.newbyteorder("="), ["A"])
    encoded = ctypes.c_void_p()
    size: int = getattr(library, f"encode_compresso_{labels.dtype.name}")(
        labels.ctypes.data, integers(labels.strides), integers(labels.shape), ctypes.byref(encoded)
    )
    if size == _OUT_OF_MEMORY:
        raise MemoryError(f"no memory to encode a chunk of {labels.shape} voxels")
    if size == _TOO_MANY_WINDOWS or encoded.value is None:
        return None
    try:
        # ctypes.string_at takes sizes of 31 bits only.
        copied = np.empty(size, np.uint8)
        ctypes.memmove(copied.ctypes.data, encoded, size)
    finally:
        library.free_compresso(encoded)
    return copied.tobytes()
