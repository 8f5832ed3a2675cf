"""fpzip, compiled: boxes of a chunk, decoded. Axes are field, z, y, x."""

from __future__ import annotations

import ctypes
import enum
from typing import Any

import numpy.typing as npt

from precomputed_store._native.library import Box, call_box_decoder, is_target, kernels

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


def _library() -> ctypes.CDLL | None:
    return kernels()


def decode_box(
    data: bytes | bytearray | memoryview,
    *,
    shape: tuple[int, ...],
    box: Box,
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
    function = getattr(library, f"decode_fpzip_{out.dtype.name}")
    outcome = Outcome(call_box_decoder(function, data, shape=shape, box=box, out=out))
    if outcome is Outcome.NO_MEMORY:
        raise MemoryError(f"no memory to decode a chunk of {shape} numbers")
    return outcome
