"""The compiled kernels: one shared library, if it could be compiled at installation."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt

__all__ = ["ZYX", "check_box", "integers", "is_target", "kernels"]

ZYX: TypeAlias = tuple[int, int, int]

_INTERFACE = 2
"""Of the library that fits the calls here: another one is left from an older installation."""


@functools.cache
def kernels() -> ctypes.CDLL | None:
    """The library, or None if it was not compiled. Calls release the interpreter lock."""
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


def check_box(
    box: tuple[tuple[int, int], ...], shape: tuple[int, ...], out: npt.NDArray[Any]
) -> None:
    """Raise ValueError unless a box lies in a chunk, and `out` has its shape."""
    expected = tuple(stop - start for start, stop in box)
    inside = all(0 <= a < b <= size for (a, b), size in zip(box, shape, strict=True))
    if out.shape != expected or not inside:
        raise ValueError(f"a box {box} of {shape} voxels cannot be decoded into {out.shape}")
