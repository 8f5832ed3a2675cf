"""`open_source`: what a laboratory has → a DataArray that `to_precomputed` takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from precomputed_store.errors import PrecomputedWarning, warn_caller
from precomputed_store.grid import XYZ
from precomputed_store.importing.arrange import Arrangement, arrange, check_letters
from precomputed_store.importing.base import FoundArray
from precomputed_store.importing.locate import Located, SourcePaths, locate
from precomputed_store.importing.slices import open_slices
from precomputed_store.importing.values import Rescale, as_voxels
from precomputed_store.writing.place import Resolution, triple
from precomputed_store.xarray_coords import physical_coordinate

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

__all__ = ["open_source"]


def open_source(
    source: SourcePaths,
    *,
    axes: str | None = None,
    format: str | None = None,
    resolution: Resolution | None = None,
    voxel_offset: XYZ | None = None,
    dtype: npt.DTypeLike | None = None,
    rescale: Rescale | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Open a volume in another format, lazily, for `to_precomputed`.

    Parameters
    ----------
    source : str, path, or several of them
        A TIFF, NIfTI, HDF5, ``.npy``, ``.npz``, zarr or OME-Zarr volume; a folder, pattern
        (``"slices/*.tif"``) or list of TIFF, PNG or JPEG slices; or a Precomputed layer.
        ``#name`` behind a path says which array in it: ``"file.h5#/volumes/raw"``,
        ``"image.zarr#0"``.
    axes : str, optional
        A letter for each axis in the order of the file: x, y, z, and c for the channel,
        for example ``"zyx"`` or ``"xyzc"``; any other letter for an axis of length one.
        Default: what the file says; else zyx and czyx for numpy, HDF5 and zarr.
    format : str, optional
        One of `precomputed_store.importing.FORMATS`. Default: by suffix and content.
    resolution : (float, float, float), optional
        Size of a voxel along x, y, z in nanometres. Default: what the file says.
    voxel_offset : (int, int, int), optional
        Absolute coordinates x, y, z of the first voxel. Default: what the file says,
        else zero.
    dtype : data type, optional
        Convert the voxels; a value that would change is an error when it is read.
        Booleans become uint8 by themselves.
    rescale : (float, float), optional
        Values that become the least and the greatest of `dtype` (default uint8).
    storage_options : mapping, optional
        Passed to fsspec for zarr and Precomputed URLs.

    Returns
    -------
    xarray.DataArray
        Backed by dask, ``("z", "y", "x")`` with ``"channel"`` in front if the file has one.
        Coordinates are centres of voxels in nanometres along the axes whose resolution
        is known. Attributes: `source`, `source_format`, `source_dtype`, and, if the whole
        resolution is known, `resolution`, `voxel_offset` and `size`.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such file, or it cannot be told what it is or which array is meant.
    UnsupportedError
        A library is missing, or the file has what is not read here.
    FormatError
        The file is broken.

    Examples
    --------
    >>> import numpy as np, precomputed_store as ps
    >>> np.save("labels.npy", np.arange(24, dtype="uint32").reshape(2, 3, 4))
    >>> array = ps.open_source("labels.npy", resolution=(8, 8, 40))
    >>> array.dims, array.z.values.tolist()
    (('z', 'y', 'x'), [20, 60])
    >>> ps.to_precomputed(array, "memory://labels-from-npy").scale.key
    '8_8_40'
    """
    letters = None if axes is None else check_letters(axes)
    located = locate(source, format=format, storage_options=storage_options)
    found = _open(located, letters)
    for note in found.notes:
        warn_caller(f"{located.paths[0]}: {note}", PrecomputedWarning)
    arranged = _arranged(located, found, letters)
    placing = _Placing(found, arranged, resolution, voxel_offset)
    voxels = as_voxels(_transposed(found.array, arranged), dtype=dtype, rescale=rescale)
    keeps_voxels = voxels.dtype == found.array.dtype and rescale is None
    result = _data_array(voxels, arranged, placing)
    result.attrs |= {
        "source": located.paths[0],
        "source_format": located.format.name,
        "source_dtype": found.array.dtype.name,
    }
    result.encoding = _encoding(found, placing, keeps_voxels=keeps_voxels)
    return result


def _open(located: Located, axes: str | None) -> FoundArray:
    if located.is_stack and located.format.slices is not None:
        return open_slices(located.paths, located.format.slices)
    return located.format.open(located.request(axes))


def _arranged(located: Located, found: FoundArray, letters: str | None) -> Arrangement:
    try:
        return arrange(letters or found.axes, found.array.shape, is_given=letters is not None)
    except ValueError as error:
        raise ValueError(f"{located.paths[0]}: {error}") from None


def _transposed(array: da.Array, arranged: Arrangement) -> da.Array:
    sources = [axis for axis in arranged.sources if axis is not None]
    order = (*arranged.dropped, *sources)
    result: Any = array.transpose(order)  # type: ignore[no-untyped-call]
    result = result[(0,) * len(arranged.dropped)]
    missing = tuple(None if axis is None else slice(None) for axis in arranged.sources)
    transposed: da.Array = result[missing]
    return transposed


class _Placing:
    """Resolution and first voxel along x, y, z: the user's word, else the file's."""

    def __init__(
        self,
        found: FoundArray,
        arranged: Arrangement,
        resolution: Resolution | None,
        voxel_offset: XYZ | None,
    ) -> None:
        x, y, z = reversed(arranged.sources[-3:])
        self.resolution: tuple[float | None, ...] = tuple(
            None if axis is None or not found.resolution else found.resolution[axis]
            for axis in (x, y, z)
        )
        self.voxel_offset: tuple[int, ...] = tuple(
            0 if axis is None or not found.voxel_offset else found.voxel_offset[axis] or 0
            for axis in (x, y, z)
        )
        if resolution is not None:
            self.resolution = triple(resolution, "resolution")
            if not all(math.isfinite(n) and n > 0 for n in triple(resolution, "resolution")):
                raise ValueError(f"resolution is {resolution}; expected three positive numbers")
        if voxel_offset is not None:
            self.voxel_offset = triple(voxel_offset, "voxel_offset")


def _data_array(voxels: da.Array, arranged: Arrangement, placing: _Placing) -> xr.DataArray:
    import xarray as xr

    size = voxels.shape[:-4:-1]
    coords: dict[str, Any] = {}
    for name, start, length, resolution in zip(
        "xyz", placing.voxel_offset, size, placing.resolution, strict=True
    ):
        if resolution is not None:
            found = physical_coordinate(name, start, length, resolution)
            coords |= {} if found is None else {name: found}
    attributes = {}
    if None not in placing.resolution:
        attributes = {
            "resolution": list(placing.resolution),
            "resolution_unit": "nm",
            "voxel_offset": list(placing.voxel_offset),
            "size": list(size),
        }
    array = xr.DataArray(voxels, dims=arranged.dims, coords=coords, attrs=attributes)
    return array.rename(None)  # not what dask calls it


def _encoding(found: FoundArray, placing: _Placing, *, keeps_voxels: bool) -> dict[str, Any]:
    """How a layer was encoded, for one that is written from it."""
    if not found.encoding:
        return {}
    said = dict(found.encoding)
    said |= {"resolution": placing.resolution, "voxel_offset": placing.voxel_offset}
    if not keeps_voxels:
        del said["encoding"], said["encoding_options"]
    return said
