"""Arrays to object stores and back, through xarray and dask."""

from __future__ import annotations

import asyncio
import gzip
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from fsspec.asyn import get_loop
from servers.fake_gcs import Bucket, FakeGcs
from servers.moto import MotoServer
from zarr.core.buffer import cpu

import precomputed_store as ps
from precomputed_store.storage import transfer
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


@pytest.mark.parametrize("kind", ["boxes", "scattered"])
@pytest.mark.parametrize("store", ["s3", "gcs"])
def test_shards_and_a_pyramid_go_to_a_bucket_and_are_changed_there(
    request: pytest.FixtureRequest, voxels: np.ndarray, store: str, kind: str
) -> None:
    if store == "s3":
        server = request.getfixturevalue("s3_server")
        bucket = server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
        url, options = f"s3://{bucket}/layer", server.storage_options
    else:
        server = request.getfixturevalue("gcs_server")
        server.buckets["bucket"] = Bucket()
        url, options = "gs://bucket/layer", {"endpoint_url": server.url, "token": "anon"}
    hashes = {"boxes": "identity", "scattered": "murmurhash3_x86_128"}
    volume = ps.to_precomputed(
        da.from_array(voxels, chunks=(70, 50, 7)),
        url,
        dims="xyz",
        layer_type="segmentation",
        encoding="raw",
        resolution=(8, 8, 8),
        chunk_size=(16, 16, 16),
        sharding=ps.ShardingSpec(
            hash=hashes[kind],  # type: ignore[arg-type]
            preshift_bits=1,
            minishard_bits=2,
            shard_bits=5,
            data_encoding="gzip",
        ),
        pyramid="2x2x2",
        storage_options=options,
    )
    assert isinstance(volume, ps.Volume)
    assert len(volume.scales) == 4
    coarse = ps.open_dask(url, scale=1, storage_options=options).compute()[0].T
    values, counts = np.unique(voxels[:2, :2, :2], return_counts=True)
    assert coarse[0, 0, 0] == values[counts.argmax()]
    writer = ps.open_volume(url, mode="r+", unaligned="read-modify-write", storage_options=options)
    expected = voxels.copy()
    for value, box in ((3, np.s_[5:40, 7:30, 3:37]), (0, np.s_[0:50, :, :])):
        writer[box] = np.uint8(value)
        expected[box] = value
    read = ps.open_volume(url, storage_options=options)[...][..., 0]
    np.testing.assert_array_equal(read, expected)


def test_half_chunks_of_a_bucket_written_at_once_are_both_there(s3_server: MotoServer) -> None:
    bucket = s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
    url, options = f"s3://{bucket}/layer", s3_server.storage_options
    ps.to_precomputed(
        np.zeros((32, 32, 32), np.uint8), url, dims="xyz", resolution=(8, 8, 8),
        chunk_size=(32, 32, 32), storage_options=options,
    )  # fmt: skip
    volume = ps.open_volume(url, mode="r+", unaligned="read-modify-write", storage_options=options)

    def write(z: int) -> None:
        volume[:, :, z] = np.uint8(z + 1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(32)))
    np.testing.assert_array_equal(volume[0, 0, :].ravel(), np.arange(1, 33))


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


@pytest.mark.parametrize("sharding", [None, "auto"])
def test_layers_are_copied_between_a_disk_and_a_bucket(
    s3_server: MotoServer,
    voxels: np.ndarray,
    tmp_path: Path,
    sharding: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
    url, options = f"s3://{bucket}/layer", s3_server.storage_options
    place = {"dims": "xyz", "resolution": (8, 8, 8), "chunk_size": (16, 16, 16)}
    ps.to_precomputed(voxels, tmp_path / "a", pyramid="2x2x2", **place)
    ps.copy(tmp_path / "a", url, sharding=sharding, storage_options=options)
    ps.copy(url, tmp_path / "b", sharding=None, source_storage_options=options)
    ours = {path.name: path.read_bytes() for path in (tmp_path / "a" / "8_8_8").iterdir()}
    assert {p.name: p.read_bytes() for p in (tmp_path / "b" / "8_8_8").iterdir()} == ours
    again, large = f"s3://{bucket}/again", [(1000, 700), (transfer.HELD_BYTES, 1 << 24)]
    for held, piece in large:
        # Shards as they are: held, and by way of a file.
        monkeypatch.setattr(transfer, "HELD_BYTES", held)
        monkeypatch.setattr(transfer, "_PIECE_BYTES", piece)
        both = {"storage_options": options, "source_storage_options": options}
        ps.copy(url, again, mode="w", **both)
        ps.copy(again, tmp_path / "c", mode="w", source_storage_options=options)
        ps.copy(tmp_path / "c", again, mode="w", storage_options=options)
        copied = ps.open_volume(again, storage_options=options)
        np.testing.assert_array_equal(copied[...][..., 0], voxels)
    ps.delete(again, storage_options=options)
    ps.delete(url, storage_options=options)
    assert not s3_server.client().list_objects_v2(Bucket=bucket).get("Contents")
