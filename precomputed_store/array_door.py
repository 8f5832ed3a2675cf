"""A scale as an array that others can index: zero-based ``(channel, z, y, x)``, picklable.

dask and xarray index a `ArrayDoor`. What they ask for is first made into a `Request`
(pure), then read, blocking or not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.codecs.base import CZYX, ChunkArray
from precomputed_store.engine import ChunkedArray
from precomputed_store.read_plan import AxisSelection, Selection
from precomputed_store.selection import expand, parse_basic

__all__ = [
    "DIMS",
    "ArrayDoor",
    "OuterRequest",
    "PointsRequest",
    "request_outer",
    "request_points",
]

DIMS = ("channel", "z", "y", "x")
"""Names of the axes of arrays in xarray, dask and zarr."""

Indices: TypeAlias = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class OuterRequest:
    """Read an outer product of indices, then arrange its axes.

    Attributes
    ----------
    selection : tuple of four range or index array
        What the engine reads.
    index : tuple
        Basic index that reverses and drops axes of what was read.
    order : tuple of int, optional
        Transposition after that.
    shape : tuple of int, optional
        Final shape: axes of length one come and go.
    """

    selection: Selection
    index: tuple[Any, ...] = (...,)
    order: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None

    def arrange(self, array: ChunkArray) -> ChunkArray:
        array = array[self.index]
        if self.order is not None:
            array = array.transpose(self.order)
        return array if self.shape is None else array.reshape(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsRequest:
    """Read scattered voxels into an array of any shape."""

    points: tuple[Indices, ...]
    shape: tuple[int, ...]

    def arrange(self, array: ChunkArray) -> ChunkArray:
        return array.reshape(self.shape)


@dataclass(frozen=True)
class ArrayDoor:
    """One scale as a lazy array. Immutable; pickles to the address and metadata alone."""

    array: ChunkedArray

    @property
    def shape(self) -> CZYX:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return 4

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def chunks(self) -> CZYX:
        """Shape of a stored chunk, as dask takes it to align its own."""
        return self.array.chunk_shape_at((0, 0, 0))

    def __getitem__(self, key: Any) -> ChunkArray:
        """Read what integers, slices, Ellipsis and one index array select, as numpy would.

        dask merges what is indexed into the reading of blocks, where it has such an array.
        """
        items = key if isinstance(key, tuple) else (key,)
        if any(isinstance(item, list | np.ndarray) for item in items):
            return self._take(expand(key, self.ndim))
        basic = parse_basic(key, self.shape)
        c, z, y, x = basic.ranges
        return basic.postprocess(self.array.read((c, z, y, x)))  # type: ignore[no-any-return]

    def _take(self, key: tuple[Any, ...]) -> ChunkArray:
        arrays = [axis for axis, item in enumerate(key) if isinstance(item, list | np.ndarray)]
        indices = np.asarray(key[arrays[0]])
        if len(arrays) > 1 or indices.ndim != 1 or indices.dtype.kind == "b":
            raise TypeError("a lazy array takes one index array, of integers along one axis")
        basic = tuple(
            slice(item, item + 1 or None) if isinstance(item, int | np.integer) else item
            for item in key
        )
        wanted = (*basic[: arrays[0]], indices, *basic[arrays[0] + 1 :])
        read = self.read(request_outer(wanted, self.shape))
        # Where numpy puts the axis depends on the integers beside it.
        every = np.arange(len(indices))
        return read[
            tuple(
                every if axis in arrays else slice(None) if isinstance(item, slice) else 0
                for axis, item in enumerate(key)
            )
        ]

    def read(self, request: OuterRequest | PointsRequest) -> ChunkArray:
        """Read a request made by `request_outer` or `request_points`."""
        if isinstance(request, OuterRequest):
            return request.arrange(self.array.read(request.selection))
        return request.arrange(self.array.read_points(request.points))

    async def read_async(self, request: OuterRequest | PointsRequest) -> ChunkArray:
        """As `read`, from a coroutine of any event loop."""
        if isinstance(request, OuterRequest):
            return request.arrange(await self.array.read_async(request.selection))
        return request.arrange(await self.array.read_points_async(request.points))

    def __dask_tokenize__(self) -> tuple[object, ...]:
        array = self.array
        return (
            "precomputed_store.ArrayDoor",
            array.storage.url,
            array.storage.storage_options,
            sorted(array.storage.missing_statuses),
            array.storage.root,
            json.dumps(array.scale.to_json(), sort_keys=True),
            array.data_type,
            array.num_channels,
            array.missing,
        )


def request_outer(key: tuple[Any, ...], shape: tuple[int, ...]) -> OuterRequest:
    """Orthogonal indexing: an integer, slice or one-dimensional index array per axis.

    Raises
    ------
    IndexError
        An index is outside `shape`.
    TypeError
        An index is none of these.
    """
    plain = tuple(slice(None) if _is_array(item) else item for item in key)
    basic = parse_basic(plain, shape)
    selection: list[AxisSelection] = list(basic.ranges)
    index: list[Any] = [slice(None)] * len(shape)
    for axis, item in enumerate(key):
        if _is_array(item):
            selection[axis], index[axis] = _simplified(_within(item, shape[axis], axis))
        elif axis in basic.dropped_axes:
            index[axis] = 0
        elif axis in basic.reversed_axes:
            index[axis] = slice(None, None, -1)
    c, z, y, x = selection
    return OuterRequest(selection=(c, z, y, x), index=tuple(index))


def request_points(key: tuple[Any, ...], shape: tuple[int, ...]) -> OuterRequest | PointsRequest:
    """Pointwise indexing: index arrays that broadcast together, slices moved to the end.

    Arrays that only span an outer product (what a lazy transposition in xarray leaves)
    are read as one.

    Parameters
    ----------
    key : tuple of four integer arrays or slices
        The arrays have the same number of dimensions.
    shape : (int, int, int, int)

    Raises
    ------
    IndexError
        An index is outside `shape`, or the arrays do not broadcast together.
    """
    arrays = [
        _within(item, length, axis)
        for axis, (item, length) in enumerate(zip(_pointwise(key, shape), shape, strict=True))
    ]
    try:
        result = np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError as error:
        raise IndexError(f"index arrays do not broadcast together: {error}") from None
    outer = _as_outer(arrays, result)
    if outer is not None:
        return outer
    c, z, y, x = (np.broadcast_to(array, result).ravel() for array in arrays)
    return PointsRequest(points=(c, z, y, x), shape=result)


def _is_array(item: Any) -> bool:
    return isinstance(item, np.ndarray) and item.ndim > 0


def _within(item: npt.ArrayLike, length: int, axis: int) -> Indices:
    """Index arrays with negative numbers counted from the end."""
    array = np.asarray(item)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"indices along axis {axis} are {array.dtype}; expected integers")
    if array.size and not -length <= int(array.min()) <= int(array.max()) < length:
        outside = array.min() if array.min() < -length else array.max()
        raise IndexError(f"index {outside} is out of bounds for axis {axis} with size {length}")
    array = array.astype(np.intp)
    return np.where(array < 0, array + length, array)


def _simplified(indices: Indices) -> tuple[AxisSelection, slice]:
    """Evenly spaced indices as a range, which the engine copies faster."""
    if not len(indices):
        return range(0), slice(None)
    if len(indices) == 1:
        return range(int(indices[0]), int(indices[0]) + 1), slice(None)
    step = int(indices[1] - indices[0])
    if step == 0 or np.any(np.diff(indices) != step):
        return indices, slice(None)
    first, last = int(indices[0]), int(indices[-1])
    if step > 0:
        return range(first, last + 1, step), slice(None)
    return range(last, first + 1, -step), slice(None, None, -1)


def _pointwise(key: tuple[Any, ...], shape: tuple[int, ...]) -> Iterator[npt.ArrayLike]:
    """Arrays of the same number of dimensions; slices get dimensions of their own."""
    slices = [axis for axis, item in enumerate(key) if isinstance(item, slice)]
    for axis, item in enumerate(key):
        if axis in slices:
            indices = np.arange(shape[axis])[item]
            yield indices.reshape((-1,) + (1,) * (len(slices) - slices.index(axis) - 1))
        else:
            yield np.asarray(item).reshape(np.shape(item) + (1,) * len(slices))


def _as_outer(arrays: list[Indices], result: tuple[int, ...]) -> OuterRequest | None:
    """The arrays as an outer product, if each varies along a dimension of its own."""
    if not math.prod(result):
        return None
    lines = [_line(array, len(result)) for array in arrays]
    found = [line for line in lines if line is not None]
    dims = [dim for dim, _ in found if dim >= 0]
    if len(found) < len(lines) or len(set(dims)) < len(dims):
        return None
    # A dimension along which nothing varies repeats the same voxels.
    if any(length > 1 and dim not in dims for dim, length in enumerate(result)):
        return None
    simplified = [_simplified(line) for _, line in found]
    c, z, y, x = (selection for selection, _ in simplified)
    order = tuple(np.argsort([dim for dim, _ in found], kind="stable").tolist())
    index = tuple(reverse for _, reverse in simplified)
    return OuterRequest(selection=(c, z, y, x), index=index, order=order, shape=result)


def _line(array: Indices, ndim: int) -> tuple[int, Indices] | None:
    """The only dimension along which an array varies and its values there; -1 if none."""
    full = array.reshape((1,) * (ndim - array.ndim) + array.shape)
    origin: list[Any] = [0] * ndim
    lines = [full[(*origin[:dim], slice(None), *origin[dim + 1 :])] for dim in range(ndim)]
    varying = [dim for dim, line in enumerate(lines) if np.any(line != line[0])]
    if len(varying) > 1:
        return None
    dim = varying[0] if varying else -1
    line = lines[dim] if varying else full.reshape(-1)[:1]
    shape = [1] * ndim
    if varying:
        shape[dim] = len(line)
    return (dim, line) if np.all(full == line.reshape(shape)) else None
