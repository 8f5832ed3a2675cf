"""HDF5: one dataset of a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from precomputed_store.codecs.base import require
from precomputed_store.importing.attributes import axis_letter, read_axes, read_placing
from precomputed_store.importing.base import (
    EXTRA,
    FoundArray,
    ImportFormat,
    ImportRequest,
    blame_file,
)
from precomputed_store.importing.lazy import as_dask, block_shape
from precomputed_store.importing.npy import usual_axes

if TYPE_CHECKING:
    import h5py  # type: ignore[import-untyped]
    from xarray.backends import CachingFileManager

__all__ = ["HDF5"]

_SHOWN = 20


def open_hdf5(request: ImportRequest) -> FoundArray:
    """The dataset that is named, or the only one that can be meant."""
    from xarray.backends import CachingFileManager

    library = require("h5py", extra=EXTRA, purpose="reading HDF5")
    with blame_file(request.path):
        file = library.File(request.path, mode="r")
    with file:
        dataset = _dataset(file, request)
        shape, dtype, stored = dataset.shape, dataset.dtype, dataset.chunks
        attributes = dict(dataset.attrs)
        axes = read_axes(attributes, len(shape)) or _labels(dataset) or usual_axes(len(shape))
        name = dataset.name
    manager = CachingFileManager(library.File, request.path, mode="r")
    array = Hdf5Array(path=request.path, manager=manager, name=name, shape=shape, dtype=dtype)
    placing = read_placing(attributes, request.letters(axes))
    return FoundArray(
        array=as_dask(array, block_shape(shape, dtype.itemsize, stored=stored)),
        axes=axes,
        resolution=placing.resolution,
        voxel_offset=placing.voxel_offset,
        notes=placing.notes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hdf5Array:
    """A dataset whose file is opened once per process."""

    path: str
    manager: CachingFileManager[h5py.File]
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: tuple[slice, ...]) -> Any:
        with blame_file(self.path), self.manager.acquire_context() as file:
            return file[self.name][key]


def _dataset(file: h5py.File, request: ImportRequest) -> h5py.Dataset:
    every: dict[str, h5py.Dataset] = {}

    def visit(name: str, node: Any) -> None:
        if hasattr(node, "dtype") and hasattr(node, "chunks") and node.ndim >= 2:
            every[f"/{name}"] = node

    file.visititems(visit)
    if request.inner is None:
        names = [name for name, node in every.items() if node.ndim >= 3] or list(every)
        wanted = names[0] if len(names) == 1 else ""
    else:
        wanted = "/" + request.inner.strip("/")
        node = file.get(wanted)
        if node is not None and hasattr(node, "chunks"):
            return node
    if wanted not in every:
        shown = [f"#{name} {node.dtype} {node.shape}" for name, node in every.items()]
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        raise ValueError(
            f"{request}: pick one of the datasets in this file: "
            f"{', '.join(shown[:_SHOWN]) or 'it has none of two axes or more'}{more}"
        )
    return every[wanted]


def _labels(dataset: h5py.Dataset) -> str | None:
    """The labels of its dimensions, if all have one."""
    labels = [dimension.label for dimension in dataset.dims]
    return "".join(map(axis_letter, labels)) if all(labels) else None


HDF5 = ImportFormat(name="hdf5", suffixes=(".h5", ".hdf5", ".hdf", ".he5"), open=open_hdf5)
