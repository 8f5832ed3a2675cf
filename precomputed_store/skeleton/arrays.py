"""The rules that the arrays of a skeleton are checked by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "checked_attribute",
    "checked_edges",
    "checked_name",
    "checked_vertices",
    "no_edges",
    "read_only",
    "same",
]


def no_edges() -> NDArray[np.uint32]:
    return np.empty((0, 2), dtype=np.uint32)


def checked_vertices(values: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.size == 0:
        return np.empty((0, 3), dtype=np.float32)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"vertices: expected numbers, got {array.dtype}")
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"vertices: expected shape (n, 3), got {array.shape}")
    return array.astype(np.float32, copy=False)


def checked_edges(values: ArrayLike, count: int) -> NDArray[np.uint32]:
    array = np.asarray(values)
    if array.size == 0:
        return no_edges()
    if array.dtype.kind not in "iu":
        raise TypeError(f"edges: expected integers, got {array.dtype}")
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"edges: expected shape (m, 2), got {array.shape}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= count:
        wrong = low if low < 0 else high
        raise ValueError(f"edges: an edge names vertex {wrong}, but there are {count} vertices")
    return array.astype(np.uint32, copy=False)


def checked_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"attributes: expected a name, got {name!r}")
    return name


def checked_attribute(name: str, values: ArrayLike, count: int) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"attributes[{name!r}]: expected numbers, got {array.dtype}")
    if array.ndim not in (1, 2) or len(array) != count:
        raise ValueError(
            f"attributes[{name!r}]: expected one row for each of {count} vertices, "
            f"shape ({count},) or ({count}, k), got {array.shape}"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    if array.flags.writeable or not (array.flags.c_contiguous and array.flags.aligned):
        array = np.array(array, order="C")
        array.flags.writeable = False
    return array


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
