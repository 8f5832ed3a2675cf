"""Libraries that only some methods need."""

from __future__ import annotations

import importlib
from typing import Any

from precomputed_store.errors import UnsupportedError

__all__ = ["optional"]


def optional(library: str, purpose: str, *, install: str = "precomputed-store[skeletons]") -> Any:
    """The library, imported.

    Raises
    ------
    UnsupportedError
        It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise UnsupportedError(
            f"{library} is needed {purpose}: pip install '{install}'"
        ) from error
