"""Layers on Google Cloud Storage, against a server of our own that speaks its interface."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
from pathlib import Path

import pytest
from servers.fake_gcs import Bucket, FakeGcs

from precomputed_store.errors import StorageError
from precomputed_store.storage import Blob, RetryPolicy, Storage, open_storage
from precomputed_store.storage.gcs import with_default_token

pytestmark = pytest.mark.server

DATA = bytes(range(256)) * 100


@pytest.fixture
def storage(gcs_server: FakeGcs, hasty: RetryPolicy) -> Storage:
    gcs_server.buckets["bucket"] = Bucket()
    options = {"endpoint_url": gcs_server.url, "token": "anon"}
    opened = open_storage("gs://bucket/layer", storage_options=options)
    return dataclasses.replace(opened, retry=hasty)


def test_an_object_comes_back(storage: Storage) -> None:
    storage.put("8_8_8/a b#c", DATA, content_type="application/octet-stream")
    assert storage.get("8_8_8/a b#c") == Blob(DATA, None, True)
    assert storage.exists("8_8_8/a b#c")
    assert not storage.threaded
    assert storage.has_headers


def test_absent_objects_and_buckets_are_missing(storage: Storage) -> None:
    assert storage.get("8_8_8/a") is None
    assert storage.get("8_8_8/a", (0, 16)) is None
    assert not storage.exists("8_8_8/a")
    storage.delete("8_8_8/a")
    nowhere = dataclasses.replace(storage, url="gs://no-such-bucket/layer")
    assert nowhere.get("info") is None
    with pytest.raises(StorageError, match="bucket does not exist"):
        nowhere.put("info", b"{}", content_type="application/json")


def test_headers_are_kept(storage: Storage, gcs_server: FakeGcs) -> None:
    packed = gzip.compress(DATA)
    storage.put(
        "8/a",
        packed,
        content_type="image/jpeg",
        content_encoding="gzip",
        cache_control="max-age=3600, s-max-age=3600",
    )
    stored = gcs_server.buckets["bucket"].objects["layer/8/a"]
    assert stored.content_type == "image/jpeg"
    assert stored.content_encoding == "gzip"
    assert stored.cache_control == "max-age=3600, s-max-age=3600"
    assert stored.data == packed
    assert storage.get("8/a") == Blob(packed, "gzip", True)
    storage.put("8/a", b"plain", content_type="image/jpeg")
    assert gcs_server.buckets["bucket"].objects["layer/8/a"].content_encoding is None
    assert storage.get("8/a") == Blob(b"plain", None, True)


def test_gcsfs_reads_what_was_written(storage: Storage, gcs_server: FakeGcs) -> None:
    from gcsfs import GCSFileSystem

    storage.put("8/a", gzip.compress(DATA), content_type="", content_encoding="gzip")
    storage.put("8/b", DATA, content_type="")
    client = GCSFileSystem(endpoint_url=gcs_server.url, token="anon", skip_instance_cache=True)
    assert client.cat_file("bucket/layer/8/a") == DATA
    assert client.cat_file("bucket/layer/8/b", start=5, end=9) == DATA[5:9]


def test_a_range_is_exactly_what_was_asked_for(storage: Storage) -> None:
    storage.put("0.shard", DATA, content_type="")
    assert storage.get("0.shard", (256, 260)) == Blob(bytes([0, 1, 2, 3]), None)
    for start in (len(DATA) - 8, len(DATA), 10 * len(DATA)):
        with pytest.raises(StorageError, match=f"it is {len(DATA)} bytes long"):
            storage.get("0.shard", (start, start + 16))


def test_a_range_of_transcoded_bytes_is_one_of_the_plain_ones(storage: Storage) -> None:
    # Without gzip among the accepted encodings Google inflates, and ignores Range.
    storage.put("0.shard", gzip.compress(DATA), content_type="", content_encoding="gzip")
    assert storage.get("0.shard", (10, 20)) == Blob(DATA[10:20], None)


def test_names_come_in_pages(storage: Storage, gcs_server: FakeGcs) -> None:
    gcs_server.page_size = 7
    for number in range(20):
        storage.put(f"8/{number:02}", b"", content_type="")
    for key in ("info", "8/x/y", "16/a"):
        storage.put(key, b"", content_type="")
    assert sorted(storage.list_names()) == ["16", "8", "info"]
    assert sorted(storage.list_names("8/")) == [f"{number:02}" for number in range(20)] + ["x"]
    assert storage.first_child("16") == "a"
    assert storage.first_child("none") is None


def test_no_credentials_means_anonymous(
    gcs_server: FakeGcs, no_credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("precomputed_store.storage.gcs._on_google_machine", lambda: False)
    gcs_server.buckets["bucket"] = Bucket()
    storage = open_storage("gs://bucket", storage_options={"endpoint_url": gcs_server.url})
    storage.put("info", b"{}", content_type="")
    assert storage.get("info") == Blob(b"{}", None)
    assert "authorization" not in gcs_server.requests[0].headers


def test_credentials_of_the_machine_are_left_to_gcsfs(
    no_credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("precomputed_store.storage.gcs._on_google_machine", lambda: False)
    assert with_default_token({"project": "p"}) == {"project": "p", "token": "anon"}
    assert with_default_token({"token": "google_default"}) == {"token": "google_default"}
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    (tmp_path / "application_default_credentials.json").write_text("{}")
    assert with_default_token({}) == {}
    monkeypatch.delenv("CLOUDSDK_CONFIG")
    assert with_default_token({}) == {"token": "anon"}
    monkeypatch.setattr("precomputed_store.storage.gcs._on_google_machine", lambda: True)
    assert with_default_token({}) == {}


def private(storage: Storage, gcs_server: FakeGcs, token: str | None) -> Storage:
    from google.oauth2.credentials import Credentials

    gcs_server.buckets["private"] = Bucket(token="the-right-one")
    credentials = "anon" if token is None else Credentials(token)
    options = {"endpoint_url": gcs_server.url, "token": credentials}
    return dataclasses.replace(storage, url="gs://private/layer", storage_options=options)


def test_the_right_token_reads_and_writes(storage: Storage, gcs_server: FakeGcs) -> None:
    known = private(storage, gcs_server, "the-right-one")
    known.put("info", b"{}", content_type="")
    assert known.get("info") == Blob(b"{}", None)


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("a-wrong-one", 403)])
def test_missing_permission_is_an_error(
    storage: Storage, gcs_server: FakeGcs, token: str | None, status: int
) -> None:
    stranger = private(storage, gcs_server, token)
    for call in (
        lambda: stranger.get("info"),
        lambda: stranger.exists("info"),
        lambda: stranger.delete("info"),
        lambda: stranger.put("info", b"{}", content_type=""),
        lambda: list(stranger.list_names()),
    ):
        with pytest.raises(StorageError, match="no permission") as caught:
            call()
        assert caught.value.status == status
        assert ("'token': 'anon'" in str(caught.value)) == (token is not None)
    assert len(gcs_server.requests) == 5


def test_403_for_absent_objects_needs_the_option(storage: Storage, gcs_server: FakeGcs) -> None:
    gcs_server.buckets["bucket"].may_list = False
    storage.put("there", b"1", content_type="")
    with pytest.raises(StorageError, match=r"missing_statuses=\(404, 403\)"):
        storage.get("8/a")
    sparse = dataclasses.replace(storage, missing_statuses=(404, 403))
    assert sparse.get("8/a") is None
    assert not sparse.exists("8/a")
    assert sparse.get("there") == Blob(b"1", None)


@pytest.mark.parametrize(
    "fault", ["429", "500", "502", "503", "504", "refuse", "reset", "short", "stall"]
)
def test_passing_trouble_is_retried(storage: Storage, gcs_server: FakeGcs, fault: str) -> None:
    gcs_server.faults.extend([fault] * 2)
    storage.put("a", DATA, content_type="")
    gcs_server.faults.extend([fault] * 2)
    assert storage.get("a") == Blob(DATA, None)
    assert len(gcs_server.requests) == 6


def test_a_damaged_upload_is_refused_by_the_server(
    storage: Storage, gcs_server: FakeGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = gcs_server.respond

    def damage(request: object) -> object:
        body = request.body.replace(b"right", b"wrong")  # type: ignore[attr-defined]
        return honest(dataclasses.replace(request, body=body))  # type: ignore[type-var]

    monkeypatch.setattr(gcs_server, "respond", damage)
    with pytest.raises(StorageError, match="MD5"):
        storage.put("a", b"right", content_type="")


async def test_it_works_from_any_event_loop(storage: Storage) -> None:
    await storage.put_async("a", b"1", content_type="", content_encoding="br")
    blobs = await asyncio.gather(*(storage.get_async("a") for _ in range(30)))
    assert blobs == [Blob(b"1", "br")] * 30
    await storage.delete_async("a")
    assert not await storage.exists_async("a")
