"""Folders of skeletons, written and read by CloudVolume and here."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.metadata.skeleton import VertexAttribute
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


ATTRIBUTES = [VertexAttribute("radius"), VertexAttribute("vertex_types", "uint8")]
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
    ps.write_skeletons(
        folder, iter(list(SKELETONS.items())[:2]), sharding=sharding, attributes=ATTRIBUTES
    )
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
    odd = Skeleton([(0, 0, 0)], attributes={"odd": [1.0]})
    with pytest.raises(ValueError, match=r"skeleton 3: attributes: odd not in"):
        ps.write_skeletons(tmp_path, {3: odd}, attributes=[VertexAttribute("radius")])


@pytest.mark.parametrize(
    ("sharding", "of_iterable"), [(None, False), (SHARDING, False), (SHARDING, True)]
)
def test_a_bad_skeleton_leaves_nothing_behind(
    tmp_path: Path, sharding: Any, of_iterable: bool
) -> None:
    odd = Skeleton([(0, 0, 0)], attributes={"odd": [1.0]})
    data = SKELETONS | {3: odd}
    with pytest.raises(ValueError, match="skeleton"):
        ps.write_skeletons(
            tmp_path / "new", data.items() if of_iterable else data, sharding=sharding
        )
    assert not (tmp_path / "new").exists()


def test_a_new_folder_has_no_info_before_all_of_an_iterable_is_stored(tmp_path: Path) -> None:
    odd = Skeleton([(0, 0, 0)], attributes={"odd": [1.0]})
    with pytest.raises(ValueError, match="skeleton 3"):
        ps.write_skeletons(tmp_path, iter([*SKELETONS.items(), (3, odd)]))
    assert not (tmp_path / "info").exists()


def test_an_id_that_is_none_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="id -1"):
        ps.write_skeletons(tmp_path / "new", SKELETONS | {-1: skeleton(1)})
    assert not (tmp_path / "new").exists()


@SHARDINGS
def test_a_folder_that_stores_skeletons_in_another_way_is_not_changed(
    tmp_path: Path, sharding: Any
) -> None:
    ps.write_skeletons(tmp_path, {1: skeleton(1)}, sharding=sharding)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = dataclasses.replace(SHARDING, shard_bits=3)
    for options, message in (
        ({"sharding": other}, "sharding is .*, not .*'shard_bits': 3"),
        ({"attributes": [VertexAttribute("radius")]}, r"attributes is .*not radius \(float32 x 1"),
        ({"transform": [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0]}, r"transform is .*not \(2.0, "),
    ):
        with pytest.raises(ValueError, match=message):
            ps.write_skeletons(tmp_path, {2: skeleton(2)}, **options)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    same = ps.open_skeletons(tmp_path).info
    ps.write_skeletons(
        tmp_path,
        iter([(2, skeleton(2))]),
        sharding="auto",
        attributes=same.vertex_attributes,
        transform=same.transform,
    )
    assert 2 in ps.open_skeletons(tmp_path)


def test_small_integers_are_stored_as_neuroglancer_shows_them(tmp_path: Path) -> None:
    source = ps.write_skeletons(tmp_path, SKELETONS)
    stored = {each.id: each.data_type for each in source.info.vertex_attributes}
    assert stored == {"radius": "float32", "vertex_types": "float32"}


def test_sharding_of_an_iterable_cannot_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a mapping"):
        ps.write_skeletons(tmp_path / "new", iter(SKELETONS.items()), sharding="auto")
    assert not (tmp_path / "new").exists()


def test_a_folder_of_no_skeletons_takes_some_later(tmp_path: Path) -> None:
    ps.write_skeletons(tmp_path, {})
    assert list(ps.open_skeletons(tmp_path)) == []
    ps.write_skeletons(tmp_path, {1: Skeleton([(1, 2, 3)])})
    assert ps.open_skeletons(tmp_path)[1].attributes["radius"].tolist() == [-1]
