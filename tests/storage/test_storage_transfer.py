"""Large objects between storages: whole, of one version, and not held in memory."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from servers.fake_gcs import Bucket, FakeGcs
from servers.moto import MotoServer

from precomputed_store.errors import StorageError
from precomputed_store.storage import Storage, open_storage, transfer
from precomputed_store.storage.pieces import HeldObject, OpenFile

SIZE = 3_000_001
DATA = os.urandom(SIZE)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "HELD_BYTES", 1_000_000)
    monkeypatch.setattr(transfer, "_PIECE_BYTES", 700_000)


@pytest.fixture(params=["file", "memory", "s3", "gs", "generic"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "s3":
        server: MotoServer = request.getfixturevalue("s3_server")
        bucket = server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
        return open_storage(f"s3://{bucket}/layer", storage_options=server.storage_options)
    if request.param == "gs":
        fake: FakeGcs = request.getfixturevalue("gcs_server")
        fake.buckets["bucket"] = Bucket()
        options = {"endpoint_url": fake.url, "token": "anon"}
        return open_storage("gs://bucket/layer", storage_options=options)
    if request.param == "generic":
        return open_storage(f"dir::file://{tmp_path}/remote", storage_options={"dir": {}})
    place = f"memory://{uuid.uuid4().hex}" if request.param == "memory" else tmp_path / "remote"
    return open_storage(place)


def test_an_object_goes_from_anywhere_to_a_disk_and_back(storage: Storage, tmp_path: Path) -> None:
    disk = open_storage(tmp_path / "disk")
    for key, data in (("a/large", DATA), ("a/small", b"small"), ("a/empty", b"")):
        disk.put(key, data, content_type="")
        with transfer.opened(disk, key) as stored:
            assert isinstance(stored, OpenFile)
            transfer.put_opened(storage, key, stored, content_type="text/plain")
        found = storage.stat(key)
        assert found is not None
        assert found.num_bytes == len(data)
        with transfer.opened(storage, key, near=disk) as stored:
            assert stored is not None
            assert bytes(stored.read(0, stored.size)) == data
            transfer.put_opened(disk, f"{key}-again", stored, content_type="")
        again = disk.get(f"{key}-again")
        assert again is not None
        assert again.data == data
    sizes = dict(storage.list_sizes("a"))
    known = {name: size for name, size in sizes.items() if size is not None}
    assert sizes.keys() == {"large", "small", "empty"}
    assert known in ({}, {"large": SIZE, "small": 5, "empty": 0})


def test_what_is_absent_is_none_and_a_folder_is_no_object(storage: Storage) -> None:
    storage.put("folder/object", b"x", content_type="")
    assert storage.stat("other") is None
    assert storage.stat("folder") is None
    with transfer.opened(storage, "other") as stored:
        assert stored is None


def test_a_large_object_is_held_in_no_memory_and_a_small_one_is(
    s3_server: MotoServer, tmp_path: Path
) -> None:
    bucket = s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
    options = s3_server.storage_options
    storage = open_storage(f"s3://{bucket}/layer", storage_options=options)
    storage.put("large", DATA, content_type="")
    storage.put("small", DATA[:1000], content_type="")
    with transfer.opened(storage, "large") as large, transfer.opened(storage, "small") as small:
        assert isinstance(large, OpenFile)
        assert isinstance(small, HeldObject)


def test_an_object_that_is_exchanged_meanwhile_is_read_anew(
    s3_server: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
    storage = open_storage(f"s3://{bucket}/l", storage_options=s3_server.storage_options)
    storage.put("large", DATA, content_type="")
    new, original = os.urandom(SIZE), Storage.get_async
    exchanged: list[Any] = []

    async def get(self: Storage, key: str, place: Any = None, **options: Any) -> Any:
        found = await original(self, key, place, **options)
        if len(exchanged) < 1:
            exchanged.append(place)
            await storage.put_async("large", new, content_type="")
        return found

    monkeypatch.setattr(transfer, "_AT_ONCE", 1)
    monkeypatch.setattr(Storage, "get_async", get)
    with transfer.opened(storage, "large") as stored:
        assert stored is not None
        assert stored.read(0, SIZE) == new


def test_a_bucket_of_google_that_keeps_less_than_it_is_sent_is_sent_the_rest(
    gcs_server: FakeGcs, tmp_path: Path
) -> None:
    gcs_server.buckets["bucket"] = Bucket()
    options = {"endpoint_url": gcs_server.url, "token": "anon"}
    storage = open_storage("gs://bucket/layer", storage_options=options)
    (tmp_path / "large").write_bytes(DATA)
    disk = open_storage(tmp_path)
    gcs_server.most_kept = 256 << 10
    with transfer.opened(disk, "large") as stored:
        assert stored is not None
        transfer.put_opened(storage, "a", stored, content_type="x/y", cache_control="no-cache")
    stored_there = gcs_server.buckets["bucket"].objects["layer/a"]
    assert stored_there.data == DATA
    assert (stored_there.content_type, stored_there.cache_control) == ("x/y", "no-cache")
    gcs_server.most_kept = 0
    with transfer.opened(disk, "large") as stored:
        assert stored is not None
        with pytest.raises(StorageError, match="stands still at 0 of 3000001 bytes"):
            transfer.put_opened(storage, "b", stored, content_type="x/y")
    assert set(gcs_server.buckets["bucket"].objects) == {"layer/a"}


def test_a_failed_upload_in_parts_leaves_nothing(
    s3_server: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
    storage = open_storage(f"s3://{bucket}/layer", storage_options=s3_server.storage_options)
    (tmp_path / "large").write_bytes(DATA)

    def read(self: OpenFile, start: int, stop: int) -> bytes:
        raise StorageError("it shrank")

    monkeypatch.setattr(OpenFile, "read", read)
    with transfer.opened(open_storage(tmp_path), "large") as stored:
        assert stored is not None
        with pytest.raises(StorageError, match="it shrank"):
            transfer.put_opened(storage, "a", stored, content_type="")
    client = s3_server.client()
    assert not client.list_objects_v2(Bucket=bucket).get("Contents")
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_parts_on_s3_carry_what_the_object_is_to_be(s3_server: MotoServer, tmp_path: Path) -> None:
    bucket = s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
    storage = open_storage(f"s3://{bucket}/layer", storage_options=s3_server.storage_options)
    data = os.urandom((8 << 20) + 5)
    (tmp_path / "large").write_bytes(data)
    with transfer.opened(open_storage(tmp_path), "large") as stored:
        assert stored is not None
        transfer.put_opened(storage, "a", stored, content_type="x/y", cache_control="no-cache")
    found = s3_server.client().get_object(Bucket=bucket, Key="layer/a")
    assert found["Body"].read() == data
    assert (found["ContentType"], found["CacheControl"]) == ("x/y", "no-cache")
    assert found["ETag"].strip('"').endswith("-2")
