"""A volume as a numpy-like object: ``(x, y, z, channel)`` in absolute voxel coordinates."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.codecs.base import ChunkArray
from precomputed_store.engine import ChunkedArray, Missing
from precomputed_store.grid import XYZ, Box
from precomputed_store.layer import Layer, ScaleSelector, open_layer
from precomputed_store.metadata import Scale, VolumeInfo
from precomputed_store.progress import progress_bar
from precomputed_store.selection import Bounds, BoxSelection, parse_absolute
from precomputed_store.volume_summary import as_html, as_text
from precomputed_store.write_plan import Unaligned
from precomputed_store.writer import Compress, WriteOptions, as_layer_dtype, writer_for

if TYPE_CHECKING:
    from precomputed_store.mesh_source import MeshSource
    from precomputed_store.skeleton_source import SkeletonSource

__all__ = ["Volume", "open_volume"]

Mode: TypeAlias = Literal["r", "r+"]
Resolution: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, repr=False)
class Volume:
    """One scale of a Precomputed volume, indexed like an array.

    ``volume[x0:x1, y0:y1, z0:z1]`` is a numpy array ``(x, y, z, channel)`` in Fortran
    order, always four-dimensional: an integer gives an axis of length one. Coordinates
    are absolute voxels, `voxel_offset` included, and negative numbers are coordinates.

    Made by `open_volume`. Immutable and picklable; it holds no connection.
    """

    layer: Layer
    scale_index: int
    mode: Mode = "r"
    outside: Bounds = "raise"
    options: WriteOptions = field(default_factory=WriteOptions)
    progress: bool = False

    @property
    def info(self) -> VolumeInfo:
        """The layer's metadata."""
        return self.layer.info

    @property
    def scale(self) -> Scale:
        """Metadata of this scale."""
        return self.layer.scale(self.scale_index)

    @property
    def scales(self) -> tuple[Any, ...]:
        """Metadata of every scale, finest first."""
        return self.info.scales

    @property
    def array(self) -> ChunkedArray:
        """The engine's view of this scale, ``(channel, z, y, x)`` from zero."""
        return self.layer.array(self.scale_index)

    @property
    def url(self) -> str:
        return self.layer.storage.url

    @property
    def meshes(self) -> MeshSource:
        """The meshes that the layer's `info` links, by segment id. Reads their `info`.

        Raises
        ------
        VolumeNotFoundError
            It links none.
        """
        from precomputed_store.mesh_source import linked_meshes

        return linked_meshes(self.layer.storage, self.info.mesh)

    @property
    def skeletons(self) -> SkeletonSource:
        """The skeletons of the folder that `info` links: one request for their metadata.

        Raises
        ------
        ValueError
            The layer links none.
        """
        from precomputed_store.skeleton_source import skeletons_in

        if self.info.skeletons is None:
            raise ValueError(f"{self.url}: info links no skeletons; see write_skeletons")
        return skeletons_in(self.layer.storage.child(self.info.skeletons))

    @property
    def layer_type(self) -> str:
        """``"image"`` or ``"segmentation"``."""
        return self.info.layer_type

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.info.dtype

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Extent along x, y, z and channel."""
        return (*self.scale.size, self.info.num_channels)

    @property
    def ndim(self) -> int:
        return 4

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all values, uncompressed."""
        return self.size * self.dtype.itemsize

    @property
    def bounds(self) -> Box:
        """All voxels, in absolute coordinates."""
        return self.scale.grid.bounds

    @property
    def resolution(self) -> Resolution:
        """Extent of a voxel along x, y and z, in nanometres."""
        return self.scale.resolution

    @property
    def voxel_offset(self) -> XYZ:
        """Coordinates of the first voxel."""
        return self.scale.voxel_offset

    @property
    def chunk_size(self) -> XYZ:
        """Extent of a chunk along x, y and z, in voxels."""
        return self.scale.chunk_size

    def at(self, scale: ScaleSelector) -> Volume:
        """The same volume at another scale: index, key or resolution in nanometres."""
        return replace(self, scale_index=self.info.scale_index(scale))

    def to_nm(self, voxels: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Physical positions (nanometres) of the lower corners of voxels.

        Parameters
        ----------
        voxels : array-like, shape (..., 3)
            x, y and z.
        """
        return np.asarray(voxels, np.float64) * self.resolution

    def to_voxel(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Voxels that contain physical positions (nanometres).

        Parameters
        ----------
        positions : array-like, shape (..., 3)
            x, y and z.
        """
        scaled = np.asarray(positions, np.float64) / self.resolution
        return np.floor(scaled).astype(np.int64)

    def box_from_nm(self, start: Sequence[float], stop: Sequence[float]) -> Box:
        """The smallest box of whole voxels around a physical one (nanometres)."""
        low = self.to_voxel(start)
        high = np.ceil(np.asarray(stop, np.float64) / self.resolution).astype(np.int64)
        x0, y0, z0 = (int(i) for i in low)
        x1, y1, z1 = (int(i) for i in high)
        return Box((x0, y0, z0), (x1, y1, z1))

    def __getitem__(self, key: Any) -> ChunkArray:
        return self.read(key)

    def read(
        self, key: Any = (), *, bounds: Bounds | None = None, progress: bool | None = None
    ) -> ChunkArray:
        """Read voxels; ``volume[key]`` with options.

        Parameters
        ----------
        key : int, slice, Ellipsis, Box or tuple of them
            x, y, z and channel; what is left out is whole.
        bounds : {"raise", "clip", "fill"}, optional
            What to do outside the volume: `IndexError`, leave it out, or zeros.
        progress : bool, optional
            Show a progress bar.

        Returns
        -------
        numpy.ndarray
            ``(x, y, z, channel)``, Fortran order.
        """
        wanted = self._select(key, self.outside if bounds is None else bounds)
        array, selection = self.array, self._engine_selection(wanted)
        shown = self.progress if progress is None else progress
        total = array.num_chunks(selection) if shown else None
        with progress_bar("reading", total=total, enabled=shown) as advance:
            inside = array.read(selection, advance=advance if shown else None)
        return _framed(inside.transpose(), wanted)

    async def read_async(self, key: Any = (), *, bounds: Bounds | None = None) -> ChunkArray:
        """As `read`, from a coroutine of any event loop."""
        wanted = self._select(key, self.outside if bounds is None else bounds)
        inside = await self.array.read_async(self._engine_selection(wanted))
        return _framed(inside.transpose(), wanted)

    def read_points(self, points: npt.ArrayLike, *, channel: int = 0) -> ChunkArray:
        """Values of scattered voxels; each chunk is fetched and decoded once.

        Parameters
        ----------
        points : array-like of int, shape (n, 3)
            x, y and z, absolute voxel coordinates.
        channel : int

        Returns
        -------
        numpy.ndarray, shape (n,)

        Raises
        ------
        IndexError
            A point lies outside the volume.
        """
        coordinates = np.asarray(points)
        if coordinates.ndim != 2 or coordinates.shape[1] != 3:
            raise ValueError(f"points has shape {coordinates.shape}; expected (n, 3)")
        if coordinates.dtype.kind not in "iu" and coordinates.size:
            raise TypeError(f"points is {coordinates.dtype}; expected integers (see to_voxel)")
        local = coordinates.astype(np.intp) - np.asarray(self.voxel_offset, np.intp)
        outside = np.any((local < 0) | (local >= self.scale.size), axis=1)
        if outside.any() or not 0 <= channel < self.info.num_channels:
            first = coordinates[outside][0] if outside.any() else f"channel {channel}"
            raise IndexError(f"point {first} is outside the volume {self.bounds}")
        x, y, z = local.T
        return self.array.read_points((np.full(len(x), channel, np.intp), z, y, x))

    def __setitem__(self, key: Any, value: npt.ArrayLike) -> None:
        self.write(key, value)

    def write(self, key: Any, value: npt.ArrayLike, *, progress: bool | None = None) -> None:
        """Write voxels; ``volume[key] = value`` with options.

        Parameters
        ----------
        key : slice, int, Ellipsis, Box or tuple of them
            x, y and z, steps of one, all channels; within the volume.
        value : array-like
            ``(x, y, z, channel)``, or ``(x, y, z)`` for a single channel, or what
            broadcasts to it; of a data type that converts without loss.

        Raises
        ------
        ValueError
            The region covers chunks only in part and ``unaligned="raise"``.
        TypeError
            The conversion to the layer's data type could lose something.
        IndexError
            Outside the volume.
        """
        if self.mode != "r+":
            raise ValueError("the volume is read-only: open it with mode='r+'")
        wanted = self._select(key, "raise")
        region = _region(wanted, self.info.num_channels, self.voxel_offset)
        data = _broadcast(as_layer_dtype(value, self.dtype), wanted.shape)
        writer = writer_for(self.array, self.options)
        writer.check(region)
        shown = self.progress if progress is None else progress
        total = sum(1 for _ in self.scale.grid.cells(region)) if shown else None
        with progress_bar("writing", total=total, enabled=shown) as advance:
            writer.write(region, data.transpose(), advance=advance)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> ChunkArray:
        if copy is False:
            raise ValueError("a volume has to be read: np.asarray(volume) makes a copy")
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __len__(self) -> int:
        return self.shape[0]

    def _select(self, key: Any, bounds: Bounds) -> BoxSelection:
        return parse_absolute(key, self.bounds, num_channels=self.info.num_channels, bounds=bounds)

    def _engine_selection(self, wanted: BoxSelection) -> tuple[range, range, range, range]:
        *axes, channel = wanted.inside
        x, y, z = (
            range(axis.start - offset, axis.stop - offset, axis.step)
            for axis, offset in zip(axes, self.voxel_offset, strict=True)
        )
        return channel, z, y, x

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)


def open_volume(
    url: str | os.PathLike[str],
    *,
    scale: ScaleSelector = 0,
    mode: Mode = "r",
    bounds: Bounds = "raise",
    missing: Missing = "fill",
    unaligned: Unaligned = "raise",
    compress: Compress = "auto",
    compress_level: int | None = None,
    write_empty_chunks: bool = False,
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    missing_statuses: Iterable[int] = (404,),
    max_redirects: int = 10,
    root: str | os.PathLike[str] | None = None,
    cross_origin: bool = False,
) -> Volume:
    """Open a volume for numpy-style access.

    Parameters
    ----------
    url : str or path
        Local path, ``file://``, ``memory://``, ``gs://``, ``s3://``, ``http(s)://`` or any
        fsspec chain; ``precomputed://`` in front or ``|neuroglancer-precomputed:`` behind
        is understood.
    scale : int, str or (float, float, float)
        Index (negative from the coarsest), key, or resolution in nanometres.
    mode : {"r", "r+"}
        ``"r+"`` allows writing into the layer.
    bounds : {"raise", "clip", "fill"}
        What reads outside the volume do: `IndexError`, leave it out, or zeros.
    missing : {"fill", "raise"}
        What a chunk that is not stored means: zeros, or `MissingChunkError`.
    unaligned : {"raise", "read-modify-write", "unguarded-read-modify-write"}
        What writes that cover chunks (or shards) only in part do; see `to_precomputed`.
    compress, compress_level, write_empty_chunks
        How written chunks are stored, see `WriteOptions`.
    progress : bool
        Show progress bars.
    storage_options, missing_statuses, max_redirects, root, cross_origin
        See `open_layer`.

    Returns
    -------
    Volume

    Raises
    ------
    VolumeNotFoundError, MetadataError, StorageError
        See `open_layer`.
    ValueError, IndexError
        There is no such scale; the message lists those that there are.

    Examples
    --------
    >>> import precomputed_store as ps
    >>> volume = ps.open_volume("gs://bucket/em", scale=(8, 8, 8))  # doctest: +SKIP
    >>> volume[1000:1100, 2000:2100, 0:50].shape  # doctest: +SKIP
    (100, 100, 50, 1)
    """
    if mode not in ("r", "r+"):
        raise ValueError(f"mode is {mode!r}; expected 'r' or 'r+' (to make a layer: create)")
    if bounds not in ("raise", "clip", "fill"):
        raise ValueError(f"bounds is {bounds!r}; expected 'raise', 'clip' or 'fill'")
    options = WriteOptions(
        compress=compress,
        compress_level=compress_level,
        write_empty_chunks=write_empty_chunks,
        unaligned=unaligned,
    )
    layer = open_layer(
        url,
        storage_options=storage_options,
        missing=missing,
        missing_statuses=missing_statuses,
        max_redirects=max_redirects,
        root=root,
        cross_origin=cross_origin,
    )
    return Volume(
        layer=layer,
        scale_index=layer.info.scale_index(scale),
        mode=mode,
        outside=bounds,
        options=options,
        progress=progress,
    )


def _framed(inside: ChunkArray, wanted: BoxSelection) -> ChunkArray:
    """Put what the volume has into the box that was asked for."""
    if inside.shape == wanted.shape:
        return inside
    out = np.zeros(wanted.shape, inside.dtype, order="F")
    out[wanted.target] = inside
    return out


def _region(wanted: BoxSelection, num_channels: int, offset: XYZ) -> Box:
    *axes, channel = wanted.wanted
    if any(axis.step != 1 for axis in wanted.wanted):
        raise ValueError("writing takes slices without a step")
    if channel != range(num_channels):
        raise ValueError("chunks hold every channel: write all channels at once")
    x, y, z = axes
    return Box((x.start, y.start, z.start), (x.stop, y.stop, z.stop))


def _broadcast(value: ChunkArray, shape: tuple[int, ...]) -> ChunkArray:
    if value.ndim == 3 and shape[3] == 1:
        value = value[..., np.newaxis]
    try:
        return np.broadcast_to(value, shape)
    except ValueError:
        raise ValueError(
            f"value has shape {value.shape}; expected {shape} (x, y, z, channel)"
        ) from None
