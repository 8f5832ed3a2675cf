"""A write takes the memory that its plan says, however large the array is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peaks import IMPORT

import precomputed_store as ps

pytest.importorskip("resource", reason="memory is measured on POSIX systems only")

ROOM_BYTES = 48 << 20
"""For what is not in the plan: stacks, what the allocator keeps, and code that is not imported
by the small write that the peak is compared with."""

BOXES = {"hash": "identity", "data_encoding": "raw"}
CASES: dict[str, Any] = {
    "shards of two blocks": {"preshift_bits": 9, "minishard_bits": 1, "shard_bits": 9, **BOXES},
    "shards of a quarter of a block": {
        "preshift_bits": 6, "minishard_bits": 1, "shard_bits": 9, **BOXES,
    },
    "scattered chunks": {
        "hash": "murmurhash3_x86_128", "preshift_bits": 0, "minishard_bits": 2, "shard_bits": 2,
        "data_encoding": "raw",
    },
    "chunks": None,
}  # fmt: skip

CODE = (
    IMPORT
    + """
import json
import dask, dask.array as da, numpy as np
import precomputed_store as ps

def noise(block_info=None):
    shape = [stop - start for start, stop in block_info[None]["array-location"]]
    return np.random.default_rng(0).integers(1, 255, shape, np.uint8)

def array(shape):
    chunks = da.core.normalize_chunks((64, 256, 256), shape)
    return da.map_blocks(noise, chunks=chunks, dtype="uint8")

def sharding(members):
    return None if members is None else ps.ShardingSpec(**members)

url, job = sys.argv[1], json.loads(sys.argv[2])
dask.config.set(scheduler="threads", num_workers=job["workers"])
options = dict(
    dims=("z", "y", "x"), layer_type="image", encoding="raw", resolution=(8, 8, 8),
    sharding=sharding(job["sharding"]),
)
if job["pyramid_of"]:
    ps.downsample(url, 1)
    tasks = []
else:
    voxels = array(job["shape"])
    tasks = [scale.task_bytes for scale in ps.plan(voxels, url, **options, pyramid=1).scales]
    ps.to_precomputed(voxels, url, **options)
print(json.dumps({"peak": peak_bytes(), "tasks": tasks}))
"""
)

LARGE = (512, 1024, 512)
SMALL = (64, 64, 64)


def run(url: Path, **job: Any) -> dict[str, Any]:
    shown = subprocess.run(
        [sys.executable, "-c", CODE, str(url), json.dumps({"pyramid_of": False, **job})],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
    )
    assert shown.returncode == 0, shown.stderr
    result: dict[str, Any] = json.loads(shown.stdout.splitlines()[-1])
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "workers"), [*((case, 1) for case in CASES), ("shards of a quarter of a block", 2)]
)
def test_a_write_and_its_pyramid_take_what_the_plan_says(
    tmp_path: Path, case: str, workers: int
) -> None:
    job = {"sharding": CASES[case], "workers": workers}
    large, small = tmp_path / "large", tmp_path / "small"
    least = run(small, shape=SMALL, **job)
    base = run(large, shape=LARGE, **job)
    assert base["peak"] - least["peak"] <= workers * base["tasks"][0] + ROOM_BYTES
    least = run(small, shape=SMALL, pyramid_of=True, **job)
    coarser = run(large, shape=LARGE, pyramid_of=True, **job)
    assert coarser["peak"] - least["peak"] <= workers * base["tasks"][1] + ROOM_BYTES
    assert ps.open_volume(large, scale=1).shape[:3] == (256, 512, 256)
