"""Which chunks of a scale are stored: the list of them, or the suspicion that there are none."""

from __future__ import annotations

from collections.abc import Iterator

from precomputed_store.engine import ChunkedArray, warn_if_all_missing
from precomputed_store.errors import StorageError, UnsupportedError
from precomputed_store.grid import XYZ
from precomputed_store.storage import Storage

__all__ = ["look_into_absence", "note_presence", "stored_cells"]

_MISSES_WITHOUT_LISTING = 16
_SETTLED = -1

# Chunks looked for in vain in this process, by storage and scale key.
_misses: dict[tuple[Storage, str], int] = {}


def note_presence(array: ChunkedArray) -> None:
    """Remember that a chunk has been found: what is missing is missing for a reason."""
    _misses[array.storage, array.scale.key] = _SETTLED


def look_into_absence(array: ChunkedArray, cell: XYZ) -> bool:
    """Warn, once per process, if a scale seems to have no chunks at all. For threads.

    For those who do not see where a read begins and ends. A missing chunk makes it look
    whether the scale's folder is empty; where it cannot list, it counts.

    Returns
    -------
    bool
        Whether the matter is settled: it need not be asked again in this process.

    Warns
    -----
    MissingDataWarning
    """
    place = (array.storage, array.scale.key)
    misses = _misses.get(place, 0)
    if misses == _SETTLED:
        return True
    try:
        empty = array.storage.first_child(array.scale.key) is None if not misses else None
    except (UnsupportedError, StorageError):
        empty = None
    misses += 1
    settled = empty is not None or misses >= _MISSES_WITHOUT_LISTING
    _misses[place] = _SETTLED if settled else misses
    if settled and empty is not False:
        warn_if_all_missing(array, cell, misses)
    return settled


def stored_cells(array: ChunkedArray) -> Iterator[XYZ]:
    """Cells whose chunks the storage lists, in either layout, as they are found.

    None where they are in shards, or the storage cannot list.

    Raises
    ------
    StorageError
        The storage refused or failed.
    """
    if array.scale.sharding is not None:
        return
    try:
        for name in _chunk_names(array.storage, array.scale.key):
            cell = array.grid.cell_of_name(name)
            if cell is not None:
                yield cell
    except UnsupportedError:
        return


def _chunk_names(storage: Storage, folder: str, axes: tuple[str, ...] = ()) -> Iterator[str]:
    """Names of the objects in a folder; those in ``x/y/z`` folders as if they were flat."""
    for name in storage.list_names(folder):
        if "_" in name:
            yield name
        elif len(axes) == 2:
            yield "_".join((*axes, name))
        elif name[:1].isdigit() or name[:1] == "-":
            yield from _chunk_names(storage, f"{folder}/{name}", (*axes, name))
