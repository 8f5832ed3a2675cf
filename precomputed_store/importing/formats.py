"""The formats that can be imported: one file and one line each."""

from __future__ import annotations

from collections.abc import Mapping

from precomputed_store.importing.base import ImportFormat
from precomputed_store.importing.hdf5 import HDF5
from precomputed_store.importing.images import IMAGES
from precomputed_store.importing.layer import PRECOMPUTED
from precomputed_store.importing.nifti import NIFTI
from precomputed_store.importing.npy import NPY, NPZ
from precomputed_store.importing.ome_zarr import N5, ZARR
from precomputed_store.importing.tiff import TIFF

__all__ = ["FORMATS"]

FORMATS: Mapping[str, ImportFormat] = {
    found.name: found
    for found in (
        TIFF,
        IMAGES,
        NPY,
        NPZ,
        HDF5,
        NIFTI,
        ZARR,
        N5,
        PRECOMPUTED,
    )
}
"""Name → format. The first that has the suffix, or that knows the folder, is taken."""
