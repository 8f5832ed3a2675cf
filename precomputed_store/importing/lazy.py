"""Files as dask arrays of blocks that suit memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from precomputed_store.importing.base import blame_file

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["MappedFile", "as_dask", "block_shape", "slab_shape"]

BLOCK_BYTES = 64 << 20
"""How much of a file a task reads at once."""
_GRAIN = 64
"""The usual length of a Precomputed chunk: blocks should hold whole ones."""


class _Sliceable(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, key: tuple[slice, ...], /) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedFile:
    """An array that lies in a file as it lies in memory. Mapped for each read only.

    Attributes
    ----------
    path : str
    offset : int
        Bytes before it.
    shape : tuple of int
    dtype : numpy.dtype
    order : {"C", "F"}
    """

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Literal["C", "F"] = "C"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        with blame_file(self.path):
            mapped: np.ndarray[Any, Any] = np.memmap(
                self.path, self.dtype, "r", self.offset, self.shape, self.order
            )
        return np.array(mapped[key])

    def as_dask(self) -> da.Array:
        shape = block_shape(self.shape, self.dtype.itemsize, order=self.order)
        return as_dask(self, shape)


def as_dask(source: _Sliceable, blocks: tuple[int, ...]) -> da.Array:
    """Anything that is read by slices, as a dask array.

    Parameters
    ----------
    source : object with shape, dtype and __getitem__
        Picklable; read from several threads at once.
    blocks : tuple of int
        Shape of the blocks.
    """
    import dask.array

    # Not inlined: a stack knows the paths of all its slices, which no task should carry.
    array: da.Array = dask.array.from_array(  # type: ignore[no-untyped-call]
        source,
        chunks=blocks,
        name=False,
        asarray=True,
        fancy=False,
        inline_array=False,
        meta=np.empty((0,) * len(source.shape), source.dtype),
    )
    return array


def block_shape(
    shape: tuple[int, ...],
    itemsize: int,
    *,
    stored: tuple[int, ...] | None = None,
    order: Literal["C", "F"] = "C",
    largest: int = BLOCK_BYTES,
) -> tuple[int, ...]:
    """Shape of the blocks of a file that may be read anywhere.

    Whole Precomputed chunks where memory allows, whole stored chunks in any case.

    Parameters
    ----------
    shape : tuple of int
    itemsize : int
        Bytes per element.
    stored : tuple of int, optional
        Shape of the chunks in the file; none for one that is mapped.
    order : {"C", "F"}
        Which axes are contiguous in the file: blocks are long along those.
    largest : int
        Most bytes of a block, unless a stored chunk has more.

    Examples
    --------
    >>> block_shape((1000, 2048, 2048), 1)
    (64, 512, 2048)
    >>> block_shape((1000, 2048, 2048), 1, stored=(1, 2048, 2048))
    (16, 2048, 2048)
    """
    unit = stored or (1,) * len(shape)
    most = [-(-n // u) for n, u in zip(shape, unit, strict=True)]
    counts = [min(-(-_GRAIN // u), m) for u, m in zip(unit, most, strict=True)]

    def weight() -> int:
        return math.prod(map(int.__mul__, counts, unit)) * itemsize

    while weight() > largest and max(counts) > 1:
        axis = counts.index(max(counts))
        counts[axis] = -(-counts[axis] // 2)
    axes = range(len(shape))
    for axis in reversed(axes) if order == "C" else axes:
        while counts[axis] < most[axis] and 2 * weight() <= largest:
            counts[axis] *= 2
    return tuple(min(c * u, n) for c, u, n in zip(counts, unit, shape, strict=True))


def slab_shape(shape: tuple[int, ...], itemsize: int, *, largest: int) -> tuple[int, ...]:
    """Shape of the blocks of a file that is best read from front to end: cut along one axis.

    Parameters
    ----------
    shape : tuple of int
        In Fortran order: the last axis is the slowest.
    itemsize : int
    largest : int
        Most bytes of a block, unless 64 planes have more.
    """
    cut = min(2, len(shape) - 1)
    rest = math.prod(shape[:cut]) * math.prod(shape[cut + 1 :]) * itemsize
    planes = max(largest // max(rest, 1) // _GRAIN * _GRAIN, _GRAIN)
    return (*shape[:cut], min(planes, shape[cut]), *shape[cut + 1 :])
