"""A file that gets its name once it is complete, by one call without the interpreter lock."""

from __future__ import annotations

import ctypes
import enum
import functools
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from precomputed_store._native.library import kernels
from precomputed_store.codecs.base import Buffer

__all__ = ["Outcome", "store_file"]


class Outcome(enum.IntEnum):
    """What became of a file."""

    DONE = 0
    NOT_DONE = 1
    NO_LOCK = 2
    """Its folder cannot be locked in this way, as on some network disks."""


@functools.cache
def _function() -> Any | None:
    library = kernels()
    if library is None or sys.platform == "win32":
        return None
    function, path, size = library.store_file, ctypes.c_char_p, ctypes.c_int64
    function.argtypes = [path, path, path, path, size, ctypes.c_void_p, size, ctypes.c_int]
    function.restype = ctypes.c_int
    return function


def store_file(
    data: Buffer, target: str, *, temporary: str, others: Sequence[str], sync: bool
) -> Outcome:
    """Write a file, rename it under the lock of its folder, and remove others of its object.

    If that is not done, nothing is left behind, but the file may have got its name, and some of
    the others may be gone.
    """
    function = _function()
    paths = [os.fsencode(path) for path in (temporary, target, os.path.dirname(target))]
    gone = [os.fsencode(path) for path in others]
    if function is None or any(b"\0" in path for path in (*paths, *gone)):
        return Outcome.NOT_DONE
    view = np.frombuffer(data, np.uint8)
    joined = b"\0".join(gone) + b"\0"
    return Outcome(function(*paths, joined, len(gone), view.ctypes.data, view.size, sync))
