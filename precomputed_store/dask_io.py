"""A scale as a dask array."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from precomputed_store.array_door import DIMS, ArrayDoor
from precomputed_store.engine import Missing
from precomputed_store.layer import ScaleSelector, open_layer

if TYPE_CHECKING:
    from dask.array import Array

__all__ = ["Chunks", "as_dask", "open_dask"]

AxisChunks: TypeAlias = int | str | tuple[int, ...] | None
Chunks: TypeAlias = (
    int | str | tuple[AxisChunks, ...] | Mapping[str, AxisChunks] | Mapping[int, AxisChunks]
)


def open_dask(
    url: str | os.PathLike[str],
    *,
    scale: ScaleSelector = 0,
    chunks: Chunks = "auto",
    missing: Missing = "fill",
    storage_options: Mapping[str, Any] | None = None,
    missing_statuses: Iterable[int] = (404,),
    max_redirects: int = 10,
    root: str | os.PathLike[str] | None = None,
    cross_origin: bool = False,
) -> Array:
    """Open one scale of a volume as a dask array ``(channel, z, y, x)``, zero-based.

    One request for `info`; nothing else is read until it is computed. The graph's size
    does not depend on the number of chunks. Its keys follow from address, options and
    metadata alone: they are the same in every process, and stay the same if somebody
    writes other voxels into the layer.

    Parameters
    ----------
    url : str or path
        Local path, ``file://``, ``memory://``, ``gs://``, ``s3://``, ``http(s)://`` or any
        fsspec chain; ``precomputed://`` in front or ``|neuroglancer-precomputed:`` behind
        is understood.
    scale : int, str or (float, float, float)
        Index (negative from the coarsest), key, or resolution in nanometres.
    chunks : "auto", {}, mapping, tuple, int or str
        Blocks of the dask array. ``"auto"``: multiples of the stored chunks up to dask's
        ``array.chunk-size``. ``{}``: the stored chunks. A mapping from names (or numbers)
        of axes leaves the stored chunks along the others. Everything else as in
        `dask.array.from_array`.
    missing : {"fill", "raise"}
        What a chunk that is not stored means: zeros, or `MissingChunkError`.
    storage_options, missing_statuses, max_redirects, root, cross_origin
        See `open_layer`.

    Returns
    -------
    dask.array.Array

    Raises
    ------
    VolumeNotFoundError, MetadataError, StorageError
        See `open_layer`.
    ValueError, IndexError
        There is no such scale (the message lists those that there are), or `chunks`
        names an axis that there is not.
    """
    layer = open_layer(
        url,
        storage_options=storage_options,
        missing=missing,
        missing_statuses=missing_statuses,
        max_redirects=max_redirects,
        root=root,
        cross_origin=cross_origin,
    )
    return as_dask(ArrayDoor(layer.array(scale)), chunks=chunks)


def as_dask(door: ArrayDoor, *, chunks: Chunks = "auto") -> Array:
    """A lazy array as a dask array; see `open_dask`."""
    import dask.array as da
    from dask.base import tokenize

    blocks = da.core.normalize_chunks(  # type: ignore[no-untyped-call]
        _per_axis(chunks, door), door.shape, dtype=door.dtype, previous_chunks=door.chunks
    )
    array: Array = da.from_array(  # type: ignore[no-untyped-call]
        door,
        chunks=blocks,
        name=f"precomputed-{tokenize(door, blocks)}",
        asarray=False,
        inline_array=True,
        meta=np.empty((0,) * door.ndim, door.dtype),
    )
    return array


def _per_axis(chunks: Chunks, door: ArrayDoor) -> Any:
    """What `normalize_chunks` takes: one entry per axis, channels together by default."""
    if isinstance(chunks, Mapping):
        entries: dict[int, AxisChunks] = dict(enumerate(door.chunks))
        for axis, entry in chunks.items():
            entries[_axis_number(axis)] = entry
        return tuple(entries[axis] for axis in range(door.ndim))
    if isinstance(chunks, int | str) or chunks is None:
        return (door.shape[0], chunks, chunks, chunks)
    if not isinstance(chunks, Sequence):
        raise TypeError(f"chunks is {chunks!r}; expected 'auto', a number, or one for each axis")
    if len(chunks) != door.ndim:
        raise ValueError(
            f"chunks has {len(chunks)} entries; expected {door.ndim}, one for each of {DIMS}"
        )
    return chunks


def _axis_number(axis: str | int) -> int:
    if isinstance(axis, str):
        if axis not in DIMS:
            raise ValueError(f"chunks names the axis {axis!r}; the axes are {DIMS}")
        return DIMS.index(axis)
    if not -len(DIMS) <= axis < len(DIMS):
        raise ValueError(f"chunks names the axis {axis}; the axes are 0 to {len(DIMS) - 1}")
    return axis % len(DIMS)
