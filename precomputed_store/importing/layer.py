"""A Precomputed layer as a source: one of its scales."""

from __future__ import annotations

import os

from precomputed_store.importing.base import FoundArray, ImportFormat, ImportRequest

__all__ = ["PRECOMPUTED"]


def open_layer_source(request: ImportRequest) -> FoundArray:
    """The finest scale, or the one behind ``#``: its index or its key."""
    import xarray as xr

    inner = request.inner or "0"
    dataset = xr.open_dataset(
        request.path,
        engine="precomputed",
        chunks="auto",
        scale=int(inner) if inner.lstrip("-").isdecimal() else inner,
        coords=None,
        storage_options=dict(request.storage_options),
    )
    (array,) = dataset.data_vars.values()
    said = array.encoding
    (x, y, z), (dx, dy, dz) = said["voxel_offset"], said["resolution"]
    return FoundArray(
        array=array.data,
        axes="czyx",
        resolution=(None, dz, dy, dx),
        voxel_offset=(None, z, y, x),
        encoding=said,
    )


def is_layer(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "info"))


PRECOMPUTED = ImportFormat(
    name="precomputed",
    suffixes=(),
    open=open_layer_source,
    is_folder=is_layer,
    is_remote=True,
)
