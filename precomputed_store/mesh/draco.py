"""Draco streams ⇄ integer vertices and triangles, behind a check of what they claim.

The library allocates what a stream's header asks for. So the header is read first: a mesh
has no more faces and vertices than a small multiple of the stream's bytes (Draco spends a
bit and more on a face), and a stream that claims otherwise is refused.
Specification: meshes.md, "Multi-resolution mesh fragment data file format"; the Draco
bitstream specification, "Draco Header Decode", "Metadata" and "Connectivity".
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from precomputed_store.codecs.base import Buffer, require
from precomputed_store.errors import FormatError

__all__ = ["decode", "encode"]

_HEADER_BYTES: Final = 11
_TRIANGULAR_MESH: Final = 1
_SEQUENTIAL, _EDGEBREAKER = 0, 1
_HAS_METADATA: Final = 0x8000
_MOST_PER_BYTE: Final = 32
_SPARE: Final = 1024
_MAX_METADATA_DEPTH: Final = 8

Points = npt.NDArray[np.uint32]


def decode(data: Buffer, *, bits: int) -> tuple[Points, Points]:
    """Vertices and triangles of a fragment.

    Parameters
    ----------
    data : bytes-like
        A Draco stream.
    bits : int
        `vertex_quantization_bits`.

    Returns
    -------
    vertices, faces : uint32 (n, 3)
        Vertices in ``[0, 2**bits)``.

    Raises
    ------
    FormatError
        It is no Draco mesh of integer positions, or damaged.
    UnsupportedError
        DracoPy is not installed.
    """
    stream = bytes(data)
    _check_header(stream)
    library = require("DracoPy", extra="meshes", purpose="multi-resolution meshes")
    try:
        found = library.decode(stream)
        points, faces = np.asarray(found.points), np.asarray(found.faces)
    # The library lets out whatever its own Python code stumbles over, too.
    except Exception as error:
        raise FormatError(f"Draco stream of {len(stream)} bytes: {error}") from error
    return _vertices(points, bits=bits), _faces(faces, num_vertices=len(points))


def encode(vertices: Points, faces: Points, *, level: int) -> bytes:
    """A Draco stream of integer vertices and triangles, both of shape (n, 3).

    Parameters
    ----------
    level : int
        From 0 (fast) to 10 (small).

    Raises
    ------
    UnsupportedError
        DracoPy is not installed.
    """
    library = require("DracoPy", extra="meshes", purpose="multi-resolution meshes")
    stream: bytes = library.encode(
        np.ascontiguousarray(vertices, np.uint32),
        np.ascontiguousarray(faces, np.uint32),
        compression_level=level,
    )
    return stream


def _vertices(points: npt.NDArray[Any], *, bits: int) -> Points:
    if points.ndim != 2 or points.shape[1] != 3:
        raise FormatError(f"Draco positions have the shape {points.shape}; expected (n, 3)")
    if points.dtype.kind == "f" and not (np.isfinite(points) & (points % 1 == 0)).all():
        raise FormatError("Draco positions are not integers: Draco's own quantization is not used")
    if points.size and (
        points.max() >= 1 << bits or (points.dtype.kind != "u" and points.min() < 0)
    ):
        raise FormatError(
            f"Draco positions from {points.min()} to {points.max()}; expected 0 to {2**bits - 1}"
        )
    return points.astype(np.uint32, copy=False)


def _has_negative(points: npt.NDArray[Any]) -> bool:
    return points.dtype.kind != "u" and bool(points.min() < 0)


def _faces(faces: npt.NDArray[Any], *, num_vertices: int) -> Points:
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise FormatError(f"Draco faces have the shape {faces.shape}; expected (n, 3)")
    if faces.size and int(faces.max()) >= num_vertices:
        raise FormatError(f"a Draco face names vertex {faces.max()} of {num_vertices}")
    return faces.astype(np.uint32, copy=False)


def _check_header(stream: bytes) -> None:
    if len(stream) < _HEADER_BYTES or stream[:5] != b"DRACO":
        raise FormatError(f"no Draco stream: begins with {stream[:5].hex()}")
    major, minor, kind, method = stream[5:9]
    if (
        (major, minor) != (2, 2)
        or kind != _TRIANGULAR_MESH
        or method not in (_SEQUENTIAL, _EDGEBREAKER)
    ):
        raise FormatError(
            f"Draco stream of version {major}.{minor}, type {kind}, method {method}; expected a "
            "triangular mesh of version 2.2"
        )
    cursor = _Cursor(stream, _HEADER_BYTES)
    if int.from_bytes(stream[9:11], "little") & _HAS_METADATA:
        _skip_metadata(cursor)
    if method == _EDGEBREAKER:
        cursor.skip(1)
    most = _MOST_PER_BYTE * len(stream) + _SPARE
    claimed = max(cursor.varint(), cursor.varint())
    if claimed > most:
        raise FormatError(
            f"Draco stream of {len(stream)} bytes claims {claimed} faces or vertices; expected "
            f"at most {most}"
        )


class _Cursor:
    """Reads a stream from front to back, and never past its end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise FormatError(f"Draco stream ends after {len(self._data)} bytes, in its header")

    def byte(self) -> int:
        self.skip(1)
        return self._data[self._at - 1]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise FormatError("Draco stream has a number of more than 32 bits in its header")


def _skip_metadata(cursor: _Cursor) -> None:
    for _ in range(cursor.varint()):
        cursor.varint()
        _skip_entries(cursor, 0)
    _skip_entries(cursor, 0)


def _skip_entries(cursor: _Cursor, depth: int) -> None:
    if depth > _MAX_METADATA_DEPTH:
        raise FormatError("Draco metadata are nested too deeply")
    for _ in range(cursor.varint()):
        cursor.skip(cursor.byte())
        cursor.skip(cursor.varint())
    for _ in range(cursor.varint()):
        cursor.skip(cursor.byte())
        _skip_entries(cursor, depth + 1)
