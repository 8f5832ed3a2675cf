"""What a folder really holds, file by file: for checks, not for reading.

`Storage.list_names` gives the names that `get` takes, and so hides temporary files and
copies that are never read. These are what a check is after.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from precomputed_store.storage import Storage
from precomputed_store.storage_local import is_temporary, logical_name
from precomputed_store.url import local_path

__all__ = ["StoredObject", "list_objects"]


class StoredObject(NamedTuple):
    """An entry of a folder.

    Attributes
    ----------
    name : str
        As stored.
    key : str or None
        The name that reads it; None where nothing does.
    num_bytes : int or None
        Its size as stored; None for folders, and where the storage does not tell.
    """

    name: str
    key: str | None
    num_bytes: int | None = None

    @property
    def is_temporary(self) -> bool:
        """Whether a writer has not finished it, or was killed."""
        return is_temporary(self.name)


def list_objects(storage: Storage, folder: str) -> Iterator[StoredObject]:
    """Entries of a folder named relative to the layer's, in no promised order.

    Raises
    ------
    UnsupportedError
        The storage has no listing.
    StorageError
        It refused or failed.
    """
    path = local_path(storage.child(folder).url)
    if path is None:
        for name in storage.list_names(folder):
            yield StoredObject(name, name)
        return
    try:
        entries = os.scandir(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            key = logical_name(path, entry.name)
            num_bytes = entry.stat().st_size if entry.is_file() else None
            yield StoredObject(entry.name, key, num_bytes)
