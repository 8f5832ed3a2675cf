"""The header and the sections of a compresso chunk, and whether they can be.

Specification: https://github.com/seung-lab/compresso, "Compresso Stream Format".
"""

from __future__ import annotations

import math
import struct
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from precomputed_store.codecs.base import CZYX, Buffer
from precomputed_store.errors import FormatError

__all__ = ["HEADER", "Header", "checked_header", "integers", "label_sections", "read_header"]

HEADER: Final = struct.Struct("<4s2B3H3BQIQB")


class Header(NamedTuple):
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


def read_header(data: Buffer) -> Header:
    if len(data) < HEADER.size:
        raise FormatError(f"compresso chunk is {len(data)} bytes; its header alone has 36")
    return Header._make(HEADER.unpack_from(data))


def checked_header(data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> Header:
    """The header, if it and the sections are those of such a chunk."""
    header = read_header(data)
    _check_header(header, shape=shape, dtype=dtype)
    _check_sections(data, header)
    return header


def _check_header(header: Header, *, shape: CZYX, dtype: np.dtype[Any]) -> None:
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


def _check_sections(data: Buffer, header: Header) -> None:
    """Check that the sections fill the chunk and the windows the volume."""
    values_start = HEADER.size + header.label_bytes * header.num_ids
    locations_start = values_start + header.window_bytes * header.num_values
    windows_start = locations_start + header.label_bytes * header.num_locations
    index_start = len(data) - 2 * header.index_bytes * header.sz
    if index_start < windows_start or (index_start - windows_start) % header.window_bytes:
        raise FormatError(
            f"compresso chunk is {len(data)} bytes; its header announces {windows_start} bytes "
            f"before windows of {header.window_bytes} bytes each, and "
            f"{len(data) - index_start} after"
        )
    _check_windows(integers(data, windows_start, index_start, header.window_bytes), header)
    if header.version:
        _check_index(integers(data, index_start, len(data), header.index_bytes), header)


def integers(data: Buffer, start: int, stop: int, width: int) -> npt.NDArray[np.unsignedinteger]:
    return np.frombuffer(data, f"<u{width}", (stop - start) // width, start)


def _check_windows(coded: npt.NDArray[np.unsignedinteger], header: Header) -> None:
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


def _check_index(index: npt.NDArray[np.unsignedinteger], header: Header) -> None:
    """Labels per slice, then where each slice's locations begin, as differences."""
    labels, locations = index.reshape(2, -1).sum(axis=1, dtype=np.uint64).tolist()
    if labels != header.num_ids or locations > header.num_locations:
        raise FormatError(
            f"compresso index of z slices counts {labels} ids and {locations} locations; "
            f"the header has {header.num_ids} and {header.num_locations}"
        )


def label_sections(header: Header) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where the ids and the locations begin and end."""
    ids_stop = HEADER.size + header.label_bytes * header.num_ids
    start = ids_stop + header.window_bytes * header.num_values
    return (HEADER.size, ids_stop), (start, start + header.label_bytes * header.num_locations)
