"""Things on a disk that are not what their names say: each a clear error, at once."""

from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import precomputed_store as ps
from tests.oracles import make_info

SHARDING = {
    "hash": "identity",
    "preshift_bits": 3,
    "minishard_bits": 0,
    "shard_bits": 0,
}
NAMES = {False: "8_8_8/0-8_0-8_0-8", True: "8_8_8/0.shard"}

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes, links")


def made(folder: Path, *, sharded: bool, **members: Any) -> Path:
    """A layer of 2 × 2 × 2 chunks, without any."""
    layer = folder / "layer"
    (layer / "8_8_8").mkdir(parents=True)
    info = make_info(
        size=(16, 16, 16),
        chunk_size=(8, 8, 8),
        sharding=SHARDING if sharded else None,
        **members,
    )
    (layer / "info").write_text(json.dumps(info))
    return layer


def read(layer: Path) -> int:
    return int(np.asarray(ps.open_volume(layer)[:8, :8, :8]).sum())


def change(layer: Path) -> None:
    volume = ps.open_volume(layer, mode="r+", unaligned="read-modify-write")
    volume[:4, :8, :8] = np.uint8(3)


def in_time(function: Callable[[Path], object], layer: Path) -> BaseException | None:
    """What a function raises. One that waits for a pipe or for the end of zeros fails here."""
    raised: list[BaseException | None] = []

    def call() -> None:
        try:
            function(layer)
            raised.append(None)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(30)
    assert raised, "still waiting after 30 s"
    return raised[0]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def elsewhere(path: Path) -> None:
    outside = path.parents[2].with_name("outside")
    outside.write_bytes(bytes([7]) * 512)
    path.symlink_to(outside)


def folder(path: Path) -> None:
    path.mkdir()


def itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [pipe, endless, elsewhere, folder, itself])
@pytest.mark.parametrize("what", ["info", "chunk", "shard"])
@pytest.mark.parametrize("function", [read, change])
def test_what_is_no_file_of_the_layer_is_an_error(
    tmp_path: Path, what: str, make: Callable[[Path], None], function: Callable[[Path], object]
) -> None:
    layer = made(tmp_path, sharded=what == "shard")
    path = layer / ("info" if what == "info" else NAMES[what == "shard"])
    path.unlink(missing_ok=True)
    make(path)
    error = in_time(function, layer)
    assert isinstance(error, ps.StorageError)
    assert str(path) in str(error)
    assert make is folder or path.is_symlink() or path.is_fifo()
    if make is elsewhere:
        assert path.resolve().read_bytes() == bytes([7]) * 512


@pytest.mark.parametrize("what", ["chunk", "shard"])
@pytest.mark.parametrize("function", [read, change])
def test_an_empty_file_is_an_error_and_stays(
    tmp_path: Path, what: str, function: Callable[[Path], object]
) -> None:
    layer = made(tmp_path, sharded=what == "shard")
    path = layer / NAMES[what == "shard"]
    path.touch()
    assert isinstance(in_time(function, layer), ps.PrecomputedError)
    assert path.stat().st_size == 0


def overlapping(num_bytes: int) -> bytes:
    """A shard whose eight chunks are all the same bytes."""
    index = np.zeros((3, 8), "<u8")
    index[0, 1:] = 1
    index[1, 1:] = 2**64 - num_bytes
    index[2] = num_bytes
    ends = struct.pack("<QQ", num_bytes, num_bytes + index.nbytes)
    return ends + bytes([5]) * num_bytes + index.tobytes()


def test_a_change_does_not_multiply_chunks_that_overlap(tmp_path: Path) -> None:
    layer = made(tmp_path, sharded=True)
    path = layer / NAMES[True]
    path.write_bytes(overlapping(512))
    assert np.asarray(ps.open_volume(layer)[...]).sum() == 5 * 16**3
    path.write_bytes(overlapping(2_000_000))
    before = path.stat()
    assert isinstance(in_time(change, layer), ps.ChunkError)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
