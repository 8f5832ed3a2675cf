"""Skeletons behind servers: what is stored there, and what is asked for."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest
from servers.fake_gcs import Bucket, FakeGcs
from servers.moto import MotoServer

import precomputed_store as ps
from precomputed_store.skeleton import Skeleton
from tests.oracles import make_info

pytestmark = pytest.mark.server

SHARDING = ps.ShardingSpec(
    hash="murmurhash3_x86_128",
    preshift_bits=0,
    minishard_bits=2,
    shard_bits=1,
    minishard_index_encoding="gzip",
    data_encoding="gzip",
)
INFO = make_info(size=(64, 64, 64), layer_type="segmentation", dtype="uint64")


def some_skeletons() -> dict[int, Skeleton]:
    rng = np.random.default_rng(0)
    return {
        segment_id: Skeleton(rng.random((9, 3)) * 500, [(i, i + 1) for i in range(8)])
        for segment_id in (3, 5, 2**64 - 1)
    }


def check(url: str, options: dict[str, Any], sharding: Any) -> None:
    """Put, add, search and delete, in a folder of a layer."""
    ps.create(url, INFO, **options)
    folder, data = f"{url}/skeletons", some_skeletons()
    first = {3: data[3], 5: data[5]}
    ps.write_skeletons(folder, first, sharding=sharding, spatial_index=True, **options)
    ps.write_skeletons(folder, {2**64 - 1: data[2**64 - 1]}, **options)
    source = ps.open_volume(url, **options).skeletons
    assert source.get(data) == data
    assert sorted(source) == sorted(data)
    assert source.query_ids([[0] * 3, [1000] * 3]) == sorted(data)
    ps.delete_skeletons(folder, [5], **options)
    assert sorted(source) == [3, 2**64 - 1]
    assert source.query_ids([[0] * 3, [1000] * 3]) == [3, 2**64 - 1]
    assert 5 not in source


@pytest.mark.parametrize("sharding", [None, SHARDING], ids=["files", "shards"])
def test_skeletons_on_s3(s3_server: MotoServer, sharding: Any) -> None:
    bucket = s3_server.create_bucket("skeletons" + ("-sharded" if sharding else ""))
    check(f"s3://{bucket}/layer", {"storage_options": s3_server.storage_options}, sharding)
    client = s3_server.client()
    keys = [entry["Key"] for entry in client.list_objects(Bucket=bucket)["Contents"]]
    (cell,) = (key for key in keys if key.endswith(".spatial"))
    stored = client.get_object(Bucket=bucket, Key=cell)
    assert stored["ContentEncoding"] == "gzip"
    assert sorted(json.loads(gzip.decompress(stored["Body"].read()))) == [str(2**64 - 1), "3"]
    one = next(key for key in keys if key.endswith((".shard", "/3")))
    head = client.head_object(Bucket=bucket, Key=one)
    assert head.get("ContentEncoding") == (None if sharding else "gzip")
    assert head["CacheControl"] == "no-cache"


@pytest.mark.parametrize("sharding", [None, SHARDING], ids=["files", "shards"])
@pytest.mark.usefixtures("no_credentials")
def test_skeletons_on_google_storage(gcs_server: FakeGcs, sharding: Any) -> None:
    gcs_server.buckets["bucket"] = Bucket()
    options = {"storage_options": {"endpoint_url": gcs_server.url, "token": "anon"}}
    check("gs://bucket/layer", options, sharding)
