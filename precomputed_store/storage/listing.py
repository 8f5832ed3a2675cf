"""What a folder really holds, file by file: for checks, not for reading.

`Storage.list_names` gives the names that `get` takes, and so hides temporary files and
copies that are never read. These are what a check is after.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from precomputed_store.errors import StorageError
from precomputed_store.storage import Storage
from precomputed_store.storage.local_files import is_temporary, logical_name
from precomputed_store.storage.locks import LOCK_FILE
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
        Its size as stored; None where the storage does not tell.
    is_file : bool or None
        False for folders and links to nowhere; None where the storage does not tell.
    """

    name: str
    key: str | None
    num_bytes: int | None = None
    is_file: bool | None = None

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
    if path is not None:
        yield from _local_objects(path)
        return
    for name, num_bytes in storage.list_sizes(folder):
        yield StoredObject(name, name, num_bytes)


def _local_objects(folder: str) -> Iterator[StoredObject]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == LOCK_FILE:
                    continue
                key = logical_name(folder, entry.name)
                # A writer may have removed it meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    num_bytes = entry.stat().st_size if entry.is_file() else None
                    yield StoredObject(entry.name, key, num_bytes, num_bytes is not None)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}") from error
