"""Layers on S3: a real server process, and faults in front of it."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers.faulty import Request
from servers.moto import MotoServer
from servers.proxy import FaultyProxy

from precomputed_store.errors import StorageError
from precomputed_store.storage import Blob, RetryPolicy, Storage, open_storage

pytestmark = pytest.mark.server

DATA = bytes(range(256)) * 100


@pytest.fixture
def bucket(s3_server: MotoServer) -> str:
    return s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def storage(s3_server: MotoServer, bucket: str, hasty: RetryPolicy) -> Storage:
    opened = open_storage(f"s3://{bucket}/layer", storage_options=s3_server.storage_options)
    return dataclasses.replace(opened, retry=hasty)


@pytest.fixture
def proxy(s3_server: MotoServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server.url) as server:
        assert isinstance(server, FaultyProxy)
        yield server


@pytest.fixture
def faulty(storage: Storage, s3_server: MotoServer, proxy: FaultyProxy) -> Storage:
    options = {**s3_server.storage_options, "endpoint_url": proxy.url}
    return dataclasses.replace(storage, storage_options=options)


def test_an_object_comes_back(storage: Storage) -> None:
    storage.put("8_8_8/a", DATA, content_type="application/octet-stream")
    assert storage.get("8_8_8/a") == Blob(DATA, None, True)
    assert storage.exists("8_8_8/a")
    assert not storage.threaded
    assert storage.has_headers
    assert storage.concurrency == 64


def test_absent_objects_and_buckets_are_missing(storage: Storage) -> None:
    assert storage.get("8_8_8/a") is None
    assert storage.get("8_8_8/a", (0, 16)) is None
    assert not storage.exists("8_8_8/a")
    storage.delete("8_8_8/a")
    nowhere = dataclasses.replace(storage, url="s3://no-such-bucket/layer")
    assert nowhere.get("info") is None
    with pytest.raises(StorageError, match="NoSuchBucket"):
        nowhere.put("info", b"{}", content_type="application/json")


def test_headers_are_kept(storage: Storage, s3_server: MotoServer, bucket: str) -> None:
    storage.put(
        "8/a",
        b"compressed",
        content_type="image/jpeg",
        content_encoding="gzip",
        cache_control="max-age=3600, s-max-age=3600",
    )
    head = s3_server.client().head_object(Bucket=bucket, Key="layer/8/a")
    assert head["ContentType"] == "image/jpeg"
    assert head["ContentEncoding"] == "gzip"
    assert head["CacheControl"] == "max-age=3600, s-max-age=3600"
    assert storage.get("8/a") == Blob(b"compressed", "gzip", True)
    storage.put("8/a", b"plain", content_type="image/jpeg")
    head = s3_server.client().head_object(Bucket=bucket, Key="layer/8/a")
    assert "ContentEncoding" not in head
    assert storage.get("8/a") == Blob(b"plain", None, True)


def test_an_object_of_another_client_is_read(
    storage: Storage, s3_server: MotoServer, bucket: str
) -> None:
    s3_server.client().put_object(Bucket=bucket, Key="layer/8/a", Body=b"x", ContentEncoding="br")
    assert storage.get("8/a") == Blob(b"x", "br")


def test_a_range_is_exactly_what_was_asked_for(storage: Storage) -> None:
    storage.put("0.shard", DATA, content_type="")
    assert storage.get("0.shard", (256, 260)) == Blob(bytes([0, 1, 2, 3]), None)
    for start in (len(DATA) - 8, len(DATA), 10 * len(DATA)):
        with pytest.raises(StorageError, match="asked for"):
            storage.get("0.shard", (start, start + 16))


def test_a_range_of_compressed_bytes_is_refused(storage: Storage) -> None:
    storage.put("0.shard", DATA, content_type="", content_encoding="gzip")
    with pytest.raises(StorageError, match="compressed as a whole"):
        storage.get("0.shard", (0, 16))


def test_an_object_that_is_too_large_is_refused(storage: Storage) -> None:
    storage.put("a", DATA, content_type="")
    with pytest.raises(StorageError, match="expected at most 99"):
        storage.get("a", max_bytes=99)


def test_names_come_in_pages(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("precomputed_store.storage.s3._PAGE_NAMES", 7)
    for number in range(20):
        storage.put(f"8/{number:02}", b"", content_type="")
    for key in ("info", "8/x/y", "16/a"):
        storage.put(key, b"", content_type="")
    assert sorted(storage.list_names()) == ["16", "8", "info"]
    assert sorted(storage.list_names("8/")) == [f"{number:02}" for number in range(20)] + ["x"]
    assert storage.first_child("16") == "a"
    assert storage.first_child("none") is None


def test_no_credentials_means_anonymous(
    s3_server: MotoServer, bucket: str, no_credentials: None, proxy: FaultyProxy
) -> None:
    s3_server.client().put_object(Bucket=bucket, Key="layer/info", Body=b"{}", ACL="public-read")
    storage = open_storage(f"s3://{bucket}/layer", storage_options={"endpoint_url": proxy.url})
    assert storage.get("info") == Blob(b"{}", None)
    assert [request.headers.get("authorization") for request in proxy.requests] == [None]


def test_credentials_of_the_machine_are_used(
    s3_server: MotoServer,
    bucket: str,
    no_credentials: None,
    proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    storage = open_storage(f"s3://{bucket}/layer", storage_options={"endpoint_url": proxy.url})
    assert storage.get("info") is None
    assert "from-the-environment" in proxy.requests[0].headers["authorization"]


def test_options_of_the_user_win(bucket: str, proxy: FaultyProxy) -> None:
    options = {"s3": {"anon": True}, "endpoint_url": proxy.url}
    assert open_storage(f"s3://{bucket}/layer", storage_options=options).get("info") is None
    assert "authorization" not in proxy.requests[0].headers


def test_wrong_credentials_are_an_error(
    s3_server: MotoServer, storage: Storage, bucket: str
) -> None:
    storage.put("info", b"{}", content_type="")
    with s3_server.checked_credentials():
        for key in ("info", "absent"):
            with pytest.raises(StorageError, match=r"403.*'anon': True") as caught:
                storage.get(key)
            assert caught.value.status == 403
        with pytest.raises(StorageError, match="403"):
            storage.put("info", b"new", content_type="")
        sparse = dataclasses.replace(storage, missing_statuses=(404, 403))
        assert sparse.get("absent") is None
        with pytest.raises(StorageError, match="403"):
            sparse.put("info", b"new", content_type="")
    assert storage.get("info") == Blob(b"{}", None)


@pytest.mark.parametrize("fault", ["429", "500", "502", "503", "504", "refuse", "reset", "short"])
def test_passing_trouble_is_retried(faulty: Storage, proxy: FaultyProxy, fault: str) -> None:
    proxy.faults.extend([fault] * 3)
    faulty.put("a", DATA, content_type="")
    proxy.faults.extend([fault] * 3)
    assert faulty.get("a") == Blob(DATA, None)
    proxy.faults.extend([fault] * 3)
    assert faulty.get("a", (10, 20)) == Blob(DATA[10:20], None)
    assert not proxy.faults
    assert len(proxy.requests) >= 9


def test_a_stalled_body_is_asked_for_again(faulty: Storage, proxy: FaultyProxy) -> None:
    faulty.put("a", DATA, content_type="")
    proxy.faults.append("stall")
    assert faulty.get("a") == Blob(DATA, None)


def test_a_permanent_failure_ends_with_the_history(faulty: Storage, proxy: FaultyProxy) -> None:
    proxy.pick_fault = lambda request: "503"
    few = dataclasses.replace(faulty, retry=dataclasses.replace(faulty.retry, attempts=5))
    with pytest.raises(StorageError, match=r"gave up after 5 tries.*503") as caught:
        few.get("a")
    assert caught.value.status == 503
    assert len(proxy.requests) == 5


def test_a_closed_port_is_given_up_soon(storage: Storage) -> None:
    options = {**storage.storage_options, "endpoint_url": "http://127.0.0.1:9"}
    # A try that a busy machine cuts short is no refusal, and does not count as one.
    patient = dataclasses.replace(storage.retry, stall_s=60, deadline_s=600)
    closed = dataclasses.replace(storage, storage_options=options, retry=patient)
    with pytest.raises(StorageError, match="gave up after 4 tries"):
        closed.get("info")


def test_many_reads_through_a_bad_network(faulty: Storage, proxy: FaultyProxy) -> None:
    import random

    dice = random.Random(0)
    bad = ["429", "500", "503", "503", "reset", "reset"]

    def pick(request: Request) -> str:
        return dice.choice(bad) if dice.random() < 0.6 else "ok"

    keys = [f"8/{number}" for number in range(40)]
    proxy.pick_fault = pick

    async def scenario() -> list[Blob | None]:
        await asyncio.gather(*(faulty.put_async(k, k.encode(), content_type="") for k in keys))
        return await asyncio.gather(*(faulty.get_async(k) for k in keys))

    assert asyncio.run(scenario()) == [Blob(key.encode(), None) for key in keys]
    assert len(proxy.requests) > 100


async def test_it_works_from_any_event_loop(storage: Storage) -> None:
    await storage.put_async("a", b"1", content_type="", content_encoding="gzip")
    blobs = await asyncio.gather(*(storage.get_async("a") for _ in range(30)))
    assert blobs == [Blob(b"1", "gzip")] * 30
    assert await storage.exists_async("a")
    await storage.delete_async("a")
    assert not await storage.exists_async("a")


def test_it_works_from_many_threads(storage: Storage) -> None:
    storage.put("0.shard", DATA, content_type="")
    with ThreadPoolExecutor(16) as pool:
        blobs = list(pool.map(lambda i: storage.get("0.shard", (i, i + 10)), range(100)))
    assert [blob and blob.data for blob in blobs] == [DATA[i : i + 10] for i in range(100)]
