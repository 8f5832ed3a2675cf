"""A small chunk in every encoding and compression, and what can become of its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from hostile_codecs import FpzipInLibrary

from precomputed_store import isolation
from precomputed_store.codecs import ENCODINGS, codec_class, content
from precomputed_store.codecs.base import Buffer, Codec

__all__ = ["SUBJECTS", "Subject", "mutants"]

KINDS = ("cut", "flip", "garbage", "ones", "removed", "replaced", "inserted", "repeated")


@dataclass(frozen=True)
class Subject:
    """A decoder, and bytes that it is for."""

    name: str
    make: Callable[[], tuple[bytes, int, Callable[[Buffer], bytes]]]

    @cached_property
    def _made(self) -> tuple[bytes, int, Callable[[Buffer], bytes]]:
        return self.make()

    @property
    def encoded(self) -> bytes:
        return self._made[0]

    @property
    def decoded_bytes(self) -> int:
        return self._made[1]

    def decode(self, data: Buffer) -> bytes:
        return self._made[2](data)


def labels(dtype: str, *, blocks_per_side: int = 6) -> np.ndarray:
    rng = np.random.default_rng(7)
    grid = rng.integers(1, 200, 3 * (blocks_per_side,))
    blocks = np.kron(grid, np.ones((4, 4, 4), int))
    speckles = rng.random(blocks.shape) < 0.03
    blocks[speckles] = rng.integers(1, 200, speckles.sum())
    return blocks.astype(dtype)[np.newaxis]


def picture(dtype: str = "uint8", channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(7)
    c, z, y, x = np.indices((channels, 8, 24, 24))
    wave = 0.5 + 0.4 * np.sin(x / 5 + y / 7 + z / 3 + 2 * c)
    top = np.iinfo(dtype).max
    noise = rng.normal(0, 0.01, wave.shape)
    result: np.ndarray = (np.clip(wave + noise, 0, 1) * top).astype(dtype)
    return result


def field(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    return rng.normal(size=(1, 12, 12, 12)).cumsum(axis=3).astype(dtype)


def _chunk(
    encoding: str, array: np.ndarray, **parameters: Any
) -> tuple[bytes, int, Callable[[Buffer], bytes]]:
    found = codec_class(encoding)
    assert found is not None
    codec: Codec = found.from_parameters(parameters)
    encoded = codec.encode(array) if encoding != "kempressed" else _kempressed(array)
    return _decoded_by(codec, encoded, array)


def _fpzip_in_library(array: np.ndarray) -> tuple[bytes, int, Callable[[Buffer], bytes]]:
    codec = FpzipInLibrary()
    return _decoded_by(codec, codec.encode(array), array)


def _decoded_by(
    codec: Codec, encoded: bytes, array: np.ndarray
) -> tuple[bytes, int, Callable[[Buffer], bytes]]:
    def decode(data: Buffer) -> bytes:
        chunk = isolation.decode(codec, data, shape=array.shape, dtype=array.dtype)  # type: ignore[arg-type]
        assert chunk.shape == array.shape
        assert chunk.dtype == array.dtype
        return chunk.tobytes()

    return encoded, array.nbytes, decode


def _kempressed(array: np.ndarray) -> bytes:
    """Only CloudVolume writes it."""
    from cloudvolume.chunks import encode

    return bytes(encode(array.T, "kempressed"))


def _compressed(name: str) -> tuple[bytes, int, Callable[[Buffer], bytes]]:
    plain = labels("uint32").tobytes()
    return content.apply(plain, name), len(plain), partial(_undo, name, len(plain))


def _undo(name: str, limit: int, data: Buffer) -> bytes:
    return content.undo(data, name, limit=limit)


_BLOCKS = {"compressed_segmentation_block_size": [8, 8, 8]}

SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("raw", partial(_chunk, "raw", picture("uint16"))),
        Subject("jpeg", partial(_chunk, "jpeg", picture())),
        Subject("jpeg, 3 channels", partial(_chunk, "jpeg", picture(channels=3))),
        Subject("png", partial(_chunk, "png", picture())),
        Subject("png, 16 bit", partial(_chunk, "png", picture("uint16"))),
        Subject("jxl", partial(_chunk, "jxl", picture())),
        Subject(
            "compressed_segmentation, uint32",
            partial(_chunk, "compressed_segmentation", labels("uint32"), **_BLOCKS),
        ),
        Subject(
            "compressed_segmentation, uint64",
            partial(_chunk, "compressed_segmentation", labels("uint64"), **_BLOCKS),
        ),
        Subject("compresso", partial(_chunk, "compresso", labels("uint64", blocks_per_side=3))),
        Subject("crackle", partial(_chunk, "crackle", labels("uint32"))),
        Subject("fpzip", partial(_chunk, "fpzip", field("float32"))),
        Subject("fpzip, in its library", partial(_fpzip_in_library, field("float32"))),
        Subject("kempressed", partial(_chunk, "kempressed", field("float32"))),
        Subject("zfpc", partial(_chunk, "zfpc", field("float32"))),
        *(Subject(name, partial(_compressed, name)) for name in content.SUFFIXES),
    )
}

assert {name.partition(",")[0] for name in SUBJECTS} == {*ENCODINGS, *content.SUFFIXES}


def mutants(  # noqa: C901
    encoded: bytes, count: int, *, seed: int = 11
) -> Iterator[bytes]:
    """`count` variants of the bytes, the same each time: eight kinds of damage in turn."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        data = bytearray(encoded)
        # Headers are short and matter most: half of the damage is done there.
        reach = min(64, len(data)) if number // len(KINDS) % 2 else len(data)
        position = int(rng.integers(reach))
        length = int(rng.integers(1, 32))
        span = slice(position, position + length)
        match KINDS[number % len(KINDS)]:
            case "cut":
                del data[position:]
            case "flip":
                for _ in range(length // 8 + 1):
                    data[int(rng.integers(reach))] ^= 1 << int(rng.integers(8))
            case "garbage":
                data[span] = rng.bytes(len(data[span]))
            case "ones":
                data[span] = b"\xff" * len(data[span])
            case "removed":
                del data[span]
            case "replaced":
                data = bytearray(encoded[: min(40, position)] + rng.bytes(length * 8))
            case "inserted":
                data[position:position] = rng.bytes(length)
            case "repeated":
                data[position:position] = data[span]
        yield bytes(data)
