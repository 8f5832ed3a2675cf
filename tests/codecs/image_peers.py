"""What other implementations make of the image encodings: oracles for the tests beside this."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from precomputed_store.codecs import Codec
from precomputed_store.errors import FormatError


def tensorstore_volume(
    folder: str, encoding: str, shape: tuple[int, ...], dtype: Any, **parameters: Any
) -> tuple[Any, Path]:
    """A volume of one chunk, and where that chunk's file is."""
    tensorstore = pytest.importorskip("tensorstore")
    channels, *size = shape[0], *shape[:0:-1]
    scale = {
        "key": "k",
        "size": size,
        "chunk_sizes": [size],
        "resolution": [1, 1, 1],
        "encoding": encoding,
        **parameters,
    }
    info = {
        "type": "image",
        "data_type": np.dtype(dtype).name,
        "num_channels": channels,
        "scales": [scale],
    }
    Path(folder, "info").write_text(json.dumps(info))
    name = "_".join(f"0-{side}" for side in size)
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": folder},
        "scale_index": 0,
    }
    return tensorstore.open(spec).result(), Path(folder, "k", name)


def tensorstore_encode(array: np.ndarray, encoding: str, **parameters: Any) -> bytes:
    """``(channel, z, y, x)`` to the bytes that TensorStore writes."""
    with tempfile.TemporaryDirectory() as folder:
        store, chunk = tensorstore_volume(folder, encoding, array.shape, array.dtype, **parameters)
        store.write(array.T).result()
        return chunk.read_bytes()


def tensorstore_decode(
    data: bytes, encoding: str, shape: tuple[int, ...], dtype: Any
) -> np.ndarray:
    """What TensorStore reads, as ``(channel, z, y, x)``."""
    with tempfile.TemporaryDirectory() as folder:
        store, chunk = tensorstore_volume(folder, encoding, shape, dtype)
        chunk.parent.mkdir()
        chunk.write_bytes(data)
        decoded: np.ndarray = store.read(order="F").result().T
        return decoded


def cloudvolume_encode(array: np.ndarray, encoding: str, **parameters: Any) -> bytes:
    """``(channel, z, y, x)`` to the bytes that CloudVolume writes."""
    chunks = pytest.importorskip("cloudvolume.chunks")
    data: bytes = chunks.encode(array.T, encoding, compression_params=parameters)
    return bytes(data)


def cloudvolume_decode(
    data: bytes, encoding: str, shape: tuple[int, ...], dtype: Any
) -> np.ndarray:
    """What CloudVolume reads, as ``(channel, z, y, x)``; scrambled for several channels."""
    chunks = pytest.importorskip("cloudvolume.chunks")
    decoded: np.ndarray = chunks.decode(data, encoding, shape[::-1], np.dtype(dtype))
    return decoded.T


def smooth(shape: tuple[int, ...], dtype: Any, *, seed: int = 0) -> np.ndarray:
    """Something like a microscope's picture, different in each channel, using all bits."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    axes = np.meshgrid(*(np.linspace(0, 2, n) for n in shape), indexing="ij")
    wave = 0.5 + 0.35 * np.sin(3 * axes[0] + 2 * axes[1] + 2.5 * axes[2] + 1.5 * axes[3])
    noise = rng.normal(0, 0.02, shape)
    return np.clip((wave + noise) * top, 0, top).astype(dtype)


FIXTURES = Path(__file__).parent / "fixtures"


def frozen(encoding: str) -> list[tuple[str, bytes, np.ndarray]]:
    """Name, bytes and expected voxels of every frozen chunk of an encoding."""
    with np.load(FIXTURES / encoding / "expected.npz") as expected:
        return [
            (name, (FIXTURES / encoding / f"{name}.{encoding}").read_bytes(), expected[name])
            for name in expected.files
        ]


def read_whatever(codec: Codec, data: bytes, like: np.ndarray) -> np.ndarray | None:
    """Decode bytes that may be anything: an array of the shape asked for, or refused."""
    try:
        decoded = codec.decode(data, shape=like.shape, dtype=like.dtype)
    except FormatError:
        return None
    assert decoded.shape == like.shape
    assert decoded.dtype == like.dtype
    return decoded


def mutants(data: bytes, count: int, *, seed: int = 0) -> Iterator[bytes]:
    """The same bytes with a few flipped bits, or with garbage in one place."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        mutant = bytearray(data)
        if number % 2:
            for _ in range(rng.integers(1, 4)):
                mutant[rng.integers(len(mutant))] ^= 1 << rng.integers(8)
        else:
            start = rng.integers(len(mutant))
            mutant[start : start + rng.integers(1, 30)] = rng.bytes(rng.integers(1, 30))
        yield bytes(mutant)
