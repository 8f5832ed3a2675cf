"""Copies between any two kinds of layers, read by CloudVolume and TensorStore."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import precomputed_store as ps
from precomputed_store.copying import CopyPlan
from precomputed_store.engine import ChunkedArray
from precomputed_store.storage import Storage
from tests.oracles import (
    cloudvolume_read,
    cloudvolume_write,
    make_info,
    tensorstore_read,
    tensorstore_write,
)

SIZE = (45, 37, 29)
OFFSET = (-7, 5, 11)
CHUNK_SIZE = (9, 8, 7)
SHARDINGS: dict[str, Any] = {
    "none": None,
    "boxes": ps.ShardingSpec(
        hash="identity", preshift_bits=2, minishard_bits=1, shard_bits=10,
        data_encoding="gzip", minishard_index_encoding="gzip",
    ),
    "scattered": ps.ShardingSpec(
        hash="murmurhash3_x86_128", preshift_bits=1, minishard_bits=2, shard_bits=2
    ),
}  # fmt: skip
EMPTY_CELLS = set(itertools.product((0, 1), repeat=3))
"""Chunks of `voxels` that hold nothing."""


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    data = np.random.default_rng(0).integers(1, 255, SIZE, dtype=np.uint8)
    data[:18, :16, :14] = 0
    return data


def write(voxels: np.ndarray, folder: Path, **options: Any) -> Any:
    given: dict[str, Any] = {
        "dims": "xyz",
        "resolution": (8, 8, 8),
        "voxel_offset": OFFSET,
        "chunk_size": CHUNK_SIZE,
        "layer_type": "image",
        "encoding": "raw",
    }
    return ps.to_precomputed(voxels, folder, **{**given, **options})


def read_by_all(folder: Path, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(ps.open_volume(folder)[...][..., 0], expected)
    np.testing.assert_array_equal(tensorstore_read(folder)[..., 0], expected)
    np.testing.assert_array_equal(cloudvolume_read(folder)[..., 0], expected)


def chunks(folder: Path) -> dict[str, bytes]:
    """Everything but `info`, which may be written in other words."""
    return {name: data for name, data in files(folder).items() if name != "info"}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("target", SHARDINGS)
@pytest.mark.parametrize("source", SHARDINGS)
def test_chunks_go_from_any_sharding_to_any_other_without_being_decoded(
    tmp_path: Path,
    voxels: np.ndarray,
    source: str,
    target: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(voxels.astype(np.uint32), tmp_path / "a", sharding=SHARDINGS[source],
          encoding="compressed_segmentation", pyramid=[(2, 2, 2)])  # fmt: skip
    from precomputed_store.codecs.compressed_segmentation import CompressedSegmentation

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded or encoded")

    with monkeypatch.context() as patch:
        patch.setattr(CompressedSegmentation, "decode", refuse)
        layer = ps.copy(tmp_path / "a", tmp_path / "b", sharding=SHARDINGS[target])
    assert isinstance(layer, ps.Layer)
    assert [scale.sharding for _, scale in layer.info.usable_scales] == [SHARDINGS[target]] * 2
    read_by_all(tmp_path / "b", voxels)
    coarse = tensorstore_read(tmp_path / "a", scale_index=1)
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "b", scale_index=1), coarse)
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"info", "8_8_8", "16_16_16"}


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_plain_copy_has_the_same_files(
    tmp_path: Path, voxels: np.ndarray, sharding: str
) -> None:
    write(voxels, tmp_path / "a", sharding=SHARDINGS[sharding], pyramid=[(2, 2, 1)])
    ps.copy(tmp_path / "a", tmp_path / "b")
    assert files(tmp_path / "b") == files(tmp_path / "a")


@pytest.mark.parametrize(
    "options",
    [
        {"encoding": "png"},
        {"encoding": "compresso", "sharding": "auto"},
        {"chunk_size": (16, 16, 16)},
        {"chunk_size": (16, 16, 16), "sharding": SHARDINGS["scattered"]},
        {"encoding_options": {"png_level": 1}, "encoding": "png", "sharding": "auto"},
    ],
    ids=str,
)
@pytest.mark.parametrize("source", SHARDINGS)
def test_voxels_stay_the_same_in_another_encoding_or_grid(
    tmp_path: Path, voxels: np.ndarray, source: str, options: dict[str, Any]
) -> None:
    write(voxels, tmp_path / "a", sharding=SHARDINGS[source])
    ps.copy(tmp_path / "a", tmp_path / "b", **options)
    np.testing.assert_array_equal(ps.open_volume(tmp_path / "b")[...][..., 0], voxels)
    np.testing.assert_array_equal(cloudvolume_read(tmp_path / "b")[..., 0], voxels)
    if options.get("encoding") != "compresso":
        np.testing.assert_array_equal(tensorstore_read(tmp_path / "b")[..., 0], voxels)


def test_gzipped_shards_become_chunks_that_cloudvolume_reads(
    tmp_path: Path, voxels: np.ndarray
) -> None:
    write(voxels, tmp_path / "a", sharding=SHARDINGS["boxes"])
    ps.copy(tmp_path / "a", tmp_path / "plain", sharding=None)
    ps.copy(tmp_path / "a", tmp_path / "gzip", sharding=None, compress="gzip")
    read_by_all(tmp_path / "plain", voxels)
    np.testing.assert_array_equal(cloudvolume_read(tmp_path / "gzip")[..., 0], voxels)
    assert all(path.suffix == ".gz" for path in (tmp_path / "gzip" / "8_8_8").iterdir())


def test_layers_of_cloudvolume_and_tensorstore_are_copied(
    tmp_path: Path, voxels: np.ndarray
) -> None:
    info = make_info(size=SIZE, voxel_offset=OFFSET, chunk_size=CHUNK_SIZE, note="kept")
    cloudvolume_write(tmp_path / "theirs", {**info, "more": 1}, voxels[..., None])
    assert any(path.suffix == ".gz" for path in (tmp_path / "theirs" / "8_8_8").iterdir())
    layer = ps.copy(tmp_path / "theirs", tmp_path / "a", compress=False)
    assert isinstance(layer, ps.Layer)
    read_by_all(tmp_path / "a", voxels)
    document = json.loads((tmp_path / "a" / "info").read_text())
    assert (document["more"], document["scales"][0]["note"]) == (1, "kept")
    tensorstore_write(tmp_path / "theirs2", info, voxels[..., None])
    ps.copy(tmp_path / "theirs2", tmp_path / "b", sharding="auto")
    read_by_all(tmp_path / "b", voxels)


def test_jpeg_becomes_jxl_and_the_same_jpeg_again(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    smooth = np.add.outer(np.add.outer(np.arange(32), np.arange(32)), np.arange(16))
    write(smooth.astype(np.uint8), tmp_path / "jpeg", encoding="jpeg")
    plan = ps.copy(tmp_path / "jpeg", tmp_path / "jxl", encoding="jxl", dry_run=True)
    assert isinstance(plan, CopyPlan)
    assert plan.scales[0].way == "images"
    ps.copy(tmp_path / "jpeg", tmp_path / "jxl", encoding="jxl")
    ps.copy(tmp_path / "jxl", tmp_path / "again", encoding="jpeg")
    chunks = {name: data for name, data in files(tmp_path / "jpeg").items() if "/" in name}
    assert {n: d for n, d in files(tmp_path / "again").items() if "/" in n} == chunks
    assert sum(map(len, files(tmp_path / "jxl").values())) > 0
    np.testing.assert_array_equal(
        cloudvolume_read(tmp_path / "jxl").shape, cloudvolume_read(tmp_path / "jpeg").shape
    )


def test_a_region_keeps_its_coordinates_at_every_scale(tmp_path: Path, voxels: np.ndarray) -> None:
    write(voxels, tmp_path / "a", pyramid=[(2, 2, 2)])
    region = {"x": slice(2, 20), "y": slice(13, 29)}
    layer = ps.copy(tmp_path / "a", tmp_path / "b", region=region)
    assert isinstance(layer, ps.Layer)
    fine, coarse = layer.scale(0), layer.scale(1)
    assert (fine.voxel_offset, fine.size) == ((2, 13, 11), (18, 16, 29))
    assert (coarse.voxel_offset, coarse.size) == ((1, 6, 5), (9, 9, 15))
    read_by_all(tmp_path / "b", voxels[9:27, 8:24, :])
    whole = ps.open_volume(tmp_path / "a", scale=1)
    part = ps.open_volume(tmp_path / "b", scale=1)
    np.testing.assert_array_equal(part[...], whole[1:10, 6:15, 5:20])


def test_some_scales_are_copied(tmp_path: Path, voxels: np.ndarray) -> None:
    write(voxels, tmp_path / "a", pyramid=[(2, 2, 2), (2, 2, 2)])
    layer = ps.copy(tmp_path / "a", tmp_path / "b", scales=[2, "16_16_16"])
    assert isinstance(layer, ps.Layer)
    assert [scale.key for scale in layer.info.scales] == ["16_16_16", "32_32_32"]


def test_links_are_left_out_unless_they_are_copied(tmp_path: Path, voxels: np.ndarray) -> None:
    write(voxels, tmp_path / "a", layer_type="segmentation")
    document = json.loads((tmp_path / "a" / "info").read_text())
    (tmp_path / "a" / "info").write_text(json.dumps({**document, "mesh": "mesh"}))
    (tmp_path / "a" / "mesh" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "mesh" / "1:0").write_text('{"fragments": ["deep/x"]}')
    (tmp_path / "a" / "mesh" / "deep" / "x").write_bytes(b"fragment")
    ps.copy(tmp_path / "a", tmp_path / "without")
    assert "mesh" not in json.loads((tmp_path / "without" / "info").read_text())
    ps.copy(tmp_path / "a", tmp_path / "with", linked=True)
    assert json.loads((tmp_path / "with" / "info").read_text())["mesh"] == "mesh"
    assert (tmp_path / "with" / "mesh" / "deep" / "x").read_bytes() == b"fragment"


def linked_layer(voxels: np.ndarray, folder: Path, meshes: dict[str, bytes]) -> None:
    write(voxels, folder, layer_type="segmentation")
    document = json.loads((folder / "info").read_text())
    (folder / "info").write_text(json.dumps({**document, "mesh": "mesh"}))
    for name, data in meshes.items():
        (folder / "mesh" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "mesh" / name).write_bytes(data)


def test_linked_objects_that_are_there_are_not_copied_again(
    tmp_path: Path, voxels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    meshes = {f"deep/{i}": bytes([i]) * 10 for i in range(40)} | {"large": bytes(3 << 20)}
    linked_layer(voxels, tmp_path / "a", meshes)
    (tmp_path / "a" / "provenance").write_text("{}")
    stored: list[str] = []
    names, allowed = ("put", "put_file"), [30]
    originals = {name: getattr(Storage, name) for name in names}

    def replacement(name: str) -> Any:
        def store(self: Storage, key: str, *args: Any, **options: Any) -> None:
            if key.startswith("mesh/"):
                if not allowed[0]:
                    raise ps.StorageError("interrupted")
                allowed[0] -= 1
            originals[name](self, key, *args, **options)
            stored.append(key)

        return store

    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(Storage, name, replacement(name))
        with pytest.raises(ps.StorageError, match="interrupted"):
            ps.copy(tmp_path / "a", tmp_path / "b", linked=True)
        first = set(stored)
        stored.clear()
        allowed[0] = 1000
        ps.copy(tmp_path / "a", tmp_path / "b", linked=True, resume=True)
    assert sum(key.startswith("mesh/") for key in first) == 30
    assert not first & set(stored)
    assert chunks(tmp_path / "b") == chunks(tmp_path / "a")


def test_linked_folders_are_not_mixed_with_what_is_there(
    tmp_path: Path, voxels: np.ndarray
) -> None:
    linked_layer(voxels, tmp_path / "a", {"1:0": b"{}"})
    linked_layer(voxels, tmp_path / "old", {"2:0": b"{}"})
    (tmp_path / "b" / "mesh").mkdir(parents=True)
    (tmp_path / "b" / "mesh" / "mine").write_bytes(b"")
    for mode in ("w-", "w"):
        with pytest.raises(FileExistsError, match=r"mesh/mine.*already"):
            ps.copy(tmp_path / "a", tmp_path / "b", linked=True, mode=mode)  # type: ignore[arg-type]
    assert files(tmp_path / "b") == {"mesh/mine": b""}
    ps.copy(tmp_path / "a", tmp_path / "old", linked=True, mode="w")
    assert chunks(tmp_path / "old") == chunks(tmp_path / "a")


@pytest.mark.parametrize("way", ["chunks", "shards", "recoded", "voxels"])
def test_a_damaged_chunk_is_never_copied_without_a_word(
    tmp_path: Path, voxels: np.ndarray, way: str
) -> None:
    sharding = SHARDINGS["boxes"] if way == "shards" else None
    write(voxels, tmp_path / "a", sharding=sharding)
    damaged = sorted((tmp_path / "a" / "8_8_8").iterdir())[-1]
    damaged.write_bytes(damaged.read_bytes()[:-5])
    changes: dict[str, Any] = {
        "recoded": {"encoding": "png"}, "voxels": {"chunk_size": (16, 8, 8)},
    }  # fmt: skip
    options = changes.get(way, {})
    plan = ps.copy(tmp_path / "a", tmp_path / "b", dry_run=True, **options)
    assert isinstance(plan, CopyPlan)
    assert plan.scales[0].way == way
    with pytest.raises(ps.ChunkError, match=damaged.name):
        ps.copy(tmp_path / "a", tmp_path / "b", **options)


@pytest.mark.parametrize("target", SHARDINGS)
@pytest.mark.parametrize("source", SHARDINGS)
def test_another_encoding_reads_each_chunk_once_and_holds_no_blocks_of_voxels(
    tmp_path: Path,
    voxels: np.ndarray,
    source: str,
    target: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(voxels, tmp_path / "a", sharding=SHARDINGS[source])
    decoded: list[Any] = []
    original = ChunkedArray.decode

    def decode(self: ChunkedArray, cell: Any, blob: Any) -> Any:
        decoded.append(cell)
        return original(self, cell, blob)

    with monkeypatch.context() as patch:
        patch.setattr(ChunkedArray, "decode", decode)
        patch.setattr(ChunkedArray, "read", None)
        ps.copy(tmp_path / "a", tmp_path / "b", encoding="png", sharding=SHARDINGS[target])
    stored = set(ps.open_layer(tmp_path / "a").array(0).grid.cells()) - EMPTY_CELLS
    assert sorted(decoded) == sorted(stored)
    read_by_all(tmp_path / "b", voxels)


def test_verify_decodes_what_would_be_copied_as_it_is(tmp_path: Path, voxels: np.ndarray) -> None:
    write(voxels.astype(np.uint64), tmp_path / "a", encoding="compressed_segmentation")
    damaged = sorted((tmp_path / "a" / "8_8_8").iterdir())[-1]
    damaged.write_bytes(damaged.read_bytes()[:-5])
    ps.copy(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ps.ChunkError, match=damaged.name):
        ps.copy(tmp_path / "a", tmp_path / "c", verify=True)


def test_the_source_is_not_written_into(tmp_path: Path, voxels: np.ndarray) -> None:
    write(voxels, tmp_path / "a")
    before = files(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for destination in ("a", "a/8_8_8", "a/inner", ".", "link"):
        with pytest.raises(ValueError, match="what is to be copied"):
            ps.copy(tmp_path / "a", tmp_path / destination, mode="w")
    (tmp_path / "link").unlink()
    assert files(tmp_path) == before


def test_an_interrupted_copy_is_resumed(
    tmp_path: Path, voxels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(voxels, tmp_path / "a", pyramid=[(2, 2, 2)])
    original, left = Storage.put, [40]

    def put(self: Storage, key: str, data: Any, **options: Any) -> None:
        if "/" in key:
            if not left[0]:
                raise ps.StorageError("interrupted")
            left[0] -= 1
        original(self, key, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "put", put)
        with pytest.raises(ps.StorageError, match="interrupted"):
            ps.copy(tmp_path / "a", tmp_path / "b")
    with pytest.raises(FileExistsError, match="resume=True"):
        ps.copy(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ValueError, match="of another job"):
        ps.copy(tmp_path / "a", tmp_path / "b", encoding="png", resume=True)
    ps.copy(tmp_path / "a", tmp_path / "b", resume=True)
    assert files(tmp_path / "b") == files(tmp_path / "a")


def test_a_delayed_copy_is_made_when_it_is_computed(tmp_path: Path, voxels: np.ndarray) -> None:
    write(voxels, tmp_path / "a")
    delayed: Any = ps.copy(tmp_path / "a", tmp_path / "b", sharding="auto", compute=False)
    assert not (tmp_path / "b" / "8_8_8").exists()
    delayed.compute()
    read_by_all(tmp_path / "b", voxels)


spans = st.tuples(*[st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in SIZE])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    region=spans,
    source=st.sampled_from(sorted(SHARDINGS)),
    target=st.sampled_from([*sorted(SHARDINGS), "auto"]),
    chunk_size=st.sampled_from([None, (9, 8, 7), (12, 5, 9)]),
)
@pytest.mark.filterwarnings("ignore::precomputed_store.MissingDataWarning")
def test_any_region_of_any_layer_in_any_form(
    tmp_path_factory: pytest.TempPathFactory,
    voxels: np.ndarray,
    region: Any,
    source: str,
    target: str,
    chunk_size: Any,
) -> None:
    folder = tmp_path_factory.mktemp("copy")
    write(voxels, folder / "a", sharding=SHARDINGS[source])
    box = [(min(a, b - 1), max(a + 1, b)) for a, b in region]
    wanted = {
        name: slice(a + o, b + o) for name, (a, b), o in zip("xyz", box, OFFSET, strict=True)
    }
    ps.copy(
        folder / "a", folder / "b", region=wanted, chunk_size=chunk_size,
        sharding=SHARDINGS.get(target, "auto"),
    )  # fmt: skip
    expected = voxels[tuple(slice(a, b) for a, b in box)]
    np.testing.assert_array_equal(tensorstore_read(folder / "b")[..., 0], expected)
    np.testing.assert_array_equal(ps.open_volume(folder / "b")[...][..., 0], expected)
