"""Writing sharded scales: whole, in part, across shards, from memory and from dask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import precomputed_store as ps
from precomputed_store.grid import Box
from precomputed_store.writing import coarse_scales, run, tiling
from tests.oracles import (
    cloudvolume_read,
    make_info,
    tensorstore_read,
    tensorstore_write,
)

DIMS = ("z", "y", "x")
SIZE = (45, 37, 29)
OFFSET = (-7, 5, 11)
BOXES = {"hash": "identity", "preshift_bits": 2, "minishard_bits": 1, "shard_bits": 10}
SCATTERED = {
    "hash": "murmurhash3_x86_128", "preshift_bits": 1, "minishard_bits": 2, "shard_bits": 2,
}  # fmt: skip
WRAPPED = {"hash": "identity", "preshift_bits": 1, "minishard_bits": 1, "shard_bits": 1}
ONE = {"hash": "identity", "preshift_bits": 9, "minishard_bits": 0, "shard_bits": 0}
SHARDINGS = {"boxes": BOXES, "scattered": SCATTERED, "wrapped": WRAPPED, "one": ONE}


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    """``(z, y, x)``, with a corner that is empty."""
    data = np.random.default_rng(0).integers(1, 255, SIZE[::-1], dtype=np.uint8)
    data[:12, :20, :18] = 0
    return data


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few chunks, so that shards are put together from several."""
    limit = 9 * 8 * 7 * 4
    for module in (coarse_scales, run):
        monkeypatch.setattr(module, "LARGEST_BLOCK_BYTES", limit)
    monkeypatch.setitem(tiling.tile.__kwdefaults__, "largest", limit)


def write(array: Any, folder: Path, **options: Any) -> Any:
    given = {
        "dims": DIMS,
        "resolution": (8, 8, 8),
        "voxel_offset": OFFSET,
        "chunk_size": (9, 8, 7),
        **options,
    }
    return ps.to_precomputed(array, folder, **given)


def sharding(members: dict[str, Any], **more: Any) -> ps.ShardingSpec:
    return ps.ShardingSpec(**{**members, **more})


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("8_8_8/*.shard"))}


def assert_read_by_all(folder: Path, expected: np.ndarray) -> None:
    own = ps.open_volume(folder)[...][..., 0].T
    np.testing.assert_array_equal(own, expected)
    np.testing.assert_array_equal(tensorstore_read(folder)[..., 0].T, expected)
    np.testing.assert_array_equal(cloudvolume_read(folder)[..., 0].T, expected)


class Slices:
    """An array that is read by slicing, as a file's dataset is."""

    def __init__(self, data: np.ndarray) -> None:
        self.data = data
        self.shape, self.dtype, self.ndim = data.shape, data.dtype, data.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.data[key]


SOURCES = {
    "numpy": lambda data: data,
    "dask": lambda data: da.from_array(data, chunks=(10, 13, 16)),
    "slices": Slices,
}


@pytest.mark.parametrize("kind", SHARDINGS)
@pytest.mark.usefixtures("small_blocks")
def test_voxels_in_memory_that_are_converted_come_into_the_right_shards(
    tmp_path: Path, voxels: np.ndarray, kind: str
) -> None:
    swapped = voxels.astype(">u2")
    write(swapped, tmp_path, sharding=sharding(SHARDINGS[kind]), layer_type="image")
    assert_read_by_all(tmp_path, voxels.astype(np.uint16))
    write(255 - voxels, tmp_path, mode="r+")
    assert_read_by_all(tmp_path, (255 - voxels).astype(np.uint16))


@pytest.mark.parametrize("index_encoding", ["raw", "gzip"])
@pytest.mark.parametrize("data_encoding", ["raw", "gzip"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", SHARDINGS)
@pytest.mark.usefixtures("small_blocks")
def test_every_source_is_written_as_every_peer_reads_it(
    tmp_path: Path,
    voxels: np.ndarray,
    kind: str,
    source: str,
    index_encoding: str,
    data_encoding: str,
) -> None:
    spec = sharding(
        SHARDINGS[kind], minishard_index_encoding=index_encoding, data_encoding=data_encoding
    )
    write(SOURCES[source](voxels), tmp_path, sharding=spec)
    assert_read_by_all(tmp_path, voxels)
    assert {path.name for path in tmp_path.iterdir()} == {"info", "8_8_8"}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", SHARDINGS)
@pytest.mark.usefixtures("small_blocks")
def test_raw_shards_equal_those_of_tensorstore_byte_for_byte(
    tmp_path: Path, voxels: np.ndarray, kind: str, source: str
) -> None:
    import tensorstore as ts

    write(SOURCES[source](voxels), tmp_path / "ours", sharding=sharding(SHARDINGS[kind]))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "info").write_bytes((tmp_path / "ours" / "info").read_bytes())
    spec = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{theirs}/"}
    with ts.Transaction() as transaction:
        store = ts.open(spec, open=True).result()
        store.with_transaction(transaction)[...] = voxels.T[..., None]
    assert shards(tmp_path / "ours") == shards(theirs)


def test_each_shard_is_one_task_where_it_fits_and_no_chunk_is_cut(
    tmp_path: Path, voxels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[str] = []
    from precomputed_store.storage import Storage

    original = Storage.put

    def put(self: Storage, key: str, data: Any, **options: Any) -> None:
        stored.append(key)
        original(self, key, data, **options)

    monkeypatch.setattr(Storage, "put", put)
    write(da.from_array(voxels, chunks=5), tmp_path, sharding=sharding(BOXES))
    names = [key for key in stored if key.endswith(".shard")]
    assert len(names) == len(set(names)) == len(shards(tmp_path))


@pytest.mark.parametrize("kind", SHARDINGS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.usefixtures("small_blocks")
def test_a_region_across_shards_changes_nothing_else(
    tmp_path: Path, voxels: np.ndarray, kind: str, source: str
) -> None:
    info = make_info(
        size=SIZE, voxel_offset=OFFSET, chunk_size=(9, 8, 7), sharding=SHARDINGS[kind]
    )
    tensorstore_write(tmp_path, info, voxels.T[..., None])
    part = np.random.default_rng(1).integers(1, 255, (17, 22, 30), dtype=np.uint8)
    start = (4, 3, 6)
    region = Box(
        tuple(a + b for a, b in zip(OFFSET, start, strict=True)),
        tuple(a + b + n for a, b, n in zip(OFFSET, start, part.shape[::-1], strict=True)),
    )
    ps.to_precomputed(
        SOURCES[source](part), tmp_path, dims=DIMS, region=region, unaligned="read-modify-write"
    )
    expected = voxels.copy()
    expected[6:23, 3:25, 4:34] = part
    assert_read_by_all(tmp_path, expected)


@pytest.mark.parametrize("kind", SHARDINGS)
def test_shards_in_part_are_refused_unless_asked_for(
    tmp_path: Path, voxels: np.ndarray, kind: str
) -> None:
    write(voxels, tmp_path, sharding=sharding(SHARDINGS[kind]))
    before = shards(tmp_path)
    volume = ps.open_volume(tmp_path, mode="r+")
    with pytest.raises(ValueError, match=r"covers shards of .* only in part"):
        volume[OFFSET[0] : OFFSET[0] + 9, OFFSET[1] : OFFSET[1] + 8, OFFSET[2] : OFFSET[2] + 7] = 1
    assert shards(tmp_path) == before


@pytest.mark.parametrize("kind", SHARDINGS)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "part"])
@pytest.mark.filterwarnings("ignore::precomputed_store.MissingDataWarning")
def test_zeros_over_something_remove_it(
    tmp_path: Path, voxels: np.ndarray, kind: str, whole: bool
) -> None:
    write(voxels, tmp_path, sharding=sharding(SHARDINGS[kind]))
    volume = ps.open_volume(tmp_path, mode="r+", unaligned="read-modify-write")
    expected = voxels.copy()
    if whole:
        volume[...] = 0
        expected[:] = 0
        assert shards(tmp_path) == {}
    else:
        volume[OFFSET[0] : OFFSET[0] + 30, :, :] = 0
        expected[:, :, :30] = 0
    assert_read_by_all(tmp_path, expected)


def test_empty_chunks_are_stored_if_asked(tmp_path: Path) -> None:
    data = np.zeros(SIZE[::-1], np.uint8)
    write(data, tmp_path, sharding=sharding(BOXES), write_empty_chunks=True)
    strict = ps.open_volume(tmp_path, missing="raise")
    assert not strict[...].any()


def test_a_damaged_shard_is_not_written_into(tmp_path: Path, voxels: np.ndarray) -> None:
    write(voxels, tmp_path, sharding=sharding(ONE))
    path = tmp_path / "8_8_8" / "0.shard"
    path.write_bytes(path.read_bytes()[:-1])
    before = path.read_bytes()
    volume = ps.open_volume(tmp_path, mode="r+", unaligned="read-modify-write")
    with pytest.raises(ps.ChunkError, match=r"0\.shard.*damaged, and is not changed"):
        volume[OFFSET[0] : OFFSET[0] + 3, :, :] = 1
    assert path.read_bytes() == before
    volume[...] = voxels.T
    assert_read_by_all(tmp_path, voxels)


def test_chunks_that_a_shard_has_beyond_the_grid_are_kept(tmp_path: Path) -> None:
    """An `info` that was made smaller does not lose what lies outside by a write inside."""
    data = np.arange(1, 1 + 16**3, dtype=np.uint32).reshape(16, 16, 16)
    ps.to_precomputed(
        data,
        tmp_path,
        dims=DIMS,
        resolution=(8, 8, 8),
        chunk_size=(8, 8, 8),
        layer_type="image",
        encoding="raw",
        sharding=sharding(ONE),
    )
    document = json.loads((tmp_path / "info").read_text())
    document["scales"][0]["size"] = [16, 16, 8]
    (tmp_path / "info").write_text(json.dumps(document))
    volume = ps.open_volume(tmp_path, mode="r+", unaligned="read-modify-write")
    volume[0:8, 0:8, 0:8] = np.uint32(5)
    document["scales"][0]["size"] = [16, 16, 16]
    (tmp_path / "info").write_text(json.dumps(document))
    data[:8, :8, :8] = 5
    assert_read_by_all(tmp_path, data)


@pytest.mark.parametrize("encoding", ["raw", "compressed_segmentation", "compresso", "png"])
def test_auto_writes_every_encoding(tmp_path: Path, voxels: np.ndarray, encoding: str) -> None:
    labels = voxels if encoding == "png" else voxels.astype(np.uint32)
    write(labels, tmp_path, sharding="auto", encoding=encoding)
    np.testing.assert_array_equal(ps.open_volume(tmp_path)[...][..., 0].T, labels)
    if encoding != "compresso":
        np.testing.assert_array_equal(tensorstore_read(tmp_path)[..., 0].T, labels)
    np.testing.assert_array_equal(cloudvolume_read(tmp_path)[..., 0].T, labels)


def test_several_channels_go_into_shards(tmp_path: Path) -> None:
    data = np.random.default_rng(3).integers(1, 255, (3, 20, 30, 40), dtype=np.uint8)
    ps.to_precomputed(
        data,
        tmp_path,
        dims=("channel", *DIMS),
        resolution=(8, 8, 8),
        chunk_size=(16, 16, 16),
        sharding="auto",
    )
    np.testing.assert_array_equal(tensorstore_read(tmp_path).transpose(), data)
    np.testing.assert_array_equal(cloudvolume_read(tmp_path).transpose(), data)


def test_a_reader_sees_what_was_rewritten_behind_its_cached_index(
    tmp_path: Path, voxels: np.ndarray
) -> None:
    write(voxels, tmp_path, sharding=sharding(ONE))
    reader = ps.open_volume(tmp_path)
    assert reader[...].any()
    ps.open_volume(tmp_path, mode="r+")[...] = 255 - voxels.T
    np.testing.assert_array_equal(reader[...][..., 0].T, 255 - voxels)


@pytest.mark.parametrize("compress", ["gzip", "br", "zstd"])
def test_shards_are_not_compressed_as_a_whole(
    tmp_path: Path, voxels: np.ndarray, compress: Any
) -> None:
    with pytest.raises(ValueError, match="shards are never compressed as a whole"):
        write(voxels, tmp_path, sharding="auto", compress=compress)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", ["box", 3, {"hash": "identity"}], ids=str)
def test_a_wrong_sharding_says_what_is_expected(
    tmp_path: Path, voxels: np.ndarray, wrong: Any
) -> None:
    with pytest.raises(ValueError, match=r"sharding is .*expected None, 'auto'"):
        write(voxels, tmp_path, sharding=wrong)
    assert not list(tmp_path.iterdir())


def test_shards_whose_index_fills_the_memory_are_refused_untouched(
    tmp_path: Path, voxels: np.ndarray
) -> None:
    spec = ps.ShardingSpec(hash="identity", preshift_bits=0, minishard_bits=32, shard_bits=0)
    with pytest.raises(ps.UnsupportedError, match="an index of 65536 MiB"):
        write(voxels, tmp_path, sharding=spec)
    assert not list(tmp_path.iterdir())


regions = st.tuples(
    *[st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in SIZE]
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::precomputed_store.MissingDataWarning")
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    writes=st.lists(st.tuples(regions, st.integers(0, 3)), min_size=1, max_size=5),
    kind=st.sampled_from(sorted(SHARDINGS)),
)
def test_any_writes_leave_what_numpy_has(
    tmp_path_factory: pytest.TempPathFactory, writes: list[Any], kind: str
) -> None:
    folder = tmp_path_factory.mktemp("layer")
    expected = np.zeros(SIZE, np.uint8)
    info = make_info(
        size=SIZE, voxel_offset=OFFSET, chunk_size=(9, 8, 7), sharding=SHARDINGS[kind]
    )
    ps.create(folder, info)
    volume = ps.open_volume(folder, mode="r+", unaligned="read-modify-write")
    for region, value in writes:
        box = tuple(slice(min(a, b - 1), max(a + 1, b)) for a, b in region)
        absolute = tuple(
            slice(axis.start + o, axis.stop + o) for axis, o in zip(box, OFFSET, strict=True)
        )
        volume[absolute] = np.uint8(value)
        expected[box] = value
    np.testing.assert_array_equal(volume[...][..., 0], expected)
    np.testing.assert_array_equal(tensorstore_read(folder)[..., 0], expected)
