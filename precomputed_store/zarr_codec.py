"""The zarr codec of Precomputed chunks: the only codec of its arrays.

Zarr hands codecs chunks of one size; Precomputed crops those at the far edges. So this
codec takes part in reading and writing (zarr's partial decoding and encoding), where it is
told the key of the chunk, and knows from it how large the chunk is. It depends on no store:
the bytes may come from anywhere, as long as keys end in ``/<z>/<y>/<x>``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import numpy as np
from zarr.abc.codec import (
    ArrayBytesCodec,
    ArrayBytesCodecPartialDecodeMixin,
    ArrayBytesCodecPartialEncodeMixin,
)
from zarr.core.config import config

from precomputed_store import isolation
from precomputed_store.codecs import Codec, codec_class
from precomputed_store.codecs.base import CZYX, ChunkArray
from precomputed_store.concurrency import bounded, codec_pool
from precomputed_store.errors import (
    ChunkError,
    FormatError,
    MissingChunkError,
    UnsupportedError,
)
from precomputed_store.grid import XYZ, ChunkGrid
from precomputed_store.metadata.encoding import codec_problems
from precomputed_store.zarr_metadata import CODEC_NAME, codec_configuration

if TYPE_CHECKING:
    from zarr.abc.store import ByteGetter, ByteSetter
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

__all__ = ["PrecomputedCodec"]

T = TypeVar("T")

# Of stores; zarr has had them, and uses them, since 3.1.6.
_BLOCKING = ("get_sync", "set_sync", "delete_sync")
_GRID_MEMBERS = ("size", "chunk_size", "voxel_offset")


@dataclass(frozen=True)
class PrecomputedCodec(
    ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin, ArrayBytesCodecPartialEncodeMixin
):
    """Chunks of one scale, in any encoding, cropped at the far edges.

    Attributes
    ----------
    codec : Codec
        The encoding with its parameters.
    grid : ChunkGrid
        The division of the scale into chunks.

    Notes
    -----
    Arrays are ``(channel, z, y, x)`` with all channels in one chunk. In ``zarr.json`` the
    configuration holds ``encoding``, ``size``, ``chunk_size``, ``voxel_offset`` (x, y, z)
    and the encoding's parameters, all as a scale in `info` has them.
    """

    codec: Codec
    grid: ChunkGrid

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the codec's entry in ``zarr.json``.

        Raises
        ------
        ValueError
            The configuration is not one of this codec.
        """
        configuration = data.get("configuration")
        if data.get("name") != CODEC_NAME or not isinstance(configuration, Mapping):
            raise ValueError(f"expected a codec {CODEC_NAME!r} with a configuration, got {data!r}")
        members = dict(configuration)
        encoding = members.pop("encoding", None)
        triples = {name: _triple(name, members.pop(name, None)) for name in _GRID_MEMBERS}
        found = codec_class(encoding) if isinstance(encoding, str) else None
        if found is None:
            raise ValueError(f"codec {CODEC_NAME!r}: unknown encoding {encoding!r}")
        unknown = set(members).difference(found.parameter_names())
        if unknown:
            raise ValueError(
                f"codec {CODEC_NAME!r}: {encoding} has no parameters {sorted(unknown)}"
            )
        try:
            codec = found.from_parameters(members)
        except TypeError as error:
            raise ValueError(f"codec {CODEC_NAME!r}: {encoding}: {error}") from error
        return cls(codec=codec, grid=ChunkGrid(**triples))

    def to_dict(self) -> dict[str, Any]:
        """The codec's entry in ``zarr.json``."""
        return {"name": CODEC_NAME, "configuration": codec_configuration(self.codec, self.grid)}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Check that an array is one whose chunks this codec can hold.

        Raises
        ------
        ValueError
            Its shape, chunks or data type are others.
        """
        channels = shape[0] if shape else 0
        expected = (channels, *reversed(self.grid.size))
        if shape != expected:
            raise ValueError(
                f"shape {shape} (channel, z, y, x) of a Precomputed array cannot differ from its "
                f"layer's size {self.grid.size} (x, y, z)"
            )
        chunks = getattr(chunk_grid, "chunk_shape", None)
        if chunks != (channels, *reversed(self.grid.chunk_size)):
            raise ValueError(
                f"chunks {chunks} (channel, z, y, x) of a Precomputed array cannot differ from "
                f"its layer's: all channels and {self.grid.chunk_size} (x, y, z)"
            )
        problems = codec_problems(
            self.codec, data_type=dtype.to_native_dtype().name, num_channels=channels
        )
        for _, problem in problems:
            raise ValueError(problem)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        raise NotImplementedError("chunks at the far edges are cropped: sizes differ")

    # Reading: zarr asks for a part of one chunk, which is decoded as a whole.

    async def decode_partial(
        self, batch_info: Iterable[tuple[ByteGetter, Any, ArraySpec]]
    ) -> Iterable[NDBuffer | None]:
        return await _map_in_order(self._decode_partial_single, list(batch_info))

    async def _decode_partial_single(
        self, byte_getter: ByteGetter, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        loop = asyncio.get_running_loop()
        if _has_blocking_methods(byte_getter):
            # Fetching and decoding in one task of zarr's own threads.
            return await loop.run_in_executor(
                None, self._decode_partial_sync, byte_getter, selection, chunk_spec
            )
        data = await byte_getter.get(chunk_spec.prototype)
        if data is None or self.codec.place == "inline":
            return self._selected(byte_getter, data, selection, chunk_spec)
        return await loop.run_in_executor(
            codec_pool(), self._selected, byte_getter, data, selection, chunk_spec
        )

    def _decode_partial_sync(
        self, byte_getter: Any, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        data = byte_getter.get_sync(prototype=chunk_spec.prototype)
        return self._selected(byte_getter, data, selection, chunk_spec)

    def _selected(
        self, byte_getter: Any, data: Buffer | None, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        if data is None:
            return None
        chunk = self._decode(byte_getter, data, chunk_spec)
        part = chunk[_trimmed(selection, chunk.shape)]
        return chunk_spec.prototype.nd_buffer.from_numpy_array(np.asanyarray(part))

    def _decode(self, place: Any, data: Buffer, chunk_spec: ArraySpec) -> ChunkArray:
        cell = _cell(place)
        shape, dtype = self._shape(cell, chunk_spec), chunk_spec.dtype.to_native_dtype()
        view = memoryview(cast(Any, data.as_numpy_array()))
        try:
            return isolation.decode(self.codec, view, shape=shape, dtype=dtype)
        except FormatError as error:
            raise self._chunk_error(place, cell, error) from error

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        """A chunk of which nothing but the bytes is known."""
        self._check_uncropped()
        array = self._decode(None, chunk_data, chunk_spec)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(array)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    # Writing: a chunk that is written in part is read first.

    async def encode_partial(
        self, batch_info: Iterable[tuple[ByteSetter, NDBuffer, Any, ArraySpec]]
    ) -> None:
        await _map_in_order(self._encode_partial_single, list(batch_info))

    async def _encode_partial_single(
        self, byte_setter: ByteSetter, chunk_array: NDBuffer, selection: Any, chunk_spec: ArraySpec
    ) -> None:
        loop = asyncio.get_running_loop()
        if _has_blocking_methods(byte_setter):
            await loop.run_in_executor(
                None, self._encode_partial_sync, byte_setter, chunk_array, selection, chunk_spec
            )
            return
        old = None
        if not self._is_whole(byte_setter, selection, chunk_spec):
            try:
                old = await byte_setter.get(chunk_spec.prototype)
            except MissingChunkError:
                old = None
        data = await loop.run_in_executor(
            codec_pool(), self._updated, byte_setter, old, chunk_array, selection, chunk_spec
        )
        await (byte_setter.delete() if data is None else byte_setter.set(data))

    def _encode_partial_sync(
        self, byte_setter: Any, chunk_array: NDBuffer, selection: Any, chunk_spec: ArraySpec
    ) -> None:
        old = None
        if not self._is_whole(byte_setter, selection, chunk_spec):
            try:
                old = byte_setter.get_sync(prototype=chunk_spec.prototype)
            except MissingChunkError:
                old = None
        data = self._updated(byte_setter, old, chunk_array, selection, chunk_spec)
        if data is None:
            byte_setter.delete_sync()
        else:
            byte_setter.set_sync(data)

    def _is_whole(self, place: Any, selection: Any, chunk_spec: ArraySpec) -> bool:
        """Whether a selection leaves nothing of what was stored."""
        shape = self._shape(_cell(place), chunk_spec)
        return len(selection) == len(shape) and all(map(_is_full_axis, selection, shape))

    def _updated(
        self,
        place: Any,
        old: Buffer | None,
        value: NDBuffer,
        selection: Any,
        chunk_spec: ArraySpec,
    ) -> Buffer | None:
        """The encoded chunk with new values in it, or None if all of it is the fill value."""
        cell = _cell(place)
        shape, dtype = self._shape(cell, chunk_spec), chunk_spec.dtype.to_native_dtype()
        if old is None:
            chunk = np.full(shape, chunk_spec.fill_value, dtype)
        else:
            chunk = np.array(self._decode(place, old, chunk_spec))
        _assign(chunk, _trimmed(selection, shape), value.as_numpy_array())
        return self._encode(place, cell, chunk, chunk_spec)

    def _encode(
        self, place: Any, cell: XYZ | None, chunk: ChunkArray, chunk_spec: ArraySpec
    ) -> Buffer | None:
        if not chunk_spec.config.write_empty_chunks and _is_all(chunk, chunk_spec.fill_value):
            return None
        try:
            data = self.codec.encode(chunk)
        except FormatError as error:
            raise self._chunk_error(place, cell, error) from error
        return chunk_spec.prototype.buffer.from_bytes(data)

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        """A chunk of which nothing but the voxels is known."""
        self._check_uncropped()
        return self._encode(None, None, chunk_data.as_numpy_array(), chunk_spec)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    def _shape(self, cell: XYZ | None, chunk_spec: ArraySpec) -> CZYX:
        x, y, z = self.grid.chunk_size if cell is None else self.grid.chunk_shape(cell)
        return chunk_spec.shape[0], z, y, x

    def _check_uncropped(self) -> None:
        """Refuse to work without keys where chunks may be cropped."""
        if any(n % c for n, c in zip(self.grid.size, self.grid.chunk_size, strict=True)):
            raise UnsupportedError(
                "zarr did not say which chunk this is, and chunks at the far edges are cropped. "
                "The codec must be the only one of its array, and remote layers are written with "
                "zarr's default pipeline: zarr.config.set({'codec_pipeline.path': "
                "'zarr.core.codec_pipeline.BatchedCodecPipeline'})"
            )

    def _chunk_error(self, place: Any, cell: XYZ | None, cause: Exception) -> ChunkError:
        if cell is None:
            return ChunkError(f"chunk ({self.codec.name}): {cause}")
        box, name = self.grid.cell_box(cell), self.grid.chunk_name(cell)
        return ChunkError(
            f"{place}: chunk {box} ({name!r}, {self.codec.name}): {cause}",
            key=place.path,
            box=box,
        )


def _triple(name: str, value: object) -> XYZ:
    if value is None and name == "voxel_offset":
        return (0, 0, 0)
    if not isinstance(value, Sequence) or not all(type(number) is int for number in value):
        raise ValueError(f"codec {CODEC_NAME!r}: {name} is {value!r}; expected [x, y, z]")
    if len(value) != 3 or (name != "voxel_offset" and min(value) < 1):
        raise ValueError(f"codec {CODEC_NAME!r}: {name} is {value!r}; expected [x, y, z]")
    x, y, z = value
    return x, y, z


def _cell(place: Any) -> XYZ | None:
    """The cell that a chunk's key ends in; None where there is no key."""
    path = getattr(place, "path", None)
    if path is None:
        return None
    *_, z, y, x = path.rsplit("/", 3)
    return int(x), int(y), int(z)


def _has_blocking_methods(place: Any) -> bool:
    """Whether a store does better in threads than with coroutines: local disks, memory."""
    store = getattr(place, "store", None)
    if not hasattr(place, "get_sync") or not all(hasattr(store, name) for name in _BLOCKING):
        return False
    return bool(getattr(store, "_supports_sync_io", True))


def _trimmed(selection: Any, shape: CZYX) -> Any:
    """A selection without what zarr adds to masks to fill a whole chunk."""
    if not any(isinstance(axis, np.ndarray) and axis.dtype == bool for axis in selection):
        return selection
    return tuple(
        axis[:length] if isinstance(axis, np.ndarray) and axis.dtype == bool else axis
        for axis, length in zip(selection, shape, strict=True)
    )


def _is_full_axis(axis: Any, length: int) -> bool:
    if isinstance(axis, slice):
        return axis.indices(length) == (0, length, 1)
    return length == 1 and isinstance(axis, int | np.integer)


def _assign(chunk: ChunkArray, selection: Any, value: ChunkArray) -> None:
    """``chunk[selection] = value``, where axes of length one may have been dropped."""
    if value.ndim:
        shape = chunk[selection].shape
        if value.ndim < len(shape) and value.size == np.prod(shape):
            value = value.reshape(shape)
    chunk[selection] = value


def _is_all(chunk: ChunkArray, fill_value: Any) -> bool:
    """Whether every voxel is the fill value, bit for bit (so not ``-0.0`` for ``0.0``)."""
    fill = np.asarray(fill_value, chunk.dtype)
    if chunk.dtype.kind == "f":
        bits = f"u{chunk.dtype.itemsize}"
        chunk, fill = chunk.view(bits), fill.view(bits)
    return bool((chunk == fill).all())


async def _map_in_order(
    function: Callable[..., Awaitable[T]], items: Sequence[tuple[Any, ...]]
) -> list[T]:
    """Await a function for each item, many at once: zarr's limit, or the store's if higher."""
    if len(items) == 1:
        return [await function(*items[0])]
    results: dict[int, T] = {}

    async def run(index: int) -> None:
        results[index] = await function(*items[index])

    limit = config.get("async.concurrency")
    if items:
        limit = max(limit, getattr(getattr(items[0][0], "store", None), "concurrency", 0))
    await bounded(limit)(range(len(items)), run)
    return [results[index] for index in range(len(items))]
