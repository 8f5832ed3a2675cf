"""Writes on condition: the same promises on every storage that makes them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pickle
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from servers.fake_gcs import Bucket, FakeGcs
from servers.faulty import Request
from servers.moto import MotoServer
from servers.proxy import FaultyProxy

from precomputed_store.errors import ConflictError, StorageError, UnsupportedError
from precomputed_store.storage import (
    ABSENT,
    UNCHANGED,
    Blob,
    RetryPolicy,
    Storage,
    UpdatePolicy,
    open_storage,
)

BINARY = "application/octet-stream"
KINDS = [
    "file",
    "memory",
    pytest.param("s3", marks=pytest.mark.server),
    pytest.param("gcs", marks=pytest.mark.server),
]


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path, hasty: RetryPolicy) -> Storage:
    if request.param == "file":
        return open_storage(tmp_path / "layer")
    if request.param == "memory":
        return open_storage(f"memory://{tmp_path.name}-{os.getpid()}/layer")
    return dataclasses.replace(request.getfixturevalue(request.param), retry=hasty)


@pytest.fixture
def s3(s3_server: MotoServer) -> Storage:
    bucket = s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
    return open_storage(f"s3://{bucket}/layer", storage_options=s3_server.storage_options)


@pytest.fixture
def gcs(gcs_server: FakeGcs) -> Storage:
    gcs_server.buckets["bucket"] = Bucket()
    options = {"endpoint_url": gcs_server.url, "token": "anon"}
    return open_storage("gs://bucket/layer", storage_options=options)


def put(storage: Storage, key: str, data: bytes, **options: Any) -> None:
    storage.put(key, data, content_type=BINARY, **options)


def read(storage: Storage, key: str) -> bytes | None:
    blob = storage.get(key)
    return None if blob is None else bytes(blob.data)


def test_an_object_is_written_if_it_is_unchanged(storage: Storage) -> None:
    assert storage.has_conditions
    put(storage, "8/a", b"one")
    blob, version = storage.get_versioned("8/a")
    assert blob == Blob(b"one", None)
    put(storage, "8/a", b"two", expected=version)
    assert read(storage, "8/a") == b"two"


def test_an_object_that_another_has_written_is_not_overwritten(storage: Storage) -> None:
    put(storage, "8/a", b"one")
    version = storage.get_versioned("8/a").version
    put(storage, "8/a", b"two")
    with pytest.raises(ConflictError, match=r"8/a: another writer has changed it.*Read it again"):
        put(storage, "8/a", b"three", expected=version)
    assert read(storage, "8/a") == b"two"


def test_an_object_of_other_bytes_but_equal_length_is_another_version(storage: Storage) -> None:
    versions = []
    for data in (b"one", b"two", b"six"):
        put(storage, "a", data)
        versions.append(storage.get_versioned("a").version)
    assert len(set(versions)) == 3


def test_an_object_is_created_only_if_it_is_absent(storage: Storage) -> None:
    blob, version = storage.get_versioned("8/a")
    assert (blob, version) == (None, ABSENT)
    put(storage, "8/a", b"one", expected=version)
    with pytest.raises(ConflictError):
        put(storage, "8/a", b"two", expected=ABSENT)
    assert read(storage, "8/a") == b"one"


def test_an_object_that_is_gone_is_not_written(storage: Storage) -> None:
    put(storage, "8/a", b"one")
    version = storage.get_versioned("8/a").version
    storage.delete("8/a")
    with pytest.raises(ConflictError):
        put(storage, "8/a", b"two", expected=version)
    with pytest.raises(ConflictError):
        storage.delete("8/a", expected=version)
    assert read(storage, "8/a") is None


def test_an_object_is_removed_if_it_is_unchanged(storage: Storage) -> None:
    put(storage, "8/a", b"one")
    old = storage.get_versioned("8/a").version
    put(storage, "8/a", b"two")
    for wrong in (old, ABSENT):
        with pytest.raises(ConflictError):
            storage.delete("8/a", expected=wrong)
    assert read(storage, "8/a") == b"two"
    storage.delete("8/a", expected=storage.get_versioned("8/a").version)
    storage.delete("8/a", expected=ABSENT)
    assert read(storage, "8/a") is None


def test_nothing_but_objects_is_listed(storage: Storage) -> None:
    put(storage, "8/a", b"one", expected=ABSENT)
    storage.delete("8/a", expected=storage.get_versioned("8/a").version)
    put(storage, "8/b", b"one", expected=ABSENT)
    assert list(storage.list_names("8")) == ["b"]


def test_a_compressed_object_has_versions_too(storage: Storage) -> None:
    put(storage, "8/a", b"packed", content_encoding="gzip")
    blob, version = storage.get_versioned("8/a")
    assert blob == Blob(b"packed", "gzip")
    put(storage, "8/a", b"plain", expected=version)
    assert storage.get("8/a") == Blob(b"plain", None)
    with pytest.raises(ConflictError):
        put(storage, "8/a", b"packed", content_encoding="gzip", expected=version)


def test_versions_are_values(storage: Storage) -> None:
    put(storage, "a", b"one")
    version = storage.get_versioned("a").version
    assert pickle.loads(pickle.dumps(version)) == version == storage.get_versioned("a").version
    assert len({version, pickle.loads(pickle.dumps(version)), ABSENT}) == 2
    assert pickle.loads(pickle.dumps(ABSENT)) == ABSENT


def test_a_limit_holds_for_versioned_reads(storage: Storage) -> None:
    put(storage, "a", b"0123456789")
    with pytest.raises(StorageError, match="expected at most 9"):
        storage.get_versioned("a", max_bytes=9)


def test_of_concurrent_creators_one_wins(storage: Storage) -> None:
    def create(number: int) -> bool:
        try:
            put(storage, "8/a", str(number).encode(), expected=ABSENT)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        for _ in range(3):
            won = list(pool.map(create, range(16)))
            assert won.count(True) == 1
            assert read(storage, "8/a") == str(won.index(True)).encode()
            storage.delete("8/a")


def test_an_update_sees_what_is_stored(storage: Storage) -> None:
    seen = []

    def change(blob: Blob | None) -> bytes | None:
        seen.append(None if blob is None else bytes(blob.data))
        return [b"one", b"two", None, None][len(seen) - 1]

    for _ in range(4):
        storage.update("8/a", change, content_type=BINARY)
    assert seen == [None, b"one", b"two", None]
    assert read(storage, "8/a") is None


def test_an_update_may_leave_an_object_alone(storage: Storage) -> None:
    put(storage, "a", b"one")
    version = storage.get_versioned("a").version
    storage.update("a", lambda blob: UNCHANGED, content_type=BINARY)
    assert storage.get_versioned("a").version == version


def test_an_update_begins_again_after_another_writer(storage: Storage) -> None:
    put(storage, "a", b"1")
    seen = []

    def change(blob: Blob | None) -> bytes:
        assert blob is not None
        seen.append(bytes(blob.data))
        if len(seen) < 3:
            put(storage, "a", seen[-1] + b"!")
        return bytes(blob.data) + b"2"

    storage.update("a", change, content_type=BINARY)
    assert seen == [b"1", b"1!", b"1!!"]
    assert read(storage, "a") == b"1!!2"


def test_an_update_gives_up_at_last(storage: Storage) -> None:
    def change(blob: Blob | None) -> bytes:
        put(storage, "8/a", uuid.uuid4().bytes)
        return b"mine"

    tried = r"8/a: gave up after 4 tries in .* s: each time another writer .* UpdatePolicy"
    with pytest.raises(ConflictError, match=tried):
        storage.update("8/a", change, content_type=BINARY, policy=UpdatePolicy(attempts=4))
    with pytest.raises(ConflictError, match="after 1 try in"):
        storage.update("8/a", change, content_type=BINARY, policy=UpdatePolicy(deadline_s=0))


def test_what_a_change_raises_ends_the_update(storage: Storage) -> None:
    def change(blob: Blob | None) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        storage.update("a", change, content_type=BINARY)
    assert read(storage, "a") is None


def add_one(blob: Blob | None) -> bytes:
    return str(1 + (0 if blob is None else int(bytes(blob.data)))).encode()


def test_concurrent_updates_lose_nothing(storage: Storage) -> None:
    def count(_: int) -> None:
        storage.update("8/count", add_one, content_type=BINARY)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(40)))
    assert read(storage, "8/count") == b"40"


async def test_coroutines_do_the_same(storage: Storage) -> None:
    assert (await storage.get_versioned_async("a")).version == ABSENT
    await storage.put_async("a", b"0", content_type=BINARY, expected=ABSENT)
    with pytest.raises(ConflictError):
        await storage.put_async("a", b"0", content_type=BINARY, expected=ABSENT)
    with pytest.raises(ConflictError):
        await storage.delete_async("a", expected=ABSENT)
    update = storage.update_async
    await asyncio.gather(*(update("a", add_one, content_type=BINARY) for _ in range(10)))
    blob, version = await storage.get_versioned_async("a")
    assert blob is not None
    assert blob.data == b"10"
    await storage.delete_async("a", expected=version)
    await update("a", lambda blob: UNCHANGED, content_type=BINARY)
    await update("a", lambda blob: None, content_type=BINARY)
    assert not await storage.exists_async("a")


def test_an_unknown_policy_is_refused(storage: Storage) -> None:
    with pytest.raises(ValueError, match="expected 'raise' or 'allow'"):
        storage.update("a", add_one, content_type=BINARY, unconditional="yes")  # type: ignore[arg-type]


@pytest.fixture
def without(tmp_path: Path) -> Storage:
    """A storage that has no conditions."""
    return open_storage(
        f"dir::file://{tmp_path}", storage_options={"dir": {"path": str(tmp_path)}}
    )


def test_storages_without_conditions_say_what_to_do(without: Storage) -> None:
    assert not without.has_conditions
    put(without, "a", b"1")
    advice = 'cannot write on condition.*unconditional="allow"'
    for call in (
        lambda: without.get_versioned("a"),
        lambda: put(without, "a", b"2", expected=ABSENT),
        lambda: without.delete("a", expected=ABSENT),
        lambda: without.update("a", add_one, content_type=BINARY),
    ):
        with pytest.raises(UnsupportedError, match=advice):
            call()
    assert read(without, "a") == b"1"
    without.update("a", add_one, content_type=BINARY, unconditional="allow")
    assert read(without, "a") == b"2"


def test_a_web_server_has_no_conditions() -> None:
    storage = open_storage("https://nowhere.invalid/layer")
    assert not storage.has_conditions
    with pytest.raises(UnsupportedError, match="cannot write on condition"):
        storage.update("a", add_one, content_type=BINARY)


def loses_answers(method: str, share: int) -> Any:
    """Every `share`-th request of a method is carried out, but not answered."""
    seen = []

    def pick(request: Request) -> str:
        if request.method != method:
            return "ok"
        seen.append(request)
        return "refuse" if len(seen) % share == 0 else "ok"

    return pick


@pytest.fixture
def proxied(s3: Storage, s3_server: MotoServer, hasty: RetryPolicy) -> Iterator[Any]:
    with FaultyProxy(s3_server.url) as proxy:
        options = {**s3_server.storage_options, "endpoint_url": proxy.url}
        storage = dataclasses.replace(s3, storage_options=options, retry=hasty)
        storage.put("first", b"", content_type=BINARY, expected=ABSENT)
        yield storage, proxy


@pytest.mark.server
def test_a_lost_answer_of_s3_is_no_conflict(proxied: Any) -> None:
    storage, proxy = proxied
    proxy.pick_fault = loses_answers("PUT", 2)
    for number in range(50):
        put(storage, f"{number}", b"one", expected=ABSENT)
        put(storage, f"{number}", b"two", expected=storage.get_versioned(f"{number}").version)
    sent = sum(request.method == "PUT" for request in proxy.requests)
    assert sent >= 190


@pytest.mark.server
def test_a_lost_answer_of_google_is_no_conflict(
    gcs: Storage, gcs_server: FakeGcs, hasty: RetryPolicy
) -> None:
    storage = dataclasses.replace(gcs, retry=hasty)
    gcs_server.pick_fault = loses_answers("POST", 2)
    for number in range(50):
        put(storage, f"{number}", b"one", expected=ABSENT)
        put(storage, f"{number}", b"two", expected=storage.get_versioned(f"{number}").version)
    sent = sum(request.method == "POST" for request in gcs_server.requests)
    assert sent >= 190


@pytest.mark.server
def test_a_conflict_behind_a_lost_answer_is_one(proxied: Any) -> None:
    storage, proxy = proxied
    put(storage, "a", b"one")
    version = storage.get_versioned("a").version
    put(storage, "a", b"theirs")
    proxy.pick_fault = loses_answers("PUT", 2)
    for _ in range(10):
        with pytest.raises(ConflictError):
            put(storage, "a", b"two", expected=version)
    assert read(storage, "a") == b"theirs"
