"""Damaged and hostile shards: corrupt is never missing, never zeros, never large.

Twenty-seven cases by hand, and mutated indices; read from a disk and over HTTP, whole and chunk
by chunk, and written into.
"""

from __future__ import annotations

import gc
import gzip
import json
import os
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amounts import amounts
from bombs import gzip_bomb
from servers.web import WebServer

import precomputed_store as ps
from precomputed_store.shard_cache import clear_index_cache
from tests.oracles import make_info

SIZE = (32, 16, 16)
CHUNK = 8**3
NUM_CHUNKS = 16
SPARE = 64 << 20
MAX = 2**64 - 1


@dataclass
class Shard:
    """A shard of two minishards with eight chunks each, open to every kind of lie."""

    data_gzip: bool = False
    index_gzip: bool = False

    def __post_init__(self) -> None:
        # Chunk ids in Morton order; the lowest bit is the minishard.
        self.chunks = {n: bytes([n + 1]) * CHUNK for n in range(NUM_CHUNKS)}
        self.tables = [self._table(range(m, NUM_CHUNKS, 2)) for m in range(2)]
        self.data = b"".join(self.stored(n) for m in range(2) for n in range(m, NUM_CHUNKS, 2))
        self.packed_indices: list[bytes | None] = [None, None]
        self.entries: list[list[int] | None] = [None, None]
        self.cut: int | None = None

    def stored(self, number: int) -> bytes:
        data = self.chunks[number]
        return gzip.compress(data, mtime=0) if self.data_gzip else data

    def _table(self, numbers: Any) -> np.ndarray:
        ids = np.array([*numbers], "<u8")
        table = np.zeros((3, len(ids)), "<u8")
        table[0] = np.diff(ids, prepend=np.uint64(0))
        table[2] = [len(self.stored(int(n))) for n in ids]
        if numbers.start:
            table[1, 0] = sum(len(self.stored(n)) for n in range(0, NUM_CHUNKS, 2))
        return table

    def bytes(self) -> bytes:
        body, entries = self.data, []
        for minishard in range(2):
            packed = self.packed_indices[minishard]
            if packed is None:
                packed = self.tables[minishard].tobytes()
                packed = gzip.compress(packed, mtime=0) if self.index_gzip else packed
            entry = self.entries[minishard] or [len(body), len(body) + len(packed)]
            entries.append(struct.pack("<QQ", *entry))
            body += packed
        return (b"".join(entries) + body)[: self.cut]

    @property
    def voxels(self) -> np.ndarray:
        """``(x, y, z)`` as the layer holds them."""
        grid = np.zeros((4, 2, 2), np.uint8)
        # Morton: x, y, z, x.
        for x, y, z in np.ndindex(4, 2, 2):
            number = (x & 1) | y << 1 | z << 2 | (x >> 1) << 3
            grid[x, y, z] = number + 1
        return np.kron(grid, np.ones((8, 8, 8), np.uint8))


def info(shard: Shard) -> bytes:
    sharding = {
        "hash": "identity",
        "preshift_bits": 0,
        "minishard_bits": 1,
        "shard_bits": 0,
        "data_encoding": "gzip" if shard.data_gzip else "raw",
        "minishard_index_encoding": "gzip" if shard.index_gzip else "raw",
    }
    return json.dumps(make_info(size=SIZE, chunk_size=(8, 8, 8), sharding=sharding)).encode()


def set_entry(start: int, stop: int) -> Callable[[Shard], None]:
    def damage(shard: Shard) -> None:
        shard.entries[0] = [start, stop]

    return damage


def set_table(row: int, column: int, value: int) -> Callable[[Shard], None]:
    def damage(shard: Shard) -> None:
        shard.tables[0][row, column] = np.uint64(value)

    return damage


def pack_index(packed: Callable[[Shard], bytes], **kind: bool) -> Callable[[Shard], None]:
    def damage(shard: Shard) -> None:
        shard.packed_indices[0] = packed(shard)

    return damage


def cut(size: int) -> Callable[[Shard], None]:
    def damage(shard: Shard) -> None:
        shard.cut = size

    return damage


def cut_to_data(shard: Shard) -> None:
    """The indices first, then the data, which is cut in the middle."""
    indices = b"".join(table.tobytes() for table in shard.tables)
    for table in shard.tables:
        table[1, 0] += np.uint64(len(indices))
    indices = b"".join(table.tobytes() for table in shard.tables)
    size = len(indices) // 2
    shard.entries = [[0, size], [size, 2 * size]]
    shard.data = indices + shard.data
    shard.packed_indices = [b"", b""]
    shard.cut = 32 + len(indices) + 3 * CHUNK + 100


def garbage_data(shard: Shard) -> None:
    shard.data = os.urandom(len(shard.data))


def twice(shard: Shard) -> None:
    shard.tables[0][0, 3] = 0


def swapped_sizes(shard: Shard) -> None:
    shard.tables[0][2, 0] += 1
    shard.tables[0][1, 1] = np.uint64(MAX)  # minus one


def nothing(shard: Shard) -> None:
    """A chunk of no bytes, the others where they were."""
    shard.tables[0][2, 0] = 0
    shard.tables[0][1, 1] += np.uint64(CHUNK)


def foreign_ids(shard: Shard) -> None:
    shard.tables[0][0, 0] = 1  # odd ids belong to the other minishard


INDEX = {"index_gzip": True}
DATA = {"data_gzip": True}
CASES: dict[str, tuple[Callable[[Shard], None], dict[str, bool]]] = {
    "empty": (cut(0), {}),
    "cut in the shard index": (cut(8), {}),
    "cut behind an entry of the shard index": (cut(16), {}),
    "cut in the data": (cut(32 + 700), {}),
    "cut in the data behind the indices": (cut_to_data, {}),
    "index ends before it begins": (set_entry(500, 400), {}),
    "index begins past the end": (set_entry(1 << 20, (1 << 20) + 192), {}),
    "index ends past the end": (set_entry(8192, 1 << 30), {}),
    "index ends at 2**63": (set_entry(0, 2**63), {}),
    "index ends at 2**64 - 1": (set_entry(0, MAX), {}),
    "index wraps around": (set_entry(MAX - 10, 10), {}),
    "index of a TiB": (set_entry(0, 1 << 40), {}),
    "index of 25 bytes": (set_entry(8192, 8192 + 25), {}),
    "index over the data": (set_entry(0, 192), {}),
    "chunk begins past the end": (set_table(1, 0, 1 << 20), {}),
    "chunk begins at 2**63": (set_table(1, 0, 2**63), {}),
    "chunk of a TiB": (set_table(2, 0, 1 << 40), {}),
    "chunk of 2**64 - 1 bytes": (set_table(2, 0, MAX), {}),
    "chunk of no bytes": (nothing, {}),
    "chunk that wraps around": (set_table(1, 0, MAX - 5), {}),
    "chunks that overlap": (swapped_sizes, {}),
    "chunk id twice": (twice, {}),
    "chunks of another minishard": (foreign_ids, {}),
    "index that is not gzip": (pack_index(lambda shard: shard.tables[0].tobytes()), INDEX),
    "index of cut gzip": (
        pack_index(lambda shard: gzip.compress(shard.tables[0].tobytes())[:-6]),
        INDEX,
    ),
    "index that is a bomb": (pack_index(lambda shard: gzip_bomb()), INDEX),
    "data that is not gzip": (garbage_data, DATA),
}


# Chunks that are damaged, of which the index is sound: they are taken over as they are.
NO_LIES = {"chunk of no bytes", "chunks that overlap"}


def test_there_are_twenty_seven_of_them() -> None:
    assert len(CASES) == 27


class Site:
    """The layer on a disk, and behind a web server."""

    def __init__(self, folder: Path, server: WebServer) -> None:
        self.folder, self.server = folder, server
        (folder / "8_8_8").mkdir()

    def store(self, shard: Shard) -> None:
        clear_index_cache()
        data = shard.bytes()
        (self.folder / "info").write_bytes(info(shard))
        (self.folder / "8_8_8" / "0.shard").write_bytes(data)
        self.server.add("/layer/info", info(shard))
        self.server.add("/layer/8_8_8/0.shard", data)

    def open(self, kind: str, **options: Any) -> Any:
        url = self.folder if kind == "file" else f"{self.server.url}/layer"
        return ps.open_volume(url, **options)


@pytest.fixture
def site(tmp_path: Path, web_server: WebServer) -> Site:
    return Site(tmp_path, web_server)


@pytest.fixture
def bounded() -> Iterator[None]:
    """What Python and numpy allocate within is bounded."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SPARE


@pytest.mark.parametrize("options", [{}, DATA, INDEX], ids=["raw", "data gzip", "index gzip"])
@pytest.mark.parametrize("kind", ["file", "http"])
def test_the_shard_is_sound_before_it_is_damaged(
    site: Site, options: dict[str, bool], kind: str
) -> None:
    shard = Shard(**options)
    site.store(shard)
    np.testing.assert_array_equal(site.open(kind)[...][..., 0], shard.voxels)


def boxes() -> Iterator[tuple[slice, ...]]:
    for x, y, z in np.ndindex(4, 2, 2):
        yield tuple(slice(8 * n, 8 * n + 8) for n in (x, y, z))


def judge(volume: Any, voxels: np.ndarray) -> int:
    """Every chunk is what it was or an error of ours; how many are errors."""
    errors: list[Exception] = []
    for box in boxes():
        try:
            chunk = volume[box][..., 0]
        except (ps.ChunkError, ps.StorageError) as error:
            errors.append(error)
        else:
            np.testing.assert_array_equal(chunk, voxels[box])
    assert all("0.shard" in str(error) for error in errors)
    assert not any(isinstance(error, ps.MissingChunkError) for error in errors)
    return len(errors)


@pytest.mark.parametrize("kind", ["file", "http"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("bounded")
def test_a_hostile_shard_is_an_error_and_never_zeros(site: Site, name: str, kind: str) -> None:
    damage, options = CASES[name]
    shard = Shard(**options)
    voxels = shard.voxels
    damage(shard)
    site.store(shard)
    volume = site.open(kind)
    assert judge(volume, voxels)
    clear_index_cache()
    with pytest.raises((ps.ChunkError, ps.StorageError), match=r"0\.shard"):
        volume[...]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("bounded")
def test_a_hostile_shard_is_not_written_into(site: Site, name: str) -> None:
    damage, options = CASES[name]
    shard = Shard(**options)
    damage(shard)
    site.store(shard)
    before = shard.bytes()
    path = site.folder / "8_8_8" / "0.shard"
    volume = site.open("file", mode="r+", unaligned="read-modify-write")
    # Half of a chunk whose place or bytes are damaged, half of one whose may not be.
    for x in (0, 8):
        if name in NO_LIES and x == 8:
            volume[x : x + 4, 0:8, 0:8] = np.uint8(99)
            continue
        with pytest.raises(ps.PrecomputedError, match=r"0\.shard"):
            volume[x : x + 4, 0:8, 0:8] = np.uint8(99)
        assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["0.shard"]


def test_a_sparse_file_of_a_tebibyte_costs_no_memory(site: Site) -> None:
    """A chunk that its index says is half a TiB long, in a file that is long enough."""
    shard = Shard()
    shard.tables[0][2, 0] = np.uint64(1 << 39)
    site.store(shard)
    try:
        os.truncate(site.folder / "8_8_8" / "0.shard", 1 << 40)
    except OSError as error:
        pytest.skip(f"no files of this size here: {error}")
    with pytest.raises(ps.PrecomputedError, match=r"0\.shard"):
        site.open("file")[0:8, 0:8, 0:8]
    with pytest.raises(ps.PrecomputedError, match=r"0\.shard"):
        site.open("file", mode="r+", unaligned="read-modify-write")[0:4, 0:8, 0:8] = 1


@pytest.mark.filterwarnings("ignore::precomputed_store.MissingDataWarning")
@pytest.mark.parametrize("count", amounts(300, 5000))
@pytest.mark.parametrize("options", [{}, INDEX], ids=["raw", "gzip"])
def test_mutated_indices_give_an_error_or_bytes_of_the_shard(
    site: Site,
    options: dict[str, bool],
    count: int,
    record_property: Callable[[str, object], None],
) -> None:
    """Without a checksum, chunks whose numbers have changed are missing or at another place."""
    rng = np.random.default_rng(3)
    shard = Shard(data_gzip=True, **options)
    whole, voxels = shard.bytes(), shard.voxels
    site.store(shard)
    path = site.folder / "8_8_8" / "0.shard"
    indices = [*range(32), *range(32 + len(shard.data), len(whole))]
    found = {"refused": 0, "right": 0, "missing": 0, "exchanged": 0}
    tracemalloc.start()
    for number in range(count):
        if number % 100 == 0:
            gc.collect()  # errors hold on to what they were about until then
        mutant = bytearray(whole)
        for at in rng.choice(indices, rng.integers(1, 4)):
            mutant[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(mutant)
        clear_index_cache()
        try:
            read = ps.open_volume(site.folder)[...][..., 0]
        except (ps.ChunkError, ps.StorageError):
            found["refused"] += 1
            continue
        wrong = read[read != voxels]
        found["right" if not wrong.size else "exchanged" if wrong.any() else "missing"] += 1
        assert np.isin(wrong, [0, *np.unique(voxels)]).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SPARE
    kind = "gzip" if options else "raw"
    record_property("figure", f"{count} mutated {kind} indices: {found}, {peak >> 20} MiB")
    assert found["refused"] > count / 3
    if options:
        # gzip's checksum covers the minishard index; offsets do not lie in an index by chance.
        assert found["missing"] == found["exchanged"] == 0


def test_a_shard_that_is_longer_than_all_its_chunks_is_not_read_to_be_changed(
    tmp_path: Path,
) -> None:
    """64 GiB, all of it a hole: what its name says must not be taken into memory."""
    sharding = ps.ShardingSpec(hash="identity", preshift_bits=3, minishard_bits=0, shard_bits=0)
    voxels = np.ones((16, 16, 16), np.uint8)
    ps.to_precomputed(
        voxels, tmp_path / "layer", dims="xyz", resolution=(8, 8, 8), chunk_size=(8, 8, 8),
        sharding=sharding,
    )  # fmt: skip
    (path,) = (tmp_path / "layer" / "8_8_8").iterdir()
    os.truncate(path, 64 << 30)
    volume = ps.open_volume(tmp_path / "layer", mode="r+", unaligned="read-modify-write")
    tracemalloc.start()
    with pytest.raises(ps.StorageError, match="expected at most"):
        volume[:8, :8, :8] = np.uint8(2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SPARE
    assert path.stat().st_size == 64 << 30
