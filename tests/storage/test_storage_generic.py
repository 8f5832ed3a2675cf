"""Any other fsspec protocol, and chains of them."""

from __future__ import annotations

import asyncio
import dataclasses
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from servers.fake_gcs import Bucket, FakeGcs
from servers.moto import MotoServer
from servers.web import WebServer

from precomputed_store.errors import StorageError, UnsupportedError
from precomputed_store.storage import Blob, RetryPolicy, Storage, open_storage

DATA = bytes(range(256)) * 100


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "volumes.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("layer/info", b"{}")
        file.writestr("layer/8_8_8/a", DATA)
        file.writestr("other/8/b", b"b")
    return path


def cached(address: str, tmp_path: Path, **options: Any) -> Storage:
    options["simplecache"] = {"cache_storage": str(tmp_path / "cache")}
    return open_storage(f"simplecache::{address}", storage_options=options)


def test_an_archive_is_a_layer(archive: Path) -> None:
    storage = open_storage(f"zip://layer::{archive}")
    assert storage.get("info") == Blob(b"{}", None, False)
    assert storage.get("8_8_8/a", (256, 260)) == Blob(bytes([0, 1, 2, 3]), None, False)
    assert storage.get("8_8_8/b") is None
    assert storage.exists("info")
    assert not storage.exists("8_8_8/b")
    assert sorted(storage.list_names()) == ["8_8_8", "info"]
    assert storage.first_child("8_8_8") == "a"
    assert storage.get("../other/8/b") == Blob(b"b", None, False)
    assert storage.threaded


def test_a_range_past_the_end_is_an_error(archive: Path) -> None:
    with pytest.raises(StorageError, match="asked for"):
        open_storage(f"zip://layer::{archive}").get("8_8_8/a", (len(DATA) - 1, len(DATA) + 1))


def test_an_archive_on_a_web_server_is_a_layer(archive: Path, web_server: WebServer) -> None:
    web_server.add("/v.zip", archive.read_bytes())
    storage = open_storage(f"zip://layer::{web_server.url}/v.zip")
    assert storage.get("8_8_8/a") == Blob(DATA, None, False)


def test_something_else_than_an_archive_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "v.zip").write_bytes(b"not a zip")
    with pytest.raises(StorageError, match="BadZipFile"):
        open_storage(f"zip://layer::{tmp_path / 'v.zip'}").get("info")


def test_a_cache_asks_the_server_once(web_server: WebServer, tmp_path: Path) -> None:
    web_server.add("/layer/8/a", DATA)
    storage = cached(f"{web_server.url}/layer", tmp_path)
    assert storage.get("8/a") == Blob(DATA, None, False)
    count = len(web_server.requests)
    assert storage.get("8/a", (5, 9)) == Blob(DATA[5:9], None, False)
    assert storage.child("8").get("a") == Blob(DATA, None, False)
    assert len(web_server.requests) == count
    assert storage.get("8/b") is None


def test_a_broken_download_is_not_served_from_the_cache(
    web_server: WebServer, tmp_path: Path, hasty: RetryPolicy
) -> None:
    web_server.add("/layer/a", DATA)
    storage = dataclasses.replace(cached(f"{web_server.url}/layer", tmp_path), retry=hasty)
    # The first answer is about the existence, the second is the download.
    web_server.faults.extend(["ok", "short"])
    assert storage.get("a") == Blob(DATA, None, False)
    assert storage.get("a") == Blob(DATA, None, False)


def test_many_threads_share_a_cache(web_server: WebServer, tmp_path: Path) -> None:
    data = bytes(3_000_000)
    web_server.add("/layer/a", data)
    storage = cached(f"{web_server.url}/layer", tmp_path)
    with ThreadPoolExecutor(8) as pool:
        blobs = list(pool.map(lambda _: storage.get("a"), range(16)))
    assert all(blob == Blob(data, None, False) for blob in blobs)


async def test_coroutines_work_in_front_of_a_cache(web_server: WebServer, tmp_path: Path) -> None:
    web_server.add("/layer/a", DATA)
    storage = cached(f"{web_server.url}/layer", tmp_path)
    blobs = await asyncio.gather(*(storage.get_async("a") for _ in range(8)))
    assert blobs == [Blob(DATA, None, False)] * 8


@pytest.mark.server
def test_google_behind_a_cache_is_anonymous_by_default(
    gcs_server: FakeGcs, tmp_path: Path, no_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    gcs_server.buckets["bucket"] = Bucket()
    options = {"endpoint_url": gcs_server.url}
    direct = open_storage("gs://bucket/layer", storage_options={**options, "token": "anon"})
    direct.put("info", b"{}", content_type="")
    storage = cached("gs://bucket/layer", tmp_path, gs=options)
    assert storage.get("info") == Blob(b"{}", None, False)
    assert storage.get("8/a") is None


@pytest.mark.server
def test_s3_behind_a_cache_works(s3_server: MotoServer, tmp_path: Path) -> None:
    s3_server.create_bucket("cached")
    direct = open_storage("s3://cached/layer", storage_options=s3_server.storage_options)
    direct.put("info", b"{}", content_type="")
    storage = cached("s3://cached/layer", tmp_path, s3=s3_server.storage_options)
    assert storage.get("info") == Blob(b"{}", None, False)


def test_writing_needs_no_compression(tmp_path: Path) -> None:
    storage = open_storage("dir::memory://generic/volume")
    storage.put("8/a", b"1", content_type="")
    assert storage.get("8/a") == Blob(b"1", None, False)
    storage.delete("8/a")
    storage.delete("8/a")
    assert storage.get("8/a") is None
    with pytest.raises(UnsupportedError, match="keeps no headers"):
        storage.put("8/a", b"1", content_type="", content_encoding="gzip")
