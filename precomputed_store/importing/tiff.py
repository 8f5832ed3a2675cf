"""TIFF: a volume in one file, or one slice per file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from precomputed_store.codecs.base import require
from precomputed_store.errors import UnsupportedError
from precomputed_store.importing.base import (
    EXTRA,
    FoundArray,
    ImportFormat,
    ImportRequest,
    SliceHeader,
    SliceReader,
    blame_file,
)
from precomputed_store.importing.lazy import MappedFile, as_dask
from precomputed_store.importing.slices import stack_blocks
from precomputed_store.importing.tiff_metadata import check_whole, voxel_size

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries
    from xarray.backends import CachingFileManager

__all__ = ["TIFF"]

# I and Q are tifffile's axes of pages of which nothing else is known, S are samples.
_LETTERS = {"i": "z", "q": "z", "s": "c"}


def open_tiff(request: ImportRequest) -> FoundArray:
    """One series of a TIFF file: mapped if it lies there plainly, else page by page."""
    with _opened(request.path) as file:
        index = _series_index(file, request)
        series = file.series[index]
        axes = _axes(series)
        array = _mapped(request.path, series) or TiffSeries.of(request.path, index, series)
        resolution = voxel_size(file, index, axes)
    if isinstance(array, MappedFile):
        return FoundArray(array=array.as_dask(), axes=axes, resolution=resolution)
    return FoundArray(array=as_dask(array, array.blocks(axes)), axes=axes, resolution=resolution)


@contextmanager
def _opened(path: str) -> Iterator[TiffFile]:
    tifffile = require("tifffile", extra=EXTRA, purpose="reading TIFF")
    with blame_file(path):
        file = tifffile.TiffFile(path)
    with file:
        with blame_file(path):
            check_whole(file)
        yield file


def _series_index(file: TiffFile, request: ImportRequest) -> int:
    every = {str(index): series for index, series in enumerate(file.series)}
    wanted = request.inner if request.inner is not None or len(every) != 1 else "0"
    if wanted not in every:
        shown = ", ".join(
            f"#{i}: {series.dtype} {series.shape} {series.axes}" for i, series in every.items()
        )
        raise ValueError(f"{request}: pick one of the images in this TIFF by its number: {shown}")
    return int(wanted)


def _axes(series: TiffPageSeries) -> str:
    return "".join(_LETTERS.get(letter, letter) for letter in series.axes.lower())


def _mapped(path: str, series: TiffPageSeries) -> MappedFile | None:
    """The series as it lies in the file; None if it is compressed or in pieces."""
    page = series.keyframe
    if series.dataoffset is None or not page.is_memmappable or series.is_multifile:
        return None
    dtype = np.dtype(f"{page.parent.byteorder}{series.dtype.char}")
    return MappedFile(path=path, offset=series.dataoffset, shape=series.shape, dtype=dtype)


def _stored_rows(series: TiffPageSeries) -> int:
    """How many rows a strip or tile has; one where nothing is compressed."""
    page = series.keyframe
    return 1 if page.is_memmappable else page.tilelength if page.is_tiled else page.rowsperstrip


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffSeries:
    """A series that is read by strips and tiles. Its file is opened once per process."""

    path: str
    manager: CachingFileManager[OpenSeries]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: int

    @classmethod
    def of(cls, path: str, index: int, series: TiffPageSeries) -> TiffSeries:
        from xarray.backends import CachingFileManager

        if series.dtype is None:
            raise UnsupportedError(f"{path}: tifffile knows no data type for this image")
        manager = CachingFileManager(OpenSeries, path, index, mode="r")
        rows = _stored_rows(series)
        return cls(path=path, manager=manager, shape=series.shape, dtype=series.dtype, rows=rows)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def blocks(self, axes: str) -> tuple[int, ...]:
        """As many pages and rows as of slices in files of their own."""
        page = {a: n for a, n in zip(axes, self.shape, strict=True) if a in "cyx"}
        header = SliceHeader(
            shape=tuple(page.values()), dtype=self.dtype, axes="".join(page), rows=self.rows
        )
        pages, page["y"] = stack_blocks(header)
        block = {**page, "z": pages}
        return tuple(min(block.get(a, 1), n) for a, n in zip(axes, self.shape, strict=True))

    def __getitem__(self, key: tuple[slice, ...]) -> Any:
        with blame_file(self.path), self.manager.acquire_context() as opened:
            return opened.array[key]


class OpenSeries:
    """A series as an array, and the file behind it."""

    def __init__(self, path: str, index: int, *, mode: Literal["r"]) -> None:
        import tifffile
        import zarr

        self._file = tifffile.TiffFile(path, mode=mode)
        self._store = self._file.series[index].aszarr(level=0, maxworkers=1)
        self.array = zarr.open_array(self._store, mode="r")

    def close(self) -> None:
        self._store.close()
        self._file.close()


def read_header(path: str) -> SliceHeader:
    with _opened(path) as file:
        if len(file.series) != 1:
            raise ValueError(f"{path}: one slice has {len(file.series)} images; expected one")
        series = file.series[0]
        axes = _axes(series)
        if sorted(axes) not in (["x", "y"], ["c", "x", "y"]):
            raise ValueError(
                f"{path}: one slice of a stack has the shape {series.shape} ({axes}); expected "
                "y and x, with or without channels. Convert a TIFF of several slices alone"
            )
        if series.dtype is None:
            raise UnsupportedError(f"{path}: tifffile knows no data type for this image")
        return SliceHeader(
            shape=series.shape,
            dtype=series.dtype,
            axes=axes,
            rows=_stored_rows(series),
            resolution=voxel_size(file, 0, axes),
        )


def read_slice(path: str, rows: slice) -> np.ndarray[Any, Any]:
    import zarr

    with _opened(path) as file, blame_file(path):
        series = file.series[0]
        y = _axes(series).index("y")
        key = (*(slice(None),) * y, rows)
        mapped = _mapped(path, series)
        if mapped is not None:
            return np.asarray(mapped[key], series.dtype)
        if rows.indices(series.shape[y])[:2] == (0, series.shape[y]):
            whole: np.ndarray[Any, Any] = series.asarray(maxworkers=1)
            return whole
        with series.aszarr(level=0, maxworkers=1) as store:
            part: np.ndarray[Any, Any] = np.asarray(zarr.open_array(store, mode="r")[key])
    return part


TIFF = ImportFormat(
    name="tiff",
    suffixes=(".tif", ".tiff", ".btf"),
    open=open_tiff,
    slices=SliceReader(header=read_header, read=read_slice),
)
