"""The xarray engine: ``xr.open_dataset(url, engine="precomputed")``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from precomputed_store import xarray_accessor  # noqa: F401  (registers .precomputed)
from precomputed_store.array_door import (
    DIMS,
    ArrayDoor,
    OuterRequest,
    PointsRequest,
    request_outer,
    request_points,
)
from precomputed_store.engine import Missing
from precomputed_store.layer import Layer, ScaleSelector, open_layer
from precomputed_store.metadata import DamagedScale, Scale
from precomputed_store.url import local_path, parse_url
from precomputed_store.xarray_coords import CoordinateKind, check_kind, scale_coordinates

__all__ = ["PrecomputedBackendArray", "PrecomputedBackendEntrypoint", "scale_dataset"]

_LARGEST_INFO = 16 << 20


class PrecomputedBackendArray(BackendArray):
    """One scale behind xarray's lazy indexing. Without locks: it holds no state."""

    __slots__ = ("door", "dtype", "shape")

    def __init__(self, door: ArrayDoor) -> None:
        self.door = door
        self.shape = door.shape
        self.dtype: np.dtype[Any] = door.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return self.door.read(self._request(key))

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Any:
        return await self.door.read_async(self._request(key))

    def _request(self, key: indexing.ExplicitIndexer) -> OuterRequest | PointsRequest:
        if isinstance(key, indexing.VectorizedIndexer):
            return request_points(key.tuple, self.shape)
        return request_outer(key.tuple, self.shape)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return self.door.__dask_tokenize__()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.door.array.storage.url!r}, shape={self.shape})"


class PrecomputedBackendEntrypoint(BackendEntrypoint):
    """Open Neuroglancer Precomputed volumes.

    A dataset has one variable, ``image`` or ``segmentation``, with the dimensions
    ``("channel", "z", "y", "x")``. Only `info` is read until values are asked for.
    """

    description: ClassVar[str] = "Open Neuroglancer Precomputed volumes (precomputed-store)"
    supports_groups: ClassVar[bool] = True

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        scale: ScaleSelector = 0,
        coords: CoordinateKind = "physical",
        missing: Missing = "fill",
        storage_options: Mapping[str, Any] | None = None,
        missing_statuses: Iterable[int] = (404,),
        max_redirects: int = 10,
        root: str | os.PathLike[str] | None = None,
        cross_origin: bool = False,
    ) -> xr.Dataset:
        """Open one scale; ``xr.open_dataset(url, engine="precomputed", ...)``.

        Parameters
        ----------
        filename_or_obj : str or path
            Where the layer is, see `open_layer`.
        drop_variables : str or iterable of str, optional
            Variables and coordinates to leave out.
        scale : int, str or (float, float, float)
            Index (negative from the coarsest), key, or resolution in nanometres.
        coords : {"physical", "voxel", None}
            Coordinates of x, y and z: centres of voxels in nanometres, integer voxel
            indices with `voxel_offset` counted in, or none.
        missing : {"fill", "raise"}
            What a chunk that is not stored means: zeros, or `MissingChunkError`.
        storage_options, missing_statuses, max_redirects, root, cross_origin
            See `open_layer`.

        Raises
        ------
        VolumeNotFoundError, MetadataError, StorageError
            See `open_layer`.
        ValueError, IndexError
            There is no such scale; the message lists those that there are.

        Notes
        -----
        Opened with ``chunks=``, xarray and dask take a few microseconds and some 170 bytes for
        every chunk of the *whole* volume each time something is computed, however little of
        it: far too much from some ten million chunks on. With ``inline_array=True`` as well
        they look at what is needed only. Or select first and chunk then: without ``chunks=``
        the dataset is lazy too.
        """
        check_kind(coords)
        layer = _open(
            filename_or_obj,
            missing=missing,
            storage_options=storage_options,
            missing_statuses=missing_statuses,
            max_redirects=max_redirects,
            root=root,
            cross_origin=cross_origin,
        )
        dataset = scale_dataset(layer, layer.info.scale_index(scale), coords=coords)
        return _without(dataset, drop_variables)

    def open_datatree(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        coords: CoordinateKind = "physical",
        missing: Missing = "fill",
        storage_options: Mapping[str, Any] | None = None,
        missing_statuses: Iterable[int] = (404,),
        max_redirects: int = 10,
        root: str | os.PathLike[str] | None = None,
        cross_origin: bool = False,
    ) -> xr.DataTree:
        """Open every scale: node ``"0"`` is the finest; see `open_dataset`.

        Scales that cannot be used are left out and named in the root's attribute
        ``unusable_scales``.
        """
        groups = self.open_groups_as_dict(
            filename_or_obj,
            drop_variables=drop_variables,
            coords=coords,
            missing=missing,
            storage_options=storage_options,
            missing_statuses=missing_statuses,
            max_redirects=max_redirects,
            root=root,
            cross_origin=cross_origin,
        )
        return xr.DataTree.from_dict(groups)

    def open_groups_as_dict(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        coords: CoordinateKind = "physical",
        missing: Missing = "fill",
        storage_options: Mapping[str, Any] | None = None,
        missing_statuses: Iterable[int] = (404,),
        max_redirects: int = 10,
        root: str | os.PathLike[str] | None = None,
        cross_origin: bool = False,
    ) -> dict[str, xr.Dataset]:
        """Open every scale as ``{"/": root, "/0": finest, …}``; see `open_datatree`."""
        check_kind(coords)
        layer = _open(
            filename_or_obj,
            missing=missing,
            storage_options=storage_options,
            missing_statuses=missing_statuses,
            max_redirects=max_redirects,
            root=root,
            cross_origin=cross_origin,
        )
        groups = {"/": xr.Dataset(attrs=_root_attributes(layer))}
        for index, _ in layer.info.usable_scales:
            dataset = scale_dataset(layer, index, coords=coords)
            groups[f"/{index}"] = _without(dataset, drop_variables)
        return groups

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether the address says so, or is a local folder whose `info` has scales.

        Never asks the network.
        """
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        address = os.fspath(filename_or_obj)
        if not isinstance(address, str):
            return False
        try:
            url = parse_url(address)
        except ValueError:
            return False
        named = address.startswith("precomputed:") or "precomputed:" in address.rpartition("|")[2]
        folder = local_path(url)
        return named or (folder is not None and _has_scales(os.path.join(folder, "info")))


def scale_dataset(layer: Layer, index: int, *, coords: CoordinateKind) -> xr.Dataset:
    """One scale of an opened layer as a lazy dataset."""
    scale = layer.scale(index)
    door = ArrayDoor(layer.array(index))
    info = layer.info
    attributes = {
        "long_name": info.layer_type,
        "layer_type": info.layer_type,
        "scale": scale.key,
        "resolution": list(scale.resolution),
        "resolution_unit": "nm",
        "voxel_offset": list(scale.voxel_offset),
        "size": list(scale.size),
    }
    encoding = {
        "preferred_chunks": dict(zip(DIMS, door.chunks, strict=True)),
        **writing_encoding(scale, layer_type=info.layer_type),
        "info": info,
        "scale_index": index,
    }
    data = indexing.LazilyIndexedArray(PrecomputedBackendArray(door))
    variable = xr.Variable(DIMS, data, attributes, encoding)
    described = {name: value for name, value in attributes.items() if name != "long_name"}
    return xr.Dataset({info.layer_type: variable}, scale_coordinates(scale, coords), described)


def writing_encoding(scale: Scale, *, layer_type: str) -> dict[str, Any]:
    """What `to_precomputed` takes over from an array that was opened here."""
    return {
        "layer_type": layer_type,
        "encoding": scale.encoding,
        "encoding_options": scale.codec.to_parameters(),
        "chunk_size": scale.chunk_size,
        "resolution": scale.resolution,
        "voxel_offset": scale.voxel_offset,
        "size": scale.size,
    }


def _open(
    address: str | os.PathLike[str],
    *,
    missing: Missing,
    storage_options: Mapping[str, Any] | None,
    missing_statuses: Iterable[int],
    max_redirects: int,
    root: str | os.PathLike[str] | None,
    cross_origin: bool,
) -> Layer:
    if not isinstance(address, str | os.PathLike):
        raise TypeError(f"expected the address of a layer, not {type(address).__name__}")
    return open_layer(
        address,
        missing=missing,
        storage_options=storage_options,
        missing_statuses=missing_statuses,
        max_redirects=max_redirects,
        root=root,
        cross_origin=cross_origin,
    )


def _root_attributes(layer: Layer) -> dict[str, Any]:
    info = layer.info
    attributes: dict[str, Any] = {
        "layer_type": info.layer_type,
        "data_type": info.data_type,
        "num_channels": info.num_channels,
        "scales": [scale.key for _, scale in info.usable_scales],
    }
    unusable = [
        f"{index}: " + "; ".join(map(str, scale.problems))
        for index, scale in enumerate(info.scales)
        if isinstance(scale, DamagedScale)
    ]
    return {**attributes, "unusable_scales": unusable} if unusable else attributes


def _without(dataset: xr.Dataset, names: str | Iterable[str] | None) -> xr.Dataset:
    if names is None:
        return dataset
    return dataset.drop_vars([names] if isinstance(names, str) else names, errors="ignore")


def _has_scales(path: str) -> bool:
    try:
        if os.path.getsize(path) > _LARGEST_INFO:
            return False
        with open(path, "rb") as file:
            document = json.load(file)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "scales" in document
