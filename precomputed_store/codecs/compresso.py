"""The compresso encoding: run-length coded boundaries and one label per connected component.

A kernel of our own encodes and decodes, if it could be compiled, and only the slices that are
wanted. Else the library does. Malformed bytes crash it whatever its header says, so it runs in a
worker, and what can be checked without decoding is checked before: the header, the lengths of
the sections, the windows (which add up to the chunk exactly) and the index of z slices.

Specification: https://github.com/seung-lab/compresso, "Compresso Stream Format".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from precomputed_store._native import compresso as native
from precomputed_store.codecs import _compresso_stream as stream
from precomputed_store.codecs.base import (
    CZYX,
    Buffer,
    ChunkArray,
    Codec,
    Place,
    Ranges,
    require,
)
from precomputed_store.codecs.checks import check_holds, conform, library_errors
from precomputed_store.errors import FormatError

__all__ = ["Compresso"]

_MAX_SIZE: Final = 0xFFFF
_FIRST_LABEL: Final = 7
"""A location is a direction below this, or a label plus this."""
_RARE_LABEL: Final = 0x9E3779B1
_ESCAPE: Final = 6
"""A location of this value stands before a label; greater ones are a label plus 7."""
_TOO_FEW: Final = "windows need more ids or locations than there are"
_REFUSALS: Final = {
    native.Outcome.DAMAGED: "sections contradict each other",
    native.Outcome.TOO_FEW: _TOO_FEW,
    native.Outcome.OUTSIDE: "location copies the label of a voxel outside of the chunk",
    native.Outcome.WRONG_INDEX: "index of z slices counts more ids or locations than they need",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compresso(Codec):
    """Without parameters."""

    name: ClassVar[str] = "compresso"
    place: ClassVar[Place] = "worker"
    decodes_boxes: ClassVar[bool] = True
    # Noise, whose tables are longer than its voxels, takes 5.8 times the chunk at 8 bytes per
    # voxel and 9.4 at 1; reserved is more, as tables double when they grow.
    working_memory: ClassVar[tuple[int, int]] = (8, 8)
    data_types: ClassVar[tuple[str, ...]] = ("uint8", "uint16", "uint32", "uint64")
    channels: ClassVar[tuple[int, ...] | None] = (1,)
    content_type: ClassVar[str] = "image/x.compresso"
    compressible: ClassVar[bool] = True

    def decode(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        check_holds(type(self), shape, dtype)
        chunk = self.decode_as_box(data, shape=shape, dtype=dtype)
        if chunk is not None:
            return chunk
        header = stream.checked_header(data, shape=shape, dtype=dtype)
        with library_errors(self.name):
            labels = _decompress(bytes(data), header)
        return conform(labels.T[np.newaxis], shape=shape, dtype=dtype)

    def decode_box(self, data: Buffer, *, shape: CZYX, box: Ranges, out: ChunkArray) -> bool:
        check_holds(type(self), shape, out.dtype)
        outcome = native.decode_box(data, shape=shape[1:], box=box, out=out[0])
        if outcome is None:
            return False
        if outcome is not native.Outcome.DONE:
            stream.checked_header(data, shape=shape, dtype=out.dtype)
            raise FormatError(f"compresso {_REFUSALS[outcome]}")
        return True

    def encode(self, array: ChunkArray) -> bytes:
        check_holds(type(self), array.shape, array.dtype)
        if max(array.shape) > _MAX_SIZE:
            raise FormatError(
                f"compresso holds at most {_MAX_SIZE} voxels along an axis; "
                f"the chunk is {array.shape[1:]} (z, y, x)"
            )
        by_kernel = native.encode(array[0])
        if by_kernel is not None:
            return by_kernel
        library = require("compresso", extra=None, purpose="encoding compresso")
        labels = np.require(array[0], array.dtype.newbyteorder("="), ["C", "W"]).T
        with library_errors(self.name):
            encoded: bytes = library.compress(labels)
        return _wide_labels_in_full(encoded) if array.dtype.itemsize == 8 else encoded

    def max_encoded_bytes(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        voxels = math.prod(shape)
        labels = 3 * voxels * dtype.itemsize  # one id, one escaped location per voxel
        windows = 2 * 8 * voxels  # of one voxel each, and as many distinct ones
        return stream.HEADER.size + labels + windows + 16 * shape[1]

    def recognises(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> bool:
        return bytes(data[:4]) == b"cpso"


def _decompress(data: bytes, header: stream.Header) -> ChunkArray:
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
        raise FormatError(f"compresso {_TOO_FEW}")
    return labels


def _unused_label(data: bytes, header: stream.Header) -> int | None:
    """A label that no id or location is, or means; the same for what it means as a location."""
    (ids_start, ids_stop), (start, stop) = stream.label_sections(header)
    ids = stream.integers(data, ids_start, ids_stop, header.label_bytes)
    labels = np.concatenate([ids, stream.integers(data, start, stop, header.label_bytes)])
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


def _followed_by(label: int, data: bytes, header: stream.Header) -> bytes:
    """The same chunk with a label behind the ids and behind the locations.

    A location can be an escape with the label behind it, so there it is needed twice.
    """
    (_, ids_stop), (_, stop) = stream.label_sections(header)
    encoded = label.to_bytes(header.label_bytes, "little")
    longer = header._replace(num_ids=header.num_ids + 1, num_locations=header.num_locations + 2)
    return b"".join(
        [
            stream.HEADER.pack(*longer),
            data[stream.HEADER.size : ids_stop],
            encoded,
            data[ids_stop:stop],
            encoded * 2,
            data[stop:],
        ]
    )


def _wide_labels_in_full(encoded: bytes) -> bytes:
    """The same chunk with an escape before every label that takes more than 32 bits.

    The library escapes only those that overflow 64 bits. But Neuroglancer holds a location
    in 32, and cuts the label in it; one behind an escape it takes whole. So does everybody.
    """
    header = stream.read_header(encoded)
    values_start = stream.HEADER.size + header.label_bytes * header.num_ids
    locations_start = values_start + header.window_bytes * header.num_values
    windows_start = locations_start + header.label_bytes * header.num_locations
    locations = stream.integers(encoded, locations_start, windows_start, header.label_bytes)
    wide = locations > 0xFFFFFFFF
    wide[1:] &= locations[:-1] != _ESCAPE  # what the library has escaped is never an escape
    if not wide.any():
        return encoded
    (where,) = wide.nonzero()
    full = np.insert(locations - 7 * wide.astype("<u8"), where, _ESCAPE)
    index_start = len(encoded) - header.index_bytes * header.sz
    differences = stream.integers(encoded, index_start, len(encoded), header.index_bytes)
    slice_starts = differences.cumsum(dtype="<u8")
    slice_starts += np.searchsorted(where, slice_starts).astype("<u8")
    differences = np.diff(slice_starts, prepend=np.zeros(1, "<u8")).astype(differences.dtype)
    return b"".join(
        [
            stream.HEADER.pack(*header._replace(num_locations=full.size)),
            encoded[stream.HEADER.size : locations_start],
            full.tobytes(),
            encoded[windows_start:index_start],
            differences.tobytes(),
        ]
    )
