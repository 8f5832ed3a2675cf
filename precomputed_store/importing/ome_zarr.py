"""Zarr arrays, and OME-Zarr images in versions 0.4 and 0.5; a word on N5."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from precomputed_store.errors import FormatError, UnsupportedError
from precomputed_store.importing.attributes import (
    Placing,
    axis_letter,
    read_axes,
    read_placing,
)
from precomputed_store.importing.base import FoundArray, ImportFormat, ImportRequest
from precomputed_store.importing.lazy import as_dask, block_shape
from precomputed_store.importing.npy import usual_axes
from precomputed_store.importing.ome_metadata import OmeDataset, ome_datasets

__all__ = ["N5", "ZARR"]

_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup")


def open_zarr(request: ImportRequest) -> FoundArray:
    """An array, or one dataset of an OME-Zarr image: the finest unless another is named."""
    import zarr
    from zarr.errors import NodeNotFoundError

    options = dict(request.storage_options) or None
    try:
        node = zarr.open(request.path, mode="r", storage_options=options)
    except (NodeNotFoundError, FileNotFoundError) as error:
        raise FormatError(f"{request.path}: no zarr array or group here") from error
    if isinstance(node, zarr.Array):
        return _found(node, request, described=None)
    datasets = ome_datasets(node.attrs.asdict(), source=request.path)
    path = request.inner if request.inner is not None else next(iter(datasets), None)
    if path is None:
        path = _only_array(node, request)
    array = node.get(path.strip("/"))
    if isinstance(array, zarr.Group) and not datasets:
        inner = ome_datasets(array.attrs.asdict(), source=str(request))
        if inner:
            datasets = {f"{path}/{name}": dataset for name, dataset in inner.items()}
            path = next(iter(datasets))
            array = node.get(path)
    if not isinstance(array, zarr.Array):
        known = ", ".join(f"#{name}" for name in datasets or _children(node))
        raise ValueError(f"{request.path}: no array {path!r} here; there are {known or 'none'}")
    return _found(array, request, described=datasets.get(path.strip("/")))


def _found(array: Any, request: ImportRequest, *, described: OmeDataset | None) -> FoundArray:
    attributes = array.attrs.asdict()
    if described is not None and len(described.axes) != array.ndim:
        raise FormatError(
            f"{request}: {len(described.axes)} axes are described, the array has {array.ndim}"
        )
    if described is None:
        axes = _named_axes(array, attributes) or usual_axes(array.ndim)
        placing = read_placing(attributes, request.letters(axes))
    else:
        axes = described.axes
        placing = Placing(described.resolution, described.voxel_offset, described.notes)
    blocks = block_shape(array.shape, array.dtype.itemsize, stored=array.chunks)
    return FoundArray(
        array=as_dask(array, blocks),
        axes=axes,
        resolution=placing.resolution,
        voxel_offset=placing.voxel_offset,
        notes=placing.notes,
    )


def _named_axes(array: Any, attributes: Mapping[str, Any]) -> str | None:
    """The names of dimensions: zarr 3's, xarray's in zarr 2, or those in other attributes."""
    names = getattr(array.metadata, "dimension_names", None)
    names = names or attributes.get("_ARRAY_DIMENSIONS")
    if names and len(names) == array.ndim and all(names):
        return "".join(axis_letter(str(name)) for name in names)
    return read_axes(attributes, array.ndim)


def _only_array(group: Any, request: ImportRequest) -> str:
    names = _children(group)
    if len(names) != 1:
        shown = ", ".join(f"#{name}" for name in names) or "none"
        raise ValueError(f"{request.path}: pick one of the arrays in this group: {shown}")
    return names[0]


def _children(group: Any) -> list[str]:
    return sorted(name for name, _ in group.arrays())


def is_zarr(path: str) -> bool:
    return any(os.path.isfile(os.path.join(path, name)) for name in _DOCUMENTS)


def is_n5(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "attributes.json"))


def refuse_n5(request: ImportRequest) -> FoundArray:
    raise UnsupportedError(
        f"{request.path}: zarr reads N5 no more. Open it with TensorStore, driver 'n5', and pass "
        "that to dask.array.from_array and to_precomputed; or copy it to zarr with a zarr before 3"
    )


ZARR = ImportFormat(
    name="zarr", suffixes=(".zarr",), open=open_zarr, is_folder=is_zarr, is_remote=True
)
N5 = ImportFormat(name="n5", suffixes=(".n5",), open=refuse_n5, is_folder=is_n5, is_remote=True)
