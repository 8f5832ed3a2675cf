"""Oracles and arrays for the tests of the segmentation and floating-point encodings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.codecs.base import Codec


class TensorStoreChunk:
    """A volume of one chunk in TensorStore's memory, compressed_segmentation unless said."""

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        dtype: Any,
        block_size: tuple[int, int, int] | None = None,
        encoding: str = "compressed_segmentation",
    ) -> None:
        tensorstore = pytest.importorskip("tensorstore")
        size = list(shape[:0:-1])
        scale = {
            "key": "k",
            "size": size,
            "chunk_sizes": [size],
            "resolution": [1, 1, 1],
            "encoding": encoding,
        }
        if block_size is not None:
            scale["compressed_segmentation_block_size"] = list(block_size)
        info = {
            "@type": "neuroglancer_multiscale_volume",
            "type": "segmentation" if encoding == "compressed_segmentation" else "image",
            "data_type": np.dtype(dtype).name,
            "num_channels": shape[0],
            "scales": [scale],
        }
        context = tensorstore.Context()
        self._kvstore = tensorstore.KvStore.open({"driver": "memory"}, context=context).result()
        self._key = "k/" + "_".join(f"0-{side}" for side in size)
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "memory"},
            "multiscale_metadata": {
                key: info[key] for key in ("type", "data_type", "num_channels")
            },
            "scale_metadata": {
                **{key: value for key, value in scale.items() if key != "chunk_sizes"},
                "chunk_size": size,
            },
            "create": True,
        }
        self._store = tensorstore.open(spec, context=context).result()

    def encode(self, array: np.ndarray) -> bytes:
        """``(channel, z, y, x)`` to the bytes that TensorStore writes."""
        self._store.write(array.T).result()
        return bytes(self._kvstore.read(self._key).result().value)

    def decode(self, data: bytes) -> np.ndarray | None:
        """What TensorStore reads, as ``(channel, z, y, x)``; None if it refuses."""
        self._kvstore.write(self._key, data).result()
        try:
            decoded: np.ndarray = self._store.read(order="F").result().T
        except ValueError:
            return None
        return decoded


def cells(shape: tuple[int, ...], count: int, dtype: Any, *, seed: int = 0) -> np.ndarray:
    """Labels as a segmentation has them: `count` convex cells with arbitrary ids."""
    rng = np.random.default_rng(seed)
    seeds = rng.integers(0, max(shape), (count, len(shape)))
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    nearest = ((voxels[..., None, :] - seeds) ** 2).sum(-1).argmin(-1)
    ids = rng.integers(0, np.iinfo(dtype).max, count, dtype=dtype, endpoint=True)
    labels: np.ndarray = ids[nearest]
    return labels


def noise(shape: tuple[int, ...], labels: int, dtype: Any, *, seed: int = 0) -> np.ndarray:
    """Unrelated labels, of which there are `labels`, spread over the whole data type."""
    rng = np.random.default_rng(seed)
    step = max(1, np.iinfo(dtype).max // labels)
    drawn = rng.integers(0, labels, shape).astype(dtype)
    spread: np.ndarray = drawn * np.dtype(dtype).type(step)
    return spread


def voxels_of(
    kind: str, shape: tuple[int, ...], dtype: str, labels: int, seed: int
) -> np.ndarray[Any, Any]:
    """Labels ``(z, y, x)`` of the whole data type, laid out in one of several ways."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, np.iinfo(dtype).max, labels, dtype, endpoint=True)
    indices = rng.integers(0, labels, shape)
    match kind:
        case "sparse":
            indices *= rng.random(shape) < 0.05
        case "along x" | "along y" | "along z":
            indices.sort(axis="zyx".index(kind[-1]))
        case "cells":
            return cells(shape, min(labels, 12), dtype, seed=seed)
        case "stripes":
            indices = np.indices(shape).sum(0) // 2 % labels
    return values[indices]


def walk(shape: tuple[int, ...], dtype: Any, *, seed: int = 0) -> np.ndarray:
    """Numbers that vary smoothly along x."""
    rng = np.random.default_rng(seed)
    steps: np.ndarray = np.cumsum(rng.normal(size=shape), axis=-1).astype(dtype)
    return steps


def cloudvolume_encode(
    array: np.ndarray, encoding: str, *, block_size: Any = None, **parameters: Any
) -> bytes:
    """``(channel, z, y, x)`` to the bytes that CloudVolume writes."""
    chunks = pytest.importorskip("cloudvolume.chunks")
    return bytes(
        chunks.encode(array.T, encoding, block_size=block_size, compression_params=parameters)
    )


def cloudvolume_decode(
    data: bytes, encoding: str, *, like: np.ndarray, block_size: Any = None
) -> np.ndarray:
    """What CloudVolume reads, as ``(channel, z, y, x)``."""
    chunks = pytest.importorskip("cloudvolume.chunks")
    decoded: np.ndarray = chunks.decode(
        data, encoding, like.shape[::-1], like.dtype, block_size=block_size
    )
    return decoded.T


_CHILD = """
import importlib, os, sys
import numpy as np
from precomputed_store.errors import FormatError

sys.path.append("tests")
module, name, data_file, expected_file = sys.argv[1:]
data = open(data_file, "rb").read()
expected = np.load(expected_file)
codec = getattr(importlib.import_module(module), name)()
unsigned = f"u{expected.itemsize}"
codec.decode(data, shape=expected.shape, dtype=expected.dtype)

def attempt(prefix):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        decoded = codec.decode(prefix, shape=expected.shape, dtype=expected.dtype)
    except FormatError:
        return 1
    except BaseException:
        return 2
    return 0 if np.array_equal(decoded.view(unsigned), expected.view(unsigned)) else 3

for length in range(len(data)):
    child = os.fork()
    if not child:
        os._exit(attempt(data[:length]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("crashed" if code < 0 else ("same", "refused", "error", "wrong")[code])
"""


def outcomes_of_prefixes(
    codec: type[Codec], data: bytes, expected: np.ndarray, folder: Path
) -> list[str]:
    """What each prefix decodes to, each in a process of its own.

    "refused" with FormatError, the "same" as the whole, "wrong", another "error", "crashed".
    """
    if not hasattr(os, "fork"):
        pytest.skip("crashes are caught in forked processes")
    (folder / "data").write_bytes(data)
    np.save(folder / "expected.npy", np.ascontiguousarray(expected))
    files = str(folder / "data"), str(folder / "expected.npy")
    arguments = [codec.__module__, codec.__name__, *files]
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    outcomes = child.stdout.split()
    assert len(outcomes) == len(data)
    return outcomes


def check_layer(
    folder: Path, voxels: np.ndarray[Any, Any], encoding: str, atol: float = 0
) -> None:
    """Write ``(channel, z, y, x)`` in chunks of 16³ and read it in every way."""
    ps.to_precomputed(
        voxels,
        folder,
        dims=("channel", "z", "y", "x"),
        resolution=(8, 8, 8),
        encoding=encoding,
        chunk_size=(16, 16, 16),
    )
    volume, expected = ps.open_volume(folder), voxels.T

    def check(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> None:
        assert found.dtype == wanted.dtype
        if atol:
            np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)
        else:
            np.testing.assert_array_equal(found, wanted)

    for box in (np.s_[...], np.s_[5:40, 16:20, 29:30], np.s_[1:50:3, 2:40:7, ::4]):
        check(volume[box], expected[box])
    points = np.random.default_rng(5).integers(0, expected.shape[:3], (200, 3))
    check(volume.read_points(points), expected[*points.T, 0])
