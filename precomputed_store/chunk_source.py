"""Cell → encoded chunk bytes, whichever way a scale is laid out in storage.

Three layouts: one object per chunk, shards, and the nested ``x/y/z`` folders that
neuroglancer-scripts writes. Fetching and unpacking (undoing the content encoding) are
apart, so that the engine may unpack in another thread than it fetches in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from precomputed_store.cached import cached_property
from precomputed_store.codecs import content
from precomputed_store.codecs.base import CZYX, Buffer, ChunkArray
from precomputed_store.errors import StorageError, UnsupportedError
from precomputed_store.grid import XYZ
from precomputed_store.metadata import Scale
from precomputed_store.storage import Blob, Storage
from precomputed_store.storage.blocks import FileBlocks

__all__ = ["ChunkBytes", "ChunkSource", "Deliver", "FileSource", "Throttle"]

_MARGIN_BYTES = 1 << 20

Deliver: TypeAlias = Callable[[XYZ, Blob | None], Awaitable[None]]
"""Takes what is stored for a cell (None: missing) as soon as it is there."""

Throttle: TypeAlias = Callable[[Sequence[Any], Callable[[Any], Awaitable[None]]], Awaitable[None]]
"""Runs a coroutine function over items, a bounded number of them at once."""


class ChunkSource(Protocol):
    """Where the encoded chunks of one scale come from."""

    def key(self, cell: XYZ) -> str:
        """The object that holds `cell`, for messages."""

    def fetch(self, cell: XYZ) -> Blob | None:
        """What is stored for `cell`, or None if nothing is. For threads."""

    async def fetch_many(self, cells: Sequence[XYZ], deliver: Deliver, throttle: Throttle) -> None:
        """Fetch many cells with as few requests as it takes, in any order."""

    def unpack(self, blob: Blob, cell: XYZ) -> Buffer:
        """Undo the content encoding: what comes out is what a codec takes."""


@dataclass(frozen=True, kw_only=True)
class ChunkBytes:
    """The shapes of a scale's chunks and the most bytes that they can take."""

    scale: Scale
    dtype: np.dtype[Any]
    num_channels: int

    def shape(self, cell: XYZ) -> CZYX:
        x, y, z = self.scale.grid.chunk_shape(cell)
        return self.num_channels, z, y, x

    def limit(self, cell: XYZ) -> int:
        return self.scale.codec.max_encoded_bytes(shape=self.shape(cell), dtype=self.dtype)

    @cached_property
    def most_stored(self) -> int:
        """The most bytes that are read of any object or range that is said to be one chunk.

        Compression can make a chunk a little longer, metadata can make an image longer.
        """
        x, y, z = self.scale.chunk_size
        shape = (self.num_channels, z, y, x)
        limit = self.scale.codec.max_encoded_bytes(shape=shape, dtype=self.dtype)
        return limit + limit // 64 + _MARGIN_BYTES

    def __getstate__(self) -> dict[str, Any]:
        return {"scale": self.scale, "dtype": self.dtype, "num_channels": self.num_channels}


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """One object per chunk.

    Specification: volume.md, "Unsharded chunk storage".
    """

    storage: Storage
    chunks: ChunkBytes

    @property
    def scale(self) -> Scale:
        return self.chunks.scale

    def key(self, cell: XYZ) -> str:
        return f"{self.scale.key}/{self.scale.grid.chunk_name(cell)}"

    def write_key(self, cell: XYZ) -> str:
        """Where to write `cell`, so that no older copy of it stays behind."""
        return self._nested_key(cell) if self._nested else self.key(cell)

    def _nested_key(self, cell: XYZ) -> str:
        return f"{self.scale.key}/{self.scale.grid.chunk_name(cell).replace('_', '/')}"

    def fetch(self, cell: XYZ) -> Blob | None:
        limit = self.chunks.most_stored
        blob = self.storage.get(self.key(cell), max_bytes=limit)
        if blob is None and self._nested:
            blob = self.storage.get(self._nested_key(cell), max_bytes=limit)
        return blob

    def read_blocks(self, blocks: FileBlocks, out: ChunkArray) -> list[int]:
        """Read blocks of plain chunks into their places; the numbers of those left. For threads.

        Those are to be fetched, which tells what is there instead.
        """
        return self.storage.read_blocks(self.scale.key, blocks, out)

    async def fetch_many(self, cells: Sequence[XYZ], deliver: Deliver, throttle: Throttle) -> None:
        limit = self.chunks.most_stored

        async def fetch(cell: XYZ) -> None:
            await deliver(cell, await self.storage.get_async(self.key(cell), max_bytes=limit))

        await throttle(cells, fetch)

    def unpack(self, blob: Blob, cell: XYZ) -> Buffer:
        encoding = blob.content_encoding
        if encoding is None and not blob.certain:
            encoding = content.guess(
                blob.data,
                self.scale.codec,
                shape=self.chunks.shape(cell),
                dtype=self.chunks.dtype,
            )
        if encoding is None:
            return blob.data
        return content.undo(blob.data, encoding, limit=self.chunks.limit(cell))

    @cached_property
    def _nested(self) -> bool:
        """Whether chunks are in ``x/y/z`` folders: asked once, where asking is cheap."""
        if not self.storage.threaded:
            return False
        try:
            child = self.storage.first_child(self.scale.key)
        except (StorageError, UnsupportedError):
            return False
        return child is not None and _is_axis_folder(child)

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self.storage, "chunks": self.chunks}


def _is_axis_folder(name: str) -> bool:
    """Whether a name is one axis of a chunk name, e.g. ``"64-128"``."""
    start, dash, stop = name.rpartition("-")
    start = start.removesuffix("-") if not stop.isdigit() else start
    return bool(dash) and stop.isdigit() and start.lstrip("-").isdigit()
