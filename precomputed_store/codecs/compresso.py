"""The compresso encoding: run-length coded boundaries and one label per connected component.

Malformed bytes crash the library whatever its header says, so it runs in a worker. What
can be checked without decoding is checked before: the header, the lengths of the sections,
the windows (which add up to the chunk exactly) and the index of z slices.

Specification: https://github.com/seung-lab/compresso, "Compresso Stream Format".
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from precomputed_store.codecs.base import CZYX, Buffer, ChunkArray, Codec, Place, require
from precomputed_store.codecs.checks import check_holds, conform, library_errors
from precomputed_store.errors import FormatError

__all__ = ["Compresso"]

_HEADER: Final = struct.Struct("<4s2B3H3BQIQB")
_MAX_SIZE: Final = 0xFFFF
_FIRST_LABEL: Final = 7
"""A location is a direction below this, or a label plus this."""
_RARE_LABEL: Final = 0x9E3779B1
_ESCAPE: Final = 6
"""A location of this value stands before a label; greater ones are a label plus 7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compresso(Codec):
    """Without parameters."""

    name: ClassVar[str] = "compresso"
    place: ClassVar[Place] = "worker"
    # Noise, whose tables are longer than its voxels, takes 5.8 times the chunk at 8 bytes per
    # voxel and 9.4 at 1; reserved is more, as tables double when they grow.
    working_memory: ClassVar[tuple[int, int]] = (8, 8)
    data_types: ClassVar[tuple[str, ...]] = ("uint8", "uint16", "uint32", "uint64")
    channels: ClassVar[tuple[int, ...] | None] = (1,)
    content_type: ClassVar[str] = "image/x.compresso"
    compressible: ClassVar[bool] = True

    def decode(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        check_holds(type(self), shape, dtype)
        header = _read_header(data)
        _check_header(header, shape=shape, dtype=dtype)
        _check_sections(data, header)
        with library_errors(self.name):
            labels = _decompress(bytes(data), header)
        return conform(labels.T[np.newaxis], shape=shape, dtype=dtype)

    def encode(self, array: ChunkArray) -> bytes:
        check_holds(type(self), array.shape, array.dtype)
        if max(array.shape) > _MAX_SIZE:
            raise FormatError(
                f"compresso holds at most {_MAX_SIZE} voxels along an axis; "
                f"the chunk is {array.shape[1:]} (z, y, x)"
            )
        library = require("compresso", extra=None, purpose="encoding compresso")
        labels = np.require(array[0], array.dtype.newbyteorder("="), ["C", "W"]).T
        with library_errors(self.name):
            encoded: bytes = library.compress(labels)
        return _wide_labels_in_full(encoded) if array.dtype.itemsize == 8 else encoded

    def max_encoded_bytes(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        voxels = math.prod(shape)
        labels = 3 * voxels * dtype.itemsize  # one id, one escaped location per voxel
        windows = 2 * 8 * voxels  # of one voxel each, and as many distinct ones
        return _HEADER.size + labels + windows + 16 * shape[1]

    def recognises(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> bool:
        return bytes(data[:4]) == b"cpso"


class _Header(NamedTuple):
    magic: bytes
    version: int
    label_bytes: int
    sx: int
    sy: int
    sz: int
    step_x: int
    step_y: int
    step_z: int
    num_ids: int
    num_values: int
    num_locations: int
    connectivity: int

    @property
    def size(self) -> tuple[int, int, int]:
        return self.sx, self.sy, self.sz

    @property
    def steps(self) -> tuple[int, int, int]:
        return self.step_x, self.step_y, self.step_z

    @property
    def window_bytes(self) -> int:
        """Width of the smallest integer with a bit for every voxel of a window."""
        return _bytes_for_bits(math.prod(self.steps))

    @property
    def num_windows(self) -> int:
        return math.prod(-(-n // step) for n, step in zip(self.size, self.steps, strict=True))

    @property
    def index_bytes(self) -> int:
        """Width of a number in the index of z slices, which version 1 has."""
        return _bytes_for_bits((2 * self.sx * self.sy).bit_length()) if self.version else 0


def _bytes_for_bits(bits: int) -> int:
    return next(width for width in (1, 2, 4, 8) if bits <= 8 * width)


def _read_header(data: Buffer) -> _Header:
    if len(data) < _HEADER.size:
        raise FormatError(f"compresso chunk is {len(data)} bytes; its header alone has 36")
    return _Header._make(_HEADER.unpack_from(data))


def _check_header(header: _Header, *, shape: CZYX, dtype: np.dtype[Any]) -> None:
    if header.magic != b"cpso" or header.version > 1:
        raise FormatError(
            f"compresso chunk begins with {header.magic!r}, version {header.version}; "
            "expected b'cpso', version 0 or 1"
        )
    if header.size != shape[:0:-1] or header.label_bytes != dtype.itemsize:
        raise FormatError(
            f"compresso chunk holds {header.size} voxels (x, y, z) of {header.label_bytes} "
            f"bytes; expected {shape[:0:-1]} of {dtype.itemsize}"
        )
    if not 0 < math.prod(header.steps) <= 64:
        raise FormatError(f"compresso windows of {header.steps} voxels; expected 1 to 64 voxels")
    if header.connectivity not in ((4,) if header.version else (4, 6)):
        raise FormatError(f"compresso connectivity {header.connectivity}; expected 4 or 6")


def _check_sections(data: Buffer, header: _Header) -> None:
    """Check that the sections fill the chunk and the windows the volume."""
    values_start = _HEADER.size + header.label_bytes * header.num_ids
    locations_start = values_start + header.window_bytes * header.num_values
    windows_start = locations_start + header.label_bytes * header.num_locations
    index_start = len(data) - 2 * header.index_bytes * header.sz
    if index_start < windows_start or (index_start - windows_start) % header.window_bytes:
        raise FormatError(
            f"compresso chunk is {len(data)} bytes; its header announces {windows_start} bytes "
            f"before windows of {header.window_bytes} bytes each, and "
            f"{len(data) - index_start} after"
        )
    _check_windows(_integers(data, windows_start, index_start, header.window_bytes), header)
    if header.version:
        _check_index(_integers(data, index_start, len(data), header.index_bytes), header)


def _integers(data: Buffer, start: int, stop: int, width: int) -> npt.NDArray[np.unsignedinteger]:
    return np.frombuffer(data, f"<u{width}", (stop - start) // width, start)


def _check_windows(coded: npt.NDArray[np.unsignedinteger], header: _Header) -> None:
    """A code is a run of empty windows (odd) or the index of a window's value (even)."""
    numbers = coded >> coded.dtype.type(1)
    is_run = (coded & coded.dtype.type(1)).astype(bool)
    runs, indices = numbers[is_run], numbers[~is_run]
    if int(runs.max(initial=0)) > header.num_windows:
        total = -1
    else:
        total = int(runs.sum(dtype=np.uint64)) + indices.size
    if total != header.num_windows:
        raise FormatError(
            f"compresso windows do not add up to the {header.num_windows} of the chunk"
        )
    if int(indices.max(initial=0)) >= header.num_values:
        raise FormatError(f"compresso window value out of {header.num_values}")


def _check_index(index: npt.NDArray[np.unsignedinteger], header: _Header) -> None:
    """Labels per slice, then where each slice's locations begin, as differences."""
    labels, locations = index.reshape(2, -1).sum(axis=1, dtype=np.uint64).tolist()
    if labels != header.num_ids or locations > header.num_locations:
        raise FormatError(
            f"compresso index of z slices counts {labels} ids and {locations} locations; "
            f"the header has {header.num_ids} and {header.num_locations}"
        )


def _decompress(data: bytes, header: _Header) -> ChunkArray:
    """Decode, and make sure that there are as many ids and locations as the windows need.

    The library does not: it takes labels from the memory behind. So a label that does not
    occur is put there, to be found in the result; or where all occur, one and then another.
    """
    library = require("compresso", extra=None, purpose="decoding compresso")
    label = _unused_label(data, header)
    if label is None:
        labels: ChunkArray = library.decompress(_followed_by(100, data, header))
        is_whole = np.array_equal(labels, library.decompress(_followed_by(200, data, header)))
    else:
        labels = library.decompress(_followed_by(label, data, header))
        is_whole = not ((labels == label).any() or (labels == label - _FIRST_LABEL).any())
    if not is_whole:
        raise FormatError("compresso windows need more ids or locations than there are")
    return labels


def _unused_label(data: bytes, header: _Header) -> int | None:
    """A label that no id or location is, or means; the same for what it means as a location."""
    (ids_start, ids_stop), (start, stop) = _label_sections(header)
    ids = _integers(data, ids_start, ids_stop, header.label_bytes)
    labels = np.concatenate([ids, _integers(data, start, stop, header.label_bytes)])
    if header.label_bytes > 2:
        for label in range(_RARE_LABEL, _RARE_LABEL + (1 << 20), 32):
            near = (label - _FIRST_LABEL, label, label + _FIRST_LABEL)
            if not any((labels == other).any() for other in near):
                return label
        return None
    used = np.zeros((1 << 8 * header.label_bytes) + _FIRST_LABEL, bool)
    used[labels] = used[0] = True
    (free,) = (
        ~(used[: -2 * _FIRST_LABEL] | used[_FIRST_LABEL:-_FIRST_LABEL] | used[2 * _FIRST_LABEL :])
    ).nonzero()
    return int(free[0]) + _FIRST_LABEL if free.size else None


def _followed_by(label: int, data: bytes, header: _Header) -> bytes:
    """The same chunk with a label behind the ids and behind the locations.

    A location can be an escape with the label behind it, so there it is needed twice.
    """
    (_, ids_stop), (_, stop) = _label_sections(header)
    encoded = label.to_bytes(header.label_bytes, "little")
    longer = header._replace(num_ids=header.num_ids + 1, num_locations=header.num_locations + 2)
    return b"".join(
        [
            _HEADER.pack(*longer),
            data[_HEADER.size : ids_stop],
            encoded,
            data[ids_stop:stop],
            encoded * 2,
            data[stop:],
        ]
    )


def _label_sections(header: _Header) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where the ids and the locations begin and end."""
    ids_stop = _HEADER.size + header.label_bytes * header.num_ids
    start = ids_stop + header.window_bytes * header.num_values
    return (_HEADER.size, ids_stop), (start, start + header.label_bytes * header.num_locations)


def _wide_labels_in_full(encoded: bytes) -> bytes:
    """The same chunk with an escape before every label that takes more than 32 bits.

    The library escapes only those that overflow 64 bits. But Neuroglancer holds a location
    in 32, and cuts the label in it; one behind an escape it takes whole. So does everybody.
    """
    header = _read_header(encoded)
    values_start = _HEADER.size + header.label_bytes * header.num_ids
    locations_start = values_start + header.window_bytes * header.num_values
    windows_start = locations_start + header.label_bytes * header.num_locations
    locations = _integers(encoded, locations_start, windows_start, header.label_bytes)
    wide = locations > 0xFFFFFFFF
    wide[1:] &= locations[:-1] != _ESCAPE  # what the library has escaped is never an escape
    if not wide.any():
        return encoded
    (where,) = wide.nonzero()
    full = np.insert(locations - 7 * wide.astype("<u8"), where, _ESCAPE)
    index_start = len(encoded) - header.index_bytes * header.sz
    differences = _integers(encoded, index_start, len(encoded), header.index_bytes)
    slice_starts = differences.cumsum(dtype="<u8")
    slice_starts += np.searchsorted(where, slice_starts).astype("<u8")
    differences = np.diff(slice_starts, prepend=np.zeros(1, "<u8")).astype(differences.dtype)
    return b"".join(
        [
            _HEADER.pack(*header._replace(num_locations=full.size)),
            encoded[_HEADER.size : locations_start],
            full.tobytes(),
            encoded[windows_start:index_start],
            differences.tobytes(),
        ]
    )
