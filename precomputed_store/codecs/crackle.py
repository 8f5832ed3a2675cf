"""The crackle encoding: crack codes of 2-D boundaries and one label per component.

Malformed bytes crash the library whatever its header says, so it runs in a worker. The
header, the length and the checksum of the labels, which the library ignores, are checked
before; the library checks those of the header and of the index of z slices. A z slice that
it cannot decode, or whose checksum is wrong, it leaves as the memory happened to be, without
an error: so that memory is filled with a pattern to be recognised.

Specification: https://github.com/seung-lab/crackle, "Stream Format".
"""

from __future__ import annotations

import ctypes
import functools
import math
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from precomputed_store.codecs.base import CZYX, Buffer, ChunkArray, Codec, Place, Slab, require
from precomputed_store.codecs.checks import check_holds, conform, library_errors
from precomputed_store.errors import FormatError

__all__ = ["Crackle"]

_HEADERS: Final = (struct.Struct("<4sBH3IBI"), struct.Struct("<4sBH3IBQB"))
"""Of version 0 and 1: magic, version, format, size, log2 of the grid, label bytes, CRC."""
_MAX_MODEL_BYTES: Final = 4**10 * 5 // 8
_PURPOSE: Final = "the encoding crackle"

_M_PERTURB: Final = -6
_FILLERS: Final = (0xA5, 0x5A)
_LARGEST_CACHED_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Crackle(Codec):
    """Without parameters."""

    name: ClassVar[str] = "crackle"
    place: ClassVar[Place] = "worker"
    # Noise takes 1.5 times the chunk, and reserves between 2 and 3 times.
    working_memory: ClassVar[tuple[int, int]] = (4, 0)
    data_types: ClassVar[tuple[str, ...]] = ("uint8", "uint16", "uint32", "uint64")
    channels: ClassVar[tuple[int, ...] | None] = (1,)
    content_type: ClassVar[str] = "image/x.crackle"
    compressible: ClassVar[bool] = True
    in_neuroglancer: ClassVar[bool] = False

    def decode(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        return self.decode_slab(data, shape=shape, dtype=dtype, slab=(0, shape[1]))

    def decode_slab(
        self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any], slab: Slab
    ) -> ChunkArray:
        check_holds(type(self), shape, dtype)
        header = _read_header(data)
        _check_length(data, header, shape=shape, dtype=dtype)
        _check_labels(data, header)
        with library_errors(self.name):
            labels = _decompress(bytes(data), header, slab)
        shape = (1, slab[1] - slab[0], *shape[2:])
        return conform(labels.T[np.newaxis], shape=shape, dtype=dtype)

    def encode(self, array: ChunkArray) -> bytes:
        check_holds(type(self), array.shape, array.dtype)
        library = require("crackle", extra="seg", purpose=_PURPOSE)
        labels = np.ascontiguousarray(array[0], dtype=array.dtype.newbyteorder("=")).T
        with library_errors(self.name):
            encoded: bytes = library.compress(labels, parallel=1)
        return encoded

    def max_encoded_bytes(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        voxels = math.prod(shape)
        labels = voxels * (dtype.itemsize + 8)  # all distinct, with an index each
        cracks = voxels * 8
        return 1024 + labels + cracks + 32 * shape[1] + _MAX_MODEL_BYTES

    def recognises(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> bool:
        return bytes(data[:4]) == b"crkl"


class _Header(NamedTuple):
    version: int
    num_bytes: int
    size: tuple[int, int, int]
    label_bytes: int
    section_bytes: int
    """Length of the labels."""
    model_bytes: int
    """Length of the Markov model of the crack codes."""
    is_remapped: bool
    """Neighbouring components may have the same label."""


def _read_header(data: Buffer) -> _Header:
    """Read what the length depends on; the library checks the header's CRC."""
    if bytes(data[:4]) != b"crkl":
        raise FormatError(f"crackle chunk begins with {bytes(data[:4])!r}; expected b'crkl'")
    version = data[4] if len(data) > 4 else 0
    if version > 1:
        raise FormatError(f"crackle chunk has version {version}; expected 0 or 1")
    layout = _HEADERS[version]
    if len(data) < layout.size:
        raise FormatError(f"crackle chunk is {len(data)} bytes; its header has {layout.size}")
    _, _, format_bits, sx, sy, sz, _, section_bytes, *_ = layout.unpack_from(data)
    order = format_bits >> 9 & 0xF
    return _Header(
        version=version,
        num_bytes=layout.size,
        size=(sx, sy, sz),
        label_bytes=1 << (format_bits & 3),
        section_bytes=section_bytes,
        model_bytes=(4**order * 5 + 7) // 8 if order else 0,
        is_remapped=bool(format_bits >> 14 & 1),
    )


def _check_length(data: Buffer, header: _Header, *, shape: CZYX, dtype: np.dtype[Any]) -> None:
    if header.size != shape[:0:-1] or header.label_bytes != dtype.itemsize:
        raise FormatError(
            f"crackle chunk holds {header.size} voxels (x, y, z) of {header.label_bytes} "
            f"bytes; expected {shape[:0:-1]} of {dtype.itemsize}"
        )
    num_slices = header.size[2]
    crc_bytes = 4 * (num_slices + 2) if header.version else 0  # of index, labels and slices
    expected = header.num_bytes + 4 * num_slices + header.section_bytes + header.model_bytes
    expected += crc_bytes
    if len(data) >= expected:
        index = np.frombuffer(data, "<u4", num_slices, header.num_bytes)
        expected += int(index.sum(dtype=np.uint64))
    if len(data) != expected:
        raise FormatError(
            f"crackle chunk is {len(data)} bytes; its header and index announce {expected}"
        )


def _check_labels(data: Buffer, header: _Header) -> None:
    """Compare the labels with their checksum, which version 0 has not."""
    if not header.version:
        return
    num_slices = header.size[2]
    start = header.num_bytes + 4 * (num_slices + 1)
    labels = bytes(data[start : start + header.section_bytes])
    (stored,) = struct.unpack_from("<I", data, len(data) - 4 * (num_slices + 1))
    checksums = require("google_crc32c", extra="seg", purpose=_PURPOSE)
    if checksums.value(labels) != stored:
        raise FormatError("crackle labels do not match their checksum")


def _decompress(data: bytes, header: _Header, slab: Slab) -> ChunkArray:
    """Decode, and make sure that the library has written every slice."""
    num_bytes = math.prod(header.size[:2]) * (slab[1] - slab[0]) * header.label_bytes
    for filler in _FILLERS:
        with _fresh_memory_filled(filler, num_bytes) as certain:
            labels = _decompress_slab(data, header, slab)
        if not certain:
            _check_slices(labels, data, header, slab)
        # A slice that really is the one pattern is not the other.
        if not _has_slice_of(labels, int.from_bytes(bytes([filler]) * labels.itemsize)):
            return labels
    raise FormatError("crackle chunk has z slices that cannot be decoded")


def _decompress_slab(data: bytes, header: _Header, slab: Slab) -> ChunkArray:
    library = require("crackle", extra="seg", purpose=_PURPOSE)
    labels: ChunkArray
    if slab == (0, header.size[2]):
        labels = library.decompress(data, parallel=1)
    else:
        labels = library.codec.decompress_range(data, *slab, 1)
    return labels


@contextmanager
def _fresh_memory_filled(filler: int, num_bytes: int) -> Iterator[bool]:
    """Have an array of so many bytes begin with a filler; whether that is certain.

    Small arrays get the memory of the last one of their size, others what the C library fills.
    """
    library = _glibc()
    certain = library is not None and num_bytes > _LARGEST_CACHED_BYTES
    if not certain:
        np.full(num_bytes, filler, np.uint8)
    if library is None:
        yield False
        return
    library.mallopt(_M_PERTURB, filler ^ 0xFF)
    try:
        yield certain
    finally:
        library.mallopt(_M_PERTURB, 0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def _has_slice_of(labels: ChunkArray, label: int) -> bool:
    suspects = np.flatnonzero(labels[0, 0] == label)
    return any(bool((labels[:, :, z] == label).all()) for z in suspects)


def _check_slices(labels: ChunkArray, data: bytes, header: _Header, slab: Slab) -> None:
    """Compare what was decoded with the checksums of the slices.

    They are those of the numbers of a slice's connected components. Where these do not follow
    from the labels, or there is no checksum, the library is asked to count the voxels; what
    it cannot decode it does not count.
    """
    num_slices = header.size[2]
    library = require("fastcrackle", extra="seg", purpose=_PURPOSE)
    if header.version == 0 or header.is_remapped:
        if sum(library.voxel_counts(data, *slab, 1).values()) != labels.size:
            raise FormatError("crackle chunk has z slices that cannot be decoded")
        return
    stored = np.frombuffer(data, "<u4", num_slices, len(data) - 4 * num_slices)
    numbers = np.asarray(library.connected_components(np.asfortranarray(labels))[0])
    slices = numbers.reshape(slab[1] - slab[0], -1)
    slices -= slices[:, :1]
    value = require("google_crc32c", extra="seg", purpose=_PURPOSE).value
    for z, numbers in enumerate(slices, slab[0]):
        if value(numbers.tobytes()) != stored[z]:
            raise FormatError(f"crackle z slice {z} does not match its checksum")
