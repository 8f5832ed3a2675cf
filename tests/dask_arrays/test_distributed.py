"""Reading and writing from two processes of dask.distributed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import precomputed_store as ps
from tests.oracles import tensorstore_read

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.server

SIZE = (70, 50, 40)


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
def voxels() -> np.ndarray:
    return np.random.default_rng(6).integers(1, 2**16, SIZE, dtype=np.uint16)


@pytest.mark.parametrize("chunks", [(70, 50, 1), (7, 50, 40), (16, 16, 16)], ids=str)
def test_two_processes_write_and_read_what_numpy_holds(
    client: distributed.Client, tmp_path: Path, voxels: np.ndarray, chunks: tuple[int, ...]
) -> None:
    source = da.from_array(voxels, chunks=chunks)
    volume = ps.to_precomputed(
        source,
        tmp_path / "layer",
        dims=("x", "y", "z"),
        layer_type="image",
        resolution=(8, 8, 8),
        chunk_size=(16, 16, 16),
        voxel_offset=(-3, 5, 9),
    )
    assert isinstance(volume, ps.Volume)
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "layer")[..., 0], voxels)
    read = ps.open_dask(tmp_path / "layer", chunks={}).compute()
    np.testing.assert_array_equal(read[0].T, voxels)
    assert len(client.scheduler_info()["workers"]) == 2


def test_a_delayed_write_runs_on_the_cluster_and_returns_the_volume(
    client: distributed.Client, tmp_path: Path, voxels: np.ndarray
) -> None:
    source = da.from_array(voxels, chunks=(70, 50, 3))
    delayed = ps.to_precomputed(
        source,
        tmp_path / "layer",
        dims="xyz",
        layer_type="image",
        resolution=(8, 8, 8),
        chunk_size=(16, 16, 16),
        compute=False,
    )
    volume = client.compute(delayed).result()
    np.testing.assert_array_equal(volume[...][..., 0], voxels)


def test_progress_is_shown_for_a_cluster(
    client: distributed.Client,
    tmp_path: Path,
    voxels: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = da.from_array(voxels, chunks=(16, 16, 16))
    ps.to_precomputed(
        source,
        tmp_path / "layer",
        dims="xyz",
        layer_type="image",
        resolution=(8, 8, 8),
        chunk_size=(16, 16, 16),
        progress=True,
    )
    assert "60/60" in capsys.readouterr().err
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "layer")[..., 0], voxels)


def test_a_failing_block_raises_from_a_cluster_with_progress(
    client: distributed.Client, tmp_path: Path, voxels: np.ndarray
) -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        if block.shape[0] == 6:
            raise RuntimeError("no such luck")
        return block

    source = da.from_array(voxels, chunks=(16, 50, 40)).map_blocks(fail, dtype=voxels.dtype)
    with pytest.raises(RuntimeError, match="no such luck"):
        ps.to_precomputed(
            source,
            tmp_path / "layer",
            dims="xyz",
            layer_type="image",
            resolution=(8, 8, 8),
            chunk_size=(16, 16, 16),
            progress=True,
        )


def test_two_processes_compute_on_a_layer_and_write_it_back(
    client: distributed.Client, tmp_path: Path, voxels: np.ndarray
) -> None:
    ps.to_precomputed(
        voxels,
        tmp_path / "layer",
        dims="xyz",
        layer_type="image",
        resolution=(8, 8, 8),
        chunk_size=(16, 16, 16),
    )
    image = xr.open_dataset(tmp_path / "layer", engine="precomputed", chunks={})["image"]
    coarse = image.coarsen(x=2, y=2, z=2).mean().round().astype("u2")
    ps.to_precomputed(coarse, tmp_path / "coarse", layer_type="image", chunk_size=(16, 16, 16))
    blocks = voxels.reshape(35, 2, 25, 2, 20, 2).mean(axis=(1, 3, 5)).round()
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "coarse")[..., 0], blocks)


def test_a_worker_that_does_not_see_the_layer_refuses_to_write(
    client: distributed.Client, voxels: np.ndarray
) -> None:
    source = da.from_array(voxels, chunks=(16, 16, 16))
    with pytest.raises(ps.StorageError, match="share"):
        ps.to_precomputed(
            source,
            "memory://not-of-the-workers",
            dims="xyz",
            layer_type="image",
            resolution=(8, 8, 8),
            chunk_size=(16, 16, 16),
        )
