"""The kempressed encoding: numbers plus two, in fpzip, with channels before z. Lossy.

Kept for volumes that exist; fpzip does the same without loss.

Specification: CloudVolume, ``chunks.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from precomputed_store.codecs._fpzip_stream import begins_like_fpzip
from precomputed_store.codecs.base import CZYX, Buffer, ChunkArray, Codec, Place, Ranges
from precomputed_store.codecs.checks import check_holds
from precomputed_store.codecs.fpzip import (
    decode_fields,
    decode_fields_box,
    encode_fields,
    max_fields_bytes,
)

__all__ = ["Kempressed"]

_OFFSET: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Kempressed(Codec):
    """Without parameters."""

    name: ClassVar[str] = "kempressed"
    place: ClassVar[Place] = "worker"
    decodes_boxes: ClassVar[bool] = True
    # Noise takes 3.9 times the chunk.
    working_memory: ClassVar[tuple[int, int]] = (5, 0)
    data_types: ClassVar[tuple[str, ...]] = ("float32", "float64")
    content_type: ClassVar[str] = "image/x.kempressed"
    lossless: ClassVar[bool] = False
    in_neuroglancer: ClassVar[bool] = False

    def decode(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        check_holds(type(self), shape, dtype)
        chunk = self.decode_as_box(data, shape=shape, dtype=dtype)
        if chunk is not None:
            return chunk
        channels, z, y, x = shape
        fields = decode_fields(data, self.name, shape=(z, channels, y, x), dtype=dtype)
        numbers: ChunkArray = np.empty(shape, dtype)
        np.subtract(fields.swapaxes(0, 1), dtype.type(_OFFSET), out=numbers)
        return numbers

    def decode_box(self, data: Buffer, *, shape: CZYX, box: Ranges, out: ChunkArray) -> bool:
        check_holds(type(self), shape, out.dtype)
        channels, z, y, x = shape
        done = decode_fields_box(
            data,
            self.name,
            shape=(z, channels, y, x),
            box=(box[0], (0, channels), *box[1:]),
            out=out.swapaxes(0, 1),
        )
        if done:
            np.subtract(out, out.dtype.type(_OFFSET), out=out)
        return done

    def encode(self, array: ChunkArray) -> bytes:
        check_holds(type(self), array.shape, array.dtype)
        fields = array.swapaxes(0, 1) + array.dtype.type(_OFFSET)
        return encode_fields(fields, self.name, precision=0)

    def max_encoded_bytes(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        return max_fields_bytes(shape, dtype)

    def recognises(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> bool:
        return begins_like_fpzip(data)
