"""Local disks and memory: the naming rules, atomic writes, what is missing and what is wrong."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from precomputed_store._native.store_file import Outcome
from precomputed_store.errors import StorageError
from precomputed_store.storage import Blob, Storage, local, open_storage
from precomputed_store.storage.locks import LOCK_FILE

SUFFIXES = {"gzip": ".gz", "br": ".br", "zstd": ".zstd", "xz": ".xz", "bz2": ".bz2"}


@pytest.fixture(params=["file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "file":
        return open_storage(tmp_path / "layer")
    return open_storage(f"memory://{tmp_path.name}-{os.getpid()}/layer")


@pytest.fixture
def step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written as where nothing is compiled."""
    monkeypatch.setattr(local, "store_file", lambda *_, **__: Outcome.NOT_DONE)


def put(storage: Storage, key: str, data: bytes, encoding: str | None = None) -> None:
    storage.put(key, data, content_type="application/octet-stream", content_encoding=encoding)


def test_an_object_comes_back(storage: Storage) -> None:
    put(storage, "8_8_8/0-64_0-64_0-64", b"abc")
    assert storage.get("8_8_8/0-64_0-64_0-64") == Blob(b"abc", None, True)
    assert storage.threaded
    assert not storage.has_headers


def test_an_absent_object_is_none(storage: Storage) -> None:
    assert storage.get("8_8_8/0-64_0-64_0-64") is None
    assert not storage.exists("info")
    storage.delete("info")
    put(storage, "file", b"x")
    assert storage.get("file/below-a-file") is None


def test_an_empty_object_is_not_an_absent_one(storage: Storage) -> None:
    put(storage, "a", b"")
    assert storage.get("a") == Blob(b"", None)


@pytest.mark.parametrize("encoding", SUFFIXES)
def test_a_suffixed_object_is_found_under_its_plain_key(storage: Storage, encoding: str) -> None:
    put(storage, "8/a", b"compressed", encoding)
    assert storage.get("8/a") == Blob(b"compressed", encoding, True)
    assert storage.exists("8/a")
    assert storage.child("8").get(f"a{SUFFIXES[encoding]}") == Blob(b"compressed", None)
    assert list(storage.list_names("8")) == ["a"]


def test_the_plain_name_wins_over_a_suffixed_one(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    for suffix in ["", *SUFFIXES.values()]:
        (tmp_path / f"a{suffix}").write_bytes(suffix.encode())
    assert storage.get("a") == Blob(b"", None)
    assert list(storage.list_names()) == ["a"]
    (tmp_path / "a").unlink()
    assert storage.get("a") == Blob(b".gz", "gzip")


@pytest.mark.parametrize("first", [None, *SUFFIXES])
@pytest.mark.parametrize("second", [None, "gzip"])
def test_writing_one_name_removes_the_others(
    storage: Storage, first: str | None, second: str | None
) -> None:
    put(storage, "8/a", b"old", first)
    put(storage, "8/b", b"other", first)
    put(storage, "8/a", b"new", second)
    assert storage.get("8/a") == Blob(b"new", second)
    assert sorted(storage.list_names("8")) == ["a", "b"]
    storage.delete("8/a")
    assert storage.get("8/a") is None
    assert list(storage.list_names("8")) == ["b"]


def test_a_range_is_exactly_what_was_asked_for(storage: Storage) -> None:
    put(storage, "0.shard", bytes(range(100)))
    assert storage.get("0.shard", (10, 13)) == Blob(bytes([10, 11, 12]), None)
    assert storage.get("0.shard", (0, 100)) == Blob(bytes(range(100)), None)
    assert storage.get("1.shard", (0, 16)) is None
    for past in ((90, 101), (100, 116), (5000, 5001)):
        with pytest.raises(StorageError, match="asked for"):
            storage.get("0.shard", past)


def test_a_range_of_an_empty_object_is_an_error(storage: Storage) -> None:
    put(storage, "0.shard", b"")
    with pytest.raises(StorageError, match="asked for"):
        storage.get("0.shard", (0, 16))


def test_a_range_of_a_compressed_object_is_an_error(storage: Storage) -> None:
    put(storage, "0.shard", bytes(100), "gzip")
    with pytest.raises(StorageError, match="compressed as a whole"):
        storage.get("0.shard", (0, 16))


def test_an_object_that_is_too_large_is_refused(storage: Storage) -> None:
    put(storage, "a", bytes(100))
    assert storage.get("a", max_bytes=100) is not None
    with pytest.raises(StorageError, match="expected at most 99"):
        storage.get("a", max_bytes=99)


def test_names_are_those_of_direct_children(storage: Storage) -> None:
    assert list(storage.list_names("nowhere")) == []
    assert storage.first_child("nowhere") is None
    for key in ("info", "8/a", "8/b", "8/x/c", "16/a"):
        put(storage, key, b"")
    assert sorted(storage.list_names()) == ["16", "8", "info"]
    assert sorted(storage.list_names("8/")) == ["a", "b", "x"]
    assert storage.first_child("16") == "a"


async def test_the_coroutines_do_the_same(storage: Storage) -> None:
    await storage.put_async("a", b"1", content_type="", content_encoding="br")
    assert await storage.get_async("a") == Blob(b"1", "br")
    assert await storage.exists_async("a")
    await storage.delete_async("a")
    assert not await storage.exists_async("a")


def test_data_may_be_any_bytes_like(storage: Storage) -> None:
    for data in (bytearray(b"abcd"), memoryview(b"abcd"), memoryview(b"abcd").cast("I")):
        storage.put("a", data, content_type="")
        assert storage.get("a") == Blob(b"abcd", None)


def test_memory_is_what_fsspec_sees() -> None:
    import fsspec

    storage = open_storage("memory://seen/layer")
    put(storage, "8/a", b"1")
    memory = fsspec.filesystem("memory")
    assert memory.cat_file("/seen/layer/8/a") == b"1"
    memory.pipe_file("/seen/layer/8/b.gz", b"2")
    assert storage.get("8/b") == Blob(b"2", "gzip")


def test_a_folder_instead_of_an_object_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    storage = open_storage(tmp_path)
    with pytest.raises(StorageError, match="a folder"):
        storage.get("a")
    for call in (lambda: put(storage, "a", b""), lambda: storage.delete("a")):
        with pytest.raises(StorageError, match="director"):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_instead_of_an_object_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(StorageError, match="not a regular file"):
        open_storage(tmp_path).get("a")


@pytest.mark.usefixtures("step_by_step")
def test_missing_permission_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    # root, as in containers, may read everything
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        open_storage(tmp_path).get("a")
    with pytest.raises(StorageError, match="Permission denied"):
        put(open_storage(tmp_path), "a", b"")


def test_a_name_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="too long"):
        open_storage(tmp_path).get("a" * 300)


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "a").write_bytes(b"secret")
    layer = tmp_path / "volumes" / "layer"
    layer.mkdir(parents=True)
    (layer / "file").symlink_to(secret / "a")
    (layer / "folder").symlink_to(secret)
    (layer / "inside").symlink_to(layer / "b")
    (layer / "b").write_bytes(b"b")
    storage = open_storage(layer)
    for key in ("file", "folder/a"):
        with pytest.raises(StorageError, match="symbolic link leads to"):
            storage.get(key)
    with pytest.raises(StorageError, match="symbolic link leads to"):
        put(storage, "folder/new/a", b"")
    assert not (secret / "new").exists()
    assert storage.get("inside") == Blob(b"b", None)
    wide = dataclasses.replace(storage, root=f"file://{tmp_path}")
    assert wide.get("file") == wide.get("folder/a") == Blob(b"secret", None)


def test_a_link_to_nothing_is_not_a_missing_object(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "annexed")
    with pytest.raises(StorageError, match="which is not there"):
        open_storage(tmp_path).get("a")


def test_the_layer_itself_may_be_a_link(tmp_path: Path) -> None:
    real = tmp_path / "far" / "away"
    real.mkdir(parents=True)
    (real / "info").write_bytes(b"{}")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "layer").symlink_to(real)
    assert open_storage(tmp_path / "near" / "layer").get("info") == Blob(b"{}", None)


class FullDisk:
    """`os` with room for `room` more bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def write(self, fd: int, data: memoryview) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = os.write(fd, data[: self.room])
        self.room -= written
        return written


@pytest.mark.usefixtures("step_by_step")
@pytest.mark.parametrize("room", [0, 1, 500, 999])
@pytest.mark.parametrize("existing", [True, False])
def test_a_full_disk_leaves_the_old_object_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, existing: bool
) -> None:
    storage = open_storage(tmp_path)
    if existing:
        put(storage, "a", b"old", "gzip")
    monkeypatch.setattr("precomputed_store.storage.pieces.os", FullDisk(room))
    with pytest.raises(StorageError, match="No space left"):
        put(storage, "a", bytes(1000))
    monkeypatch.undo()
    assert storage.get("a") == (Blob(b"old", "gzip") if existing else None)
    assert [path.name for path in tmp_path.iterdir()] == (["a.gz"] if existing else [])


@pytest.mark.usefixtures("step_by_step")
def test_fsync_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    storage = open_storage(tmp_path)
    put(storage, "a", b"")
    assert len(synced) == 1
    put(dataclasses.replace(storage, fsync=False), "a", b"")
    assert len(synced) == 1


def test_left_over_temporaries_are_hidden_and_swept(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    put(storage, "8/a", b"")
    old, new = tmp_path / "8/.precomputed-1-x.tmp", tmp_path / "8/.precomputed-2-y.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert list(storage.list_names("8")) == ["a"]
    assert storage.sweep() == 1
    assert not old.exists()
    assert storage.sweep("8", older_than_s=-10) == 1
    assert [path.name for path in (tmp_path / "8").iterdir()] == ["a"]


def test_a_lock_file_is_not_swept_away_under_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / LOCK_FILE
    lock.touch()
    assert open_storage(tmp_path).sweep(older_than_s=-10) == 0
    assert lock.exists()


def test_many_threads_create_the_same_folders(tmp_path: Path) -> None:
    storage = dataclasses.replace(open_storage(tmp_path), fsync=False)
    with ThreadPoolExecutor(16) as pool:
        keys = [f"{i % 5}/deep/er/{i}" for i in range(200)]
        list(pool.map(lambda key: put(storage, key, key.encode()), keys))
        assert [storage.get(key) for key in keys] == [Blob(key.encode(), None) for key in keys]


@pytest.mark.parametrize("encodings", [(None, None), (None, "gzip")])
def test_a_reader_never_sees_a_gap_or_a_part(
    storage: Storage, encodings: tuple[str | None, str | None]
) -> None:
    storage = dataclasses.replace(storage, fsync=False)
    contents = [bytes([i]) * 50_000 for i in range(2)]
    put(storage, "a", contents[0])
    done = threading.Event()

    def write() -> None:
        for i in range(300):
            put(storage, "a", contents[i % 2], encodings[i % 2])
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not done.is_set():
            blob = storage.get("a")
            assert blob is not None
            assert blob.data in contents
        writing.result()


def _write_for_ever(storage: Storage, begun: Any) -> None:
    number = 0
    while True:
        number = (number + 1) % 256
        put(storage, "8/0-64_0-64_0-64", bytes([number]) * 4_000_000)
        begun.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_killed_writer_leaves_no_torn_object(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    context = multiprocessing.get_context("fork")
    left_over = 0
    for kill in range(20):
        begun = context.Event()
        writer = context.Process(target=_write_for_ever, args=(storage, begun), daemon=True)
        writer.start()
        begun.wait(30)
        time.sleep(0.0007 * kill)
        writer.kill()
        writer.join()
        blob = storage.get("8/0-64_0-64_0-64")
        assert blob is not None
        assert bytes(blob.data) == bytes(blob.data[:1]) * 4_000_000
        left_over += len(os.listdir(tmp_path / "8")) - 1
    assert left_over > 0
    assert list(storage.list_names("8")) == ["0-64_0-64_0-64"]
    storage.sweep(older_than_s=-10)
    assert os.listdir(tmp_path / "8") == ["0-64_0-64_0-64"]
