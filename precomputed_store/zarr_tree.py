"""The virtual Zarr hierarchy of a layer: keys → bytes and back, blocking or not.

The zarr store and the fsspec file system are two faces of it. Metadata is answered from
memory; only chunks reach the storage.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import operator
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from precomputed_store.cached import cached_property
from precomputed_store.codecs.base import Buffer
from precomputed_store.concurrency import codec_pool
from precomputed_store.engine import ChunkedArray, Missing
from precomputed_store.errors import UnsupportedError
from precomputed_store.gather import Gatherer
from precomputed_store.grid import XYZ
from precomputed_store.layer import Layer, ScaleSelector, open_layer
from precomputed_store.presence import look_into_absence, note_presence, stored_cells
from precomputed_store.shard_queue import ShardQueue
from precomputed_store.shard_writer import ShardWriter
from precomputed_store.storage import Blob
from precomputed_store.storage.base import FrozenOptions
from precomputed_store.writer import RegionWriter, WriteOptions, writer_for
from precomputed_store.zarr_metadata import ChunkKey, ZarrHierarchy, chunk_key

__all__ = ["TreeAddress", "ZarrTree"]

T = TypeVar("T")

_NAMES_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeAddress:
    """What it takes to open a tree; see `PrecomputedStore` for the fields."""

    url: str
    storage_options: FrozenOptions = field(default_factory=FrozenOptions)
    decoded: bool = False
    scale: int | str | tuple[float, ...] | None = None
    missing: Missing = "fill"
    missing_statuses: frozenset[int] = frozenset({404})
    max_redirects: int = 10
    root: str | None = None
    cross_origin: bool = False
    write_options: WriteOptions = field(default_factory=WriteOptions)

    def open(self) -> ZarrTree:
        """Read `info`: one request, and one per redirect."""
        layer = open_layer(
            self.url,
            storage_options=self.storage_options,
            missing=self.missing,
            missing_statuses=self.missing_statuses,
            max_redirects=self.max_redirects,
            root=self.root,
            cross_origin=self.cross_origin,
        )
        only = None if self.scale is None else layer.info.scale_index(self.scale)
        return ZarrTree(
            layer=layer, decoded=self.decoded, only=only, write_options=self.write_options
        )


def freeze_selector(selector: ScaleSelector | None) -> int | str | tuple[float, ...] | None:
    """A scale selector that can be compared and hashed."""
    if selector is None or isinstance(selector, int | str):
        return selector
    if isinstance(selector, Iterable):
        return tuple(selector)
    try:
        return operator.index(selector)
    except TypeError:
        raise TypeError(
            f"scale is {selector!r}; expected an index, a key or a resolution (x, y, z) in nm"
        ) from None


@dataclass(frozen=True, kw_only=True)
class ZarrTree:
    """An opened layer as a Zarr hierarchy. Immutable, picklable, without connections."""

    layer: Layer
    decoded: bool = False
    only: int | None = None
    write_options: WriteOptions = field(default_factory=WriteOptions)

    @cached_property
    def hierarchy(self) -> ZarrHierarchy:
        name = self.layer.storage.url.rstrip("/").rpartition("/")[2]
        return ZarrHierarchy(info=self.layer.info, name=name, decoded=self.decoded, only=self.only)

    @cached_property
    def threaded(self) -> bool:
        """Whether the blocking methods are the better ones; see `Storage.threaded`."""
        return self.layer.storage.threaded

    @cached_property
    def concurrency(self) -> int:
        """How many requests may usefully be under way at once."""
        return self.layer.storage.concurrency

    @cached_property
    def _arrays(self) -> dict[int, ChunkedArray]:
        return {index: self.layer.array(index) for index in self.hierarchy.scales}

    @cached_property
    def _gatherers(self) -> dict[int, Gatherer]:
        return {}

    @cached_property
    def _seen(self) -> set[int]:
        """Scales that are known to have chunks, or have been looked into."""
        return set()

    def __getstate__(self) -> dict[str, Any]:
        fields = ("layer", "decoded", "only", "write_options")
        return {name: getattr(self, name) for name in fields}

    def get(self, key: str, *, warn: bool = True) -> Buffer | None:
        """The value of a key, or None if there is none. For threads.

        Raises
        ------
        ChunkError
            A chunk is corrupt, or missing where ``missing="raise"``.
        StorageError
            The storage refused or failed.
        """
        chunk = self.hierarchy.chunk(key)
        if chunk is None:
            return self.hierarchy.documents.get(key)
        blob = self._arrays[chunk.scale_index].source.fetch(chunk.cell)
        return self._value(chunk, blob, warn=warn)

    async def get_async(self, key: str, *, warn: bool = True) -> Buffer | None:
        """As `get`, from any event loop."""
        chunk = self.hierarchy.chunk(key)
        if chunk is None:
            return self.hierarchy.documents.get(key)
        if self.threaded:
            return await asyncio.to_thread(self.get, key, warn=warn)
        blob = await self._fetch_async(chunk)
        plain = blob is not None and blob.certain and blob.content_encoding is None
        if plain and not self.decoded:
            return self._value(chunk, blob, warn=warn)
        loop = asyncio.get_running_loop()
        # What is missing may have to be looked for: that takes no part in the codecs' pool.
        pool = None if blob is None else codec_pool()
        return await loop.run_in_executor(pool, lambda: self._value(chunk, blob, warn=warn))

    async def _fetch_async(self, chunk: ChunkKey) -> Blob | None:
        index, cell = chunk
        gatherer = self._gatherers.get(index)
        if gatherer is None:
            source = self._arrays[index].source
            gatherer = self._gatherers.setdefault(index, Gatherer(source, self.concurrency))
        return await gatherer.fetch(cell)

    def _value(self, chunk: ChunkKey, blob: Blob | None, *, warn: bool) -> Buffer | None:
        """What is stored for a chunk as the value of its key."""
        array = self._arrays[chunk.scale_index]
        if blob is None:
            if array.missing == "raise":
                raise array.missing_error(chunk.cell)
            unsure = warn and chunk.scale_index not in self._seen
            if unsure and look_into_absence(array, chunk.cell):
                self._seen.add(chunk.scale_index)
            return None
        if chunk.scale_index not in self._seen:
            note_presence(array)
            self._seen.add(chunk.scale_index)
        if self.decoded:
            return _padded(array, chunk.cell, blob)
        return array.unpack(chunk.cell, blob)

    def exists(self, key: str) -> bool:
        """Whether a key has a value. For threads.

        Of chunks in shards, and of chunks in folders of folders, the value is read.
        """
        chunk = self.hierarchy.chunk(key)
        if chunk is None:
            return key in self.hierarchy.documents
        array = self._arrays[chunk.scale_index]
        if array.scale.sharding is None and array.storage.exists(array.source.key(chunk.cell)):
            return True
        return array.source.fetch(chunk.cell) is not None

    async def exists_async(self, key: str) -> bool:
        """As `exists`, from any event loop."""
        if self.hierarchy.chunk(key) is None:
            return key in self.hierarchy.documents
        return await asyncio.to_thread(self.exists, key)

    def size(self, key: str) -> int | None:
        """Number of bytes of a key's value, or None if it has none. For threads.

        The value of a chunk is read, unless its size follows from its shape.
        """
        chunk = self.hierarchy.chunk(key)
        if chunk is not None:
            array = self._arrays[chunk.scale_index]
            raw = array.scale.encoding == "raw"
            if raw or self.decoded:
                shape = array.chunk_shape if self.decoded else array.chunk_shape_at(chunk.cell)
                return math.prod(shape) * array.dtype.itemsize if self.exists(key) else None
        value = self.get(key, warn=False)
        return None if value is None else len(value)

    def _check_writable(self, key: str) -> ChunkKey:
        """The chunk that may be written under a key.

        Raises
        ------
        UnsupportedError
            It is no chunk's key, or one that cannot be written.
        """
        chunk = self.hierarchy.chunk(key)
        where = self.layer.storage.url
        if self.decoded:
            raise UnsupportedError(
                f'{where}: mode="decoded" is read-only; open it with mode="native" to write'
            )
        if chunk is None:
            raise UnsupportedError(
                f"{where}: {key!r} cannot be written: what a Precomputed layer holds is fixed by "
                "its info. Only voxels can be written through zarr; attributes, new arrays and "
                "groups cannot. A new layer is made by precomputed_store.create or to_precomputed"
            )
        return chunk

    def put(self, key: str, data: Buffer) -> None:
        """Store an encoded chunk, compressed as `write_options` say. For threads.

        A document may be written if it says what it said before.
        """
        if self._holds_document(key, data):
            return
        chunk = self._check_writable(key)
        packed = self._writer(chunk).compress(_not_empty(key, data))
        self._store(chunk, packed)

    async def put_async(self, key: str, data: Buffer) -> None:
        """As `put`, from any event loop."""
        if self.threaded:
            return await asyncio.to_thread(self.put, key, data)
        if self._holds_document(key, data):
            return None
        chunk = self._check_writable(key)
        writer = self._writer(chunk)
        loop = asyncio.get_running_loop()
        packed = await loop.run_in_executor(codec_pool(), writer.compress, _not_empty(key, data))
        return await self._store_async(chunk, packed)

    def delete(self, key: str) -> None:
        """Remove a chunk; keys that have no value are no matter. For threads."""
        if self.hierarchy.chunk(key) is None and key not in self.hierarchy.documents:
            return
        self._store(self._check_writable(key), None)

    async def delete_async(self, key: str) -> None:
        """As `delete`, from any event loop."""
        if self.threaded:
            return await asyncio.to_thread(self.delete, key)
        if self.hierarchy.chunk(key) is None and key not in self.hierarchy.documents:
            return None
        return await self._store_async(self._check_writable(key), None)

    def _store(self, chunk: ChunkKey, data: bytes | None) -> None:
        """Store or remove an encoded chunk. For threads."""
        writer = self._writer(chunk)
        if isinstance(writer, ShardWriter):
            self._queues.setdefault(chunk.scale_index, ShardQueue(writer)).store(chunk.cell, data)
        else:
            writer.store(chunk.cell, data)

    async def _store_async(self, chunk: ChunkKey, data: bytes | None) -> None:
        writer = self._writer(chunk)
        if isinstance(writer, ShardWriter):
            await asyncio.to_thread(self._store, chunk, data)
        else:
            await writer.store_async(chunk.cell, data)

    @cached_property
    def _queues(self) -> dict[int, ShardQueue]:
        return {}

    def _holds_document(self, key: str, data: Buffer) -> bool:
        return key in self.hierarchy.documents and self.hierarchy.holds_document(key, bytes(data))

    def _writer(self, chunk: ChunkKey) -> RegionWriter:
        return writer_for(self._arrays[chunk.scale_index], self.write_options)

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Every key that begins with `prefix`, metadata first, as it is found.

        Chunks are listed where they are objects of their own and the storage can list:
        not in shards, not on web servers.
        """
        for key in self.hierarchy.documents:
            if key.startswith(prefix):
                yield key
        for index, array in self._arrays.items():
            folder = f"{index}/c/0/"
            if not (folder.startswith(prefix) or prefix.startswith(folder)):
                continue
            async for cell in _in_threads(stored_cells(array)):
                key = chunk_key(index, cell)
                if key.startswith(prefix):
                    yield key

    async def children(self, path: str) -> AsyncIterator[str]:
        """Names of the direct children of a folder, each once, as they are found."""
        path = path.strip("/")
        names = self.hierarchy.folders(path)
        if names is None:
            return
        for name in names:
            yield name
        if names:
            return
        seen: set[str] = set()
        async for key in self.keys(f"{path}/"):
            name = key[len(path) + 1 :].partition("/")[0]
            if name not in seen:
                seen.add(name)
                yield name


def _padded(array: ChunkedArray, cell: XYZ, blob: Blob) -> bytes:
    """A chunk as little-endian voxels of a whole chunk's shape, zeros beyond the volume."""
    chunk = array.decode(cell, blob)
    stored = array.dtype.newbyteorder("<")
    if chunk.shape == array.chunk_shape:
        return chunk.astype(stored, copy=False).tobytes()
    whole = np.zeros(array.chunk_shape, stored)
    whole[tuple(slice(0, n) for n in chunk.shape)] = chunk
    return whole.tobytes()


def _not_empty(key: str, data: Buffer) -> bytes:
    if not len(data):
        raise ValueError(f"{key}: 0 bytes are not an encoded chunk; delete the key instead")
    return bytes(data)


async def _in_threads(items: Iterable[T]) -> AsyncIterator[T]:
    """Iterate over what blocks, some items at a time, without blocking the event loop."""
    iterator = iter(items)
    while batch := await asyncio.to_thread(list, itertools.islice(iterator, _NAMES_AT_ONCE)):
        for item in batch:
            yield item
