"""The compiled kernels: one shared library, if it could be compiled at installation."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

__all__ = ["kernels"]

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
