"""Every encoding into every other, in shards and out of them, all of it and parts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import precomputed_store as ps
from tests.oracles import cloudvolume_read, tensorstore_read

SIZE = (20, 18, 13)
OFFSET = (-3, 5, 11)
CHUNK_SIZE = (8, 8, 8)
IMAGES = ("raw", "png", "jpeg", "compresso")
LABELS = ("raw", "compressed_segmentation", "compresso")
SHARDING = ps.ShardingSpec(
    hash="identity", preshift_bits=1, minishard_bits=1, shard_bits=6,
    data_encoding="gzip", minishard_index_encoding="gzip",
)  # fmt: skip
SELECTIONS: dict[str, Any] = {
    "all": {},
    "region": {"region": {"x": slice(2, 14), "z": slice(11, 20)}},
    "one scale": {"scales": 1},
}
JPEG_TOLERANCE = 8
"""On the ramp below, at the default quality."""
CASES = [
    pytest.param(dtype, *pair, id=f"{pair[0]} to {pair[1]}, {dtype}")
    for dtype, encodings in (("uint8", IMAGES), ("uint32", LABELS))
    for pair in itertools.product(encodings, repeat=2)
]


def ramp(dtype: str) -> np.ndarray:
    x, y, z = np.ogrid[: SIZE[0], : SIZE[1], : SIZE[2]]
    return (20 + 5 * x + 3 * y + 2 * z).astype(dtype)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layer that is copied here."""
    folder = tmp_path_factory.mktemp("layers")
    for dtype, encodings in (("uint8", IMAGES), ("uint32", LABELS)):
        for encoding, sharding in itertools.product(encodings, (None, SHARDING)):
            ps.to_precomputed(
                ramp(dtype), folder / f"{encoding}-{dtype}-{sharding is not None}",
                dims="xyz", resolution=(8, 8, 8), voxel_offset=OFFSET, chunk_size=CHUNK_SIZE,
                layer_type="segmentation" if dtype == "uint32" else "image",
                encoding=encoding, sharding=sharding, pyramid=[(2, 2, 2)],
            )  # fmt: skip
    return folder


def read(folder: Path, encoding: str, *, scale: int = 0) -> np.ndarray:
    """By TensorStore, which knows no compresso, else by CloudVolume."""
    if encoding == "compresso":
        return cloudvolume_read(folder, mip=scale)[..., 0]
    return tensorstore_read(folder, scale_index=scale)[..., 0]


@pytest.mark.parametrize("to_shards", [False, True], ids=["to chunks", "to shards"])
@pytest.mark.parametrize("from_shards", [False, True], ids=["from chunks", "from shards"])
@pytest.mark.parametrize(("dtype", "source", "target"), CASES)
def test_voxels_are_the_same_after_a_copy(
    tmp_path: Path,
    folder: Path,
    dtype: str,
    source: str,
    target: str,
    from_shards: bool,
    to_shards: bool,
) -> None:
    layer = folder / f"{source}-{dtype}-{from_shards}"
    stored = [read(layer, source, scale=scale) for scale in (0, 1)]
    if source != "jpeg":
        np.testing.assert_array_equal(stored[0], ramp(dtype))
    for name, selection in SELECTIONS.items():
        copy = tmp_path / name
        ps.copy(
            layer, copy, encoding=target, sharding=SHARDING if to_shards else None, **selection
        )
        expected = stored[1] if name == "one scale" else stored[0]
        if name == "region":
            expected = expected[5:17, :, :9]
        found = read(copy, target)
        assert found.shape == expected.shape
        lossy = target == "jpeg" and (source != "jpeg" or name == "region")
        difference = np.abs(found.astype(int) - expected.astype(int)).max()
        assert difference <= (JPEG_TOLERANCE if lossy else 0), name
