"""Objects that are changed in pieces: like whole ones, and not held where that is possible."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from peaks import IMPORT

import precomputed_store as ps
from precomputed_store.errors import StorageError
from precomputed_store.storage import Storage, Update, open_storage
from precomputed_store.storage.locks import LOCK_FILE
from precomputed_store.storage.pieces import Piece, Rewrite, Stored, held

OLD = os.urandom(5_000_000)
PIECES: list[Piece] = [
    b"head",
    (4_000_000, 5_000_000),
    bytearray(b"middle"),
    (0, 3),
    (2, 3_000_000),
]
NEW = b"head" + OLD[4_000_000:] + b"middle" + OLD[:3] + OLD[2:3_000_000]


def update(rewrite: Rewrite, *, max_bytes: int | None = None) -> Update:
    return Update(
        key="a/b", change=held(rewrite), rewrite=rewrite, content_type="", max_bytes=max_bytes
    )


@pytest.fixture(params=["file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "memory":
        return open_storage(f"memory://{uuid.uuid4().hex}")
    return open_storage(tmp_path)


def content(storage: Storage) -> bytes | None:
    blob = storage.get("a/b")
    return None if blob is None else bytes(blob.data)


def test_pieces_of_the_old_object_and_new_bytes_make_the_new_one(storage: Storage) -> None:
    storage.put("a/b", OLD, content_type="")
    seen = []

    def rewrite(stored: Stored | None) -> Sequence[Piece]:
        assert stored is not None
        seen.append((stored.size, bytes(stored.read(7, 20)), stored.content_encoding))
        return PIECES

    storage.apply(update(rewrite))
    assert content(storage) == NEW
    assert seen == [(len(OLD), OLD[7:20], None)]


def test_an_object_can_be_made_and_removed_in_pieces(storage: Storage) -> None:
    storage.apply(update(lambda stored: None if stored else [b"new", b"er"]))
    assert content(storage) == b"newer"
    storage.apply(update(lambda stored: None if stored else [b"never"]))
    assert content(storage) is None
    storage.apply(update(lambda stored: None))
    assert content(storage) is None


def test_what_another_stores_meanwhile_is_not_lost(storage: Storage) -> None:
    storage.put("a/b", OLD, content_type="")
    seen: list[bytes] = []

    def rewrite(stored: Stored | None) -> Sequence[Piece]:
        assert stored is not None
        if not seen:
            storage.put("a/b", b"of another", content_type="")
        seen.append(bytes(stored.read(0, 3)))
        return [b"and ", (0, stored.size)]

    storage.apply(update(rewrite))
    assert content(storage) == b"and of another"
    assert seen == [OLD[:3], b"of "] or seen == [b"of ", b"of "]


def test_an_object_that_is_too_long_is_refused_unread(storage: Storage) -> None:
    storage.put("a/b", OLD, content_type="")
    with pytest.raises(StorageError, match="expected at most 1000"):
        storage.apply(update(lambda stored: [b""], max_bytes=1000))
    assert content(storage) == OLD


Copy = Callable[..., int]


def few_at_a_time(copy: Copy) -> Copy:
    return lambda source, target, count, offset: copy(source, target, min(count, 700_000), offset)


def not_at_all(copy: Copy) -> Copy:
    def refuse(*arguments: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    return refuse


def nothing(copy: Copy) -> Copy:
    return lambda *arguments: 0


def once(copy: Copy) -> Copy:
    calls: list[None] = []

    def some(source: int, target: int, count: int, offset: int) -> int:
        calls.append(None)
        if len(calls) > 1:
            raise OSError(errno.EINVAL, "Invalid argument")
        return copy(source, target, count // 2, offset)

    return some


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="the system copies nothing")
@pytest.mark.parametrize("kind", [few_at_a_time, not_at_all, nothing, once])
def test_what_the_system_does_not_copy_is_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[[Copy], Copy]
) -> None:
    storage = open_storage(tmp_path)
    storage.put("a/b", OLD, content_type="")
    monkeypatch.setattr(os, "copy_file_range", kind(os.copy_file_range))
    storage.apply(update(lambda stored: PIECES))
    assert content(storage) == NEW


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="the system copies nothing")
def test_an_error_in_the_middle_of_copying_leaves_the_old_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    storage = open_storage(tmp_path)
    storage.put("a/b", OLD, content_type="")
    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(StorageError, match="No space left"):
        storage.apply(update(lambda stored: PIECES))
    assert content(storage) == OLD
    left = [path.name for path in (tmp_path / "a").iterdir() if path.name != LOCK_FILE]
    assert left == ["b"]


def test_a_file_that_shrinks_meanwhile_is_an_error(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    storage.put("a/b", OLD, content_type="")

    def rewrite(stored: Stored | None) -> Sequence[Piece]:
        os.truncate(tmp_path / "a" / "b", 100)
        return PIECES

    with pytest.raises(StorageError, match="shrank"):
        storage.apply(update(rewrite))
    assert content(storage) == OLD[:100]


CHANGE = (
    IMPORT
    + """
import numpy as np, precomputed_store as ps
volume = ps.open_volume(sys.argv[1], mode="r+", unaligned="read-modify-write")
volume[:10, :10, :1]
before = forget_peak()
volume[:64, :64, :64] = np.uint8(7)
volume[100:110, 60:70, :40] = np.uint8(9)
print(peak_bytes() - before)
"""
)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc for peaks of memory")
def test_a_shard_of_300_megabytes_is_changed_in_part_without_being_held(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    block = np.random.default_rng(0).integers(0, 255, (640, 640, 64), np.uint8)
    voxels = np.tile(block, (1, 1, 12))
    sharding = ps.ShardingSpec(
        hash="identity", preshift_bits=3, minishard_bits=4, shard_bits=0,
        minishard_index_encoding="gzip",
    )  # fmt: skip
    ps.to_precomputed(
        voxels, tmp_path, dims="xyz", resolution=(8, 8, 8), chunk_size=(64, 64, 64),
        sharding=sharding,
    )  # fmt: skip
    (shard,) = (tmp_path / "8_8_8").glob("*.shard")
    size = shard.stat().st_size
    assert size > 300e6
    done = subprocess.run(
        [sys.executable, "-c", CHANGE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    grown = int(done.stdout)
    record_property("figure", f"a shard of {size >> 20} MiB changed in part: {grown >> 20} MiB")
    assert grown < 32 << 20
    voxels[:64, :64, :64] = 7
    voxels[100:110, 60:70, :40] = 9
    np.testing.assert_array_equal(ps.open_volume(tmp_path)[...][..., 0], voxels)
    assert shard.stat().st_size == size
