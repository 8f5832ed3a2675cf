"""The raw encoding: little-endian voxels, x fastest, channel slowest, no header.

Specification: volume.md, "raw chunk encoding".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from precomputed_store.codecs.base import CZYX, Buffer, ChunkArray, Codec, Place
from precomputed_store.errors import FormatError

__all__ = ["Raw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw(Codec):
    name: ClassVar[str] = "raw"
    place: ClassVar[Place] = "inline"
    data_types: ClassVar[tuple[str, ...]] = (
        "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32",
        "int64", "float16", "float64", "bool",
    )  # fmt: skip
    compressible: ClassVar[bool] = True
    brief: ClassVar[bool] = True
    plain: ClassVar[bool] = True

    def decode(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        expected = math.prod(shape) * dtype.itemsize
        if len(data) != expected:
            raise FormatError(f"raw chunk is {len(data)} bytes; expected {expected}")
        stored = dtype.newbyteorder("<")
        array = np.frombuffer(data, dtype=stored).reshape(shape)
        return array if stored == dtype else array.astype(dtype)

    def encode(self, array: ChunkArray) -> bytes:
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()

    def max_encoded_bytes(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        return math.prod(shape) * dtype.itemsize

    def recognises(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> bool:
        return len(data) == math.prod(shape) * dtype.itemsize
