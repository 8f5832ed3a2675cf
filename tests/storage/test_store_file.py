"""Objects stored by the compiled kernel: as step by step, and nothing left where it fails."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from precomputed_store._native import store_file as native
from precomputed_store.storage import Blob, Storage, local, open_storage
from precomputed_store.storage.locks import locked

pytestmark = pytest.mark.skipif(
    native._function() is None, reason="the package was installed without a compiler"
)
SUFFIXES = {None: "", "gzip": ".gz", "br": ".br", "zstd": ".zstd", "xz": ".xz", "bz2": ".bz2"}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is done step by step."""
    refuse = lambda *_, **__: pytest.fail("it was written step by step")  # noqa: E731
    monkeypatch.setattr(local.LocalBackend, "_store", refuse)


def put(storage: Storage, key: str, data: Any, encoding: str | None = None) -> None:
    storage.put(key, data, content_type="application/octet-stream", content_encoding=encoding)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("before", SUFFIXES)
@pytest.mark.parametrize("after", SUFFIXES)
def test_an_object_takes_the_place_of_all_its_files(
    tmp_path: Path, before: str | None, after: str | None
) -> None:
    storage = open_storage(tmp_path)
    put(storage, "a", b"old", before)
    put(storage, "ab", b"another", before)
    put(storage, "a", b"new", after)
    assert names(tmp_path) == sorted(["a" + SUFFIXES[after], "ab" + SUFFIXES[before]])
    assert storage.get("a") == Blob(b"new", after)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", bytearray(b"abc"), memoryview(b"abc")[1:],
        memoryview(np.arange(6, dtype="u4").reshape(2, 3)), os.urandom(3_000_000),
    ],
    ids=["empty", "one byte", "bytearray", "part", "integers", "3 MB"],
)  # fmt: skip
def test_bytes_of_any_kind_are_stored(tmp_path: Path, data: Any) -> None:
    put(open_storage(tmp_path), "a", data)
    assert (tmp_path / "a").read_bytes() == bytes(data)


@pytest.mark.usefixtures("alone")
def test_the_umask_holds(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        put(open_storage(tmp_path), "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_folders_are_made_as_they_are_needed(tmp_path: Path) -> None:
    put(open_storage(tmp_path / "new" / "layer"), "8_8_8/a", b"abc")
    assert (tmp_path / "new" / "layer" / "8_8_8" / "a").read_bytes() == b"abc"


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("fsync", [True, False])
def test_it_is_told_whether_to_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool
) -> None:
    told = []
    function: Callable[..., int] = native._function()  # type: ignore[assignment]
    monkeypatch.setattr(native, "_function", lambda: lambda *a: told.append(a[-1]) or function(*a))
    put(dataclasses.replace(open_storage(tmp_path), fsync=fsync), "a", b"abc")
    assert told == [fsync]
    assert names(tmp_path) == ["a"]


@pytest.mark.usefixtures("alone")
def test_it_waits_for_whoever_has_the_lock(tmp_path: Path) -> None:
    put(open_storage(tmp_path), "a", b"old")
    with locked(str(tmp_path)):
        writer = threading.Thread(target=put, args=(open_storage(tmp_path), "a", b"new"))
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert (tmp_path / "a").read_bytes() == b"old"
    writer.join()
    assert (tmp_path / "a").read_bytes() == b"new"
    with locked(str(tmp_path)):  # it has let go
        pass


def test_where_folders_cannot_be_locked_one_attempt_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        local, "store_file", lambda *a, **_: asked.append(a) or native.Outcome.NO_LOCK
    )
    storage = open_storage(tmp_path)
    for data in (b"one", b"two"):
        put(storage, "a", data)
        assert storage.get("a") == Blob(data, None)
    assert len(asked) == 1


@pytest.mark.usefixtures("alone")
def test_a_folder_that_cannot_be_locked_is_told_apart(tmp_path: Path) -> None:
    function: Callable[..., int] = native._function()  # type: ignore[assignment]
    paths = [os.fsencode(tmp_path / name) for name in ("temporary", "target", "nowhere")]
    status = function(*paths, b"\0", 0, np.zeros(3, np.uint8).ctypes.data, 3, 1)
    assert status == native.Outcome.NO_LOCK
    assert names(tmp_path) == []


FAILING = """
import os, resource, sys
from precomputed_store.errors import StorageError
from precomputed_store.storage import open_storage

storage = open_storage(sys.argv[1])
storage.get("a")
{limit}
try:
    storage.put("a", bytes(1000), content_type="")
except StorageError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))", "File too large"),
        ("os.chmod(sys.argv[1], 0o555); os.geteuid() or os.seteuid(65534)", "Permission denied"),
    ],
    ids=["no room", "no permission"],
)
@pytest.mark.parametrize("existing", [True, False])
def test_where_it_fails_nothing_is_left(
    tmp_path: Path, limit: str, reason: str, existing: bool
) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    if existing:
        put(open_storage(layer), "a", b"old", "gzip")
    command = [sys.executable, "-c", FAILING.format(limit=limit), str(layer)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert reason in shown.stdout
    layer.chmod(0o755)
    assert names(layer) == (["a.gz"] if existing else [])
    assert open_storage(layer).get("a") == (Blob(b"old", "gzip") if existing else None)


def test_a_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="a: Is a directory"):
        put(open_storage(tmp_path), "a", b"new")
    assert names(tmp_path) == ["a"]
