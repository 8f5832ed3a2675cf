"""Bytes under segment ids, one object each or in shards: CloudVolume writes and reads them too."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.web import WebServer

from precomputed_store.errors import ObjectError, UnsupportedError
from precomputed_store.keyed_reader import KeyedReader
from precomputed_store.keyed_writer import Keyed, KeyedWriter
from precomputed_store.metadata import ShardingSpec
from precomputed_store.shard_cache import clear_index_cache
from precomputed_store.shard_shape import ShardTarget, choose_id_sharding
from precomputed_store.storage import open_storage

SHARDING = ShardingSpec(
    hash="murmurhash3_x86_128",
    preshift_bits=1,
    minishard_bits=3,
    shard_bits=2,
    minishard_index_encoding="gzip",
    data_encoding="gzip",
)


def objects(count: int = 200, seed: int = 0) -> dict[int, bytes]:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 2**64, count, dtype=np.uint64).tolist()
    return {i: rng.bytes(int(rng.integers(1, 400))) for i in ids}


def written(folder: Path, data: dict[int, bytes], sharding: ShardingSpec | None) -> KeyedWriter:
    writer = KeyedWriter(storage=open_storage(folder), folder="made", sharding=sharding)
    assert writer.put((i, Keyed(each)) for i, each in data.items()) == len(data)
    return writer


def cloudvolume_spec(spec: ShardingSpec) -> Any:
    sharding = pytest.importorskip("cloudvolume.datasource.precomputed.sharding")
    return sharding.ShardingSpecification.from_dict(spec.to_json())


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("name", ["identity", "murmurhash3_x86_128"])
def test_shards_that_cloudvolume_made_are_read(tmp_path: Path, name: str, encoding: str) -> None:
    spec = ShardingSpec(
        hash=name,  # type: ignore[arg-type]
        preshift_bits=2,
        minishard_bits=3,
        shard_bits=2,
        minishard_index_encoding=encoding,  # type: ignore[arg-type]
        data_encoding=encoding,  # type: ignore[arg-type]
    )
    data = objects()
    (tmp_path / "made").mkdir()
    for file, shard in cloudvolume_spec(spec).synthesize_shards(data).items():
        (tmp_path / "made" / file).write_bytes(shard)
    reader = KeyedReader(storage=open_storage(tmp_path), folder="made", sharding=spec)
    assert reader.fetch(data) == data
    assert sorted(reader.ids()) == sorted(data)
    absent = next(i for i in range(100) if i not in data)
    assert reader.fetch([absent]) == {absent: None}
    assert reader.contains([absent, next(iter(data))]) == {absent: False, next(iter(data)): True}


def test_cloudvolume_reads_our_shards(tmp_path: Path) -> None:
    spec = cloudvolume_spec(SHARDING)
    from cloudvolume.datasource.precomputed.sharding import ShardReader

    data = objects()
    written(tmp_path, data, SHARDING)
    reader = ShardReader(None, None, spec)
    found = {}
    for file in (tmp_path / "made").iterdir():
        ours = reader.disassemble_shard(file.read_bytes())
        assert {reader.get_filename(i) for i in ours} == {file.name}
        found |= {int(i): bytes(each) for i, each in ours.items()}
    assert found == data


@pytest.mark.parametrize("sharding", [None, SHARDING], ids=["files", "shards"])
def test_objects_are_put_replaced_and_deleted(
    tmp_path: Path, sharding: ShardingSpec | None
) -> None:
    first, second = objects(60, seed=1), objects(40, seed=2)
    writer = written(tmp_path, first, sharding)
    changed = dict.fromkeys(list(first)[:5], b"changed")
    writer.put((i, Keyed(each)) for i, each in (second | changed).items())
    everything = first | second | changed
    assert writer.reader.fetch(everything) == everything
    writer.delete([*second, 12345])
    left = first | changed
    assert writer.reader.fetch(everything) == {i: left.get(i) for i in everything}
    assert set(writer.reader.ids()) == set(left)
    writer.put([(7, Keyed(b"seven"))], replace=True)
    assert list(writer.reader.ids()) == [7]
    writer.delete([7])
    assert list(writer.reader.ids()) == []


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_compressed_files_are_read_back(tmp_path: Path, encoding: Any) -> None:
    data = objects(20)
    writer = KeyedWriter(storage=open_storage(tmp_path), compress=encoding)
    writer.put((i, Keyed(each)) for i, each in data.items())
    assert writer.reader.fetch(data) == data
    assert set(writer.reader.ids()) == set(data)


def test_ids_are_told_by_names_with_the_suffix_only(tmp_path: Path) -> None:
    for name in ("5:0", "7", "007:0", "info", "5:0:0-1_0-1_0-1", f"{2**64}:0"):
        (tmp_path / name).write_bytes(b"x")
    assert list(KeyedReader(storage=open_storage(tmp_path), suffix=":0").ids()) == [5]


def test_bytes_before_an_object_stay_before_it_when_its_shard_changes(tmp_path: Path) -> None:
    """The data of each object says how many bytes lie before it, as a mesh's manifest does."""
    writer = KeyedWriter(
        storage=open_storage(tmp_path),
        sharding=SHARDING,
        before_bytes=lambda data: int(data.decode()),
    )
    before = {i: bytes([i]) * (i * 7) for i in range(1, 60)}
    for part in (range(1, 30), range(30, 60)):
        writer.put((i, Keyed(str(len(before[i])).encode(), [before[i]])) for i in part)
    writer.delete([3, 4])
    kept = [i for i in before if i not in (3, 4)]
    places = []
    for i, found in writer.reader.locate(kept).items():
        assert found is not None
        start = found.place.start
        place = type(found.place)(start - len(before[i]), start)
        places.append(found._replace(place=place))
    assert writer.reader.read_ranges(places) == [before[i] for i in kept]


def test_a_damaged_shard_is_not_changed(tmp_path: Path) -> None:
    data = objects()
    writer = written(tmp_path, data, SHARDING)
    file = next((tmp_path / "made").glob("*.shard"))
    file.write_bytes(file.read_bytes()[:-5])
    torn = file.read_bytes()
    clear_index_cache()
    with pytest.raises(ObjectError, match="damaged, and is not changed"):
        writer.put((i, Keyed(b"new")) for i in data)
    assert file.read_bytes() == torn
    with pytest.raises((ObjectError, OSError), match=file.name):
        writer.reader.fetch(data)


def test_an_object_that_inflates_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "5.gz").write_bytes(gzip.compress(bytes(100_000)))
    with pytest.raises(ObjectError, match=r"object 5: .*"):
        KeyedReader(storage=open_storage(tmp_path), max_bytes=1000).fetch([5])


@pytest.mark.parametrize("wrong", [-1, 2**64])
def test_an_id_that_is_none_is_refused(tmp_path: Path, wrong: int) -> None:
    with pytest.raises(ValueError, match="expected an integer from 0"):
        KeyedReader(storage=open_storage(tmp_path)).fetch([wrong])


@pytest.mark.parametrize("sharding", [None, SHARDING], ids=["files", "shards"])
def test_an_id_given_twice_is_refused(tmp_path: Path, sharding: ShardingSpec | None) -> None:
    writer = KeyedWriter(storage=open_storage(tmp_path), sharding=sharding)
    with pytest.raises(ValueError, match="id 5 is given twice"):
        writer.put([(5, Keyed(b"a")), (5, Keyed(b"b"))])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.server
def test_shards_are_read_over_http_where_nothing_can_be_listed(
    tmp_path: Path, web_server: WebServer
) -> None:
    data = objects()
    written(tmp_path, data, SHARDING)
    for file in (tmp_path / "made").iterdir():
        web_server.add(f"/layer/{file.name}", file.read_bytes())
    storage = open_storage(f"{web_server.url}/layer")
    assert KeyedReader(storage=storage, sharding=SHARDING).fetch(data) == data
    with pytest.raises(UnsupportedError, match="which ids are stored cannot be told"):
        list(KeyedReader(storage=storage).ids())
    assert sorted(KeyedReader(storage=storage, sharding=SHARDING).ids()) == sorted(data)


@pytest.mark.parametrize("count", [1, 100, 10_000, 3_000_000])
def test_chosen_sharding_keeps_indices_and_shards_near_their_targets(count: int) -> None:
    target = ShardTarget()
    spec = choose_id_sharding(num_objects=count, num_bytes=count * 5000, target=target)
    in_shard = count / 2**spec.shard_bits
    assert in_shard * 5000 <= target.shard_bytes
    assert 24 * in_shard / 2**spec.minishard_bits <= target.minishard_index_bytes
    assert spec.minishard_bits == 0 or 24 * in_shard / 2**spec.minishard_bits > 5000
