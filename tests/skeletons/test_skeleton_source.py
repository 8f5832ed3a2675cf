"""Folders of skeletons, written and read by CloudVolume and here."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.skeleton import Skeleton
from tests.oracles import make_info

SHARDING = ps.ShardingSpec(
    hash="murmurhash3_x86_128",
    preshift_bits=0,
    minishard_bits=2,
    shard_bits=1,
    minishard_index_encoding="gzip",
    data_encoding="gzip",
)
SHARDINGS = pytest.mark.parametrize("sharding", [None, SHARDING], ids=["files", "shards"])


def skeleton(seed: int, n: int = 20) -> Skeleton:
    rng = np.random.default_rng(seed)
    edges = [(int(rng.integers(0, i)), i) for i in range(1, n)]
    attributes = {
        "radius": rng.random(n, np.float32),
        "vertex_types": rng.integers(0, 5, n).astype(np.uint8),
    }
    return Skeleton(rng.random((n, 3), np.float32) * 1000, edges, attributes)


SKELETONS = {
    segment_id: skeleton(segment_id % 1000) for segment_id in (1, 7, 2**63 + 5, 2**64 - 1)
}


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    info = make_info(size=(64, 64, 64), layer_type="segmentation", dtype="uint64")
    (tmp_path / "info").write_text(json.dumps(info))
    return tmp_path


def cloudvolume(layer: Path, **options: Any) -> Any:
    cloudvolume = pytest.importorskip("cloudvolume")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cloudvolume.CloudVolume(f"file://{layer}", progress=False, **options)


@SHARDINGS
def test_cloudvolume_reads_what_is_written(layer: Path, sharding: Any) -> None:
    ps.write_skeletons(layer / "skeletons", SKELETONS, sharding=sharding)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = cloudvolume(layer).skeleton.get(list(SKELETONS))
    assert {int(each.id) for each in found} == set(SKELETONS)
    for each in found:
        ours = SKELETONS[int(each.id)]
        np.testing.assert_array_equal(each.vertices, ours.vertices)
        np.testing.assert_array_equal(each.edges, ours.edges)
        np.testing.assert_array_equal(each.radius, ours.attributes["radius"])
        np.testing.assert_array_equal(each.vertex_types, ours.attributes["vertex_types"])


@pytest.mark.parametrize("compress", ["gzip", "br", None])
def test_what_cloudvolume_writes_is_read(layer: Path, compress: str | None) -> None:
    pytest.importorskip("cloudvolume")
    from cloudvolume import Skeleton as TheirSkeleton

    info = json.loads((layer / "info").read_text()) | {"skeletons": "theirs"}
    (layer / "info").write_text(json.dumps(info))
    volume = cloudvolume(layer, compress=compress or False)
    volume.skeleton.meta.commit_info()
    theirs = [
        TheirSkeleton(
            each.vertices,
            each.edges,
            each.attributes["radius"],
            each.attributes["vertex_types"],
            segid=segment_id,
        )
        for segment_id, each in SKELETONS.items()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume.skeleton.upload(theirs)
    ending = {"gzip": ".gz", "br": ".br", None: ""}[compress]
    assert (layer / "theirs" / f"7{ending}").exists()
    source = ps.open_volume(layer).skeletons
    assert sorted(source.ids()) == sorted(SKELETONS)
    assert source.get(SKELETONS) == SKELETONS


@SHARDINGS
def test_skeletons_are_put_deleted_and_replaced(layer: Path, sharding: Any) -> None:
    folder = layer / "skeletons"
    ps.write_skeletons(folder, iter(list(SKELETONS.items())[:2]), sharding=sharding)
    ps.write_skeletons(folder, dict(list(SKELETONS.items())[2:]))
    source = ps.open_volume(layer).skeletons
    assert source.info.sharding == sharding
    assert source.get(SKELETONS) == SKELETONS
    ps.delete_skeletons(folder, [7])
    assert 7 not in source
    assert 1 in source
    with pytest.raises(KeyError, match="no skeleton of 7"):
        source[7]
    assert list(source.get([7, 1], missing="omit")) == [1]
    ps.write_skeletons(folder, {5: skeleton(5)}, mode="replace")
    assert list(source) == [5]


def test_a_link_that_a_layer_has_is_kept(layer: Path) -> None:
    ps.write_skeletons(layer / "first", {1: skeleton(1)})
    ps.write_skeletons(layer / "second", {2: skeleton(2)}, sharding="auto")
    assert list(ps.open_volume(layer).skeletons) == [1]
    assert list(ps.open_skeletons(layer / "second")) == [2]


def test_a_layer_without_skeletons_says_so(layer: Path) -> None:
    with pytest.raises(ValueError, match="info links no skeletons"):
        _ = ps.open_volume(layer).skeletons


@SHARDINGS
def test_a_file_that_disagrees_with_info_is_an_error(tmp_path: Path, sharding: Any) -> None:
    ps.write_skeletons(tmp_path, SKELETONS, sharding=sharding)
    info = json.loads((tmp_path / "info").read_text())
    info["vertex_attributes"] = info["vertex_attributes"][:1]
    (tmp_path / "info").write_text(json.dumps(info))
    with pytest.raises(ps.ObjectError, match="disagree"):
        ps.open_skeletons(tmp_path)[7]


def test_a_skeleton_that_does_not_fit_names_its_id(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"skeleton 3: attributes: odd not in"):
        ps.write_skeletons(tmp_path, {3: Skeleton([(0, 0, 0)], attributes={"odd": [1.0]})})
