"""compressed_segmentation, compiled: boxes of a channel ⇄ words.

Axes are z, y, x. Every function says whether it did it: what it refuses (the words are damaged,
the kernel is not installed, the machine is big-endian) is for the slower way, which says why.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from precomputed_store._native.library import ZYX, Box, check_box, integers, is_target, kernels

__all__ = ["decode_box", "encode_channel", "is_available"]

_LARGEST_BLOCK_VOXELS = 1 << 16
"""Larger blocks can have more labels than 16 bits number."""

_DONE = 0


def is_available() -> bool:
    """Whether the kernel was compiled when the package was installed."""
    return _library() is not None


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = kernels()
    if library is None:
        return None
    address, size, sizes = ctypes.c_void_p, ctypes.c_uint64, ctypes.POINTER(ctypes.c_int64)
    for name in ("uint32", "uint64"):
        # As attributes, which keep their types: each library["…"] is a new function.
        decode, encode = getattr(library, f"decode_{name}"), getattr(library, f"encode_{name}")
        decode.argtypes = [address, size, sizes, sizes, sizes, address, sizes]
        decode.restype = ctypes.c_int
        encode.argtypes = [address, sizes, sizes, sizes, address, size]
        encode.restype = ctypes.c_int64
    return library


def decode_box(
    words: npt.NDArray[np.uint32],
    *,
    shape: ZYX,
    block: ZYX,
    box: Box,
    out: npt.NDArray[Any],
) -> bool:
    """Decode a box of a channel into `out`; whether that was possible.

    If not, `out` may hold anything. Only blocks that touch the box are looked at.

    Parameters
    ----------
    words : numpy.ndarray
        The channel.
    shape, block : (int, int, int)
        Voxels of the channel, and of its blocks.
    box : three (int, int)
        First voxel and the one after the last, within the channel.
    out : numpy.ndarray
        Of the box's shape, any strides.
    """
    library = _library()
    if library is None or not is_target(out):
        return False
    check_box(box, shape, out)
    words = np.require(words, "<u4", ["C", "A"])
    status = getattr(library, f"decode_{out.dtype.name}")(
        words.ctypes.data,
        words.size,
        integers(shape),
        integers(block),
        integers((*(a for a, _ in box), *(b for _, b in box))),
        out.ctypes.data,
        integers(out.strides),
    )
    return bool(status == _DONE)


def encode_channel(
    labels: npt.NDArray[Any], *, block: ZYX, most_words: int
) -> npt.NDArray[np.uint32] | None:
    """Encode a channel ``(z, y, x)`` of any strides, or None if it is not for the kernel.

    The result is empty if it would have more than `most_words` words.
    """
    library = _library()
    extent = [min(size, edge) for size, edge in zip(labels.shape, block, strict=True)]
    if library is None or np.prod(extent, dtype=object) > _LARGEST_BLOCK_VOXELS:
        return None
    labels = np.require(labels, labels.dtype.newbyteorder("="), ["A"])
    # Pages that are not written to cost nothing.
    words = np.empty(most_words, "<u4")
    size = getattr(library, f"encode_{labels.dtype.name}")(
        labels.ctypes.data,
        integers(labels.strides),
        integers(labels.shape),
        integers(block),
        words.ctypes.data,
        words.size,
    )
    if size < 0:
        raise MemoryError(f"no memory to encode a channel of {labels.shape} voxels")
    return words[:size]
