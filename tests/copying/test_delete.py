"""What is removed, and what stays."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import precomputed_store as ps
from tests.oracles import tensorstore_read

SIZE = (45, 37, 29)
OFFSET = (-7, 5, 11)
SHARDINGS: dict[str, Any] = {
    "none": None,
    "boxes": ps.ShardingSpec(hash="identity", preshift_bits=2, minishard_bits=1, shard_bits=10),
    "scattered": ps.ShardingSpec(
        hash="murmurhash3_x86_128", preshift_bits=1, minishard_bits=2, shard_bits=2
    ),
}


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, SIZE, dtype=np.uint8)


def write(voxels: np.ndarray, folder: Path, **options: Any) -> Any:
    given: dict[str, Any] = {
        "dims": "xyz",
        "resolution": (8, 8, 8),
        "voxel_offset": OFFSET,
        "chunk_size": (9, 8, 7),
        "layer_type": "segmentation",
        "encoding": "raw",
    }
    return ps.to_precomputed(voxels, folder, **{**given, **options})


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_region_of_whole_chunks_becomes_empty_and_nothing_else(
    tmp_path: Path, voxels: np.ndarray, sharding: str
) -> None:
    write(voxels, tmp_path, sharding=SHARDINGS[sharding])
    region = {"x": slice(2, 29), "y": slice(13, 42)}
    said = str(ps.delete(tmp_path, scale=0, region=region, dry_run=True))
    np.testing.assert_array_equal(tensorstore_read(tmp_path)[..., 0], voxels)
    assert str(ps.delete(tmp_path, scale=0, region=region)) == said
    expected = voxels.copy()
    expected[9:36, 8:] = 0
    np.testing.assert_array_equal(ps.open_volume(tmp_path)[...][..., 0], expected)
    np.testing.assert_array_equal(tensorstore_read(tmp_path)[..., 0], expected)


@pytest.mark.parametrize("place", ["disk", "memory"])
@pytest.mark.parametrize("sharding", ["none", "boxes"])
def test_what_goes_is_said_in_few_words_with_its_size(
    tmp_path: Path, voxels: np.ndarray, sharding: str, place: str
) -> None:
    write(voxels, tmp_path, sharding=SHARDINGS[sharding], pyramid=[(2, 2, 2)])
    url = str(tmp_path)
    if place == "memory":
        url = f"memory://{uuid.uuid4().hex}"
        ps.copy(tmp_path, url)
    before = {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
    whole = ps.delete(url, dry_run=True)
    assert (whole.num_objects, whole.num_bytes) == (len(before), sum(before.values()))
    assert f"{len(before)} objects ({whole.num_bytes / 1024:.4g} KiB)" in str(whole)
    assert repr(whole) == f"<Removal: {whole}>"
    scale = ps.delete(url, scale=1, dry_run=True)
    folder = tmp_path / "16_16_16"
    assert scale.num_bytes == sum(n for path, n in before.items() if path.parent == folder)
    part = ps.delete(url, scale=0, region={"x": slice(2, 20)}, dry_run=True)
    if sharding == "none":
        gone = [path for path in before if path.name.startswith(("2-11", "11-20"))]
        assert part.num_bytes == sum(before[path] for path in gone) > 0
    else:
        assert f"and chunks of {len(part.edits)} shard" in str(part)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_all_of_a_scale_is_a_region_too(tmp_path: Path, voxels: np.ndarray, sharding: str) -> None:
    write(voxels, tmp_path, sharding=SHARDINGS[sharding])
    ps.delete(tmp_path, scale=0, region={})
    assert names(tmp_path) == {"info"}


def test_a_region_that_cuts_chunks_is_refused(tmp_path: Path, voxels: np.ndarray) -> None:
    write(voxels, tmp_path)
    before = names(tmp_path)
    with pytest.raises(ValueError, match="is no union of whole chunks"):
        ps.delete(tmp_path, scale=0, region={"x": slice(0, 9)})
    with pytest.raises(IndexError, match="reaches outside"):
        ps.delete(tmp_path, scale=0, region={"x": slice(-70, 2)})
    with pytest.raises(ValueError, match="say which, scale="):
        ps.delete(tmp_path, region={})
    assert names(tmp_path) == before


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_scale_goes_with_its_entry(tmp_path: Path, voxels: np.ndarray, sharding: str) -> None:
    write(voxels, tmp_path, sharding=SHARDINGS[sharding], pyramid=[(2, 2, 2), (2, 2, 2)])
    (tmp_path / "16_16_16" / "notes.txt").write_text("mine")
    ps.delete(tmp_path, scale="16_16_16")
    kept = [scale.key for scale in ps.open_layer(tmp_path).info.scales]
    assert kept == ["8_8_8", "32_32_32"]
    left = {name for name in names(tmp_path) if name.startswith("16_16_16")}
    assert left == {"16_16_16/notes.txt"}
    np.testing.assert_array_equal(tensorstore_read(tmp_path)[..., 0], voxels)


def test_the_only_scale_does_not_go_alone(tmp_path: Path, voxels: np.ndarray) -> None:
    write(voxels, tmp_path)
    with pytest.raises(ValueError, match="is the only scale"):
        ps.delete(tmp_path, scale=0)


@pytest.mark.parametrize("linked", [False, True])
def test_a_layer_goes_and_what_is_not_of_it_stays(
    tmp_path: Path, voxels: np.ndarray, linked: bool
) -> None:
    write(voxels, tmp_path, sharding="auto", pyramid=[(2, 2, 2)])
    document = json.loads((tmp_path / "info").read_text())
    (tmp_path / "info").write_text(json.dumps({**document, "mesh": "mesh"}))
    (tmp_path / "mesh").mkdir()
    (tmp_path / "mesh" / "1:0").write_text("{}")
    (tmp_path / "paper.pdf").write_bytes(b"mine")
    ps.delete(tmp_path, linked=linked)
    assert names(tmp_path) == {"paper.pdf"} | (set() if linked else {"mesh/1:0"})
    with pytest.raises(ps.VolumeNotFoundError):
        ps.open_layer(tmp_path)


@pytest.mark.parametrize("member", ["key", "mesh"])
def test_what_lies_outside_of_the_layer_is_not_removed(
    tmp_path: Path, voxels: np.ndarray, member: str
) -> None:
    write(voxels, tmp_path / "layer")
    document = json.loads((tmp_path / "layer" / "info").read_text())
    if member == "key":
        document["scales"][0]["key"] = "../other/8_8_8"
        (tmp_path / "layer" / "8_8_8").rename(tmp_path / "8_8_8")
        (tmp_path / "other").mkdir()
        (tmp_path / "8_8_8").rename(tmp_path / "other" / "8_8_8")
    else:
        document["mesh"] = "../mesh"
    (tmp_path / "layer" / "info").write_text(json.dumps(document))
    before = names(tmp_path)
    with pytest.raises(ps.UnsupportedError, match="lies outside of"):
        ps.delete(tmp_path / "layer", linked=True)
    assert names(tmp_path) == before


def test_a_locked_scale_is_left_alone(tmp_path: Path, voxels: np.ndarray) -> None:
    write(voxels, tmp_path)
    document = json.loads((tmp_path / "info").read_text())
    document["scales"][0]["locked"] = True
    (tmp_path / "info").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="is locked"):
        ps.delete(tmp_path)
