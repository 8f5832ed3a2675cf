"""The zfpc encoding: a container of zfp streams, one per place along the uncorrelated axes.

Specification: https://github.com/seung-lab/zfpc, "Container Format".
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np

from precomputed_store.codecs import _zfp
from precomputed_store.codecs.base import CZYX, Buffer, ChunkArray, Codec, Place
from precomputed_store.codecs.checks import check_holds, integer_parameter, parameter_error
from precomputed_store.errors import FormatError

__all__ = ["Zfpc"]

XYZC: TypeAlias = tuple[int, int, int, int]
Correlated: TypeAlias = tuple[bool, bool, bool, bool]
"""Whether neighbours along x, y, z, channel resemble each other."""

_HEADER: Final = struct.Struct("<4sBB4IB")
_ALL: Final[Correlated] = (True, True, True, True)
_MODES: Final = {
    "zfpc_rate": _zfp.FIXED_RATE,
    "zfpc_precision": _zfp.FIXED_PRECISION,
    "zfpc_tolerance": _zfp.FIXED_ACCURACY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Zfpc(Codec):
    """Parameters: at most one of rate (bits per number), precision (bits) and tolerance, the
    others None or negative; lossless without. And which axes are correlated, by default all.
    """

    name: ClassVar[str] = "zfpc"
    data_types: ClassVar[tuple[str, ...]] = tuple(_zfp.TYPES)
    content_type: ClassVar[str] = "image/x.zfpc"
    in_neuroglancer: ClassVar[bool] = False
    place: ClassVar[Place] = "worker"
    # Not that it crashes: streams are copied, and those of noise are up to four times as long as
    # the voxels.

    zfpc_rate: float | None = None
    zfpc_precision: int | None = None
    zfpc_tolerance: float | None = None
    zfpc_correlated_dims: Correlated | None = None

    def __post_init__(self) -> None:
        problems: list[object] = []
        for member in self.parameter_names():
            value = getattr(self, member)
            try:
                object.__setattr__(self, member, _parameter(member, value))
            except ValueError as error:
                problems.extend(error.args)
        if not problems and len(set_members := self._set_modes()) > 1:
            problems = [
                (member, f"expected at most one of {', '.join(_MODES)}")
                for member in set_members[1:]
            ]
        if problems:
            raise ValueError(*problems)

    def _set_modes(self) -> list[str]:
        values = ((member, getattr(self, member)) for member in _MODES)
        return [member for member, value in values if value is not None and value >= 0]

    @property
    def _mode(self) -> tuple[int, float | None]:
        """zfp's mode and its level."""
        for member in self._set_modes():
            return _MODES[member], getattr(self, member)
        return _zfp.REVERSIBLE, None

    def decode(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        check_holds(type(self), shape, dtype)
        size: XYZC = shape[::-1]
        view = memoryview(data).cast("B")
        correlated = _read_header(view, size=size, dtype=dtype)
        array = np.empty(shape, dtype)
        bounds = itertools.pairwise(_stream_bounds(view, size, correlated))
        stream_shape = _stream_shape(size, correlated)
        for place, (start, stop) in zip(_places(size, correlated), bounds, strict=True):
            array.T[place] = _zfp.decode_stream(
                view[start:stop], self.name, shape=stream_shape, dtype=dtype
            )
        return array

    def most_memory(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        return 2 * math.prod(shape) * dtype.itemsize + self.max_encoded_bytes(
            shape=shape, dtype=dtype
        )

    def encode(self, array: ChunkArray) -> bytes:
        check_holds(type(self), array.shape, array.dtype)
        size: XYZC = array.T.shape
        correlated = self.zfpc_correlated_dims or _ALL
        mode, level = self._mode
        numbers = array.astype(array.dtype.newbyteorder("="), copy=False).T
        streams = [
            _zfp.encode_stream(numbers[place], self.name, mode=mode, level=level)
            for place in _places(size, correlated)
        ]
        kind = _zfp.TYPES[array.dtype.name] | mode << 3
        flags = sum(1 << axis for axis, flag in enumerate(correlated) if flag)
        header = _HEADER.pack(b"zfpc", 0, kind, *size, flags)
        first = len(header) + 8 * (1 + len(streams))
        index = np.array([first, *map(len, streams)], "<u8").tobytes()
        return b"".join([header, index, *streams])

    def max_encoded_bytes(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        size: XYZC = shape[::-1]
        rate = max(self.zfpc_rate or 0, 0)
        streams = max(
            _num_streams(size, correlated)
            * (8 + _zfp.max_stream_bytes(_stream_shape(size, correlated), dtype, rate=rate))
            for correlated in {_ALL, self.zfpc_correlated_dims or _ALL}
        )
        return _HEADER.size + 8 + streams

    def recognises(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> bool:
        return bytes(data[:4]) == b"zfpc"


def _parameter(member: str, value: object) -> object:
    if value is None:
        return None
    if member == "zfpc_precision":
        return integer_parameter(member, value, minimum=-1, maximum=64)
    if member == "zfpc_correlated_dims":
        flags = value if isinstance(value, list | tuple) else ()
        if len(flags) != 4 or not all(flag in (0, 1) for flag in flags) or not any(flags):
            raise parameter_error(member, value, "4 booleans [x, y, z, channel], not all false")
        return tuple(map(bool, flags))
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise parameter_error(member, value, "a finite number")
    return value


def _read_header(data: memoryview, *, size: XYZC, dtype: np.dtype[Any]) -> Correlated:
    """Check the header; which axes are correlated decides what follows."""
    if len(data) < _HEADER.size:
        raise FormatError(f"zfpc chunk is {len(data)} bytes; its header has {_HEADER.size}")
    magic, version, kind, *found, flags = _HEADER.unpack_from(data)
    if magic != b"zfpc" or version != 0:
        raise FormatError(
            f"zfpc chunk begins with {magic!r}, version {version}; expected b'zfpc', version 0"
        )
    if tuple(found) != size or kind & 7 != _zfp.TYPES[dtype.name]:
        raise FormatError(
            f"zfpc chunk holds {tuple(found)} numbers (x, y, z, channel) of zfp type {kind & 7}; "
            f"expected {size} of type {_zfp.TYPES[dtype.name]} ({dtype})"
        )
    if not 0 < flags < 16:
        raise FormatError(f"zfpc correlated dimensions {flags:#010b}; expected 1 to 4 axes")
    x, y, z, channel = (bool(flags >> axis & 1) for axis in range(4))
    return x, y, z, channel


def _stream_bounds(data: memoryview, size: XYZC, correlated: Correlated) -> list[int]:
    """Where each stream begins, and the last one ends: the end of the chunk."""
    num_streams = _num_streams(size, correlated)
    index_stop = _HEADER.size + 8 * (1 + num_streams)
    if len(data) < index_stop:
        raise FormatError(
            f"zfpc chunk is {len(data)} bytes; expected the sizes of {num_streams} streams "
            f"up to {index_stop}"
        )
    entries: list[int] = np.frombuffer(data[_HEADER.size : index_stop], "<u8").tolist()
    bounds = list(itertools.accumulate(entries))
    if bounds[0] < index_stop or bounds[-1] != len(data):
        raise FormatError(
            f"zfpc streams lie in bytes {bounds[0]} to {bounds[-1]}; "
            f"expected from {index_stop} or later to the end, {len(data)}"
        )
    return bounds


def _num_streams(size: XYZC, correlated: Correlated) -> int:
    return math.prod(n for n, flag in zip(size, correlated, strict=True) if not flag)


def _stream_shape(size: XYZC, correlated: Correlated) -> tuple[int, ...]:
    return tuple(n for n, flag in zip(size, correlated, strict=True) if flag)


def _places(size: XYZC, correlated: Correlated) -> Iterator[tuple[int | slice, ...]]:
    """The index of each stream's numbers in ``(x, y, z, channel)``, x fastest."""
    axes = [(slice(None),) if flag else range(n) for n, flag in zip(size, correlated, strict=True)]
    for reverse in itertools.product(*reversed(axes)):
        yield reverse[::-1]
