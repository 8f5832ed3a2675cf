"""Keys with ``..`` and the like → a storage and a plain key in it."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from precomputed_store.errors import MetadataError

if TYPE_CHECKING:
    from precomputed_store.storage.storage import Storage

__all__ = ["child_of", "resolve"]

# Keys that have to be resolved: empty, ".", ".." or absolute parts, URLs, NUL, drives.
_ODD_KEY = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|::|://|\0" + (r"|[\\:]" if os.name == "nt" else ""))


def resolve(storage: Storage, key: str) -> tuple[Storage, str]:
    """A storage and a plain key in it, for a key that may contain ``..`` and the like."""
    if not _ODD_KEY.search(key):
        return storage, key
    folder, _, name = key.rpartition("/")
    # An absolute key has an empty folder as well, but is not to be taken for a plain one.
    child = child_of(storage, folder or ("/" if key.startswith("/") else ""))
    if _ODD_KEY.search(name):
        raise MetadataError(f"{key!r} does not name an object", source=storage.url)
    return child, name


@lru_cache(maxsize=1024)
def child_of(storage: Storage, folder: str) -> Storage:
    """As `Storage.child`, remembered."""
    return storage.child(folder)
