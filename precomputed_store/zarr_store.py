"""A zarr store over a layer: ``zarr.open_group(PrecomputedStore(url), mode="r")``."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.registry import register_codec

from precomputed_store.concurrency import bounded
from precomputed_store.engine import Missing
from precomputed_store.errors import UnsupportedError
from precomputed_store.forks import restart_in_children
from precomputed_store.layer import Layer, ScaleSelector
from precomputed_store.storage.base import FrozenOptions, freeze_statuses
from precomputed_store.url import parse_url
from precomputed_store.writer import Compress, WriteOptions
from precomputed_store.zarr_codec import PrecomputedCodec
from precomputed_store.zarr_metadata import CODEC_NAME
from precomputed_store.zarr_tree import TreeAddress, ZarrTree, freeze_selector

if TYPE_CHECKING:
    from zarr.core.buffer import BufferPrototype

__all__ = ["PrecomputedStore"]

StoreMode: TypeAlias = Literal["native", "decoded"]

# Also where the package runs from a checkout, without entry points.
register_codec(CODEC_NAME, PrecomputedCodec)


class PrecomputedStore(Store):
    """A Precomputed layer as a Zarr v3 hierarchy.

    The root is a group with OME-NGFF 0.5 metadata; each scale is an array in it, named by
    its index in `info` (``"0"`` is the finest), ``(channel, z, y, x)``, counted from the
    volume's first voxel. Immutable, comparable, picklable; `info` is read on first use.

    Parameters
    ----------
    url : str or path
        Where the layer is, see `open_layer`.
    storage_options : mapping, optional
        Passed to fsspec.
    mode : {"native", "decoded"}
        ``"native"``: chunks are as they are stored, and zarr decodes them with our codec.
        ``"decoded"``: chunks are plain voxels of full size, which every reader of Zarr v3
        understands; read-only.
    scale : int, str or (float, float, float), optional
        Show this scale alone: index, key or resolution in nanometres. Its array keeps its
        name. xarray's zarr engine needs it where there are several scales, because all
        arrays of a group must be of one size for it.
    read_only : bool
        Refuse writes. ``zarr.open_group(..., mode="r")`` does so by itself.
    missing : {"fill", "raise"}
        What a chunk that is not stored means: zeros, or `MissingChunkError`.
    missing_statuses : iterable of int
        HTTP statuses that mean "not stored".
    max_redirects : int
        How many `redirect` members of `info` to follow.
    root, cross_origin
        See `open_layer`.
    compress, compress_level
        How written chunks are stored, see `WriteOptions`.

    Notes
    -----
    Voxels can be written; metadata cannot, and nothing can be created or removed but
    chunks: use `create` or `to_precomputed` for a new layer. Chunks that hold only zeros
    are removed, unless the array was opened under
    ``zarr.config.set({"array.write_empty_chunks": True})``.
    A chunk that is written in part is read, changed and written: never do that to the same
    chunk from two places at once.

    Zarr keeps 10 requests in flight. Over a network,
    ``zarr.config.set({"async.concurrency": 64})`` is several times faster, and
    ``{"codec_pipeline.batch_size": 64}`` as well: with it, chunks in shards share requests.

    Examples
    --------
    >>> import zarr
    >>> from precomputed_store import PrecomputedStore
    >>> group = zarr.open_group(PrecomputedStore("gs://bucket/em"), mode="r")  # doctest: +SKIP
    >>> group["0"][0, 100:200, 300:400, 500:600]  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        storage_options: Mapping[str, Any] | None = None,
        mode: StoreMode = "native",
        scale: ScaleSelector | None = None,
        read_only: bool = False,
        missing: Missing = "fill",
        missing_statuses: Iterable[int] = (404,),
        max_redirects: int = 10,
        root: str | os.PathLike[str] | None = None,
        cross_origin: bool = False,
        compress: Compress = "auto",
        compress_level: int | None = None,
    ) -> None:
        if mode not in ("native", "decoded"):
            raise ValueError(f"mode is {mode!r}; expected 'native' or 'decoded'")
        if missing not in ("fill", "raise"):
            raise ValueError(f"missing is {missing!r}; expected 'fill' or 'raise'")
        super().__init__(read_only=read_only or mode == "decoded")
        self._address = TreeAddress(
            url=parse_url(url),
            storage_options=FrozenOptions(storage_options),
            decoded=mode == "decoded",
            scale=freeze_selector(scale),
            missing=missing,
            missing_statuses=freeze_statuses(missing_statuses),
            max_redirects=max_redirects,
            root=None if root is None else parse_url(root),
            cross_origin=cross_origin,
            write_options=WriteOptions(compress=compress, compress_level=compress_level),
        )
        self._opened: ZarrTree | None = None
        restart_in_children(self)

    @property
    def layer(self) -> Layer:
        """The layer, opened if it was not yet."""
        return self._tree().layer

    @property
    def url(self) -> str:
        """The layer's address, normalised."""
        return self._address.url

    @property
    def concurrency(self) -> int:
        """How many requests may usefully be under way at once."""
        return self._tree().concurrency

    def with_read_only(self, read_only: bool = False) -> PrecomputedStore:
        if self._address.decoded and not read_only:
            raise UnsupportedError(f'{self.url}: mode="decoded" is read-only')
        other = object.__new__(type(self))
        other.__setstate__({**self.__getstate__(), "_read_only": read_only, "_is_open": False})
        return other

    def __getstate__(self) -> dict[str, Any]:
        names = ("_address", "_opened", "_read_only", "_is_open")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        restart_in_children(self)

    def restart(self) -> None:
        """Take a new lock, in a forked child."""
        self._lock = threading.Lock()

    def __eq__(self, value: object) -> bool:
        return (
            isinstance(value, type(self))
            and self._address == value._address
            and self._read_only == value._read_only
        )

    def __hash__(self) -> int:
        return hash((self._address, self._read_only))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __str__(self) -> str:
        return f"precomputed::{self.url}"

    async def _open(self) -> None:
        if self._is_open:
            raise ValueError("store is already open")
        if self._opened is None:
            await asyncio.to_thread(self._tree)
        self._is_open = True

    def _tree(self) -> ZarrTree:
        with self._lock:
            if self._opened is None:
                self._opened = self._address.open()
            return self._opened

    async def _tree_async(self) -> ZarrTree:
        if self._opened is None:
            await asyncio.to_thread(self._tree)
        self._is_open = True
        return self._tree()

    @property
    def _supports_sync_io(self) -> bool:
        """Whether zarr may call the blocking methods: not over a network."""
        return self._tree().threaded

    @property
    def supports_writes(self) -> bool:
        return not self._address.decoded

    # Abstract in zarr 3.1.0 and 3.1.1, unused since.
    @property
    def supports_partial_writes(self) -> Literal[False]:
        return False

    async def set_partial_values(self, key_start_values: Any) -> None:
        raise NotImplementedError("chunks are written as wholes")

    @property
    def supports_deletes(self) -> bool:
        return not self._address.decoded

    @property
    def supports_listing(self) -> bool:
        """Chunks in shards and on web servers are not listed, nor in `list_prefix`."""
        return True

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        tree = await self._tree_async()
        value = await tree.get_async(key, warn=self._read_only)
        return None if value is None else prototype.buffer.from_bytes(_part(value, byte_range))

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        value = self._tree().get(key, warn=self._read_only)
        if value is None:
            return None
        buffer = (prototype or default_buffer_prototype()).buffer
        return buffer.from_bytes(_part(value, byte_range))

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        requests = list(key_ranges)
        results: dict[int, Buffer | None] = {}

        async def fetch(index: int) -> None:
            key, byte_range = requests[index]
            results[index] = await self.get(key, prototype, byte_range)

        await self._tree_async()
        await bounded(self.concurrency)(range(len(requests)), fetch)
        return [results[index] for index in range(len(requests))]

    async def exists(self, key: str) -> bool:
        return await (await self._tree_async()).exists_async(key)

    async def getsize(self, key: str) -> int:
        tree = await self._tree_async()
        size = await asyncio.to_thread(tree.size, key)
        if size is None:
            raise FileNotFoundError(key)
        return size

    async def set(self, key: str, value: Buffer) -> None:
        self._check_value(value)
        await (await self._tree_async()).put_async(key, value.to_bytes())

    def set_sync(self, key: str, value: Buffer) -> None:
        self._check_value(value)
        self._tree().put(key, value.to_bytes())

    def _check_value(self, value: object) -> None:
        self._check_writable()
        if not isinstance(value, Buffer):
            raise TypeError(
                f"{type(self).__name__}.set(): `value` must be a Buffer instance. "
                f"Got an instance of {type(value)} instead."
            )

    async def delete(self, key: str) -> None:
        self._check_writable()
        await (await self._tree_async()).delete_async(key)

    def delete_sync(self, key: str) -> None:
        self._check_writable()
        self._tree().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Refused: what `info` describes is not removed through zarr.

        Raises
        ------
        UnsupportedError
        """
        self._check_writable()
        raise UnsupportedError(
            f"{self.url}: nodes of a Precomputed layer are not removed or replaced through zarr. "
            "precomputed_store.create(..., overwrite=True) writes a new info, and "
            'to_precomputed(..., mode="w") replaces a layer'
        )

    async def clear(self) -> None:
        """Refused, as `delete_dir`."""
        await self.delete_dir("")

    async def list(self) -> AsyncIterator[str]:
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        async for key in (await self._tree_async()).keys(prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        async for name in (await self._tree_async()).children(prefix):
            yield name


def _part(value: bytes | bytearray | memoryview, byte_range: ByteRequest | None) -> Any:
    """The bytes that are asked for: fewer where the value ends before them."""
    match byte_range:
        case None:
            return value
        case RangeByteRequest():
            return memoryview(value)[byte_range.start : byte_range.end]
        case OffsetByteRequest():
            return memoryview(value)[byte_range.offset :]
        case SuffixByteRequest():
            return memoryview(value)[max(0, len(value) - byte_range.suffix) :]
        case _:
            raise ValueError(f"Unexpected byte_range, got {byte_range}.")
