"""Blocks of voxels out of many files, straight into an array, by a compiled kernel."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from precomputed_store._native.library import kernels

__all__ = ["BLOCK_FIELDS", "is_available", "read_blocks"]

BLOCK_FIELDS = 9
"""First byte; bytes from step to step along channel, z and y; steps along these; bytes of one
run along x; place of the first byte in the array."""


def is_available() -> bool:
    """Whether the kernel was compiled when the package was installed."""
    return _function() is not None


@functools.cache
def _function() -> Any | None:
    library = kernels()
    if library is None or sys.platform == "win32":
        return None
    function, address, size = library.read_file_blocks, ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [
        ctypes.c_char_p, size, address, address, address, address, size, address, address,
    ]  # fmt: skip
    function.restype = None
    return function


def read_blocks(
    paths: Sequence[bytes],
    sizes: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    blocks: npt.NDArray[np.int64],
    out: npt.NDArray[Any],
) -> npt.NDArray[np.bool_]:
    """Read blocks of voxels; which files could be read.

    Of the others, `out` may have any voxels where their blocks go.

    Parameters
    ----------
    paths : sequence of bytes
        Files; symbolic links are not followed.
    sizes : numpy.ndarray, shape (n,)
        Their bytes: a file of any other length is not read.
    first : numpy.ndarray, shape (n + 1,)
        Where each file's blocks begin in `blocks`, and where the last file's end.
    blocks : numpy.ndarray, shape (m, 9)
        See `BLOCK_FIELDS`.
    out : numpy.ndarray
        C order; four axes ``(channel, z, y, x)``, or one of single voxels.
    """
    function = _function()
    done = np.zeros(len(paths), bool)
    fits = blocks.ndim == 2 and blocks.shape[1] == BLOCK_FIELDS and len(sizes) == len(paths)
    ends = len(first) == len(paths) + 1 and first[0] >= 0 and first[-1] <= len(blocks)
    joined = b"\0".join(paths) + b"\0"
    whole = joined.count(0) == len(paths) and out.flags.c_contiguous
    if not (fits and ends and whole and (np.diff(first) >= 0).all()):
        raise ValueError("the blocks do not fit the files or the array")
    if function is None or not out.flags.writeable:
        return done
    sizes, first, blocks = (np.require(a, np.int64, ["C", "A"]) for a in (sizes, first, blocks))
    steps = np.zeros(3, np.int64)
    if out.ndim == 4:
        steps[:] = out.strides[:3]
    function(
        joined,
        len(paths),
        sizes.ctypes.data,
        first.ctypes.data,
        blocks.ctypes.data,
        out.ctypes.data,
        out.nbytes,
        steps.ctypes.data,
        done.ctypes.data,
    )
    return done
