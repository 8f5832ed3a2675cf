"""The filters of png, undone and applied by a compiled kernel."""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import numpy.typing as npt

from precomputed_store._native.library import kernels

__all__ = ["filter_rows", "is_available", "restore_rows"]

_DONE = 0


def is_available() -> bool:
    """Whether the kernel was compiled when the package was installed."""
    return _library() is not None


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = kernels()
    if library is None:
        return None
    address, size = ctypes.c_void_p, ctypes.c_int64
    for function in (library.restore_png_rows, library.filter_png_rows):
        function.argtypes = [address, address, size, size, size]
        function.restype = ctypes.c_int
    return library


def restore_rows(
    coded: bytes, *, num_rows: int, row_bytes: int, pixel_bytes: int
) -> npt.NDArray[np.uint8] | None:
    """The bytes ``(num_rows, row_bytes)`` of an image's first rows; None: that cannot be done.

    Parameters
    ----------
    coded : bytes
        Filtered rows, each behind the number of its filter.
    num_rows, row_bytes, pixel_bytes : int
        Rows to be restored, and the bytes of a row and of a pixel.
    """
    library = _library()
    if library is None:
        return None
    if len(coded) < num_rows * (row_bytes + 1) or row_bytes % pixel_bytes:
        raise ValueError(f"{len(coded)} bytes are not {num_rows} rows of 1 + {row_bytes}")
    rows = np.empty((num_rows + 1, row_bytes), np.uint8)
    rows[0] = 0  # above the first
    source = np.frombuffer(coded, np.uint8)
    status = library.restore_png_rows(
        source.ctypes.data, rows.ctypes.data, num_rows, row_bytes, pixel_bytes
    )
    return rows[1:] if status == _DONE else None


def filter_rows(rows: npt.NDArray[np.uint8], *, pixel_bytes: int) -> npt.NDArray[np.uint8] | None:
    """An image's rows ``(num_rows, row_bytes)`` filtered, each behind its filter's number.

    None: that cannot be done.
    """
    library = _library()
    if library is None:
        return None
    num_rows, row_bytes = rows.shape
    rows = np.ascontiguousarray(rows)
    coded = np.empty((num_rows, row_bytes + 1), np.uint8)
    status = library.filter_png_rows(
        rows.ctypes.data, coded.ctypes.data, num_rows, row_bytes, pixel_bytes
    )
    return coded if status == _DONE else None
