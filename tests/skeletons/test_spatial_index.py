"""Which skeletons lie in a box: CloudVolume's answers over our files, ours over its layout."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.metadata.spatial_index import SpatialIndexSpec
from precomputed_store.skeleton import Skeleton
from tests.oracles import make_info

RESOLUTIONS = pytest.mark.parametrize(
    "resolution", [(8, 8, 40), (4.5, 4.5, 40.25), (8.0, 8.0, 40.0)], ids=str
)


def make_layer(folder: Path, resolution: Any = (8, 8, 40)) -> Path:
    info = make_info(size=(100, 90, 50), layer_type="segmentation", dtype="uint64")
    info["scales"][0]["resolution"] = list(resolution)
    info["scales"][0]["voxel_offset"] = [-20, 10, 0]
    folder.mkdir(exist_ok=True)
    (folder / "info").write_text(json.dumps(info))
    return folder


def cells(resolution: Any) -> SpatialIndexSpec:
    sizes = tuple(n * r for n, r in zip((32, 32, 16), resolution, strict=True))
    return SpatialIndexSpec(resolution=resolution, chunk_size=sizes)


def small_skeletons(resolution: Any, count: int = 60) -> dict[int, Skeleton]:
    """Within the layer, in steps as short as those of real skeletons."""
    rng = np.random.default_rng(3)
    low = np.array([-20, 10, 0]) * resolution
    high = low + np.array([100, 90, 50]) * resolution
    made = {}
    for segment_id in range(1, count + 1):
        n = int(rng.integers(1, 30))
        path = rng.uniform(low, high) + rng.normal(0, 20, (n, 3)).cumsum(axis=0)
        path = np.clip(path, low + 1, high - 1)
        made[segment_id] = Skeleton(path, [(i, i + 1) for i in range(n - 1)])
    return made


def boxes(resolution: Any, count: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    low = np.array([-20, 10, 0]) * resolution
    high = low + np.array([100, 90, 50]) * resolution
    corners = [np.sort(rng.uniform(low, high, (2, 3)), axis=0) for _ in range(count)]
    return [np.array([np.floor(a), np.ceil(b) + 1]) for a, b in corners]


def cloudvolume_index(layer: Path) -> Any:
    cloudvolume = pytest.importorskip("cloudvolume")
    pytest.importorskip("simdjson")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cloudvolume.CloudVolume(f"file://{layer}", progress=False).skeleton.spatial_index


def naive(skeletons: dict[int, Skeleton], box: np.ndarray) -> set[int]:
    """Those that have a vertex in the box: an index may name more, never fewer."""
    inside = lambda v: ((v >= box[0]) & (v < box[1])).all(axis=1).any()  # noqa: E731
    return {i for i, each in skeletons.items() if inside(each.vertices)}


@RESOLUTIONS
@pytest.mark.parity
def test_cloudvolume_finds_the_same_in_what_is_written(tmp_path: Path, resolution: Any) -> None:
    layer = make_layer(tmp_path, resolution)
    data = small_skeletons(resolution)
    source = ps.write_skeletons(layer / "skeletons", data, spatial_index=cells(resolution))
    theirs = cloudvolume_index(layer)
    from cloudvolume import Bbox

    answers = []
    for box in boxes(resolution):
        ours = set(source.query_ids(box))
        assert ours == {int(i) for i in theirs.query(Bbox(*box, dtype=float))}
        assert naive(data, box) <= ours
        answers.append(len(ours))
    assert 0 < np.mean(answers) < len(data)
    box = boxes(resolution)[0]
    assert source.query(box) == source.get(source.query_ids(box))


@RESOLUTIONS
@pytest.mark.parity
def test_files_that_are_named_by_cloudvolume_are_found(tmp_path: Path, resolution: Any) -> None:
    layer = make_layer(tmp_path, resolution)
    folder = layer / "skeletons"
    data = small_skeletons(resolution)
    ps.write_skeletons(folder, data, spatial_index=cells(resolution))
    for path in folder.glob("*.spatial"):
        path.unlink()
    theirs = cloudvolume_index(layer)
    low, high = (
        np.array(each, float)
        for each in (theirs.physical_bounds.minpt, theirs.physical_bounds.maxpt)
    )
    names = list(theirs.index_file_paths_for_bbox(theirs.physical_bounds))
    for number, name in enumerate(names):
        (folder / name).write_text(json.dumps({str(number): [*low, *high]}))
    everything = ps.open_volume(layer).skeletons.query_ids([low, high])
    assert everything == list(range(len(names)))
    assert len(names) == 4 * 3 * 4


def test_the_index_follows_what_is_put_deleted_and_replaced(tmp_path: Path) -> None:
    folder = make_layer(tmp_path) / "skeletons"
    everywhere = [[-1e6] * 3, [1e6] * 3]
    near, far = Skeleton([(0, 100, 0)]), Skeleton([(600, 700, 1900)])
    ps.write_skeletons(folder, {1: near, 2: near}, spatial_index=cells((8, 8, 40)))
    ps.write_skeletons(folder, {2: far, 3: far})
    source = ps.open_skeletons(folder)
    assert source.query_ids([[-50, 0, 0], [50, 200, 50]]) == [1]
    assert source.query_ids([[500, 600, 1800], [700, 800, 2000]]) == [2, 3]
    ps.delete_skeletons(folder, [1, 3])
    assert source.query_ids(everywhere) == [2]
    ps.write_skeletons(folder, {9: near}, mode="replace")
    assert list(source.query(everywhere)) == [9]


def test_an_edge_is_found_between_its_ends_and_a_vertex_outside_the_layer(tmp_path: Path) -> None:
    folder = make_layer(tmp_path) / "skeletons"
    long = Skeleton([(-150, 100, 10), (600, 100, 10)], [(0, 1)])
    outside = Skeleton([(5000, 5000, 5000)])
    source = ps.write_skeletons(folder, {1: long, 2: outside}, spatial_index=cells((8, 8, 40)))
    assert source.query_ids([[200, 90, 0], [210, 110, 20]]) == [1]
    assert source.query_ids([[4900] * 3, [5001] * 3]) == [2]
    assert source.query_ids([[4900] * 3, [5000] * 3]) == []


def test_an_index_of_default_cells_covers_the_layer(tmp_path: Path) -> None:
    folder = make_layer(tmp_path) / "skeletons"
    source = ps.write_skeletons(folder, {1: Skeleton([(0, 100, 0)])}, spatial_index=True)
    assert source.info.spatial_index is not None
    assert [path.name for path in folder.glob("*.spatial")] == ["-160-640_80-800_0-2000.spatial"]
    assert ps.open_skeletons(folder).query_ids([[-1, 99, -1], [1, 101, 1]]) == [1]


def test_without_an_index_or_a_layer_a_query_says_so(tmp_path: Path) -> None:
    one = {1: Skeleton([(0, 100, 0)])}
    source = ps.write_skeletons(tmp_path / "alone", one)
    with pytest.raises(ValueError, match="info names no spatial index"):
        source.query_ids([[0] * 3, [1] * 3])
    with pytest.raises(ValueError, match="lies in none"):
        ps.write_skeletons(tmp_path / "new", one, spatial_index=True)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="spatial_index is none"):
        ps.write_skeletons(tmp_path / "alone", one, spatial_index=True)


def test_an_index_away_from_its_layer_is_read_by_listing(tmp_path: Path) -> None:
    folder = make_layer(tmp_path / "layer") / "skeletons"
    data = small_skeletons((8, 8, 40))
    source = ps.write_skeletons(folder, data, spatial_index=cells((8, 8, 40)))
    alone = folder.rename(tmp_path / "alone")
    for box in boxes((8, 8, 40), count=5):
        found = ps.open_skeletons(alone).query_ids(box)
        alone.rename(folder)
        assert found == source.query_ids(box)
        folder.rename(alone)
    with pytest.raises(ValueError, match="there is no such scale"):
        ps.write_skeletons(alone, data)


def test_an_index_without_resolution_is_that_of_the_scale_in_its_name(tmp_path: Path) -> None:
    folder = make_layer(tmp_path, (8, 8, 40)) / "skeletons_mip_0"
    data = small_skeletons((8, 8, 40))
    source = ps.write_skeletons(folder, data, spatial_index=cells((8, 8, 40)))
    info = json.loads((folder / "info").read_text())
    del info["spatial_index"]["resolution"]
    (folder / "info").write_text(json.dumps(info))
    older = ps.open_skeletons(folder)
    assert older.info.to_json()["spatial_index"] == {"chunk_size": [256, 256, 640]}
    theirs = cloudvolume_index(tmp_path)
    from cloudvolume import Bbox

    for box in boxes((8, 8, 40), count=5):
        assert older.query_ids(box) == source.query_ids(box)
        assert set(older.query_ids(box)) == {int(i) for i in theirs.query(Bbox(*box, dtype=float))}


@pytest.mark.parametrize("chunk_size", [(1e-300, 8, 8), (1e-3, 1e-3, 1e-3)])
def test_cells_without_number_are_refused(tmp_path: Path, chunk_size: Any) -> None:
    folder = make_layer(tmp_path) / "skeletons"
    spec = SpatialIndexSpec(resolution=(8, 8, 40), chunk_size=chunk_size)
    with pytest.raises(ps.UnsupportedError, match="spatial_index: cells of"):
        ps.write_skeletons(folder, {1: Skeleton([(0, 100, 0)])}, spatial_index=spec)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "an object of ids"),
        ('{"x": [0, 0, 0, 1, 1, 1]}', "'x' is no id"),
        ('{"1": [0, 0, 0, 1, 1]}', "6 corners"),
        ('{"1": [0, 0, 0, 1, 1, NaN]}', "6 corners"),
        ("[" * 100_000, "not JSON"),
        (None, "is missing"),
    ],
)
def test_a_damaged_or_missing_cell_is_an_error_that_names_it(
    tmp_path: Path, text: str | None, message: str
) -> None:
    folder = make_layer(tmp_path) / "skeletons"
    source = ps.write_skeletons(folder, {1: Skeleton([(0, 100, 0)])}, spatial_index=True)
    (path,) = folder.glob("*.spatial")
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(ps.ObjectError, match=rf"0-2000\.spatial: .*{message}"):
        source.query_ids([[0] * 3, [1] * 3])


@pytest.mark.parametrize("box", [[[0, 0, 0], [0, 1, 1]], [0, 0, 0, 1, 1, 1]])
def test_what_is_no_box_is_refused(tmp_path: Path, box: Any) -> None:
    folder = make_layer(tmp_path) / "skeletons"
    source = ps.write_skeletons(folder, {1: Skeleton([(0, 100, 0)])}, spatial_index=True)
    with pytest.raises(ValueError, match="the least first"):
        source.query_ids(box)
