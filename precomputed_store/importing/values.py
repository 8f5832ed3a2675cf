"""Voxels of a file → voxels of a layer: their data type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.metadata import DATA_TYPES, OTHER_DATA_TYPES

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["Rescale", "as_voxels"]

Rescale: TypeAlias = tuple[float, float]


def as_voxels(
    array: da.Array, *, dtype: npt.DTypeLike | None, rescale: Rescale | None
) -> da.Array:
    """An array of a type that a layer can have.

    Parameters
    ----------
    array : dask.array.Array
    dtype : data type, optional
        What to convert to. No value may change, but for the rounding of floats: this is
        checked while voxels are read. Default: as it is; uint8 for booleans and, with
        `rescale`, for all.
    rescale : (float, float), optional
        Values that become the least and the greatest of an integer `dtype`, and all
        between in proportion, rounded; those beyond are clipped, and no number is 0.

    Raises
    ------
    ValueError
        There is no such conversion.
    """
    if array.dtype.kind not in "biuf":
        raise ValueError(f"an array of {array.dtype} cannot be stored; voxels are numbers")
    if rescale is not None:
        return _rescaled(array, _known("uint8" if dtype is None else dtype), rescale)
    if dtype is not None:
        return _cast(array, _known(dtype))
    if array.dtype == bool:
        return _cast(array, np.dtype("uint8"))
    return array.astype(array.dtype.newbyteorder("="))  # type: ignore[no-any-return, no-untyped-call]


def _known(dtype: npt.DTypeLike) -> np.dtype[Any]:
    names = [name for name in (*DATA_TYPES, *OTHER_DATA_TYPES) if name != "bool"]
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found.name not in names:
        raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(names)}")
    return found.newbyteorder("=")


def _cast(array: da.Array, dtype: np.dtype[Any]) -> da.Array:
    # numpy takes int64 → float64 for safe.
    rounds = array.dtype.kind in "iu" and array.dtype.itemsize == 8 and dtype.kind == "f"
    if np.can_cast(array.dtype, dtype, "safe") and not rounds:
        return array.astype(dtype)  # type: ignore[no-any-return, no-untyped-call]
    return _mapped(array, cast_block, dtype)


def _rescaled(array: da.Array, dtype: np.dtype[Any], rescale: Rescale) -> da.Array:
    low, high = map(float, rescale)
    if not (np.isfinite([low, high]).all() and low != high):
        raise ValueError(f"rescale is {rescale}; expected two different numbers (low, high)")
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        raise ValueError(
            f"rescale fills the range of an integer type of up to 32 bits; dtype is {dtype}"
        )
    return _mapped(array, rescale_block, dtype, low=low, high=high)


def _mapped(array: da.Array, function: Any, dtype: np.dtype[Any], **arguments: float) -> da.Array:
    import dask.array

    result: da.Array = dask.array.map_blocks(  # type: ignore[no-untyped-call]
        function, array, target=dtype, **arguments, dtype=dtype, meta=np.empty(0, dtype)
    )
    return result


def cast_block(block: npt.NDArray[Any], *, target: np.dtype[Any]) -> npt.NDArray[Any]:
    """Convert, and refuse to lose anything but digits of floats.

    Raises
    ------
    ValueError
        A value is not the same afterwards.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        cast = block.astype(target)
        if block.dtype.kind == target.kind == "f":
            changed = np.isinf(cast) & ~np.isinf(block)
        else:
            changed = (cast.astype(block.dtype) != block) | ((cast < 0) != (block < 0))
    if changed.any():
        value = block[changed][0]
        raise ValueError(
            f"{value} cannot be stored as {target}: choose a data type that holds every value, or "
            "rescale to its range"
        )
    return cast


def rescale_block(
    block: npt.NDArray[Any], *, target: np.dtype[Any], low: float, high: float
) -> npt.NDArray[Any]:
    """Bring ``low … high`` to the whole range of an integer type."""
    small = block.dtype.itemsize <= 2 and target.itemsize <= 2
    limits = np.iinfo(target)
    # Python's numbers leave float32 what it is.
    part: npt.NDArray[Any] = block.astype(np.float32 if small else np.float64)
    part -= low
    part /= high - low
    np.clip(part, 0, 1, out=part)
    part *= float(limits.max) - float(limits.min)
    part += float(limits.min)
    np.rint(part, out=part)
    np.nan_to_num(part, copy=False, nan=0)
    return part.astype(target)
