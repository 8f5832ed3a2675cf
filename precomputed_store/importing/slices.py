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

__all__ = ["band_rows", "open_slices"]

BAND_BYTES = 2 << 20
"""Slices are read in bands of about so many bytes, where they are stored in such.

A Precomputed chunk takes voxels of 64 slices, which have to be in memory together: so many
bands are what `to_precomputed` writes at once."""

_CHUNK_ROWS = 64

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
        y = self.header.axes.index("y")
        rows = inside[y]
        inside[y] = slice(None)
        return np.stack([self._read(path, rows)[tuple(inside)] for path in self.paths[which]])

    def _read(self, path: str, rows: slice) -> np.ndarray[Any, Any]:
        image = self.reader.read(path, rows)
        start, stop, _ = rows.indices(self.header.shape[self.header.axes.index("y")])
        expected = tuple(
            stop - start if axis == "y" else length
            for axis, length in zip(self.header.axes, self.header.shape, strict=True)
        )
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
    blocks = list(stack.shape)
    blocks[0] = 1
    blocks[1 + first.axes.index("y")] = band_rows(first)
    return FoundArray(
        array=as_dask(stack, tuple(blocks)),
        axes="z" + first.axes,
        resolution=(None, *(first.resolution or (None,) * len(first.shape))),
    )


def band_rows(header: SliceHeader) -> int:
    """How many rows of a slice are read at once: whole chunks, and what is stored together."""
    height = header.shape[header.axes.index("y")]
    row = math.prod(header.shape) // height * header.dtype.itemsize
    if header.rows is None or height * row <= 2 * BAND_BYTES:
        return height
    unit = header.rows if header.rows > _CHUNK_ROWS else math.lcm(header.rows, _CHUNK_ROWS)
    return min(height, max(BAND_BYTES // row // unit * unit, unit))


def _shape(header: SliceHeader) -> str:
    return " × ".join(
        f"{axis} {length}" for axis, length in zip(header.axes, header.shape, strict=True)
    )
