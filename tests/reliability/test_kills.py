"""Writers that are killed, disks that are full: the old object or the new, never a part."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amounts import amounts

import precomputed_store as ps
from precomputed_store._native.store_file import Outcome
from precomputed_store.storage import Storage, local, open_storage
from tests.oracles import make_info

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

EDGE = 256
SHARDING = {"hash": "identity", "preshift_bits": 0, "minishard_bits": 1, "shard_bits": 0}
KINDS: dict[str, dict[str, Any]] = {
    "chunk": {"size": (EDGE,) * 3, "chunk_size": (EDGE,) * 3},
    "shard": {"size": (EDGE,) * 3, "chunk_size": (128, 128, 128), "sharding": SHARDING},
}


def make_layer(folder: Path, kind: str) -> Path:
    ps.create(folder, make_info(**KINDS[kind]))
    return folder


def write_for_ever(folder: Path, kind: str, begun: Any) -> None:
    """16 MiB at a time, each write of one value; of a shard one chunk in two is changed."""
    volume = ps.open_volume(folder, mode="r+", unaligned="read-modify-write")
    value = os.getpid() % 200
    while True:
        value = value % 254 + 1
        if kind == "chunk" or value % 2:
            volume[...] = np.uint8(value)
        else:
            volume[:128, :128, :128] = np.uint8(value)
        begun.set()


def read_for_ever(folder: Path, stop: Any, found: Any) -> None:
    """Count reads, and those of anything but one value per chunk."""
    volume = ps.open_volume(folder, missing="raise")
    reads = 0
    problems: list[str] = []
    while not stop.is_set():
        try:
            chunk = volume[:128, :128, :128]
        except Exception as error:
            problems.append(repr(error))
        else:
            reads += 1
            if (chunk != chunk[0, 0, 0]).any():
                problems.append("torn")
    found.put((reads, problems[:5]))


@posix
@forks
@pytest.mark.slow
@pytest.mark.parametrize("count", amounts(15, 250))
@pytest.mark.parametrize("kind", KINDS)
def test_killed_writers_leave_whole_objects_and_readers_see_no_others(
    tmp_path: Path, kind: str, count: int, record_property: Callable[[str, object], None]
) -> None:
    folder = make_layer(tmp_path / "layer", kind)
    ps.open_volume(folder, mode="r+")[...] = np.uint8(1)
    names = {path.name for path in (folder / "8_8_8").iterdir()}
    context = multiprocessing.get_context("fork")
    stop, found = context.Event(), context.Queue()
    reader = context.Process(target=read_for_ever, args=(folder, stop, found), daemon=True)
    reader.start()
    dice = random.Random(0)
    torn, left_over = 0, 0
    for _ in range(count):
        begun = context.Event()
        writer = context.Process(target=write_for_ever, args=(folder, kind, begun), daemon=True)
        writer.start()
        assert begun.wait(60)
        time.sleep(dice.uniform(0, 0.06))
        writer.kill()
        writer.join()
        read = ps.open_volume(folder, missing="raise")[...]
        torn += any(
            (block != block[0, 0, 0]).any()
            for block in (read[:128, :128, :128], read[128:], read[:128, 128:])
        )
        left_over = len(list((folder / "8_8_8").iterdir())) - len(names)
    stop.set()
    reads, problems = found.get(timeout=60)
    reader.join()
    record_property(
        "figure",
        f"{count} kills of writers of a 16 MiB {kind}: {torn} torn; a reader beside them: {reads} "
        f"reads, {len(problems)} short, torn or failed; {left_over} temporary files, swept",
    )
    assert torn == 0
    assert problems == []
    assert reads > count
    # What is left over is never taken for a chunk, and can be swept.
    assert left_over > 0
    storage = open_storage(folder)
    assert set(storage.list_names("8_8_8")) == names
    assert ps.validate(folder, decode=True).ok
    assert storage.sweep(older_than_s=3600) == 0
    assert storage.sweep(older_than_s=-10) == left_over
    assert {path.name for path in (folder / "8_8_8").iterdir()} == names


CHUNK = 1 << 20
POINTS = [round(share * CHUNK) for share in np.linspace(0, 0.98, 20)]


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of 8 MiB, for those who may mount one."""
    folder = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip("mounting takes a privilege")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, room: int) -> None:
    """Leave so much room on a disk, rounded up to whole pages."""
    free = os.statvfs(folder)
    with open(folder / "filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - room)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("room", POINTS)
@pytest.mark.parametrize("kind", ["chunk", "shard"])
def test_a_full_disk_keeps_the_old_object_whole(small_disk: Path, kind: str, room: int) -> None:
    layer = small_disk / f"{kind}-{room}"
    sharding = {} if kind == "chunk" else {"sharding": SHARDING}
    edge = 128 if kind == "chunk" else 64
    ps.create(layer, make_info(size=(128, 128, 64), chunk_size=(edge, edge, 64), **sharding))
    volume = ps.open_volume(layer, mode="r+", unaligned="read-modify-write")
    volume[...] = np.uint8(1)
    before = snapshot(layer / "8_8_8")
    fill(small_disk, room)
    try:
        with pytest.raises(ps.StorageError, match="No space left"):
            volume[...] = np.uint8(2)
        with pytest.raises(ps.StorageError, match="No space left"):
            volume[:64, :64] = np.uint8(2)
        assert snapshot(layer / "8_8_8") == before
        assert (volume[...] == 1).all()
    finally:
        (small_disk / "filler").unlink()
    volume[...] = np.uint8(2)
    assert (volume[...] == 2).all()
    for path in (*(layer / "8_8_8").iterdir(), layer / "info"):
        path.unlink()


class FullDisk:
    """`os` with room for `room` more bytes, which takes at most 4,000 of them at a time."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def write(self, fd: int, data: memoryview) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = os.write(fd, data[: min(self.room, 4000)])
        self.room -= written
        return written


@pytest.mark.parametrize("room", [round(share * 10_000) for share in np.linspace(0, 0.9999, 20)])
@pytest.mark.parametrize("existing", [True, False])
def test_an_error_in_the_middle_of_a_write_keeps_the_old_object_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, existing: bool
) -> None:
    storage = open_storage(tmp_path)
    if existing:
        storage.put("a", b"old", content_type="")
    with monkeypatch.context() as patch:
        # Step by step, as where nothing is compiled: the kernel meets a full disk above.
        patch.setattr(local, "store_file", lambda *_, **__: Outcome.NOT_DONE)
        patch.setattr("precomputed_store.storage.pieces.os", FullDisk(room))
        with pytest.raises(ps.StorageError, match="No space left"):
            storage.put("a", bytes(10_000), content_type="")
    assert snapshot(tmp_path) == ({"a": b"old"} if existing else {})


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import numpy as np, precomputed_store as ps
volume = ps.open_volume(sys.argv[1], mode="r+")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    volume[...] = np.uint8(2)
except ps.StorageError as error:
    print("File too large" in str(error))
"""


@posix
def test_a_limit_of_the_size_of_files_keeps_the_old_object(tmp_path: Path) -> None:
    ps.create(tmp_path, make_info(size=(64, 64, 64)))
    volume = ps.open_volume(tmp_path, mode="r+")
    volume[...] = np.uint8(1)
    command = [sys.executable, "-c", LIMITED, str(tmp_path), "100000"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert (volume[...] == 1).all()
    assert [path.name for path in (tmp_path / "8_8_8").iterdir()] == ["0-64_0-64_0-64"]


@pytest.mark.parametrize("size", [64**3, 16 << 20], ids=["256 KiB", "16 MiB"])
def test_what_fsync_costs(
    tmp_path: Path, size: int, record_property: Callable[[str, object], None]
) -> None:
    def median_ms(storage: Storage) -> float:
        data, times = os.urandom(size), []
        for number in range(30):
            started = time.perf_counter()
            storage.put(f"8/{number % 3}", data, content_type="")
            times.append(time.perf_counter() - started)
        return 1000 * statistics.median(times)

    storage = open_storage(tmp_path)
    without = dataclasses.replace(storage, fsync=False)
    first, second = median_ms(without), median_ms(storage)
    record_property(
        "figure",
        f"a write of {size >> 10} KiB: {second:.2f} ms, without fsync {first:.2f} ms (medians)",
    )
