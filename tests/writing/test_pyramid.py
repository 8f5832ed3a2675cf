"""Coarser scales: with a new layer, added to one, and kept up with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.grid import Box
from precomputed_store.storage import Storage
from precomputed_store.writer import WriteOptions
from precomputed_store.writing import coarse_scales, run, tasks, tiling
from precomputed_store.writing.pyramid import Level
from tests.oracles import cloudvolume_read, make_info, tensorstore_read, tensorstore_write
from tests.writing.reference import coarse, coarse_start

DIMS = ("x", "y", "z")
SIZE = (37, 29, 23)
OFFSET = (-7, 5, 11)
FACTORS = [(2, 2, 1), (3, 1, 2), (2, 2, 2)]
METHODS = ["mean", "mode", "min", "max", "stride"]
SCATTERED = ps.ShardingSpec(
    hash="murmurhash3_x86_128", preshift_bits=1, minishard_bits=1, shard_bits=2
)
BOXES = ps.ShardingSpec(hash="identity", preshift_bits=2, minishard_bits=0, shard_bits=9)
SHARDINGS: dict[str, Any] = {
    "none": None, "auto": "auto", "boxes": BOXES, "scattered": SCATTERED,
}  # fmt: skip


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, SIZE, dtype=np.uint32)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 9 * 8 * 7 * 16
    for module in (coarse_scales, run):
        monkeypatch.setattr(module, "LARGEST_BLOCK_BYTES", limit)
    monkeypatch.setitem(tiling.tile.__kwdefaults__, "largest", limit)


def write(array: Any, folder: Path, **options: Any) -> Any:
    given: dict[str, Any] = {
        "dims": DIMS,
        "resolution": (8, 8, 40),
        "voxel_offset": OFFSET,
        "chunk_size": (9, 8, 7),
        "layer_type": "segmentation",
    }
    return ps.to_precomputed(array, folder, **{**given, **options})


def expected_scales(
    voxels: np.ndarray, factors: list[tuple[int, ...]], method: str
) -> list[tuple[np.ndarray, tuple[int, ...]]]:
    scales = [(voxels, OFFSET)]
    for factor in factors:
        finer, start = scales[-1]
        scales.append((coarse(finer, start, factor, method), coarse_start(start, factor)))
    return scales


def assert_scales(folder: Path, expected: list[tuple[np.ndarray, tuple[int, ...]]]) -> None:
    info = ps.open_layer(folder).info
    assert len(info.scales) == len(expected)
    for index, (voxels, start) in enumerate(expected):
        scale = info.scales[index]
        assert isinstance(scale, ps.Scale)
        assert (scale.size, scale.voxel_offset) == (voxels.shape, start)
        read = ps.open_volume(folder, scale=index)[...][..., 0]
        np.testing.assert_array_equal(read, voxels)
        np.testing.assert_array_equal(tensorstore_read(folder, scale_index=index)[..., 0], voxels)
        np.testing.assert_array_equal(cloudvolume_read(folder, mip=index)[..., 0], voxels)
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"info"}


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("chunks", [None, (10, 13, 16)], ids=["numpy", "dask"])
@pytest.mark.usefixtures("small_blocks")
def test_every_scale_is_what_plain_numpy_makes(
    tmp_path: Path, labels: np.ndarray, sharding: str, chunks: Any
) -> None:
    array = labels if chunks is None else da.from_array(labels, chunks=chunks)
    volume = write(array, tmp_path, sharding=SHARDINGS[sharding], pyramid=FACTORS)
    assert [scale.key for scale in volume.scales] == [
        "8_8_40", "16_16_40", "48_16_80", "96_32_160",
    ]  # fmt: skip
    assert_scales(tmp_path, expected_scales(labels, FACTORS, "mode"))


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("offset", [(0, 0, 0), OFFSET], ids=["on the grid", "across it"])
def test_scales_made_piece_by_piece_are_the_same(
    tmp_path: Path,
    labels: np.ndarray,
    sharding: str,
    offset: tuple[int, int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def scales(folder: Path) -> list[np.ndarray]:
        place = {"voxel_offset": offset, "chunk_size": (8, 8, 4)}
        write(labels, folder, sharding=SHARDINGS[sharding], pyramid=FACTORS, **place)
        return [ps.open_volume(folder, scale=i)[...] for i in range(len(FACTORS) + 1)]

    at_once = scales(tmp_path / "at once")
    made: list[Box] = []
    voxels = tasks.CoarseSink.voxels
    monkeypatch.setattr(tasks, "PIECE_BYTES", 4 * 8 * 8 * 4 * 4)
    monkeypatch.setattr(
        tasks.CoarseSink, "voxels", lambda sink, box: made.append(box) or voxels(sink, box)
    )
    for piece, whole in zip(scales(tmp_path / "pieces"), at_once, strict=True):
        np.testing.assert_array_equal(piece, whole)
    if offset == (0, 0, 0):
        assert len(made) > 10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_every_method_and_kind_of_number(tmp_path: Path, method: Any, dtype: str) -> None:
    rng = np.random.default_rng(5)
    voxels = (rng.integers(-3, 120, SIZE) % 120).astype(dtype)
    write(voxels, tmp_path, layer_type="image", pyramid=FACTORS[:2], method=method)
    for index, (expected, _) in enumerate(expected_scales(voxels, FACTORS[:2], method)):
        read = ps.open_volume(tmp_path, scale=index)[...][..., 0]
        np.testing.assert_array_equal(read, expected)


def test_auto_takes_the_mean_of_images_and_the_mode_of_labels(tmp_path: Path) -> None:
    voxels = np.array([9, 9, 9, 9, 9, 0, 0, 0], np.uint8).reshape(2, 2, 2)
    for layer_type, value in [("image", 6), ("segmentation", 9)]:
        folder = tmp_path / layer_type
        write(
            voxels, folder, voxel_offset=(0, 0, 0), layer_type=layer_type, encoding="raw",
            pyramid=[(2, 2, 2)],
        )  # fmt: skip
        assert ps.open_volume(folder, scale=1)[...].item() == value


def test_empty_space_stays_empty_at_every_scale(tmp_path: Path) -> None:
    voxels = np.zeros(SIZE, np.uint8)
    voxels[:9, :8, :7] = 1
    write(voxels, tmp_path, encoding="raw", pyramid=[(2, 2, 2)], method="max")
    assert len(list((tmp_path / "8_8_40").iterdir())) == 1
    assert 0 < len(list((tmp_path / "16_16_80").iterdir())) <= 8
    assert_scales(tmp_path, expected_scales(voxels, [(2, 2, 2)], "max"))


def test_each_chunk_of_the_source_is_computed_once(tmp_path: Path, labels: np.ndarray) -> None:
    computed: list[Any] = []

    def note(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        computed.append(block_info[0]["chunk-location"])
        return block

    source = da.from_array(labels, chunks=(10, 13, 16))
    counted = source.map_blocks(note, dtype=labels.dtype, meta=np.empty((0, 0, 0), labels.dtype))
    computed.clear()
    write(counted, tmp_path, pyramid="auto", sharding="auto")
    assert sorted(computed) == sorted(set(computed))
    assert len(computed) == counted.npartitions


def test_info_names_no_scale_that_is_not_written(
    tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[int] = []
    original = Storage.put

    def put(self: Storage, key: str, data: Any, **options: Any) -> None:
        if key.startswith("96_32_160"):
            names.append(len(json.loads((tmp_path / "info").read_text())["scales"]))
        original(self, key, data, **options)

    monkeypatch.setattr(Storage, "put", put)
    write(labels, tmp_path, pyramid=FACTORS)
    assert set(names) == {1}


def test_a_delayed_pyramid_is_made_when_it_is_computed(tmp_path: Path, labels: np.ndarray) -> None:
    delayed = write(labels, tmp_path, pyramid=FACTORS, sharding="auto", compute=False)
    assert len(ps.open_layer(tmp_path).info.scales) == 1
    volume = delayed.compute()
    assert len(volume.scales) == 4
    assert_scales(tmp_path, expected_scales(labels, FACTORS, "mode"))


def test_lossy_scales_are_made_from_what_is_stored(tmp_path: Path) -> None:
    voxels = np.random.default_rng(1).integers(0, 255, (32, 32, 32), dtype=np.uint8)
    options = {"voxel_offset": (0, 0, 0), "layer_type": "image", "encoding": "jpeg"}
    write(voxels, tmp_path / "a", pyramid=[(2, 2, 2)], **options)
    write(voxels, tmp_path / "b", **options)
    ps.downsample(tmp_path / "b", [(2, 2, 2)])
    for path in (tmp_path / "a" / "16_16_80").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "16_16_80" / path.name).read_bytes()


@pytest.mark.parametrize("sharding", ["same", None, "auto", SCATTERED], ids=str)
def test_downsample_adds_scales_to_a_layer_of_tensorstore(
    tmp_path: Path, labels: np.ndarray, sharding: Any
) -> None:
    info = make_info(
        size=SIZE, dtype="uint32", voxel_offset=OFFSET, chunk_size=(9, 8, 7),
        resolution=(8, 8, 40), layer_type="segmentation", note="kept",
    )  # fmt: skip
    tensorstore_write(tmp_path, {**info, "more": [1]}, labels[..., None])
    volume = ps.downsample(tmp_path, FACTORS, sharding=sharding)
    assert volume.scale.key == "8_8_40"
    assert_scales(tmp_path, expected_scales(labels, FACTORS, "mode"))
    document = json.loads((tmp_path / "info").read_text())
    assert document["more"] == [1]
    assert document["scales"][0]["note"] == "kept"
    assert "note" not in document["scales"][1]


def test_downsample_goes_on_from_the_coarsest(tmp_path: Path, labels: np.ndarray) -> None:
    write(labels, tmp_path, pyramid=FACTORS[:1])
    ps.downsample(tmp_path, FACTORS[1:])
    assert_scales(tmp_path, expected_scales(labels, FACTORS, "mode"))


def test_downsample_in_another_encoding(tmp_path: Path, labels: np.ndarray) -> None:
    write(labels, tmp_path)
    ps.downsample(tmp_path, FACTORS[:1], encoding="raw", chunk_size=(16, 16, 16))
    scale = ps.open_layer(tmp_path).scale(1)
    assert (scale.encoding, scale.chunk_size) == ("raw", (16, 16, 16))
    assert_scales(tmp_path, expected_scales(labels, FACTORS[:1], "mode"))


def test_scales_that_are_there_are_not_replaced_unasked(
    tmp_path: Path, labels: np.ndarray
) -> None:
    write(labels, tmp_path, pyramid=FACTORS[:1])
    with pytest.raises(ValueError, match=r"has scale.* '16_16_40' already"):
        ps.downsample(tmp_path, FACTORS[:1], scale=0)
    ps.downsample(tmp_path, FACTORS[:1], scale=0, method="max", overwrite=True)
    assert_scales(tmp_path, expected_scales(labels, FACTORS[:1], "max"))


def test_what_is_left_of_a_scale_is_not_taken_for_a_new_one(
    tmp_path: Path, labels: np.ndarray
) -> None:
    write(labels, tmp_path, pyramid=FACTORS[:1])
    ps.reset_scales(tmp_path)
    with pytest.raises(FileExistsError, match="there are chunks of it"):
        ps.downsample(tmp_path, FACTORS[:1])
    ps.downsample(tmp_path, FACTORS[:1], overwrite=True)
    assert_scales(tmp_path, expected_scales(labels, FACTORS[:1], "mode"))


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_coarser_scales_follow_a_change(tmp_path: Path, labels: np.ndarray, sharding: str) -> None:
    write(labels, tmp_path, pyramid=FACTORS, sharding=SHARDINGS[sharding])
    changed = labels.copy()
    changed[5:20, 3:12, 6:17] = 9
    region = Box((OFFSET[0] + 5, OFFSET[1] + 3, OFFSET[2] + 6), (OFFSET[0] + 20, 17, 28))
    ps.to_precomputed(
        changed[5:20, 3:12, 6:17], tmp_path, dims=DIMS, region=region, scale=0,
        unaligned="read-modify-write",
    )  # fmt: skip
    ps.update_scales(tmp_path, region)
    assert_scales(tmp_path, expected_scales(changed, FACTORS, "mode"))


def test_scales_that_do_not_lie_on_each_other_are_not_updated(
    tmp_path: Path, labels: np.ndarray
) -> None:
    write(labels, tmp_path, pyramid=[(2, 2, 2)])
    document = json.loads((tmp_path / "info").read_text())
    document["scales"][1]["voxel_offset"] = [0, 0, 0]
    (tmp_path / "info").write_text(json.dumps(document))
    with pytest.raises(ps.UnsupportedError, match="does not lie on"):
        ps.update_scales(tmp_path)


def test_an_existing_layer_gets_its_pyramid_from_downsample(
    tmp_path: Path, labels: np.ndarray
) -> None:
    write(labels, tmp_path)
    with pytest.raises(ValueError, match="downsample"):
        write(labels, tmp_path, mode="r+", pyramid="auto")


def test_a_job_that_cannot_be_done_is_not_begun(tmp_path: Path, labels: np.ndarray) -> None:
    write(labels, tmp_path, sharding=BOXES)
    with pytest.raises(ValueError, match="shards are never compressed as a whole"):
        ps.downsample(tmp_path, 1, compress="gzip")
    assert {path.name for path in tmp_path.iterdir()} == {"info", "8_8_40"}


def test_a_region_outside_of_the_scale_that_was_changed_is_named_as_it_was_given(
    tmp_path: Path, labels: np.ndarray
) -> None:
    write(labels, tmp_path, pyramid=FACTORS)
    with pytest.raises(IndexError, match=r"region \[0:1000, 5:34, 11:34\]"):
        ps.update_scales(tmp_path, {"x": slice(0, 1000)})


def test_tasks_of_different_regions_have_different_names(
    tmp_path: Path, labels: np.ndarray
) -> None:
    volume = write(labels, tmp_path, pyramid=[(2, 2, 2)])
    level = Level(scale=volume.scales[1], factor=(2, 2, 2))
    names = {
        coarse_scales.PyramidWrite(
            volume=volume, levels=[level], method="mode", options=WriteOptions(), region=region
        )
        .stages(None)[0]
        .name
        for region in (Box((0, 6, 12), (4, 8, 14)), Box((4, 6, 12), (8, 8, 14)))
    }
    assert len(names) == 2


def test_nothing_is_updated_where_a_later_scale_refuses(
    tmp_path: Path, labels: np.ndarray
) -> None:
    write(labels, tmp_path, pyramid=FACTORS)
    write(9 - labels, tmp_path, mode="r+", scale=0)
    before = ps.open_volume(tmp_path, scale=1)[...]
    with pytest.raises(ValueError, match="covers chunks"):
        ps.update_scales(tmp_path, {"x": slice(-7, 10)}, unaligned="raise")
    np.testing.assert_array_equal(ps.open_volume(tmp_path, scale=1)[...], before)


@pytest.mark.parametrize("wrong", ["mood", "average", 3])
def test_a_wrong_method_names_those_that_there_are(
    tmp_path: Path, labels: np.ndarray, wrong: Any
) -> None:
    with pytest.raises(ValueError, match="expected 'auto' or one of"):
        write(labels, tmp_path, pyramid="auto", method=wrong)
    assert not list(tmp_path.iterdir())


def test_scales_are_added_and_removed_in_their_place(tmp_path: Path, labels: np.ndarray) -> None:
    write(labels, tmp_path, pyramid=FACTORS)
    middle = ps.open_layer(tmp_path).scale(1)
    layer = ps.remove_scale(tmp_path, 1)
    assert [scale.key for scale in layer.info.scales] == ["8_8_40", "48_16_80", "96_32_160"]
    layer = ps.add_scale(tmp_path, middle)
    assert layer.info.scales[1] == middle
    assert_scales(tmp_path, expected_scales(labels, FACTORS, "mode"))
    assert len(ps.reset_scales(tmp_path).info.scales) == 1


def test_a_scale_that_is_not_written_is_not_named(tmp_path: Path, labels: np.ndarray) -> None:
    write(labels, tmp_path)
    entry = {**ps.open_layer(tmp_path).scale(0).to_json(), "key": "new", "resolution": [9, 9, 90]}
    with pytest.raises(ValueError, match="nothing is stored in 'new'"):
        ps.add_scale(tmp_path, entry)
    layer = ps.add_scale(tmp_path, entry, allow_unwritten=True)
    assert [scale.key for scale in layer.info.scales] == ["8_8_40", "new"]
    with pytest.raises(ValueError, match="another scale with the key 'new'"):
        ps.add_scale(tmp_path, {**entry, "hidden": True}, allow_unwritten=True)
    ps.remove_scale(tmp_path, "8_8_40")
    with pytest.raises(ValueError, match="'new' is the only scale"):
        ps.remove_scale(tmp_path, 0)
