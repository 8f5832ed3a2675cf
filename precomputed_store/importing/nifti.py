"""NIfTI, plain or gzipped.

Voxels are taken in the order of the file; the affine (orientation, origin) is not applied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from precomputed_store.codecs.base import require
from precomputed_store.errors import UnsupportedError
from precomputed_store.importing.base import (
    EXTRA,
    FoundArray,
    ImportFormat,
    ImportRequest,
    blame_file,
)
from precomputed_store.importing.lazy import MappedFile, as_dask, slab_shape
from precomputed_store.importing.physical import in_nanometres

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["NIFTI"]

# NIfTI-1 header, dim: the fourth axis is time, the fifth a vector.
_AXES = {2: "xy", 3: "xyz", 4: "xyzc", 5: "xyztc"}
_SLAB_BYTES = 256 << 20
"""A gzipped file is decompressed from its beginning for each slab."""
_FLOAT32_DIGITS = 6


def open_nifti(request: ImportRequest) -> FoundArray:
    nibabel = require("nibabel", extra=EXTRA, purpose="reading NIfTI")
    with blame_file(request.path):
        image = nibabel.load(request.path)
        proxy, header = image.dataobj, image.header
        dtype, shape = header.get_data_dtype(), header.get_data_shape()
        unit = header.get_xyzt_units()[0]
    if dtype.names is not None:
        raise UnsupportedError(
            f"{request.path}: colours as {dtype}; split them: nibabel.load(path).dataobj"
        )
    axes = _AXES.get(len(shape), "?" * len(shape))
    slope, inter = float(proxy.slope), float(proxy.inter)
    scaled = (slope, inter) != (1.0, 0.0)
    array = _lazy(request.path, shape, dtype, proxy.offset)
    notes = (f"its values are scaled by {slope:g} and shifted by {inter:g}, to float32",)
    return FoundArray(
        array=_scaled(array, slope, inter) if scaled else array,
        axes=axes,
        resolution=_resolution(header.get_zooms(), unit, axes),
        notes=notes if scaled else (),
    )


def _lazy(path: str, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> da.Array:
    if not path.lower().endswith(".gz"):
        return MappedFile(path=path, offset=offset, shape=shape, dtype=dtype, order="F").as_dask()
    array = GzippedArray(path=path, shape=shape, dtype=dtype, offset=offset)
    return as_dask(array, slab_shape(shape, dtype.itemsize, largest=_SLAB_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class GzippedArray:
    """Stored values of a gzipped file; nibabel goes by `indexed_gzip` where it is installed."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        from nibabel.arrayproxy import ArrayProxy

        spec = (self.shape, self.dtype, self.offset, 1.0, 0.0)
        proxy = ArrayProxy(self.path, spec)  # type: ignore[no-untyped-call]
        with blame_file(self.path):
            values: np.ndarray[Any, Any] = np.asarray(proxy[key])
        return values


def _scaled(array: da.Array, slope: float, inter: float) -> da.Array:
    result: da.Array = (array * np.float32(slope) + np.float32(inter)).astype(np.float32)
    return result


def _resolution(zooms: tuple[Any, ...], unit: str, axes: str) -> tuple[float | None, ...]:
    """Sizes of voxels. A unit that is not stated is no millimetre."""
    return tuple(
        in_nanometres(zoom, unit, digits=_FLOAT32_DIGITS) if axis in "xyz" else None
        for zoom, axis in zip(zooms, axes, strict=True)
    )


NIFTI = ImportFormat(name="nifti", suffixes=(".nii", ".nii.gz"), open=open_nifti)
