"""`Skeleton`: vertices, the edges between them, and what is known of each vertex."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Skeleton"]


def _no_edges() -> NDArray[np.uint32]:
    return np.empty((0, 2), dtype=np.uint32)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Skeleton:
    """A graph in space. It cannot be changed; its arrays are read-only.

    Two skeletons are equal if their arrays are: same vertices, edges and attributes, of
    the same types and in the same order (NaN equals NaN). Skeletons have no hash.

    Attributes
    ----------
    vertices : array of float32, shape (n, 3)
        Positions x, y, z in nm.
    edges : array of uint32, shape (m, 2)
        Indices into `vertices`.
    attributes : mapping of str to array, shape (n,) or (n, k)
        Numbers of each vertex, by name. ``radius`` is in nm.

    Raises
    ------
    ValueError
        An array has a wrong shape, or an edge names a vertex that is not there.
    TypeError
        An array holds no numbers.

    Examples
    --------
    >>> Skeleton([(0, 0, 0), (0, 0, 5)], [(0, 1)], {"radius": [1.5, 2]})
    Skeleton(2 vertices, 1 edge, radius)
    """

    vertices: NDArray[np.float32]
    edges: NDArray[np.uint32] = field(default_factory=_no_edges)
    attributes: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vertices = _read_only(_vertices(self.vertices))
        count = len(vertices)
        edges = _read_only(_edges(self.edges, count))
        attributes = {
            _name(name): _read_only(_attribute(name, values, count))
            for name, values in self.attributes.items()
        }
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "attributes", MappingProxyType(attributes))

    # Neither a frozen dataclass nor numpy keeps arrays read-only through pickle.
    def __reduce__(self) -> tuple[Any, ...]:
        return Skeleton, (self.vertices, self.edges, dict(self.attributes))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Skeleton):
            return NotImplemented
        mine, others = self.attributes, other.attributes
        return (
            _same(self.vertices, other.vertices)
            and _same(self.edges, other.edges)
            and mine.keys() == others.keys()
            and all(_same(mine[name], others[name]) for name in mine)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        n, m = len(self.vertices), len(self.edges)
        counts = f"{n} vert{'ex' if n == 1 else 'ices'}, {m} edge{'' if m == 1 else 's'}"
        return f"Skeleton({', '.join([counts, *self.attributes])})"


def _vertices(values: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.size == 0:
        return np.empty((0, 3), dtype=np.float32)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"vertices: expected numbers, got {array.dtype}")
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"vertices: expected shape (n, 3), got {array.shape}")
    return array.astype(np.float32, copy=False)


def _edges(values: ArrayLike, count: int) -> NDArray[np.uint32]:
    array = np.asarray(values)
    if array.size == 0:
        return _no_edges()
    if array.dtype.kind not in "iu":
        raise TypeError(f"edges: expected integers, got {array.dtype}")
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"edges: expected shape (m, 2), got {array.shape}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= count:
        wrong = low if low < 0 else high
        raise ValueError(f"edges: an edge names vertex {wrong}, but there are {count} vertices")
    return array.astype(np.uint32, copy=False)


def _name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"attributes: expected a name, got {name!r}")
    return name


def _attribute(name: str, values: ArrayLike, count: int) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"attributes[{name!r}]: expected numbers, got {array.dtype}")
    if array.ndim not in (1, 2) or len(array) != count:
        raise ValueError(
            f"attributes[{name!r}]: expected one row for each of {count} vertices, "
            f"shape ({count},) or ({count}, k), got {array.shape}"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    if array.flags.writeable or not (array.flags.c_contiguous and array.flags.aligned):
        array = np.array(array, order="C")
        array.flags.writeable = False
    return array


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
