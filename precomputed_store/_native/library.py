"""The compiled kernels: one shared library, if it could be compiled at installation."""

from __future__ import annotations

import ctypes
import functools
import sys
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["ZYX", "Box", "call_box_decoder", "check_box", "integers", "is_target", "kernels"]

ZYX: TypeAlias = tuple[int, int, int]
Box: TypeAlias = tuple[tuple[int, int], ...]
"""First voxel and the one after the last, along each axis."""

_INTERFACE = 3
"""Of the library that fits the calls here: another one is left from an older installation."""


@functools.cache
def kernels() -> ctypes.CDLL | None:
    """The library, or None if it was not compiled. Calls release the interpreter lock."""
    if sys.byteorder != "little":
        return None
    path = Path(__file__).with_name("native.kernel")
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return None
    return library if library.interface_version() == _INTERFACE else None


@functools.lru_cache(maxsize=1024)
def integers(values: tuple[int, ...]) -> ctypes.Array[ctypes.c_int64]:
    """As an argument of a kernel. Never written to, so that threads can share them."""
    return (ctypes.c_int64 * len(values))(*values)


def is_target(out: npt.NDArray[Any]) -> bool:
    """Whether a kernel can write into an array."""
    return bool(out.dtype.isnative and out.flags.aligned and out.flags.writeable)


def check_box(box: Box, shape: tuple[int, ...], out: npt.NDArray[Any]) -> None:
    """Raise ValueError unless a box lies in a chunk, and `out` has its shape."""
    expected = tuple(stop - start for start, stop in box)
    inside = all(0 <= a < b <= size for (a, b), size in zip(box, shape, strict=True))
    if out.shape != expected or not inside:
        raise ValueError(f"a box {box} of {shape} voxels cannot be decoded into {out.shape}")


def call_box_decoder(
    function: Any,
    data: bytes | bytearray | memoryview,
    *,
    shape: tuple[int, ...],
    box: Box,
    out: npt.NDArray[Any],
) -> int:
    """Decode a box of a chunk into `out`, which `is_target`: the kernel's status.

    Parameters
    ----------
    function : callable
        Takes bytes and how many, shape, box (first voxels, then the ones after the last), and
        where the box goes and its strides.
    """
    check_box(box, shape, out)
    if function.argtypes is None:
        address, sizes = ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64)
        function.argtypes = [address, ctypes.c_uint64, sizes, sizes, address, sizes]
    encoded = np.frombuffer(data, np.uint8)
    status: int = function(
        encoded.ctypes.data,
        encoded.size,
        integers(shape),
        integers((*(a for a, _ in box), *(b for _, b in box))),
        out.ctypes.data,
        integers(out.strides),
    )
    return status
