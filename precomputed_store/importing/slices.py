"""A stack of 2-D images, one file per slice, as one dask array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from precomputed_store.errors import FormatError
from precomputed_store.importing.base import FoundArray, SliceHeader, SliceReader
from precomputed_store.importing.lazy import as_dask

__all__ = ["open_slices", "stack_blocks"]

BAND_BYTES = 2 << 20
"""Slices are read in bands of about so many bytes, where they are stored in such.

A Precomputed chunk takes voxels of 64 slices, which have to be in memory together. 64 bands
of this size are as much as `to_precomputed` writes at once: they are read by one task."""

_CHUNK = 64
"""The usual length of a Precomputed chunk."""

_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceStack:
    """Images of one shape and type, sliced as ``(z, *axes of an image)``.

    Attributes
    ----------
    paths : tuple of str
    header : SliceHeader
        What every one of them holds.
    reader : SliceReader
    """

    paths: tuple[str, ...]
    header: SliceHeader
    reader: SliceReader

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.paths), *self.header.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.header.dtype

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        which, *inside = key
        paths = self.paths[which]
        y = self.header.axes.index("y")
        start, stop, _ = inside[y].indices(self.header.shape[y])
        band = (*self.header.shape[:y], stop - start, *self.header.shape[y + 1 :])
        inside[y] = slice(None)
        voxels = np.empty((len(paths), *band), self.dtype)
        for plane, path in zip(voxels, paths, strict=True):
            plane[...] = self._read(path, start, stop, band)
        result: np.ndarray[Any, Any] = voxels[(slice(None), *inside)]
        return result

    def _read(
        self, path: str, start: int, stop: int, expected: tuple[int, ...]
    ) -> np.ndarray[Any, Any]:
        image = self.reader.read(path, slice(start, stop))
        if image.shape != expected or image.dtype != self.dtype:
            raise FormatError(
                f"{path}: rows {start}:{stop} are {image.dtype} {image.shape}; expected "
                f"{self.dtype} {expected}, as its header says"
            )
        return image


def open_slices(paths: Sequence[str], reader: SliceReader) -> FoundArray:
    """A stack of slices. Every header is read now, voxels later.

    Raises
    ------
    ValueError
        Slices differ in shape or type.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        headers = list(pool.map(reader.header, paths))
    first = headers[0]
    for path, header in zip(paths, headers, strict=True):
        if (header.shape, header.dtype, header.axes) != (first.shape, first.dtype, first.axes):
            raise ValueError(
                f"slices differ: {path} is {header.dtype} {_shape(header)}, {paths[0]} is "
                f"{first.dtype} {_shape(first)}. A stack has one size and one type"
            )
    stack = SliceStack(paths=tuple(paths), header=first, reader=reader)
    slices, rows = stack_blocks(first)
    y = first.axes.index("y")
    band = (*first.shape[:y], rows, *first.shape[y + 1 :])
    return FoundArray(
        array=as_dask(stack, (slices, *band)),
        axes="z" + first.axes,
        resolution=(None, *(first.resolution or (None,) * len(first.shape))),
    )


def stack_blocks(header: SliceHeader) -> tuple[int, int]:
    """How many slices, and how many rows of each, a task reads.

    Bands of whole chunks, and of whole strips or tiles: of 64 slices where that is little
    enough, else of fewer, for dask to put together.

    Examples
    --------
    >>> plane = SliceHeader(shape=(4096, 4096), dtype=np.dtype("uint8"), axes="yx", rows=16)
    >>> stack_blocks(plane)
    (64, 512)
    """
    height = header.shape[header.axes.index("y")]
    row = math.prod(header.shape) // height * header.dtype.itemsize
    rows = height
    if header.rows is not None and height * row > BAND_BYTES:
        unit = header.rows if header.rows > _CHUNK else math.lcm(header.rows, _CHUNK)
        rows = min(height, max(BAND_BYTES // row // unit * unit, unit))
    slices = _CHUNK
    while slices > 1 and slices * rows * row > _CHUNK * BAND_BYTES:
        slices //= 2
    return slices, rows


def _shape(header: SliceHeader) -> str:
    return " × ".join(
        f"{axis} {length}" for axis, length in zip(header.axes, header.shape, strict=True)
    )
