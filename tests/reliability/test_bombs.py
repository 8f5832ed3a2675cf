"""Three gibibytes in a small file cost neither memory nor time, wherever it is compressed."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bombs import BOMBS, gzip_bomb
from servers.fake_gcs import Bucket, FakeGcs
from servers.web import WebServer

import precomputed_store as ps
from precomputed_store.codecs.content import SUFFIXES
from tests.oracles import make_info

HERE = Path(__file__).parent
SIZE = (256, 256, 256)
SHARDING = {
    "hash": "identity",
    "preshift_bits": 0,
    "minishard_bits": 0,
    "shard_bits": 0,
    "minishard_index_encoding": "gzip",
    "data_encoding": "gzip",
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is counted otherwise")


def layer(folder: Path, *, sharded: bool = False, info: bytes | None = None) -> Path:
    (folder / "8_8_8").mkdir()
    document = make_info(size=SIZE, chunk_size=SIZE, sharding=SHARDING if sharded else None)
    if info is None:
        (folder / "info").write_text(json.dumps(document))
    else:
        (folder / "info.gz").write_bytes(info)
    return folder


def chunk(folder: Path, name: str) -> None:
    encoding, make = BOMBS[name]
    (layer(folder) / "8_8_8" / f"0-256_0-256_0-256{SUFFIXES[encoding]}").write_bytes(make())


def shard_data(folder: Path, name: str) -> None:
    bomb = BOMBS[name][1]()
    import gzip

    index = gzip.compress(np.array([0, 0, len(bomb)], "<u8").tobytes())
    entry = struct.pack("<QQ", len(bomb), len(bomb) + len(index))
    (layer(folder, sharded=True) / "8_8_8" / "0.shard").write_bytes(entry + bomb + index)


def shard_index(folder: Path, name: str) -> None:
    bomb = BOMBS[name][1]()
    entry = struct.pack("<QQ", 0, len(bomb))
    (layer(folder, sharded=True) / "8_8_8" / "0.shard").write_bytes(entry + bomb)


def metadata(folder: Path, name: str) -> None:
    layer(folder, info=BOMBS[name][1]())


CASES: list[tuple[Callable[[Path, str], None], str]] = [
    *((chunk, name) for name in BOMBS),
    *((make, name) for make in (shard_data, shard_index) for name in BOMBS if "gzip" in name),
    (metadata, "gzip"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "name"), CASES, ids=lambda each: getattr(each, "__name__", each))
def test_three_gibibytes_cost_no_memory_and_a_second(
    make: Callable[[Path, str], None],
    name: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    make(tmp_path, name)
    command = [sys.executable, str(HERE / "read_bomb.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    mebibytes, seconds, _, message = done.stdout.split(maxsplit=3)
    size = max(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    where = make.__name__.replace("_", " ")
    record_property(
        "figure",
        f"{where}, {name}: 3 GiB in {size / 1e6:.1f} MB: {mebibytes} MiB, {seconds} s of CPU",
    )
    assert "bytes expected" in message or "minishard index is" in message
    assert int(mebibytes) < 100
    assert float(seconds) < 5


@pytest.mark.parametrize("sharded", [False, True], ids=["chunks", "shards"])
def test_a_body_that_never_ends_is_cut_off_in_a_read(
    web_server: WebServer, sharded: bool, record_property: Callable[[str, object], None]
) -> None:
    document: dict[str, Any] = make_info(size=(64, 64, 64), sharding=SHARDING if sharded else None)
    web_server.add("/layer/info", json.dumps(document).encode())
    volume = ps.open_volume(f"{web_server.url}/layer")
    web_server.pick_fault = lambda request: "endless"
    tracemalloc.start()
    try:
        with pytest.raises(ps.StorageError, match=r"bytes or more|ignores Range"):
            volume[...]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    kind = "shard" if sharded else "chunk"
    record_property("figure", f"endless body for a {kind}: {peak / 2**20:.0f} MiB")
    assert peak < 160 << 20


@pytest.mark.server
def test_a_body_that_never_ends_is_cut_off_where_a_chunk_is_changed_in_part(
    gcs_server: FakeGcs,
) -> None:
    gcs_server.buckets["bucket"] = Bucket()
    options = {"endpoint_url": gcs_server.url, "token": "anon"}
    ps.create("gs://bucket/layer", make_info(size=(64, 64, 64)), storage_options=options)
    volume = ps.open_volume(
        "gs://bucket/layer", mode="r+", unaligned="read-modify-write", storage_options=options
    )
    gcs_server.pick_fault = lambda request: "endless"
    with pytest.raises(ps.StorageError, match="bytes or more"):
        volume[:32] = np.uint8(1)


def test_an_endless_info_is_cut_off(web_server: WebServer) -> None:
    web_server.pick_fault = lambda request: "endless"
    tracemalloc.start()
    try:
        with pytest.raises(ps.PrecomputedError, match="bytes or more"):
            ps.open_layer(f"{web_server.url}/layer")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20


def test_the_bombs_are_sound() -> None:
    """They would inflate to three gibibytes; their beginnings do."""
    import brotli
    from backports import zstd

    stream = zstd.ZstdDecompressor()
    assert stream.decompress(BOMBS["zstd"][1](), 5 << 20) == bytes(5 << 20)
    assert len(brotli.Decompressor().process(BOMBS["br"][1](), output_buffer_limit=9 << 20)) > 8e6
    assert gzip_bomb()[:3] == b"\x1f\x8b\x08"
