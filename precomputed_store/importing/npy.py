"""``.npy``, mapped; ``.npz``, loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from precomputed_store.errors import FormatError
from precomputed_store.importing.attributes import USUAL_AXES
from precomputed_store.importing.base import FoundArray, ImportFormat, ImportRequest
from precomputed_store.importing.lazy import MappedFile, as_dask, block_shape

__all__ = ["NPY", "NPZ"]


def open_npy(request: ImportRequest) -> FoundArray:
    """One array, in C or Fortran order, mapped."""
    try:
        mapped = np.lib.format.open_memmap(request.path, mode="r")
    except ValueError as error:
        raise FormatError(f"{request.path}: {error}") from error
    with Path(request.path).open("rb") as file:
        _skip_header(file)
        offset = file.tell()
    is_fortran = mapped.flags.f_contiguous and not mapped.flags.c_contiguous
    array = MappedFile(
        path=request.path,
        offset=offset,
        shape=mapped.shape,
        dtype=mapped.dtype,
        order="F" if is_fortran else "C",
    )
    return FoundArray(array=array.as_dask(), axes=usual_axes(array.ndim))


def _skip_header(file: Any) -> None:
    version = np.lib.format.read_magic(file)
    size = 2 if version == (1, 0) else 4
    length = int.from_bytes(file.read(size), "little")
    file.seek(length, 1)


def open_npz(request: ImportRequest) -> FoundArray:
    """One array of several, which cannot be read in part."""
    with np.load(request.path) as members:
        names = list(members)
        wanted = names[0] if request.inner is None and len(names) == 1 else request.inner
        if wanted not in names:
            shown = ", ".join(f"#{name}" for name in names) or "none"
            raise ValueError(f"{request}: pick one of the arrays in this file: {shown}")
        array = members[wanted]
    blocks = block_shape(array.shape, array.dtype.itemsize)
    return FoundArray(array=as_dask(array, blocks), axes=usual_axes(array.ndim))


def usual_axes(ndim: int) -> str:
    """The axes of an array without names; ``?`` for each where nothing is usual."""
    return USUAL_AXES.get(ndim, "?" * ndim)


NPY = ImportFormat(name="npy", suffixes=(".npy",), open=open_npy)
NPZ = ImportFormat(name="npz", suffixes=(".npz",), open=open_npz)
