"""Array → chunks → storage: the engine backwards.

`writer_for` gives what writes a scale: chunk by chunk here, shard by shard in
`shard_writer`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from precomputed_store.chunk_source import FileSource
from precomputed_store.codecs import content
from precomputed_store.codecs.base import ChunkArray
from precomputed_store.concurrency import bounded, codec_pool, run_threaded
from precomputed_store.engine import ChunkedArray
from precomputed_store.errors import ChunkError, FormatError
from precomputed_store.grid import XYZ, Box
from precomputed_store.progress import Advance
from precomputed_store.storage import Blob, Update, run_sync
from precomputed_store.storage.update import no_conditions
from precomputed_store.write_plan import (
    Unaligned,
    WriteUnit,
    check_region,
    plan_write,
    unit_grid,
)

__all__ = ["ChunkWriter", "Compress", "RegionWriter", "WriteOptions", "is_fill", "writer_for"]

Compress: TypeAlias = Literal["auto", "gzip", "br", "zstd"] | Literal[False] | None

CACHE_CONTROL = "max-age=3600, s-max-age=3600"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """How chunks are stored.

    Parameters
    ----------
    compress : {"auto", "gzip", "br", "zstd", False}
        Content encoding. ``"auto"`` is gzip on object stores for the encodings that gain
        from it (raw, compressed_segmentation, compresso, crackle) and none elsewhere:
        on a local disk only CloudVolume understands ``name.gz``.
    compress_level : int, optional
        Level of that content encoding.
    write_empty_chunks : bool
        Store chunks that hold only the fill value (zero). By default they are not
        stored, and one that exists is removed.
    unaligned : {"raise", "read-modify-write", "unguarded-read-modify-write"}
        What to do with a region that covers chunks (shards, where there are shards) only in
        part. ``"read-modify-write"`` loses nothing of what others write into the same object
        at the same time: local disks, memory, S3 and Google Cloud Storage can do that. The
        unguarded kind is for a single writer elsewhere.
    cache_control : str
        Cache header of stored chunks, where the storage keeps one.
    """

    compress: Compress = "auto"
    compress_level: int | None = None
    write_empty_chunks: bool = False
    unaligned: Unaligned = "raise"
    cache_control: str = CACHE_CONTROL

    def __post_init__(self) -> None:
        if self.compress not in ("auto", "gzip", "br", "zstd", False, None):
            raise ValueError(
                f"compress is {self.compress!r}; expected 'auto', 'gzip', 'br', 'zstd' or False"
            )
        level = self.compress_level
        if isinstance(level, bool) or not isinstance(level, int | None):
            raise TypeError(f"compress_level is {level!r}; expected an integer")
        if self.unaligned not in get_args(Unaligned):
            raise ValueError(
                f"unaligned is {self.unaligned!r}; expected 'raise' or 'read-modify-write' (or "
                "'unguarded-read-modify-write')"
            )


@dataclass(frozen=True, kw_only=True)
class RegionWriter(ABC):
    """Writes regions of one scale. Immutable and picklable, like the array it writes to.

    Parameters
    ----------
    array : ChunkedArray
    options : WriteOptions
    keep_stored : bool
        Leave objects that are stored as they are, and write the others: for going on with
        the writing of a new layer, where what is stored is what would be stored.
    """

    array: ChunkedArray
    options: WriteOptions = field(default_factory=WriteOptions)
    keep_stored: bool = False

    @property
    def guarded(self) -> bool:
        """Whether changes of what is stored must not be made over those of others."""
        return self.options.unaligned != "unguarded-read-modify-write"

    @property
    @abstractmethod
    def content_encoding(self) -> str | None:
        """The content encoding of stored chunks, ``"auto"`` decided."""

    def check(self, region: Box) -> None:
        """Refuse what cannot be written there, before anything is touched."""
        scale, storage = self.array.scale, self.array.storage
        check_region(scale, region, self.options.unaligned)
        if self.guarded and not storage.can_guard and not unit_grid(scale).is_aligned(region):
            raise no_conditions(storage.url)
        storage.child(scale.key)  # within the root

    def write(self, region: Box, data: ChunkArray, *, advance: Advance | None = None) -> None:
        """Write voxels into a region.

        Parameters
        ----------
        region : Box
            Absolute voxel coordinates.
        data : numpy.ndarray
            ``(channel, z, y, x)`` of the region's shape, in the layer's data type.
        advance : callable, optional
            Told of each chunk done.

        Raises
        ------
        IndexError, ValueError
            See `check`; nothing is written then.
        ChunkError
            A chunk cannot be encoded, or one to be changed cannot be read.
        StorageError
            The storage refused or failed. Objects already written stay.
        """
        self.check(region)
        expected = (self.array.num_channels, *reversed(region.shape))
        if data.shape != expected or data.dtype != self.array.dtype:
            raise ValueError(
                f"data is {data.dtype} of shape {data.shape}; expected {self.array.dtype} of "
                f"shape {expected} (channel, z, y, x)"
            )
        if not region.is_empty:
            self._write(region, data, advance)

    @abstractmethod
    def _write(self, region: Box, data: ChunkArray, advance: Advance | None) -> None: ...

    @abstractmethod
    def store(self, cell: XYZ, data: bytes | None) -> None:
        """Store what `pack` or `compress` made of a chunk; None removes it. For threads."""

    @abstractmethod
    async def store_async(self, cell: XYZ, data: bytes | None) -> None:
        """As `store`, from any event loop."""

    def write_chunk(self, cell: XYZ, chunk: ChunkArray) -> None:
        """Replace one whole chunk ``(channel, z, y, x)``, cropped to the volume. For threads."""
        self.store(cell, self.pack(cell, chunk))

    def pack(self, cell: XYZ, chunk: ChunkArray) -> bytes | None:
        """The bytes to store for a chunk, or None where it should not be stored."""
        if not self.options.write_empty_chunks and is_fill(chunk):
            return None
        return self.encode_chunk(cell, chunk)

    def encode_chunk(self, cell: XYZ, chunk: ChunkArray) -> bytes:
        """The bytes to store for a chunk, whatever it holds."""
        try:
            data = self.array.scale.codec.encode(chunk)
        except FormatError as error:
            raise ChunkError(
                f"{self.array.storage.url}/{self.array.source.key(cell)}: chunk "
                f"{self.array.grid.cell_box(cell)} cannot be encoded as "
                f"{self.array.scale.encoding}: {error}",
                key=self.array.source.key(cell),
                box=self.array.grid.cell_box(cell),
            ) from error
        return self.compress(data)

    def compress(self, data: bytes) -> bytes:
        """Apply the content encoding to an encoded chunk."""
        if self.content_encoding is None:
            return data
        return content.apply(data, self.content_encoding, level=self.options.compress_level)

    def merged(
        self, cell: XYZ, old: ChunkArray | None, region: Box, data: ChunkArray
    ) -> ChunkArray:
        """The chunk to store: the new voxels, over the old ones where it is not covered."""
        box = self.array.grid.cell_box(cell)
        covered = box.intersection(region)
        new = data[_within(covered, region)]
        if covered == box:
            return new
        shape = self.array.chunk_shape_at(cell)
        chunk = np.zeros(shape, self.array.dtype) if old is None else np.array(old)
        chunk[_within(covered, box)] = new
        return chunk


def writer_for(
    array: ChunkedArray, options: WriteOptions, *, keep_stored: bool = False
) -> RegionWriter:
    """What writes regions of a scale; see `RegionWriter`.

    Raises
    ------
    ValueError
        The options do not fit the scale.
    """
    if array.scale.sharding is None:
        return ChunkWriter(array=array, options=options, keep_stored=keep_stored)
    from precomputed_store.shard_writer import ShardWriter

    return ShardWriter(array=array, options=options, keep_stored=keep_stored)


@dataclass(frozen=True, kw_only=True)
class ChunkWriter(RegionWriter):
    """Writes chunks that are objects of their own."""

    @property
    def content_encoding(self) -> str | None:
        if self.options.compress == "auto":
            worthwhile = self.array.scale.codec.compressible and self.array.storage.has_headers
            return "gzip" if worthwhile else None
        return self.options.compress or None

    def _write(self, region: Box, data: ChunkArray, advance: Advance | None) -> None:
        units = list(plan_write(self.array.scale, region))
        if self.array.storage.threaded:
            self._write_threaded(units, region, data, advance)
        else:
            run_sync(self._write_all(units, region, data, advance))

    @property
    def _source(self) -> FileSource:
        source = self.array.source
        assert isinstance(source, FileSource)
        return source

    def store(self, cell: XYZ, data: bytes | None) -> None:
        key = self._source.write_key(cell)
        if data is None:
            self.array.storage.delete(key)
        else:
            self.array.storage.put(
                key,
                data,
                content_type=self.array.scale.codec.content_type,
                content_encoding=self.content_encoding,
                cache_control=self.options.cache_control,
            )

    async def store_async(self, cell: XYZ, data: bytes | None) -> None:
        key = self._source.write_key(cell)
        if data is None:
            await self.array.storage.delete_async(key)
        else:
            await self.array.storage.put_async(
                key,
                data,
                content_type=self.array.scale.codec.content_type,
                content_encoding=self.content_encoding,
                cache_control=self.options.cache_control,
            )

    def _update(self, unit: WriteUnit, region: Box, data: ChunkArray) -> Update:
        """The change of a chunk that is covered in part."""

        def change(stored: Blob | None) -> bytes | None:
            old = None if stored is None else self.array.decode(unit.cell, stored)
            chunk = self.merged(unit.cell, old, region, data)
            packed = self.pack(unit.cell, chunk)
            if packed is None and not self.array.storage.can_delete_if:
                return self.encode_chunk(unit.cell, chunk)
            return packed

        return Update(
            key=self._source.write_key(unit.cell),
            change=change,
            content_type=self.array.scale.codec.content_type,
            content_encoding=self.content_encoding,
            cache_control=self.options.cache_control,
            guarded=self.guarded,
            max_bytes=self._source.chunks.most_stored,
        )

    def _write_threaded(
        self,
        units: Sequence[WriteUnit],
        region: Box,
        data: ChunkArray,
        advance: Advance | None,
    ) -> None:
        storage = self.array.storage

        def write(unit: WriteUnit) -> None:
            if not unit.is_whole:
                storage.apply(self._update(unit, region, data))
            elif not (self.keep_stored and storage.exists(self._source.write_key(unit.cell))):
                self.write_chunk(unit.cell, self.merged(unit.cell, None, region, data))
            if advance is not None:
                advance(1)

        run_threaded(write, units, workers=storage.write_concurrency)

    async def _write_all(
        self,
        units: Sequence[WriteUnit],
        region: Box,
        data: ChunkArray,
        advance: Advance | None,
    ) -> None:
        """Encode in threads, keep many requests in flight."""
        storage = self.array.storage

        async def write(unit: WriteUnit) -> None:
            if not unit.is_whole:
                await storage.apply_async(self._update(unit, region, data))
            elif not (
                self.keep_stored and await storage.exists_async(self._source.write_key(unit.cell))
            ):
                await self._write_whole(unit, region, data)
            if advance is not None:
                advance(1)

        await bounded(storage.concurrency)(units, write)

    async def _write_whole(self, unit: WriteUnit, region: Box, data: ChunkArray) -> None:
        def packed() -> bytes | None:
            return self.pack(unit.cell, self.merged(unit.cell, None, region, data))

        loop = asyncio.get_running_loop()
        await self.store_async(unit.cell, await loop.run_in_executor(codec_pool(), packed))


def is_fill(chunk: ChunkArray) -> bool:
    """Whether every voxel is the fill value, zero, bit for bit (so not ``-0.0``)."""
    if chunk.dtype.kind == "f":
        chunk = chunk.view(f"u{chunk.dtype.itemsize}")
    # Most chunks show it at once.
    return not (chunk[..., 0].any() or chunk.any())


def _within(inner: Box, outer: Box) -> tuple[slice, ...]:
    """Where `inner` lies in an array ``(channel, z, y, x)`` that holds `outer`."""
    x, y, z = (
        slice(a - origin, b - origin)
        for a, b, origin in zip(inner.start, inner.stop, outer.start, strict=True)
    )
    return slice(None), z, y, x


def as_layer_dtype(value: Any, dtype: np.dtype[Any]) -> ChunkArray:
    """An array in the layer's data type, if that loses nothing.

    Raises
    ------
    TypeError
        The conversion could lose something: the caller must say so with ``astype``.
    ValueError
        A Python integer does not fit.
    """
    if isinstance(value, int) or (isinstance(value, float) and dtype.kind == "f"):
        try:
            return np.asarray(value, dtype)
        except OverflowError:
            raise ValueError(f"{value} does not fit into {dtype}") from None
    array = np.asarray(value)
    if array.dtype != dtype and not np.can_cast(array.dtype, dtype, "safe"):
        raise TypeError(
            f"cannot write {array.dtype} into a {dtype} volume without loss; "
            f"convert it yourself: array.astype({str(dtype)!r})"
        )
    return array.astype(dtype, copy=False)
