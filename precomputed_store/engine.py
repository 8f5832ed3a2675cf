"""The engine: plan → fetch → decode → copy into the output, and the same backwards.

Every door (numpy, xarray, dask, zarr) reads and writes through `ChunkedArray`.
Axes are ``(channel, z, y, x)``, counted from the volume's first voxel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store import isolation
from precomputed_store.block_plan import PointsPlan, ReadPlan, SelectionPlan, shares
from precomputed_store.cached import cached_property
from precomputed_store.chunk_source import ChunkBytes, ChunkSource, FileSource
from precomputed_store.codecs.base import CZYX, Buffer, ChunkArray
from precomputed_store.concurrency import bounded, codec_pool, run_threaded, share_out
from precomputed_store.errors import (
    ChunkError,
    FormatError,
    MissingChunkError,
    MissingDataWarning,
    VolumeNotFoundError,
    warn_caller,
)
from precomputed_store.grid import XYZ, ChunkGrid
from precomputed_store.metadata import Scale
from precomputed_store.progress import Advance
from precomputed_store.read_plan import ChunkPart, Selection, plan_selection
from precomputed_store.storage import Blob, Storage, run_async, run_sync

__all__ = ["ChunkedArray", "Missing"]

Missing: TypeAlias = Literal["fill", "raise"]
"""What a chunk that is not stored means: the fill value (zero), or an error."""


@dataclass(frozen=True, kw_only=True)
class ChunkedArray:
    """One scale of a volume as chunks in storage. Immutable, picklable, without connections.

    Parameters
    ----------
    storage : Storage
        The layer's folder.
    scale : Scale
        Which scale.
    data_type : str
        The layer's data type.
    num_channels : int
        The layer's number of channels.
    missing : {"fill", "raise"}
        What a chunk that is not stored means.
    """

    storage: Storage
    scale: Scale
    data_type: str
    num_channels: int
    missing: Missing = "fill"

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.data_type)

    @property
    def grid(self) -> ChunkGrid:
        return self.scale.grid

    @property
    def shape(self) -> CZYX:
        x, y, z = self.scale.size
        return self.num_channels, z, y, x

    @property
    def chunk_shape(self) -> CZYX:
        """Shape of a whole chunk; those at the far edges are cropped."""
        x, y, z = self.scale.chunk_size
        return self.num_channels, z, y, x

    @cached_property
    def source(self) -> ChunkSource:
        chunks = ChunkBytes(scale=self.scale, dtype=self.dtype, num_channels=self.num_channels)
        if self.scale.sharding is None:
            return FileSource(storage=self.storage, chunks=chunks)
        from precomputed_store.shard_source import ShardSource

        return ShardSource(storage=self.storage, chunks=chunks, sharding=self.scale.sharding)

    def __getstate__(self) -> dict[str, Any]:
        fields = ("storage", "scale", "data_type", "num_channels", "missing")
        return {name: getattr(self, name) for name in fields}

    def read(
        self, selection: Selection, *, advance: Advance | None = None, warn: bool = True
    ) -> ChunkArray:
        """Read an outer product of indices.

        Parameters
        ----------
        selection : tuple of four range or index array
            Along channel, z, y and x; within `shape`.
        advance : callable, optional
            Told of each chunk done.
        warn : bool
            Whether it is worth a warning if none of the chunks is stored.

        Returns
        -------
        numpy.ndarray
            ``(channel, z, y, x)``, C order, newly allocated.

        Raises
        ------
        ChunkError
            A chunk is corrupt, or missing where ``missing="raise"``.
        StorageError
            The storage refused or failed.
        """
        out, plan = self._prepare(selection)
        self._run(plan, out, advance, warn=warn)
        return out

    async def read_async(self, selection: Selection) -> ChunkArray:
        """As `read`, from a coroutine of any event loop."""
        out, plan = self._prepare(selection)
        await self._run_async(plan, out)
        return out

    def read_points(self, points: tuple[npt.NDArray[np.intp], ...]) -> ChunkArray:
        """Read scattered voxels; each chunk is fetched and decoded once.

        Parameters
        ----------
        points : tuple of four arrays of shape (n,)
            Indices along channel, z, y and x; within `shape`.

        Returns
        -------
        numpy.ndarray, shape (n,)
        """
        out, plan = self._prepare_points(points)
        self._run(plan, out, None)
        return out

    async def read_points_async(self, points: tuple[npt.NDArray[np.intp], ...]) -> ChunkArray:
        """As `read_points`, from a coroutine of any event loop."""
        out, plan = self._prepare_points(points)
        await self._run_async(plan, out)
        return out

    def num_chunks(self, selection: Selection) -> int:
        """How many chunks `read` would fetch."""
        return sum(1 for _ in plan_selection(selection, self.scale.chunk_size))

    def read_chunk(self, cell: XYZ) -> ChunkArray | None:
        """The chunk at `cell`, ``(channel, z, y, x)`` cropped to the volume; None if missing."""
        blob = self.source.fetch(cell)
        return None if blob is None else self.decode(cell, blob)

    def chunk_shape_at(self, cell: XYZ) -> CZYX:
        """Shape of the chunk at `cell`, cropped to the volume."""
        x, y, z = self.grid.chunk_shape(cell)
        return self.num_channels, z, y, x

    def decode(self, cell: XYZ, blob: Blob) -> ChunkArray:
        """What is stored for a cell to voxels, or an error that names the chunk."""
        try:
            data, shape = self._unpacked(cell, blob), self.chunk_shape_at(cell)
            return isolation.decode(self.scale.codec, data, shape=shape, dtype=self.dtype)
        except FormatError as error:
            raise self.chunk_error(cell, error) from error

    def unpack(self, cell: XYZ, blob: Blob) -> Buffer:
        """What is stored for a cell as its codec takes it, or an error that names the chunk."""
        try:
            return self._unpacked(cell, blob)
        except FormatError as error:
            raise self.chunk_error(cell, error) from error

    def _unpacked(self, cell: XYZ, blob: Blob) -> Buffer:
        if not len(blob.data):
            raise FormatError("the stored object is empty (0 bytes)")
        return self.source.unpack(blob, cell)

    def _prepare(self, selection: Selection) -> tuple[ChunkArray, ReadPlan]:
        out = np.empty(tuple(len(axis) for axis in selection), self.dtype)
        return out, SelectionPlan(selection=selection, grid=self.grid)

    def _prepare_points(
        self, points: tuple[npt.NDArray[np.intp], ...]
    ) -> tuple[ChunkArray, ReadPlan]:
        out = np.empty(len(points[0]), self.dtype)
        return out, PointsPlan(points=points, grid=self.grid)

    def _run(
        self, plan: ReadPlan, out: ChunkArray, advance: Advance | None, *, warn: bool = True
    ) -> None:
        if not out.size:
            return
        if self.storage.threaded:
            self._read_threaded(plan, out, advance, warn=warn)
            return
        parts = plan.parts()
        found = run_sync(self._fetch_all(parts, out, advance))
        if warn:
            self._check_found(parts, found)

    async def _run_async(self, plan: ReadPlan, out: ChunkArray) -> None:
        if self.storage.threaded or not out.size:
            await asyncio.to_thread(self._run, plan, out, None)
            return
        parts = plan.parts()
        found = await run_async(self._fetch_all(parts, out, None))
        await asyncio.to_thread(self._check_found, parts, found)

    def _read_threaded(
        self, plan: ReadPlan, out: ChunkArray, advance: Advance | None, *, warn: bool
    ) -> None:
        left = self._read_plain(plan, out, advance)
        if left is not None and not left:
            return
        parts = plan.parts()
        wanted = parts if left is None else [parts[number] for number in left]
        found: list[bool] = []

        def read(part: ChunkPart) -> None:
            found.append(self._place(part, self.source.fetch(part.cell), out))
            if advance is not None:
                advance(1)

        workers, brief = self.storage.concurrency, self.scale.codec.brief
        run_threaded(read, wanted, workers=workers, brief=brief)
        if warn and len(wanted) == len(parts):
            self._check_found(parts, found)

    def _read_plain(
        self, plan: ReadPlan, out: ChunkArray, advance: Advance | None
    ) -> list[int] | None:
        """Read what can be read straight into its place; which chunks are left, None: all."""
        source = self.source
        if not (isinstance(source, FileSource) and self.scale.codec.plain):
            return None
        if not self.storage.has_blocks:
            return None
        blocks = plan.blocks(self.num_channels, out)
        if blocks is None:
            return None
        left: list[int] = []

        def read(share: slice) -> None:
            failed = source.read_blocks(blocks[share], out)
            left.extend(share.start + number for number in failed)
            if advance is not None:
                advance(share.stop - share.start - len(failed))

        share_out(read, shares(blocks), least=2)
        return sorted(left)

    async def _fetch_all(
        self, parts: Sequence[ChunkPart], out: ChunkArray, advance: Advance | None
    ) -> list[bool]:
        """Fetch with many requests in flight; decode in threads what is worth it."""
        by_cell = {part.cell: part for part in parts}
        found: list[bool] = []
        loop = asyncio.get_running_loop()
        inline = self.scale.codec.place == "inline"

        def finish(cell: XYZ, blob: Blob | None) -> None:
            found.append(self._place(by_cell[cell], blob, out))
            if advance is not None:
                advance(1)

        async def deliver(cell: XYZ, blob: Blob | None) -> None:
            if blob is None or (inline and blob.content_encoding is None):
                finish(cell, blob)
            else:
                await loop.run_in_executor(codec_pool(), finish, cell, blob)

        throttle = bounded(self.storage.concurrency)
        await self.source.fetch_many(list(by_cell), deliver, throttle)
        return found

    def _place(self, part: ChunkPart, blob: Blob | None, out: ChunkArray) -> bool:
        """Decode what is stored for a chunk straight into its place; whether there was any."""
        if blob is None:
            if self.missing == "raise":
                raise self.missing_error(part.cell)
            out[part.target] = 0
            return False
        try:
            codec, source = self.scale.codec, part.source
            data, shape = self._unpacked(part.cell, blob), self.chunk_shape_at(part.cell)
            if self._place_box(part, data, shape, out):
                return True
            slab = None
            if codec.can_cut:
                cut = codec.cut(data, shape=shape, dtype=self.dtype, box=part.box)
                if cut is not None:
                    data, shape, source = cut.data, cut.shape, part.source_from(cut.start)
            elif codec.place == "worker":
                # What is not wanted need not come from another process.
                slab = part.box[0]
                source = part.source_from((slab[0], 0, 0))
            with isolation.decoded(codec, data, shape=shape, dtype=self.dtype, slab=slab) as chunk:
                out[part.target] = chunk[source]
        except FormatError as error:
            raise self.chunk_error(part.cell, error) from error
        return True

    def _place_box(self, part: ChunkPart, data: Buffer, shape: CZYX, out: ChunkArray) -> bool:
        """Decode no more than what is wanted, if the encoding can; whether it could."""
        codec = self.scale.codec
        if not codec.decodes_boxes:
            return False
        box = part.box
        if part.is_box and part.source[0] == slice(0, shape[0], 1):
            return codec.decode_box(data, shape=shape, box=box, out=out[part.target])
        wanted = np.empty((shape[0], *(stop - start for start, stop in box)), self.dtype)
        if not codec.decode_box(data, shape=shape, box=box, out=wanted):
            return False
        z, y, x = (start for start, _ in box)
        out[part.target] = wanted[part.source_from((z, y, x))]
        return True

    def _check_found(self, parts: Sequence[ChunkPart], found: Sequence[bool]) -> None:
        """Warn once per process and scale if nothing at all was there."""
        if not parts or any(found):
            return
        warn_if_all_missing(self, parts[0].cell, len(parts))

    def missing_error(self, cell: XYZ) -> MissingChunkError:
        """The error for a chunk that is not stored where it should be."""
        key, box = self.source.key(cell), self.grid.cell_box(cell)
        return MissingChunkError(
            f"{self.storage.url}/{key}: chunk {box} is not stored; "
            'missing="fill" reads it as zeros',
            key=key,
            box=box,
        )

    def chunk_error(self, cell: XYZ, cause: Exception) -> ChunkError:
        """The error for a chunk that something is wrong with: says which, and what."""
        key, box = self.source.key(cell), self.grid.cell_box(cell)
        return ChunkError(
            f"{self.storage.url}/{key}: chunk {box} ({self.scale.encoding}): {cause}",
            key=key,
            box=box,
        )


_warned: set[tuple[Storage, str]] = set()


def warn_if_all_missing(array: ChunkedArray, cell: XYZ, count: int) -> None:
    """Say once that a whole read found no chunk, after making sure that the layer is still there.

    Raises
    ------
    VolumeNotFoundError
        The layer itself has gone.
    """
    seen = (array.storage, array.scale.key)
    if seen in _warned:
        return
    if not array.storage.exists("info"):
        raise VolumeNotFoundError(
            f"{array.storage.url}: the layer was there when it was opened, "
            "but its info file has gone"
        )
    _warned.add(seen)
    warn_caller(
        f"{array.storage.url}: none of the {count} chunks of this read is stored, so all of it "
        f"is the fill value; looked for {array.source.key(cell)!r} and its like. "
        'If that is wrong, check the address, or use missing="raise"',
        MissingDataWarning,
    )


def full_selection(shape: CZYX) -> Selection:
    """Every index along every axis."""
    channel, z, y, x = (range(n) for n in shape)
    return channel, z, y, x
