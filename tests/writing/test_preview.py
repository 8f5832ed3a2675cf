"""What `plan` says, against what is then written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.sharding import locate

SHARDINGS: dict[str, Any] = {
    "none": None,
    "auto": "auto",
    "small": ps.ShardTarget(shard_bytes=20_000, minishard_index_bytes=96),
    "scattered": ps.ShardingSpec(
        hash="murmurhash3_x86_128", preshift_bits=0, minishard_bits=2, shard_bits=3
    ),
}


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_as_many_objects_are_written_as_were_planned(tmp_path: Path, sharding: str) -> None:
    voxels = np.random.default_rng(0).integers(1, 255, (70, 60, 50), dtype=np.uint8)
    arguments: dict[str, Any] = {
        "dims": "xyz",
        "resolution": (8, 8, 8),
        "chunk_size": (16, 16, 16),
        "sharding": SHARDINGS[sharding],
        "pyramid": [(2, 2, 2), (2, 2, 1)],
    }
    plan = ps.plan(voxels, tmp_path / "layer", **arguments)
    assert not (tmp_path / "layer").exists()
    ps.to_precomputed(voxels, tmp_path / "layer", **arguments)
    for scale in plan.scales:
        files = list((tmp_path / "layer" / scale.scale.key).iterdir())
        assert len(files) == scale.num_objects
        sizes = [path.stat().st_size for path in files]
        # Noise is not compressed; indices come on top, and chance where chunks are scattered.
        assert sum(sizes) / len(sizes) < 2 * scale.decoded_object_bytes
    assert [scale.scale for scale in plan.scales] == list(
        ps.open_layer(tmp_path / "layer").info.scales
    )


def test_requests_and_indices_of_shards_are_told() -> None:
    array = da.zeros((512, 512, 512), dtype="uint64", chunks=64)
    arguments: dict[str, Any] = {"dims": "xyz", "resolution": (8, 8, 8)}
    plain = ps.plan(array, "memory://plain", **arguments).scales[0]
    assert (plain.cold_requests, plain.warm_requests, plain.shard_index_bytes) == (1, 1, 0)
    assert (plain.num_objects, plain.chunks_per_shard) == (512, None)
    sharded = ps.plan(array, "memory://sharded", sharding="auto", **arguments)
    scale = sharded.scales[0]
    assert (scale.cold_requests, scale.warm_requests) == (3, 1)
    assert scale.chunks_per_shard == (8, 8, 8)
    assert scale.minishard_index_bytes == 24 * 512
    assert "at most 2.0 GiB decoded" in str(sharded)


def test_what_is_staged_is_told() -> None:
    array = da.zeros((512, 512, 512), dtype="uint64", chunks=64)
    plan = ps.plan(
        array, "memory://staged", dims="xyz", resolution=(8, 8, 8),
        sharding=SHARDINGS["scattered"],
    )  # fmt: skip
    assert plan.scales[0].staged_bytes > 0
    assert "8_8_8.staging, removed at the end" in str(plan)


def test_a_plan_refuses_what_writing_would_refuse(tmp_path: Path) -> None:
    voxels = np.ones((8, 8, 8), np.uint8)
    arguments: dict[str, Any] = {"dims": "xyz", "resolution": (8, 8, 8)}
    ps.to_precomputed(voxels, tmp_path, **arguments)
    with pytest.raises(FileExistsError):
        ps.plan(voxels, tmp_path, **arguments)
    existing = ps.plan(voxels, tmp_path, mode="r+", **arguments)
    assert existing.scales[0].num_objects == 1


def test_a_petavoxel_volume_is_planned_at_once() -> None:
    array = da.zeros((100_000, 100_000, 100_000), dtype="uint8", chunks=1000)
    plan = ps.plan(
        array, "memory://huge", dims="xyz", resolution=(8, 8, 8), sharding="auto", pyramid=3
    )
    assert plan.scales[0].num_objects > 1_000_000
    assert len(plan.scales) == 4


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_region_has_the_objects_that_it_meets(tmp_path: Path, sharding: str) -> None:
    voxels = np.ones((70, 60, 50), np.uint8)
    ps.to_precomputed(
        voxels, tmp_path, dims="xyz", resolution=(8, 8, 8), chunk_size=(16, 16, 16),
        sharding=SHARDINGS[sharding],
    )  # fmt: skip
    part = voxels[:20, :16, :17]
    plan = ps.plan(
        part,
        tmp_path,
        dims="xyz",
        region={"x": slice(15, 35), "y": slice(0, 16), "z": slice(0, 17)},
        mode="r+",
    )
    scale = plan.scales[0]
    assert scale.num_chunks == 3 * 1 * 2
    grid = scale.scale.grid
    spec = scale.scale.sharding
    if spec is None:
        assert scale.num_objects == 6
    else:
        box = ps.Box((15, 0, 0), (35, 16, 17))
        shards = {locate(spec, grid.chunk_id(cell)).shard for cell in grid.cells(box)}
        assert scale.num_objects == len(shards)
