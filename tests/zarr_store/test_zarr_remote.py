"""Through networks: many requests in flight, content encodings, nothing asked twice."""

from __future__ import annotations

import gzip
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from servers.moto import MotoServer
from servers.web import WebServer

import precomputed_store as ps
from tests.oracles import make_info, tensorstore_write

from .conftest import KINDS, Layer, MakeLayer
from .test_zarr_indexing import PIPELINES

pytestmark = pytest.mark.server

ARGUMENTS: dict[str, Any] = {"size": (25, 35, 17), "chunk_size": (8, 10, 6)}


@pytest.fixture(params=PIPELINES)
def pipeline(request: pytest.FixtureRequest) -> Any:
    path = f"zarr.core.codec_pipeline.{request.param}"
    with zarr.config.set({"codec_pipeline.path": path, "async.concurrency": 64}):
        yield request.param


def serve(server: WebServer, folder: Path) -> str:
    """The address of a copy of a layer on a web server; every second chunk is gzip."""
    for number, path in enumerate(sorted(folder.rglob("*"))):
        if path.is_file():
            name, data = f"/em/{path.relative_to(folder)}", path.read_bytes()
            if number % 2 and path.name != "info":
                server.add(name, gzip.compress(data), content_encoding="gzip")
            else:
                server.add(name, data)
    return f"{server.url}/em"


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("mode", ["native", "decoded"])
def test_a_web_server_is_read(layer: Layer, web_server: WebServer, mode: Any) -> None:
    url = serve(web_server, layer.folder)
    array = zarr.open_group(ps.PrecomputedStore(url, mode=mode), mode="r")["0"]
    np.testing.assert_array_equal(array[...], layer.expected)
    np.testing.assert_array_equal(array[:, 3:9, ::4, -1], layer.expected[:, 3:9, ::4, -1])


def test_a_web_server_is_asked_for_what_is_needed(
    make_layer: MakeLayer, web_server: WebServer, requests: Counter[str]
) -> None:
    url = serve(web_server, make_layer().folder)
    requests.clear()
    array = zarr.open_group(ps.PrecomputedStore(url), mode="r")["0"]
    assert requests == {"get info": 1}
    array[:, :6, :10, :9]
    assert requests == {
        "get info": 1,
        "get 8_8_8/-7-1_3-13_11-17": 1,
        "get 8_8_8/1-9_3-13_11-17": 1,
    }


def test_missing_chunks_on_a_web_server(make_layer: MakeLayer, web_server: WebServer) -> None:
    layer = make_layer()
    url = serve(web_server, layer.folder)
    del web_server.pages["/em/8_8_8/-7-1_3-13_11-17"]
    array = zarr.open_group(ps.PrecomputedStore(url), mode="r")["0"]
    assert not array[:, :6, :10, :8].any()
    assert array[:, 6:12, :10, :8].all()
    strict = zarr.open_group(ps.PrecomputedStore(url, missing="raise"), mode="r")["0"]
    with pytest.raises(ps.MissingChunkError, match="-7-1_3-13_11-17"):
        strict[...]


def test_a_web_server_without_any_chunk_is_warned_of(
    make_layer: MakeLayer, web_server: WebServer
) -> None:
    url = serve(web_server, make_layer(empty=True).folder)
    array = zarr.open_group(ps.PrecomputedStore(url), mode="r")["0"]
    with pytest.warns(ps.MissingDataWarning, match="none of the 16 chunks"):
        assert not array[...].any()


def test_a_web_server_lists_metadata_alone(make_layer: MakeLayer, web_server: WebServer) -> None:
    url = serve(web_server, make_layer().folder)
    array = zarr.open_group(ps.PrecomputedStore(url), mode="r")["0"]
    assert array.nchunks_initialized == 0


@pytest.mark.parity
def test_chunks_in_shards_share_requests(tmp_path: Path, web_server: WebServer) -> None:
    sharding = {"preshift_bits": 9, "minishard_bits": 0, "shard_bits": 0, "hash": "identity"}
    info = make_info(size=(25, 35, 17), chunk_size=(8, 10, 6), sharding=sharding)
    data = np.random.default_rng(0).integers(1, 255, (25, 35, 17, 1), dtype=np.uint8)
    tensorstore_write(tmp_path / "sharded", info, data)
    for path in (tmp_path / "sharded").rglob("*"):
        if path.is_file():
            web_server.add(f"/em/{path.relative_to(tmp_path / 'sharded')}", path.read_bytes())
    with zarr.config.set({"codec_pipeline.batch_size": 64}):
        array = zarr.open_group(ps.PrecomputedStore(f"{web_server.url}/em"), mode="r")["0"]
        before = len(web_server.requests)
        # Shard index, minishard index, and 24 chunks in one range.
        np.testing.assert_array_equal(array[..., :12], data.transpose()[..., :12])
        assert len(web_server.requests) - before == 3
        # The whole shard.
        np.testing.assert_array_equal(array[...], data.transpose())
        assert len(web_server.requests) - before == 4


@pytest.fixture
def bucket(s3_server: MotoServer) -> str:
    return s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")


@pytest.mark.parametrize("kind", KINDS)
def test_s3_is_written_and_read(s3_server: MotoServer, bucket: str, kind: str) -> None:
    url, options = f"s3://{bucket}/em", s3_server.storage_options
    ps.create(url, make_info(**ARGUMENTS, **KINDS[kind]), storage_options=options)
    store = ps.PrecomputedStore(url, storage_options=options)
    array = zarr.open_group(store, mode="r+")["0"]
    expected = (np.arange(array.size) % 50 + 1).reshape(array.shape).astype(array.dtype)
    array[...] = expected
    array[:, 5:13, 9:31, 7:25] = expected[:, 5:13, 9:31, 7:25] = 9
    array[:, :6, :10, :8] = expected[:, :6, :10, :8] = 0
    np.testing.assert_array_equal(array[...], expected)
    volume = ps.open_volume(url, storage_options=options)
    np.testing.assert_array_equal(volume[...], expected.transpose())
    assert array.nchunks_initialized == 47


def test_objects_on_s3_have_the_headers_that_viewers_need(
    s3_server: MotoServer, bucket: str
) -> None:
    url, options = f"s3://{bucket}/em", s3_server.storage_options
    ps.create(url, make_info(**ARGUMENTS), storage_options=options)
    store = ps.PrecomputedStore(url, storage_options=options)
    zarr.open_group(store, mode="r+")["0"][:, :6, :10, :8] = 7
    found = s3_server.client().get_object(Bucket=bucket, Key="em/8_8_8/0-8_0-10_0-6")
    assert found["ContentEncoding"] == "gzip"
    assert found["ContentType"] == "application/octet-stream"
    assert found["CacheControl"] == "max-age=3600, s-max-age=3600"
    assert gzip.decompress(found["Body"].read()) == b"\x07" * (6 * 10 * 8)


def test_the_fused_pipeline_writes_whole_chunks_through_a_network(
    s3_server: MotoServer, bucket: str, pipeline: str
) -> None:
    """It gives the codec no keys there, so cropped chunks have to be refused."""
    options = s3_server.storage_options
    for name, size in (("whole", (16, 16, 8)), ("cropped", (16, 16, 9))):
        url = f"s3://{bucket}/{name}"
        ps.create(url, make_info(size=size, chunk_size=(8, 8, 8)), storage_options=options)
        store = ps.PrecomputedStore(url, storage_options=options)
        array = zarr.open_group(store, mode="r+")["0"]
        if name == "cropped" and pipeline == "FusedCodecPipeline":
            with pytest.raises(ps.UnsupportedError, match="BatchedCodecPipeline"):
                array[...] = 5
        else:
            array[...] = 5
            array[0, 0, 0, :3] = 4
            assert array[0, 0, 0, :5].tolist() == [4, 4, 4, 5, 5]
