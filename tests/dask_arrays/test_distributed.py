"""Reading and writing from two processes of dask.distributed."""

from __future__ import annotations

import shutil
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


SHARDED = ps.ShardingSpec(hash="identity", preshift_bits=3, minishard_bits=1, shard_bits=3)
SCATTERED = ps.ShardingSpec(
    hash="murmurhash3_x86_128", preshift_bits=0, minishard_bits=1, shard_bits=2
)


@pytest.mark.parametrize("sharding", [None, SHARDED, SCATTERED], ids=["chunks", "boxes", "murmur"])
def test_the_same_write_after_the_layer_has_gone_stores_it_again(
    client: distributed.Client,
    tmp_path: Path,
    voxels: np.ndarray,
    sharding: ps.ShardingSpec | None,
) -> None:
    source = da.from_array(voxels, chunks=(32, 32, 32))

    def job() -> distributed.Future:
        delayed = ps.to_precomputed(
            source,
            tmp_path / "layer",
            dims="xyz",
            layer_type="image",
            resolution=(8, 8, 8),
            chunk_size=(8, 8, 8),
            sharding=sharding,
            pyramid=1,
            compute=False,
        )
        return client.compute(delayed)

    first = job()
    first.result()
    shutil.rmtree(tmp_path / "layer")
    job().result()
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "layer")[..., 0], voxels)
    coarse = ps.open_volume(tmp_path / "layer", scale=1, missing="raise")
    assert coarse[...].any()
    first.release()


@pytest.mark.parametrize("sharding", [None, SHARDED, SCATTERED], ids=["chunks", "boxes", "murmur"])
def test_what_failed_on_a_cluster_can_be_resumed_there(
    client: distributed.Client,
    tmp_path: Path,
    voxels: np.ndarray,
    sharding: ps.ShardingSpec | None,
) -> None:
    layer = tmp_path / "layer"
    source = da.from_array(voxels, chunks=(32, 32, 32))

    def job(*, resume: bool) -> None:
        ps.to_precomputed(
            source,
            layer,
            dims="xyz",
            layer_type="image",
            resolution=(8, 8, 8),
            chunk_size=(8, 8, 8),
            sharding=sharding,
            pyramid=1,
            resume=resume,
        )

    layer.mkdir()
    (layer / "16_16_16").write_bytes(b"in the way")
    with pytest.raises((OSError, ps.PrecomputedError)):
        job(resume=False)
    (layer / "16_16_16").unlink()
    job(resume=True)
    np.testing.assert_array_equal(tensorstore_read(layer)[..., 0], voxels)
    assert ps.open_volume(layer, scale=1)[...].any()


@pytest.mark.parametrize("sharding", [None, SHARDED, SCATTERED], ids=["chunks", "boxes", "murmur"])
def test_copies_and_coarser_scales_that_failed_on_a_cluster_can_be_made_again(
    client: distributed.Client,
    tmp_path: Path,
    voxels: np.ndarray,
    sharding: ps.ShardingSpec | None,
) -> None:
    arguments = {"dims": "xyz", "layer_type": "image", "resolution": (8, 8, 8)}
    ps.to_precomputed(voxels, tmp_path / "source", **arguments, chunk_size=(8, 8, 8))
    copy = tmp_path / "copy"

    def job(*, resume: bool) -> None:
        ps.copy(tmp_path / "source", copy, sharding=sharding, resume=resume)

    copy.mkdir()
    (copy / "8_8_8").write_bytes(b"in the way")
    with pytest.raises((OSError, ps.PrecomputedError)):
        job(resume=False)
    (copy / "8_8_8").unlink()
    job(resume=True)
    np.testing.assert_array_equal(tensorstore_read(copy)[..., 0], voxels)
    (copy / "16_16_16").write_bytes(b"in the way")
    with pytest.raises((OSError, ps.PrecomputedError)):
        ps.downsample(copy, pyramid=1)
    (copy / "16_16_16").unlink()
    ps.downsample(copy, pyramid=1, resume=True)
    assert ps.open_volume(copy, scale=1, missing="raise")[...].any()


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
