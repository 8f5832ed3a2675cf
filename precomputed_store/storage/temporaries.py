"""Files on a local disk that are not objects: what writers leave when they are killed."""

from __future__ import annotations

import contextlib
import os
import time

from precomputed_store.storage.locks import LOCK_NAME, remove_lock_file

__all__ = ["is_temporary", "sweep_temporaries", "temporary_name"]

# No chunk, shard or metadata name begins with a dot.
_TEMPORARY = (".precomputed-", ".tmp")


def temporary_name() -> str:
    """A new name for a file that is not complete yet."""
    return f"{_TEMPORARY[0]}{os.getpid()}-{os.urandom(8).hex()}{_TEMPORARY[1]}"


def is_temporary(name: str) -> bool:
    """Whether a name is one of `temporary_name`."""
    return name.startswith(_TEMPORARY[0]) and name.endswith(_TEMPORARY[1])


def sweep_temporaries(folder: str, *, older_than_s: float = 3600.0) -> int:
    """Remove what killed writers left behind in a folder and below it.

    Parameters
    ----------
    folder : str
    older_than_s : float
        Younger files may still be being written, and stay.

    Returns
    -------
    int
        Number of files removed.
    """
    removed = 0
    oldest = time.time() - older_than_s
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with contextlib.suppress(FileNotFoundError):
                if is_temporary(name) and os.stat(path).st_mtime <= oldest:
                    os.unlink(path)
                    removed += 1
                elif name == LOCK_NAME:
                    removed += remove_lock_file(path)
    return removed
