"""Which layers a lazy array reads from, as far as can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from precomputed_store.array_door import ArrayDoor

__all__ = ["urls_read"]

_DEEPEST = 12


def urls_read(array: Any) -> set[str]:
    """Addresses of the layers that a dask array or a lazy xarray variable reads from.

    Finds what this package opened; not what other libraries read from the same place.
    """
    if hasattr(array, "dask"):
        found = [url for item in _literals(array) for url in _url_behind(item)]
    else:
        found = list(_url_behind(array))
    return set(found)


def _url_behind(item: Any) -> Iterator[str]:
    """Follow the wrappers that xarray and dask put around an array."""
    for _ in range(_DEEPEST):
        if isinstance(item, ArrayDoor):
            yield item.array.storage.url
            return
        for name in ("door", "_data", "array", "value"):
            inner = getattr(item, name, None)
            if inner is not None:
                item = inner
                break
        else:
            return


def _literals(array: Any) -> Iterator[Any]:
    """Objects that a dask graph holds once, rather than once for each task."""
    layers = getattr(array.__dask_graph__(), "layers", {})
    for layer in layers.values():
        yield from (item for item, index in getattr(layer, "indices", ()) if index is None)
        mapping = getattr(layer, "mapping", {})
        if len(mapping) == 1:
            yield from mapping.values()
