"""Changes that depend on what is stored: the same promises on every storage that makes them."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from servers.fake_gcs import Bucket, FakeGcs
from servers.faulty import Request
from servers.moto import MotoServer
from servers.proxy import FaultyProxy

from precomputed_store.errors import ConflictError, UnsupportedError
from precomputed_store.storage import Blob, RetryPolicy, Storage, Update, open_storage
from precomputed_store.storage.listing import list_objects
from precomputed_store.storage.locks import LOCK_FILE, locked

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


def update(storage: Storage, key: str, change: Callable[[Blob | None], Any], **more: Any) -> None:
    storage.apply(Update(key=key, change=change, content_type=BINARY, **more))


def add_one(blob: Blob | None) -> bytes:
    return str(1 + (0 if blob is None else int(bytes(blob.data)))).encode()


def test_an_update_sees_what_is_stored(storage: Storage) -> None:
    seen = []

    def change(blob: Blob | None) -> bytes | None:
        seen.append(None if blob is None else bytes(blob.data))
        return [b"one", b"two"][len(seen) - 1]

    for _ in range(2):
        update(storage, "8/a", change)
    assert seen == [None, b"one"]
    assert read(storage, "8/a") == b"two"


def test_an_update_removes_where_that_can_be_guarded(storage: Storage) -> None:
    update(storage, "8/a", lambda blob: None)
    put(storage, "8/a", b"one")
    if storage.can_delete_if:
        update(storage, "8/a", lambda blob: None)
        assert read(storage, "8/a") is None
    else:
        with pytest.raises(UnsupportedError, match="does not remove an object under a condition"):
            update(storage, "8/a", lambda blob: None)
        assert read(storage, "8/a") == b"one"


def test_an_update_begins_again_after_another_writer(storage: Storage) -> None:
    put(storage, "8/a", b"1")
    seen = []

    def change(blob: Blob | None) -> bytes:
        assert blob is not None
        seen.append(bytes(blob.data))
        if len(seen) < 3:
            put(storage, "8/a", seen[-1] + b"!")
        return bytes(blob.data) + b"2"

    update(storage, "8/a", change)
    assert seen == [b"1", b"1!", b"1!!"]
    assert read(storage, "8/a") == b"1!!2"


def test_an_object_of_the_same_length_is_another_object(storage: Storage) -> None:
    put(storage, "8/a", b"one")
    seen = []

    def change(blob: Blob | None) -> bytes:
        assert blob is not None
        seen.append(bytes(blob.data))
        if len(seen) == 1:
            put(storage, "8/a", b"two")
            put(storage, "8/a", b"six")
        return b"end"

    update(storage, "8/a", change)
    assert seen == [b"one", b"six"]


def test_an_object_that_comes_or_goes_in_between_is_noticed(storage: Storage) -> None:
    seen: list[bytes | None] = []

    def change(blob: Blob | None) -> bytes:
        seen.append(None if blob is None else bytes(blob.data))
        if len(seen) == 1:
            put(storage, "8/a", b"new")
        if len(seen) == 2:
            storage.delete("8/a")
        return b"end"

    update(storage, "8/a", change)
    assert seen == [None, b"new", None]
    assert read(storage, "8/a") == b"end"


def test_a_compressed_object_becomes_a_plain_one_and_back(storage: Storage) -> None:
    put(storage, "8/a", b"packed", content_encoding="gzip")
    found: list[Any] = []

    def change(blob: Blob | None) -> bytes:
        assert blob is not None
        found.append(blob.content_encoding)
        return b"data"

    update(storage, "8/a", change)
    assert storage.get("8/a") == Blob(b"data", None)
    update(storage, "8/a", change, content_encoding="gzip")
    assert storage.get("8/a") == Blob(b"data", "gzip")
    assert found == ["gzip", None]


def test_an_update_gives_up_at_last(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    from precomputed_store.storage import update as module

    monkeypatch.setattr(module, "_MOST_TRIES", 4)

    def change(blob: Blob | None) -> bytes:
        put(storage, "8/a", uuid.uuid4().bytes)
        return b"mine"

    with pytest.raises(ConflictError, match=r"8/a: others changed it each of the \d times"):
        update(storage, "8/a", change)


def test_what_a_change_raises_ends_the_update(storage: Storage) -> None:
    def change(blob: Blob | None) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        update(storage, "8/a", change)
    assert read(storage, "8/a") is None
    assert list(storage.list_names("8")) == []


def test_concurrent_updates_lose_nothing(storage: Storage) -> None:
    def count(_: int) -> None:
        update(storage, "8/count", add_one)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(40)))
    assert read(storage, "8/count") == b"40"
    assert list(storage.list_names("8")) == ["count"]


async def test_coroutines_do_the_same(storage: Storage) -> None:
    request = Update(key="8/a", change=add_one, content_type=BINARY)
    await asyncio.gather(*(storage.apply_async(request) for _ in range(10)))
    assert read(storage, "8/a") == b"10"


def _count_up(folder: str, times: int) -> None:
    storage = open_storage(folder)
    for _ in range(times):
        update(storage, "8/count", add_one)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count_up, args=(str(tmp_path), 100)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert read(open_storage(tmp_path), "8/count") == b"300"
    assert [path.name for path in (tmp_path / "8").iterdir()] == ["count"]


@pytest.mark.parametrize("how", ["put", "delete"])
def test_other_writes_do_not_come_between_a_check_and_its_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    storage = open_storage(tmp_path)
    put(storage, "8/a", b"old")
    acts = {"put": lambda: put(storage, "8/a", b"new"), "delete": lambda: storage.delete("8/a")}
    other = threading.Thread(target=acts[how])
    original = os.replace

    def replace(source: str, target: str) -> None:
        monkeypatch.setattr(os, "replace", original)
        other.start()
        other.join(0.1)
        original(source, target)

    monkeypatch.setattr(os, "replace", replace)
    update(storage, "8/a", lambda blob: b"changed")
    other.join(10)
    assert read(storage, "8/a") == {"put": b"new", "delete": None}[how]


@pytest.mark.parametrize("open_files", [True, False], ids=["posix", "windows"])
def test_a_change_in_place_by_another_program_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_files: bool
) -> None:
    monkeypatch.setattr("precomputed_store.storage.local._REPLACES_OPEN_FILES", open_files)
    storage = open_storage(tmp_path)
    put(storage, "8/a", b"one")
    time.sleep(0.02)  # the clock of a file system ticks every few milliseconds
    seen = []

    def change(blob: Blob | None) -> bytes:
        assert blob is not None
        seen.append(bytes(blob.data))
        if len(seen) == 1:
            (tmp_path / "8/a").write_bytes(b"two")
        return b"end"

    update(storage, "8/a", change)
    assert seen == [b"one", b"two"]
    assert read(storage, "8/a") == b"end"


def test_a_folder_that_goes_takes_its_objects_along(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    put(storage, "8/a", b"one")
    seen = []

    def change(blob: Blob | None) -> None:
        seen.append(blob)
        if len(seen) == 1:
            shutil.rmtree(tmp_path / "8")

    update(storage, "8/a", change)
    assert seen == [Blob(b"one", None), None]
    storage.delete("8/a")


def test_a_lock_file_is_neither_swept_nor_listed(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    put(storage, "8/a", b"one")
    lock = tmp_path / "8" / LOCK_FILE
    lock.touch()
    os.utime(lock, (1, 1))
    assert storage.sweep() == 0
    assert lock.exists()
    assert [entry.name for entry in list_objects(storage, "8")] == ["a"]


HOLDER = """
import sys, time
from precomputed_store.storage.listing import list_objects
from precomputed_store.storage.locks import LOCK_FILE, locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_lock_ends_with_the_process_that_holds_it(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    put(storage, "a", b"1")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(update, storage, "a", add_one)
            time.sleep(0.2)
            assert not waiting.done()
            holder.send_signal(signal.SIGKILL)
            waiting.result(timeout=10)
    assert read(storage, "a") == b"2"


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_while_a_lock_was_held_does_not_hold_it(tmp_path: Path) -> None:
    with locked(str(tmp_path)):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    try:
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(update, open_storage(tmp_path), "a", add_one)
            try:
                done.result(timeout=10)
            finally:
                os.kill(child, signal.SIGKILL)
    finally:
        os.waitpid(child, 0)


def test_a_folder_that_cannot_be_locked_gets_a_lock_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    original = fcntl.flock

    def flock(fd: int, how: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(9, "Bad file descriptor")
        original(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    storage = open_storage(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: update(storage, "8/a", add_one), range(20)))
    assert read(storage, "8/a") == b"20"
    assert list(storage.list_names("8")) == ["a"]


def test_a_disk_without_locks_is_written_to_but_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(fd: int, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    storage = open_storage(tmp_path)
    put(storage, "8/a", b"1")
    with pytest.raises(UnsupportedError, match='unaligned="unguarded-read-modify-write"'):
        update(storage, "8/a", add_one)
    assert read(storage, "8/a") == b"1"
    update(storage, "8/a", add_one, guarded=False)
    assert read(storage, "8/a") == b"2"
    assert list(storage.list_names("8")) == ["a"]


@pytest.fixture
def without(tmp_path: Path) -> Storage:
    """A storage that knows no conditions."""
    return open_storage(
        f"dir::file://{tmp_path}", storage_options={"dir": {"path": str(tmp_path)}}
    )


def test_storages_without_conditions_say_what_to_do(without: Storage) -> None:
    put(without, "a", b"1")
    with pytest.raises(UnsupportedError, match='unaligned="unguarded-read-modify-write"'):
        update(without, "a", add_one)
    assert read(without, "a") == b"1"
    update(without, "a", add_one, guarded=False)
    assert read(without, "a") == b"2"
    update(without, "a", lambda blob: None, guarded=False)
    assert read(without, "a") is None


def test_bytes_in_memory_have_the_version_that_they_were_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(f"memory://{tmp_path.name}-{os.getpid()}/layer")
    put(storage, "a", b"old")
    original, writer = (
        MemoryFileSystem.cat_file,
        threading.Thread(target=put, args=(storage, "a", b"new")),
    )

    def cat_file(self: MemoryFileSystem, *arguments: Any) -> bytes:
        data: bytes = original(self, *arguments)
        writer.start()
        writer.join(0.3)
        return data

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "cat_file", cat_file)
        old = storage.get("a")
    writer.join()
    new = storage.get("a")
    assert old is not None
    assert new is not None
    assert (old.data, new.data) == (b"old", b"new")
    assert old.version != new.version


def test_a_web_server_is_read_only() -> None:
    with pytest.raises(UnsupportedError, match="read only"):
        update(open_storage("https://nowhere.invalid/layer"), "a", add_one)


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
        update(storage, "first", add_one)
        yield storage, proxy


@pytest.mark.server
def test_a_lost_answer_of_s3_is_no_conflict(proxied: Any) -> None:
    storage, proxy = proxied
    proxy.pick_fault = loses_answers("PUT", 2)
    calls: list[Any] = []

    def change(blob: Blob | None) -> bytes:
        calls.append(blob)
        return add_one(blob)

    for _ in range(50):
        update(storage, "a", change)
    assert read(storage, "a") == b"50"
    assert len(calls) == 50
    assert sum(request.method == "PUT" for request in proxy.requests) >= 95


@pytest.mark.server
def test_a_lost_answer_of_google_is_no_conflict(
    gcs: Storage, gcs_server: FakeGcs, hasty: RetryPolicy
) -> None:
    storage = dataclasses.replace(gcs, retry=hasty)
    gcs_server.pick_fault = loses_answers("POST", 2)
    calls: list[Any] = []

    def change(blob: Blob | None) -> bytes:
        calls.append(blob)
        return add_one(blob)

    for _ in range(50):
        update(storage, "a", change)
    assert read(storage, "a") == b"50"
    assert len(calls) == 50
    assert sum(request.method == "POST" for request in gcs_server.requests) >= 95


@pytest.mark.server
def test_a_server_is_tried_once_however_many_ask(proxied: Any) -> None:
    storage, proxy = proxied
    proxy.requests.clear()
    # To a process, another way to the same server is another server.
    options = {**storage.storage_options, "config_kwargs": {"connect_timeout": 11}}
    fresh = dataclasses.replace(storage, storage_options=options)

    async def all_at_once() -> None:
        changes = [Update(key=f"{n}", change=add_one, content_type=BINARY) for n in range(20)]
        await asyncio.gather(*map(fresh.apply_async, changes))

    asyncio.run(all_at_once())
    sent = [request.method for request in proxy.requests]
    assert (sent.count("PUT"), sent.count("DELETE")) == (20 + 3, 1)


@pytest.mark.server
def test_a_server_that_wants_bare_tags_is_remembered(s3: Storage) -> None:
    backend = s3._backend
    original = backend._try  # type: ignore[union-attr]
    sent: list[str] = []

    async def ceph(method: str, arguments: Any, *more: Any, **options: Any) -> Any:
        tag = arguments.get("IfMatch", "")
        sent.append(tag)
        quoted = {**arguments, "IfMatch": '"00"'} if tag.startswith('"') else arguments
        return await original(method, quoted, *more, **options)

    put(s3, "a", b"1")
    put(s3, "b", b"1")
    backend._try = ceph  # type: ignore[union-attr, method-assign]
    for key in ("a", "b", "a"):
        update(s3, key, add_one)
    assert (read(s3, "a"), read(s3, "b")) == (b"3", b"2")
    tags = [tag for tag in sent if tag]
    # One to try the server out, one that is refused, and three that are understood.
    assert [tag.startswith('"') for tag in tags] == [True, True, False, False, False]


@pytest.mark.server
@pytest.mark.parametrize("ignored", [("IfMatch",), ("IfNoneMatch",), ("IfMatch", "IfNoneMatch")])
def test_a_server_that_ignores_conditions_is_found_out(
    s3: Storage, ignored: tuple[str, ...]
) -> None:
    # Botocore before 1.35.70 is like a server that ignores If-Match.
    backend = s3._backend
    original = backend._try  # type: ignore[union-attr]

    async def deaf(method: str, arguments: Any, *more: Any, **options: Any) -> Any:
        heard = {name: value for name, value in arguments.items() if name not in ignored}
        return await original(method, heard, *more, **options)

    backend._try = deaf  # type: ignore[union-attr, method-assign]
    put(s3, "a", b"1")
    with pytest.raises(UnsupportedError, match="cannot make a write depend on what is stored"):
        update(s3, "a", add_one)
    update(s3, "a", add_one, guarded=False)
    assert read(s3, "a") == b"2"
    assert list(s3.list_names("")) == ["a"]
