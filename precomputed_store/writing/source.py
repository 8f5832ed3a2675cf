"""What is to be written: any array with named axes, seen as ``(channel, z, y, x)``."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from precomputed_store.array_door import DIMS
from precomputed_store.codecs.base import CZYX, ChunkArray
from precomputed_store.grid import XYZ
from precomputed_store.writing.blocks import Where

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    from precomputed_store.xarray_coords import AxisCoordinates

__all__ = ["Remembered", "WriteSource", "as_source"]

_ALIASES = {"c": "channel"}
_ACCEPTED = "'x', 'y', 'z' and 'channel' (or 'c')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """Where an array lay in the layer that it was read from, along x, y, z."""

    resolution: tuple[float, float, float]
    voxel_offset: XYZ
    size: XYZ


@dataclass(frozen=True, kw_only=True)
class WriteSource:
    """An array to be written, and everything that it says of itself.

    Attributes
    ----------
    array : numpy array, dask array, xarray.Variable or sliceable
        With its axes in their own order.
    axes : tuple of str
        Which axis of `array` is which; all of x, y, z, and channel if there is one.
    name : str or None
        The name of a DataArray.
    coordinates : mapping of str to DataArray
        Those of x, y, z that have one.
    attributes : mapping
        Attributes of an xarray object.
    encoding : mapping
        Its encoding, if this package's xarray engine made it.
    """

    array: Any
    axes: tuple[str, ...]
    name: Hashable | None = None
    coordinates: Mapping[str, xr.DataArray] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    encoding: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype

    @property
    def shape(self) -> CZYX:
        lengths = dict(zip(self.axes, self.array.shape, strict=True))
        c, z, y, x = (int(lengths.get(name, 1)) for name in DIMS)
        return c, z, y, x

    @property
    def size(self) -> XYZ:
        """Extent along x, y and z."""
        _, z, y, x = self.shape
        return x, y, z

    @property
    def is_dask(self) -> bool:
        return hasattr(self.array, "dask")

    @property
    def is_numpy(self) -> bool:
        return isinstance(self.array, np.ndarray)

    @property
    def layer_type(self) -> Any:
        """What this package's xarray engine noted as the layer's type, if it did."""
        return self.encoding.get("layer_type", self.attributes.get("layer_type"))

    def coordinate(self, name: str) -> AxisCoordinates | None:
        """The coordinate along x, y or z, checked; None if there is none."""
        if name not in self.coordinates:
            return None
        from precomputed_store.xarray_coords import read_axis

        return read_axis(self.coordinates[name], name=name)

    @property
    def remembered(self) -> Remembered | None:
        """What this package's xarray engine noted, if it did."""
        notes = {**self.attributes, **self.encoding}
        try:
            resolution, offset, size = (
                tuple(notes[name]) for name in ("resolution", "voxel_offset", "size")
            )
        except (KeyError, TypeError):
            return None
        if not len(resolution) == len(offset) == len(size) == 3:
            return None
        return Remembered(resolution=resolution, voxel_offset=offset, size=size)

    def read(self, where: Where) -> ChunkArray:
        """A block ``(channel, z, y, x)``, loaded if it is not in memory."""
        wanted = dict(zip(DIMS, where, strict=True))
        slices = tuple(wanted[name] for name in self.axes)
        block: ChunkArray = self._arranged(np.asarray(self.array[slices]))
        return block

    def as_dask(self, chunks: tuple[tuple[int, ...], ...]) -> da.Array:
        """As a dask array ``(channel, z, y, x)`` with these chunks."""
        import dask.array

        wanted = dict(zip(DIMS, chunks, strict=True))
        own = tuple(wanted[name] for name in self.axes)
        if self.is_dask:
            array = self.array.rechunk(own)
        elif hasattr(self.array, "chunk") and hasattr(self.array, "dims"):
            array = self.array.chunk(dict(zip(self.array.dims, own, strict=True))).data
        else:
            array = dask.array.from_array(  # type: ignore[no-untyped-call]
                self.array, chunks=own, fancy=False
            )
        return self._arranged(array)  # type: ignore[no-any-return]

    def chunk_lengths(self) -> tuple[tuple[int, ...], ...] | None:
        """Lengths of the chunks of a dask array along channel, z, y, x; None if it is none.

        Raises
        ------
        ValueError
            They are not known.
        """
        if not self.is_dask:
            return None
        if any(math.isnan(length) for axis in self.array.chunks for length in axis):
            raise ValueError(
                "the dask array's chunk sizes are unknown: array.compute_chunk_sizes() first"
            )
        lengths = dict(zip(self.axes, self.array.chunks, strict=True))
        return tuple(lengths.get(name, (1,)) for name in DIMS)

    def _arranged(self, array: Any) -> Any:
        order = [self.axes.index(name) for name in DIMS if name in self.axes]
        array = array.transpose(order)
        return array if "channel" in self.axes else _with_channel(array)


def _with_channel(array: Any) -> Any:
    """An array with an axis of one channel before its others.

    Blockwise where it is a dask array: indexing would be a task of its own for each block,
    whose result goes from process to process.
    """
    if isinstance(array, np.ndarray):
        return array[np.newaxis]
    import dask.array as da

    return da.map_blocks(  # type: ignore[no-untyped-call]
        np.expand_dims, array, axis=0, new_axis=0, dtype=array.dtype, meta=array._meta[np.newaxis]
    )


def as_source(array: Any, *, dims: Iterable[Hashable] | None) -> WriteSource:
    """Take apart what a caller wants written.

    Parameters
    ----------
    array : xarray.DataArray, xarray.Dataset, dask array, numpy array, or sliceable
    dims : iterable of str, optional
        Names of the axes, in order. Required where the array has none.

    Raises
    ------
    ValueError
        Axes are missing, unknown or unnamed, the array is empty or of unknown size, or a
        dataset has not exactly one variable.
    TypeError
        This is not an array.
    """
    source = _from_xarray(array, dims) if _is_xarray(array) else _from_bare(array, dims)
    source.chunk_lengths()
    if not math.prod(source.shape):
        raise ValueError(f"the array is empty: {dict(zip(DIMS, source.shape, strict=True))}")
    return source


def _is_xarray(array: Any) -> bool:
    return type(array).__module__.partition(".")[0] == "xarray" or hasattr(array, "data_vars")


def _from_xarray(array: Any, dims: Iterable[Hashable] | None) -> WriteSource:
    import xarray as xr

    if isinstance(array, xr.DataTree):
        raise TypeError("a DataTree holds several scales: write one node, tree['0'].to_dataset()")
    if isinstance(array, xr.Dataset):
        array = _only_variable(array)
    if isinstance(array, xr.Variable):
        array = xr.DataArray(array)
    if not isinstance(array, xr.DataArray):
        raise TypeError(f"cannot write a {type(array).__name__}")
    axes = _axes(array.dims if dims is None else dims, array.ndim)
    names = dict(zip(array.dims, axes, strict=True))
    coordinates = {
        names[dim]: array.coords[dim]
        for dim in array.dims
        if dim in array.coords and names[dim] != "channel"
    }
    lazy = array.data if _has_dask(array) else array.variable
    return WriteSource(
        array=lazy,
        axes=axes,
        name=array.name,
        coordinates=coordinates,
        attributes=array.attrs,
        encoding=array.encoding if "scale_index" in array.encoding else {},
    )


def _has_dask(array: xr.DataArray) -> bool:
    # .data would load what is lazy without chunks.
    return array.chunks is not None and hasattr(array.data, "dask")


def _only_variable(dataset: xr.Dataset) -> xr.DataArray:
    names = list(dataset.data_vars)
    if len(names) != 1:
        raise ValueError(
            f"the dataset has {len(names)} variables, {names}; a layer holds one: "
            "pass dataset[name]"
        )
    return dataset[names[0]]


def _from_bare(array: Any, dims: Iterable[Hashable] | None) -> WriteSource:
    from precomputed_store.volume import Volume

    if isinstance(array, Volume):
        raise TypeError(
            "a Volume is indexed by absolute coordinates: pass open_dask(url) or "
            "xr.open_dataset(url, engine='precomputed')"
        )
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("masked voxels cannot be stored: pass array.filled(value)")
    if not all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__")):
        raise TypeError(f"cannot write a {type(array).__name__}: it is no array")
    if dims is None:
        raise ValueError(
            f"the {len(array.shape)} axes of a {type(array).__name__} have no names: pass dims=, "
            "for example dims=('x', 'y', 'z') or dims=('channel', 'z', 'y', 'x')"
        )
    return WriteSource(array=array, axes=_axes(dims, len(array.shape)))


def _axes(dims: Iterable[Hashable], ndim: int) -> tuple[str, ...]:
    given = tuple(dims)
    axes = tuple(_ALIASES.get(str(name), str(name)) for name in given)
    if unknown := [name for name in axes if name not in DIMS]:
        raise ValueError(
            f"dims {given}: unknown {', '.join(map(repr, unknown))}; expected {_ACCEPTED}"
        )
    if len(set(axes)) < len(axes):
        raise ValueError(f"dims {given}: an axis is named twice")
    if len(axes) != ndim:
        raise ValueError(f"dims {given}: {len(axes)} names for {ndim} axes")
    if missing := [name for name in "xyz" if name not in axes]:
        raise ValueError(
            f"dims {given}: no {', '.join(map(repr, missing))}; expected {_ACCEPTED}, of which "
            "only the channel may be left out. Add an axis of length one: "
            f"array[..., None], or expand_dims({missing[0]!r}) in xarray"
        )
    return axes
