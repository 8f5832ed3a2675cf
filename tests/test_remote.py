"""Layers behind servers, through the doors: what is asked for, and what is never zeros."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from servers.fake_gcs import Bucket, FakeGcs
from servers.moto import MotoServer
from servers.web import WebServer

import precomputed_store as ps
from precomputed_store.shard_cache import clear_index_cache
from tests.oracles import make_info, tensorstore_read, tensorstore_write

pytestmark = pytest.mark.server

SIZE = (50, 40, 30)
DATA = np.asfortranarray(np.random.default_rng(0).integers(1, 255, (*SIZE, 1), dtype=np.uint8))
SHARDING = {
    "hash": "identity",
    "preshift_bits": 1,
    "minishard_bits": 2,
    "shard_bits": 1,
    "minishard_index_encoding": "gzip",
    "data_encoding": "gzip",
}


def serve(server: WebServer, folder: Path, **headers: str) -> str:
    """Put a layer's files on a web server."""
    for path in folder.rglob("*"):
        if path.is_file():
            server.add(f"/layer/{path.relative_to(folder)}", path.read_bytes(), **headers)
    server.requests.clear()
    clear_index_cache()
    return f"{server.url}/layer"


def asked(server: WebServer) -> list[str]:
    """The paths asked for since the last call."""
    paths = [request.path.removeprefix("/layer/") for request in server.requests]
    server.requests.clear()
    return paths


def test_an_unsharded_chunk_costs_one_request(web_server: WebServer, tmp_path: Path) -> None:
    info = make_info(size=SIZE, chunk_size=(20, 20, 20))
    tensorstore_write(tmp_path / "layer", info, DATA)
    volume = ps.open_volume(serve(web_server, tmp_path / "layer"))
    assert asked(web_server) == ["info"]
    np.testing.assert_array_equal(volume[0:20, 0:20, 0:20], DATA[:20, :20, :20])
    assert asked(web_server) == ["8_8_8/0-20_0-20_0-20"]
    np.testing.assert_array_equal(volume[...], DATA)
    assert len(asked(web_server)) == 12


def test_a_sharded_chunk_costs_three_requests_and_then_one(
    web_server: WebServer,
    tmp_path: Path,
) -> None:
    info = make_info(size=SIZE, chunk_size=(20, 20, 20), sharding=SHARDING)
    tensorstore_write(tmp_path / "layer", info, DATA)
    volume = ps.open_volume(serve(web_server, tmp_path / "layer"))
    assert asked(web_server) == ["info"]
    np.testing.assert_array_equal(volume[0:20, 0:20, 0:20], DATA[:20, :20, :20])
    assert len(asked(web_server)) == 3
    np.testing.assert_array_equal(volume[0:20, 0:20, 0:20], DATA[:20, :20, :20])
    assert len(asked(web_server)) == 1
    np.testing.assert_array_equal(volume[...], DATA)
    requests = asked(web_server)
    # Two shards of at most four minishards: indices once, and the data of each shard at once.
    assert len(requests) <= 2 * 7 + 2
    np.testing.assert_array_equal(volume[...], DATA)
    assert len(asked(web_server)) == 2


def test_opening_through_every_door_costs_one_request(
    web_server: WebServer,
    tmp_path: Path,
) -> None:
    tensorstore_write(tmp_path / "layer", make_info(size=SIZE), DATA)
    url = serve(web_server, tmp_path / "layer")
    for door in (
        lambda: ps.open_volume(url),
        lambda: ps.open_dask(url),
        lambda: xr.open_dataset(url, engine="precomputed", chunks={}),
        lambda: xr.open_datatree(url, engine="precomputed"),
        lambda: zarr.open_group(ps.PrecomputedStore(url), mode="r")["0"],
        lambda: zarr.open_group(f"precomputed::{url}", mode="r")["0"],
    ):
        door()
        assert asked(web_server) == ["info"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_an_error_through_every_door_and_never_zeros(
    web_server: WebServer,
    tmp_path: Path,
    status: int,
) -> None:
    tensorstore_write(tmp_path / "layer", make_info(size=SIZE), DATA)
    url = serve(web_server, tmp_path / "layer")
    readers = [
        ps.open_volume(url).read,
        ps.open_dask(url).compute,
        xr.open_dataset(url, engine="precomputed").load,
        zarr.open_group(ps.PrecomputedStore(url), mode="r")["0"].__array__,
    ]
    web_server.pick_fault = lambda request: str(status)
    for read in readers:
        with pytest.raises(ps.StorageError, match=str(status)):
            read()


def test_statuses_that_mean_missing_are_named_by_the_caller(
    web_server: WebServer,
    tmp_path: Path,
) -> None:
    info = make_info(size=SIZE, chunk_size=(20, 20, 20))
    tensorstore_write(tmp_path / "layer", info, DATA)
    url = serve(web_server, tmp_path / "layer")
    web_server.pick_fault = lambda request: (
        "403" if request.path.endswith("0-20_0-20_0-20") else "ok"
    )
    with pytest.raises(ps.StorageError, match=r"missing_statuses=\(404, 403\)"):
        ps.open_volume(url)[...]
    expected = DATA.copy()
    expected[:20, :20, :20] = 0
    options: dict[str, Any] = {"missing_statuses": (404, 403)}
    np.testing.assert_array_equal(ps.open_volume(url, **options)[...], expected)
    np.testing.assert_array_equal(ps.open_dask(url, **options).compute().T, expected)
    with xr.open_dataset(url, engine="precomputed", **options) as dataset:
        np.testing.assert_array_equal(dataset.image.values.T, expected)
    array: Any = zarr.open_group(ps.PrecomputedStore(url, **options), mode="r")["0"]
    np.testing.assert_array_equal(array[...].T, expected)
    with pytest.raises(ps.MissingChunkError, match="not stored"):
        ps.open_volume(url, missing="raise", **options)[...]


def test_a_redirect_takes_logins_to_the_same_server_only(web_server: WebServer) -> None:
    login = {"headers": {"Authorization": "secret"}}
    there = json.dumps(make_info(size=SIZE)).encode()
    with WebServer() as other:
        assert isinstance(other, WebServer)
        for server in (web_server, other):
            server.add("/there/info", there)
            redirect = json.dumps({"redirect": f"{server.url}/there"}).encode()
            web_server.add(f"/to-{server.port}/info", redirect)
        ps.open_volume(f"{web_server.url}/to-{web_server.port}", storage_options=login)
        assert web_server.requests[-1].headers["authorization"] == "secret"
        ps.open_volume(f"{web_server.url}/to-{other.port}", storage_options=login)
        assert "authorization" not in other.requests[-1].headers


def test_a_redirect_does_not_lead_from_a_server_to_local_files(
    web_server: WebServer, tmp_path: Path
) -> None:
    tensorstore_write(tmp_path / "layer", make_info(size=SIZE), DATA)
    web_server.add("/layer/info", json.dumps({"redirect": f"file://{tmp_path}/layer"}).encode())
    with pytest.raises(ps.MetadataError, match="on a network only"):
        ps.open_volume(f"{web_server.url}/layer")


def test_a_login_page_is_not_a_chunk(web_server: WebServer, tmp_path: Path) -> None:
    tensorstore_write(tmp_path / "layer", make_info(size=SIZE), DATA)
    volume = ps.open_volume(serve(web_server, tmp_path / "layer"))
    web_server.pick_fault = lambda request: "html"
    with pytest.raises(ps.PrecomputedError):
        volume[...]


def test_content_encoding_is_undone_once(web_server: WebServer, tmp_path: Path) -> None:
    tensorstore_write(tmp_path / "layer", make_info(size=SIZE), DATA)
    for path in (tmp_path / "layer").rglob("*"):
        if path.is_file():
            path.write_bytes(gzip.compress(path.read_bytes()))
    url = serve(web_server, tmp_path / "layer", content_encoding="gzip")
    np.testing.assert_array_equal(ps.open_volume(url)[...], DATA)


def test_reads_keep_many_requests_in_flight(web_server: WebServer, tmp_path: Path) -> None:
    info = make_info(size=SIZE, chunk_size=(10, 10, 10))
    tensorstore_write(tmp_path / "layer", info, DATA)
    url = serve(web_server, tmp_path / "layer")
    volume = ps.open_volume(url)
    waiting = threading.Semaphore(0)
    most, lock = [0, 0], threading.Lock()

    def hold(request: Any) -> str:
        with lock:
            most[0] += 1
            most[1] = max(most)
            if most[0] >= 30:
                for _ in range(100):
                    waiting.release()
        waiting.acquire(timeout=5)
        with lock:
            most[0] -= 1
        return "ok"

    web_server.pick_fault = hold
    np.testing.assert_array_equal(volume[...], DATA)
    assert most[1] >= 30


def test_coroutines_read_a_remote_volume(web_server: WebServer, tmp_path: Path) -> None:
    tensorstore_write(tmp_path / "layer", make_info(size=SIZE), DATA)
    volume = ps.open_volume(serve(web_server, tmp_path / "layer"))

    async def several() -> list[np.ndarray]:
        return await asyncio.gather(volume.read_async(), volume.read_async(np.s_[0:10]))

    whole, part = asyncio.run(several())
    np.testing.assert_array_equal(whole, DATA)
    np.testing.assert_array_equal(part, DATA[:10])


def test_a_layer_on_s3_is_written_and_read(s3_server: MotoServer, tmp_path: Path) -> None:
    bucket = s3_server.create_bucket("doors")
    options = {"storage_options": s3_server.storage_options}
    url = f"s3://{bucket}/layer"
    info = make_info(size=SIZE, chunk_size=(20, 20, 20))
    ps.create(url, info, **options)
    volume = ps.open_volume(url, mode="r+", unaligned="read-modify-write", **options)
    volume[...] = DATA
    volume[5:25, 3:7, 1:2] = 9
    expected = DATA.copy()
    expected[5:25, 3:7, 1:2] = 9
    np.testing.assert_array_equal(ps.open_volume(url, **options)[...], expected)
    head = s3_server.client().head_object(Bucket=bucket, Key="layer/8_8_8/0-20_0-20_0-20")
    assert head["ContentEncoding"] == "gzip"
    assert head["ContentType"] == "application/octet-stream"
    assert head["CacheControl"] == "max-age=3600, s-max-age=3600"
    described = s3_server.client().head_object(Bucket=bucket, Key="layer/info")
    assert described["ContentType"] == "application/json"
    assert described["CacheControl"] == "no-cache"
    for entry in s3_server.client().list_objects(Bucket=bucket)["Contents"]:
        body = s3_server.client().get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        target = tmp_path / entry["Key"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body if target.name == "info" else gzip.decompress(body))
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "layer"), expected)
    volume[0:20, 0:20, 0:20] = 0
    assert "layer/8_8_8/0-20_0-20_0-20" not in {
        entry["Key"] for entry in s3_server.client().list_objects(Bucket=bucket)["Contents"]
    }


def test_dask_writes_to_s3_and_xarray_reads_it(s3_server: MotoServer) -> None:
    import dask.array as da

    bucket = s3_server.create_bucket("cluster")
    url = f"s3://{bucket}/layer"
    lazy = da.from_array(DATA[..., 0], chunks=(17, 40, 13))
    ps.to_precomputed(
        lazy,
        url,
        dims=("x", "y", "z"),
        resolution=(8, 8, 40),
        chunk_size=(16, 16, 16),
        storage_options=s3_server.storage_options,
    )
    with xr.open_dataset(
        url, engine="precomputed", chunks={}, storage_options=s3_server.storage_options
    ) as dataset:
        values = dataset.image.transpose("x", "y", "z", "channel").values
    np.testing.assert_array_equal(values, DATA)


@pytest.mark.usefixtures("no_credentials")
def test_a_layer_on_google_storage_is_written_and_read(gcs_server: FakeGcs) -> None:
    gcs_server.buckets["bucket"] = Bucket()
    options = {"storage_options": {"endpoint_url": gcs_server.url, "token": "anon"}}
    info = make_info(size=SIZE, chunk_size=(20, 20, 20))
    ps.create("gs://bucket/layer", info, **options)
    ps.open_volume("gs://bucket/layer", mode="r+", **options)[...] = DATA
    np.testing.assert_array_equal(ps.open_volume("gs://bucket/layer", **options)[...], DATA)


def test_a_cached_chain_reads_the_same(web_server: WebServer, tmp_path: Path) -> None:
    info = make_info(size=SIZE, chunk_size=(20, 20, 20))
    tensorstore_write(tmp_path / "layer", info, DATA)
    url = serve(web_server, tmp_path / "layer")
    options = {"simplecache": {"cache_storage": str(tmp_path / "cache")}}
    for _ in range(2):
        volume = ps.open_volume(f"simplecache::{url}", storage_options=options)
        np.testing.assert_array_equal(volume[...], DATA)
    assert sum("8_8_8" in path for path in asked(web_server)) <= 24
