"""Arrays to object stores and back, through xarray and dask."""

from __future__ import annotations

import asyncio
import gzip
import uuid

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from fsspec.asyn import get_loop
from servers.fake_gcs import Bucket, FakeGcs
from servers.moto import MotoServer
from zarr.core.buffer import cpu

import precomputed_store as ps
from tests.oracles import make_info

pytestmark = pytest.mark.server

SIZE = (70, 50, 40)


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(8).integers(1, 9, SIZE, dtype=np.uint8)


async def test_a_bucket_takes_compressed_chunks_with_headers(
    s3_server: MotoServer, voxels: np.ndarray
) -> None:
    bucket = s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
    url, options = f"s3://{bucket}/layer", s3_server.storage_options
    source = da.from_array(voxels, chunks=(70, 50, 7))
    place = {"dims": "xyz", "resolution": (8, 8, 8), "chunk_size": (16, 16, 16)}
    ps.to_precomputed(source, url, storage_options=options, **place)

    key = "layer/8_8_8/64-70_48-50_32-40"
    found = s3_server.client().get_object(Bucket=bucket, Key=key)
    assert found["ContentEncoding"] == "gzip"
    assert found["CacheControl"] == "max-age=3600, s-max-age=3600"
    raw = gzip.decompress(found["Body"].read())
    assert raw == voxels[64:, 48:, 32:].tobytes(order="F")

    dataset = xr.open_dataset(url, engine="precomputed", storage_options=options)
    part = await dataset["image"].isel(x=slice(3, 60, 2), z=[5, 1]).load_async()
    np.testing.assert_array_equal(part[0].values, voxels[3:60:2, :, [5, 1]].transpose(2, 1, 0))
    array = ps.open_dask(url, storage_options=options, chunks={})
    np.testing.assert_array_equal(array.compute()[0].T, voxels)


def test_replacing_in_a_bucket_leaves_nothing_of_the_old_chunks(
    gcs_server: FakeGcs, voxels: np.ndarray
) -> None:
    objects = gcs_server.buckets.setdefault("bucket", Bucket()).objects
    options = {"endpoint_url": gcs_server.url, "token": "anon"}
    for array, mode in ((voxels, "w-"), (voxels[:20], "w")):
        ps.to_precomputed(
            array,
            "gs://bucket/layer",
            dims="xyz",
            resolution=(8, 8, 8),
            chunk_size=(32, 32, 32),
            mode=mode,  # type: ignore[arg-type]
            storage_options=options,
        )
    names = {name for name in objects if "8_8_8" in name}
    assert names == {
        f"layer/8_8_8/0-20_{y}_{z}" for y in ("0-32", "32-50") for z in ("0-32", "32-40")
    }
    volume = ps.open_volume("gs://bucket/layer", storage_options=options)
    np.testing.assert_array_equal(volume[...][..., 0], voxels[:20])


def test_a_web_server_is_read_only_before_anything_is_computed(voxels: np.ndarray) -> None:
    def refuse(block: np.ndarray) -> np.ndarray:
        raise AssertionError("computed")

    source = da.from_array(voxels, chunks=16).map_blocks(refuse, dtype=voxels.dtype)
    with pytest.raises(OSError, match=r"127\.0\.0\.1"):
        ps.to_precomputed(source, "http://127.0.0.1:9/layer", dims="xyz", resolution=(8, 8, 8))


def test_many_chunks_are_stored_in_shards_from_within_the_loop_of_fsspec(
    s3_server: MotoServer,
) -> None:
    bucket = s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
    url, options = f"s3://{bucket}/layer", s3_server.storage_options
    sharding = {"hash": "identity", "preshift_bits": 1, "minishard_bits": 0, "shard_bits": 9}
    ps.create(
        url, make_info(size=(64, 64, 8), chunk_size=(8, 8, 8), sharding=sharding),
        storage_options=options,
    )  # fmt: skip
    store = ps.PrecomputedStore(url, storage_options=options)

    async def store_all() -> None:
        chunk = cpu.Buffer.from_bytes(bytes([7]) * 512)
        keys = [f"0/c/0/0/{y}/{x}" for y in range(8) for x in range(8)]
        await asyncio.gather(*(store.set(key, chunk) for key in keys))

    asyncio.run_coroutine_threadsafe(store_all(), get_loop()).result(timeout=60)
    assert (ps.open_volume(url, storage_options=options)[...] == 7).all()
