"""Sharded layers and pyramids from two processes of dask.distributed, some of which die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

import precomputed_store as ps
from tests.oracles import cloudvolume_read, tensorstore_read
from tests.writing.reference import coarse, coarse_start

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.server

SIZE = (70, 50, 41)
OFFSET = (-3, 5, 9)
FACTORS = [(2, 2, 2), (2, 2, 1)]
SHARDINGS: dict[str, Any] = {
    "none": None,
    "auto": "auto",
    "boxes": ps.ShardingSpec(
        hash="identity", preshift_bits=2, minishard_bits=1, shard_bits=9, data_encoding="gzip"
    ),
    "scattered": ps.ShardingSpec(
        hash="murmurhash3_x86_128", preshift_bits=1, minishard_bits=2, shard_bits=3
    ),
}


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    data = np.random.default_rng(6).integers(0, 3, SIZE, dtype=np.uint32)
    data[:30, :20, :20] = 0
    return data


def write(array: Any, folder: Path, **options: Any) -> Any:
    return ps.to_precomputed(
        array,
        folder,
        dims=("x", "y", "z"),
        resolution=(8, 8, 8),
        chunk_size=(8, 8, 8),
        voxel_offset=OFFSET,
        pyramid=FACTORS,
        **options,
    )


def contents(folder: Path) -> dict[str, bytes]:
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".precomputed-")
    }
    return dict(sorted(found.items()))


def assert_scales(folder: Path, voxels: np.ndarray) -> None:
    expected, start = voxels, OFFSET
    for index, factor in enumerate([(1, 1, 1), *FACTORS]):
        expected, start = coarse(expected, start, factor, "mode"), coarse_start(start, factor)
        np.testing.assert_array_equal(
            tensorstore_read(folder, scale_index=index)[..., 0], expected
        )
        np.testing.assert_array_equal(cloudvolume_read(folder, mip=index)[..., 0], expected)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_cluster_writes_what_every_peer_reads(
    client: distributed.Client, tmp_path: Path, labels: np.ndarray, sharding: str
) -> None:
    source = da.from_array(labels, chunks=(20, 13, 16))
    write(source, tmp_path, sharding=SHARDINGS[sharding], progress=sharding == "boxes")
    assert_scales(tmp_path, labels)
    assert not list(tmp_path.rglob("*.staged"))
    assert not (tmp_path / "write-in-progress.json").exists()


def test_a_cluster_adds_scales(
    client: distributed.Client, tmp_path: Path, labels: np.ndarray
) -> None:
    ps.to_precomputed(
        labels, tmp_path, dims=("x", "y", "z"), resolution=(8, 8, 8), chunk_size=(8, 8, 8),
        voxel_offset=OFFSET,
    )  # fmt: skip
    ps.downsample(tmp_path, FACTORS, sharding="auto")
    assert_scales(tmp_path, labels)


def note_pid(folder: str) -> None:
    Path(folder, f"{os.getpid()}").touch()


@pytest.mark.slow
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_killed_workers_leave_no_trace(tmp_path: Path, labels: np.ndarray, sharding: str) -> None:
    """Workers die in the middle, and what is written is the same, byte for byte."""
    write(da.from_array(labels, chunks=16), tmp_path / "whole", sharding=SHARDINGS[sharding])
    pids = tmp_path / "pids"
    pids.mkdir()

    def slow(block: np.ndarray) -> np.ndarray:
        note_pid(str(pids))
        time.sleep(0.1)
        return block

    # With meta, lest dask try the function here, and this process be taken for a worker.
    meta = np.empty((0, 0, 0), labels.dtype)
    source = da.from_array(labels, chunks=16).map_blocks(slow, dtype=labels.dtype, meta=meta)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as own,
    ):
        delayed = write(source, tmp_path / "layer", sharding=SHARDINGS[sharding], compute=False)
        future = own.compute(delayed, retries=10)
        killed: set[str] = set()
        deadline = time.monotonic() + 90
        while not future.done() and time.monotonic() < deadline:
            for path in pids.iterdir():
                if path.name not in killed and len(killed) < 3:
                    time.sleep(0.15)
                    killed.add(path.name)
                    os.kill(int(path.name), signal.SIGKILL)
            time.sleep(0.02)
        volume = future.result(timeout=60)
    assert len(killed) == 3
    assert len(volume.scales) == 3
    assert contents(tmp_path / "layer") == contents(tmp_path / "whole")
