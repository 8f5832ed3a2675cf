"""Opening layers with xarray: what comes, what it costs, and what goes wrong clearly."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from dask.base import tokenize

import precomputed_store as ps
from precomputed_store.xarray_backend import PrecomputedBackendEntrypoint
from tests.oracles import make_info, tensorstore_write
from tests.xarray_engine.conftest import CHUNK_SIZE, OFFSET, SIZE, Requests


def write_info(folder: Path, info: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "info").write_text(json.dumps(info))
    return folder


def petavoxels(resolution: tuple[float, float, float]) -> dict[str, Any]:
    return make_info(size=(250_000, 250_000, 25_000), resolution=resolution, encoding="jpeg")


def test_a_dataset_has_one_variable_named_after_the_layers_type(
    layer: Path, voxels: np.ndarray
) -> None:
    dataset = xr.open_dataset(layer, engine="precomputed")
    assert list(dataset.data_vars) == ["image"]
    assert dataset["image"].dims == ("channel", "z", "y", "x")
    assert dataset["image"].dtype == np.uint16
    np.testing.assert_array_equal(dataset["image"].values, voxels)
    assert dataset["image"].attrs["resolution"] == [8, 8, 40]
    assert dataset["image"].attrs["scale"] == "8_8_40"
    assert dataset["x"].attrs == {"units": "nm", "long_name": "x (voxel centre)", "axis": "X"}


def test_opening_costs_one_request(layer: Path, requests: Requests) -> None:
    xr.open_dataset(layer, engine="precomputed", chunks={})
    assert requests == ["info"]


@pytest.mark.parametrize("scale", [0, -1, "8_8_40", (8, 8, 40), np.array([8.0, 8, 40])], ids=str)
def test_a_scale_is_named_in_many_ways(layer: Path, scale: Any) -> None:
    dataset = xr.open_dataset(layer, engine="precomputed", scale=scale)
    assert dataset["image"].shape == (2, 23, 29, 37)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scale": "4_4_40"}, ValueError, "8_8_40"),
        ({"scale": 1}, IndexError, "8_8_40"),
        ({"coords": "nm"}, ValueError, "expected 'physical', 'voxel' or None"),
        ({"missing": "ignore"}, ValueError, "expected 'fill' or 'raise'"),
        ({"levels": 2}, TypeError, "levels"),
    ],
    ids=str,
)
def test_wrong_options_say_what_there_is(
    layer: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        xr.open_dataset(layer, engine="precomputed", **options)


def test_a_wrong_address_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ps.VolumeNotFoundError, match="no Precomputed volume here"):
        xr.open_dataset(tmp_path, engine="precomputed")
    with pytest.raises(TypeError, match="expected the address of a layer, not dict"):
        xr.open_dataset({"a": 1}, engine="precomputed")  # type: ignore[arg-type]


def test_missing_chunks_can_be_errors(layer: Path, tmp_path: Path) -> None:
    folder = write_info(tmp_path / "holes", json.loads((layer / "info").read_text()))
    dataset = xr.open_dataset(folder, engine="precomputed", missing="raise")
    with pytest.raises(ps.MissingChunkError):
        dataset["image"][0, 0].load()
    with pytest.warns(ps.MissingDataWarning):
        assert not xr.open_dataset(folder, engine="precomputed")["image"][0, 0].values.any()


def test_variables_can_be_dropped(layer: Path) -> None:
    assert not xr.open_dataset(layer, engine="precomputed", drop_variables="image").data_vars
    dataset = xr.open_dataset(layer, engine="precomputed", drop_variables=["x", "nothing"])
    assert set(dataset.coords) == {"y", "z"}


# --- coordinates


def test_physical_coordinates_are_voxel_centres_in_nanometres(layer: Path) -> None:
    dataset = xr.open_dataset(layer, engine="precomputed")
    for name, offset, size, resolution in zip("xyz", OFFSET, SIZE, (8, 8, 40), strict=True):
        expected = (np.arange(offset, offset + size) + 0.5) * resolution
        np.testing.assert_array_equal(dataset[name].values, expected)
        assert isinstance(dataset.indexes[name], pd.RangeIndex)


def test_voxel_coordinates_count_the_offset_in(layer: Path, voxels: np.ndarray) -> None:
    dataset = xr.open_dataset(layer, engine="precomputed", coords="voxel")
    assert isinstance(dataset.indexes["x"], pd.RangeIndex)
    assert dataset["x"].attrs["units"] == "voxel"
    inside = dataset["image"].sel(x=slice(-1, 2), y=10, z=[100, 105], channel=0)
    np.testing.assert_array_equal(inside.values, voxels[0][[0, 5], 0, 4:8])


def test_there_may_be_no_coordinates(layer: Path) -> None:
    assert not xr.open_dataset(layer, engine="precomputed", coords=None).coords


def test_selecting_in_nanometres(layer: Path, voxels: np.ndarray) -> None:
    image = xr.open_dataset(layer, engine="precomputed")["image"]
    box = image.sel(x=slice(0, 80), y=slice(81.5, 99.9))
    np.testing.assert_array_equal(box.values, voxels[:, :, 0:2, 5:15])
    nearest = image.sel(x=[1.0, 79.9], z=4039.5, method="nearest")
    np.testing.assert_array_equal(nearest.values, voxels[:, 0][:, :, [5, 14]])
    assert image.sel(x=4, y=84, z=4020, channel=0).item() == voxels[0, 0, 0, 5]
    with pytest.raises(KeyError):
        image.sel(x=5)
    points = image.sel(
        x=xr.DataArray([0.0, 100.0], dims="p"),
        y=xr.DataArray([90.0, 300.0], dims="p"),
        method="nearest",
    )
    np.testing.assert_array_equal(points.values, voxels[:, :, [1, 27], [5, 17]])


@pytest.mark.parametrize("resolution", [(8, 8, 40), (4.2, 3.7, 33.3), (5, 7.0, 0.1)], ids=str)
def test_parts_align_to_the_last_bit_wherever_they_begin(
    tmp_path: Path, resolution: tuple[float, float, float]
) -> None:
    whole = write_info(
        tmp_path / "a",
        make_info(size=(50, 40, 30), resolution=resolution, voxel_offset=(-9, 0, 7)),
    )
    part = write_info(
        tmp_path / "b",
        make_info(
            size=(10, 10, 10),
            resolution=resolution,
            voxel_offset=(3, 20, 11),
            dtype="uint64",
            layer_type="segmentation",
        ),
    )
    image = xr.open_dataset(whole, engine="precomputed")
    labels = xr.open_dataset(part, engine="precomputed")
    merged = xr.merge([image, labels], join="inner", compat="override")
    assert dict(merged.sizes) == {"channel": 1, "z": 10, "y": 10, "x": 10}
    inner, _ = xr.align(image, labels, join="inner")
    assert inner.sizes["x"] == 10
    xr.align(image.isel(x=slice(12, 22), y=slice(20, 30), z=slice(4, 14)), labels, join="exact")


def test_slices_and_concatenations_keep_coordinates_without_memory(layer: Path) -> None:
    image = xr.open_dataset(layer, engine="precomputed")["image"]
    halves = [image.isel(x=slice(0, 20)), image.isel(x=slice(20, None))]
    joined = xr.concat(halves, dim="x")
    assert isinstance(joined.indexes["x"], pd.RangeIndex)
    xr.testing.assert_identical(joined.load(), image.load())


def test_endless_axes_of_fractional_voxels_get_no_coordinate(tmp_path: Path) -> None:
    info = make_info(size=(2**40, 10, 10), resolution=(0.3, 8, 8))
    folder = write_info(tmp_path / "long", info)
    with pytest.warns(ps.PrecomputedWarning, match='8192 GiB; use coords="voxel"'):
        dataset = xr.open_dataset(folder, engine="precomputed")
    assert "x" not in dataset.coords
    assert dataset.sizes["x"] == 2**40
    dataset = xr.open_dataset(folder, engine="precomputed", coords="voxel")
    assert isinstance(dataset.indexes["x"], pd.RangeIndex)


def test_coordinates_beyond_64_bits_become_floats(tmp_path: Path) -> None:
    info = make_info(size=(9, 9, 9), voxel_offset=(2**61, 0, 0), resolution=(40, 8, 8))
    dataset = xr.open_dataset(write_info(tmp_path / "far", info), engine="precomputed")
    assert dataset["x"].dtype == np.float64


# --- size


@pytest.mark.parametrize(
    ("resolution", "coords", "most"),
    [
        ((8, 8, 40), "physical", 4_000),
        ((8, 8, 40), "voxel", 4_000),
        ((4.2, 4.2, 40), None, 4_000),
        ((4.2, 4.2, 40), "physical", 4_000 + 8 * 500_000),
    ],
    ids=str,
)
def test_a_petavoxel_volume_pickles_in_kilobytes(
    tmp_path: Path, resolution: tuple[float, float, float], coords: Any, most: int
) -> None:
    folder = write_info(tmp_path / "large", petavoxels(resolution))
    dataset = xr.open_dataset(folder, engine="precomputed", coords=coords)
    assert dataset["image"].nbytes > 1e15
    stored = pickle.dumps(dataset)
    assert len(stored) < most
    assert pickle.loads(stored).sizes == dataset.sizes


def test_a_petavoxel_volume_in_chunks_has_a_small_graph(tmp_path: Path) -> None:
    folder = write_info(tmp_path / "large", petavoxels((8, 8, 40)))
    dataset = xr.open_dataset(folder, engine="precomputed", chunks={})
    assert dataset["image"].data.npartitions > 5e9
    assert len(dataset["image"].data.dask.layers) <= 2
    # Lengths of the chunks along three axes, at a few bytes each.
    assert len(pickle.dumps(dataset)) < 100_000


@pytest.mark.filterwarnings("ignore::precomputed_store.MissingDataWarning")
def test_a_corner_of_a_petavoxel_volume_is_computed_at_once(tmp_path: Path) -> None:
    folder = write_info(tmp_path / "large", petavoxels((8, 8, 40)))
    lazy = xr.open_dataset(folder, engine="precomputed", chunks={}, inline_array=True)
    assert not lazy["image"][0, :2, :3, :4].values.any()
    assert not lazy["image"].sel(x=1_000_004, y=slice(0, 80), z=20).values.any()
    cut = xr.open_dataset(folder, engine="precomputed").isel(x=slice(64), y=slice(64), z=[0, 9])
    assert not cut.chunk(x=32)["image"].values.any()


def test_stored_chunks_are_preferred(layer: Path) -> None:
    dataset = xr.open_dataset(layer, engine="precomputed", chunks={})
    assert dataset["image"].data.chunksize == (2, *reversed(CHUNK_SIZE))
    dataset = xr.open_dataset(layer, engine="precomputed", chunks={"x": 32})
    assert dataset["image"].data.chunksize == (2, 8, 10, 32)
    dataset = xr.open_dataset(layer, engine="precomputed", chunks="auto")
    assert dataset["image"].data.numblocks == (1, 1, 1, 1)


def test_chunks_larger_than_the_volume_are_fine(tmp_path: Path) -> None:
    folder = write_info(tmp_path / "small", make_info(size=(10, 9, 8)))
    dataset = xr.open_dataset(folder, engine="precomputed", chunks={})
    assert dataset["image"].data.chunksize == (1, 8, 9, 10)


def test_names_of_dask_arrays_are_the_same_after_reopening(layer: Path) -> None:
    names = {
        xr.open_dataset(layer, engine="precomputed", chunks={})["image"].data.name
        for _ in range(2)
    }
    assert len(names) == 1


def test_lazy_arrays_have_tokens_without_being_read(layer: Path, requests: Requests) -> None:
    lazy = [xr.open_dataset(layer, engine="precomputed")["image"].variable for _ in range(2)]
    with requests.expected(0):
        assert len({tokenize(variable._data) for variable in lazy}) == 1


# --- several scales and layers


@pytest.fixture
def pyramid(tmp_path: Path) -> Path:
    info = make_info(size=(40, 30, 20), chunk_size=(16, 16, 16))
    (finest,) = info["scales"]
    coarse = {**finest, "key": "16_16_16", "size": [20, 15, 10], "resolution": [16, 16, 16]}
    broken = {**finest, "key": "32_32_32", "encoding": "unheard-of"}
    info["scales"] = [finest, broken, coarse]
    return write_info(tmp_path / "pyramid", info)


def test_a_tree_has_a_node_for_each_usable_scale(pyramid: Path) -> None:
    tree = xr.open_datatree(pyramid, engine="precomputed")
    assert list(tree.children) == ["0", "2"]
    assert dict(tree["2"].sizes) == {"channel": 1, "z": 10, "y": 15, "x": 20}
    np.testing.assert_array_equal(tree["2"]["x"].values[:2], [8, 24])
    assert tree.attrs["scales"] == ["8_8_8", "16_16_16"]
    (problem,) = tree.attrs["unusable_scales"]
    assert problem.startswith("1: ")
    assert "unheard-of" in problem


def test_a_tree_opens_in_chunks_with_coordinates_of_choice(pyramid: Path) -> None:
    tree = xr.open_datatree(pyramid, engine="precomputed", chunks={}, coords="voxel")
    assert tree["0/image"].chunks is not None
    assert tree["2"]["x"].values[0] == 0
    groups = xr.open_groups(pyramid, engine="precomputed", coords=None)
    assert list(groups) == ["/", "/0", "/2"]
    assert not groups["/0"].coords


def test_a_tree_opens_with_one_request_and_pickles_small(
    pyramid: Path, requests: Requests
) -> None:
    tree = xr.open_datatree(pyramid, engine="precomputed")
    assert requests == ["info"]
    assert len(pickle.dumps(tree)) < 10_000


def test_a_damaged_scale_says_why_when_it_is_opened(pyramid: Path) -> None:
    with pytest.raises(ps.MetadataError, match="unheard-of"):
        xr.open_dataset(pyramid, engine="precomputed", scale=1)


def image_and_labels(tmp_path: Path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 255, (40, 30, 20, 1), dtype=np.uint8)
    labels = rng.integers(0, 2**40, (40, 30, 20, 1), dtype=np.uint64)
    tensorstore_write(tmp_path / "em", make_info(size=(40, 30, 20)), image)
    info = make_info(
        size=(40, 30, 20),
        dtype="uint64",
        encoding="compressed_segmentation",
        layer_type="segmentation",
        chunk_size=(32, 32, 16),
    )
    tensorstore_write(tmp_path / "labels", info, labels)
    return tmp_path / "em", tmp_path / "labels", image, labels


def test_an_image_and_its_segmentation_merge(tmp_path: Path) -> None:
    em, labels, voxels, ids = image_and_labels(tmp_path)
    merged = xr.merge([xr.open_dataset(path, engine="precomputed") for path in (em, labels)])
    assert set(merged.data_vars) == {"image", "segmentation"}
    np.testing.assert_array_equal(merged["segmentation"].values, ids.T)
    assert merged["segmentation"].dtype == np.uint64
    np.testing.assert_array_equal(
        merged["image"].where(merged["segmentation"] == ids[5, 6, 7, 0], 0).values.T,
        np.where(ids == ids[5, 6, 7, 0], voxels, 0),
    )


def test_an_image_and_its_segmentation_open_together(tmp_path: Path) -> None:
    em, labels, voxels, ids = image_and_labels(tmp_path)
    merged = xr.open_mfdataset([em, labels], engine="precomputed")
    np.testing.assert_array_equal(merged["image"].values, voxels.T)
    np.testing.assert_array_equal(merged["segmentation"].values, ids.T)


def test_neighbouring_layers_open_as_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    voxels = rng.integers(0, 255, (60, 20, 10, 1), dtype=np.uint8)
    for start, stop in ((0, 25), (25, 60)):
        info = make_info(size=(stop - start, 20, 10), voxel_offset=(start, 0, 0))
        tensorstore_write(tmp_path / f"{start}", info, voxels[start:stop])
    whole = xr.open_mfdataset(
        [tmp_path / "25", tmp_path / "0"], engine="precomputed", combine="by_coords"
    )
    np.testing.assert_array_equal(whole["image"].values, voxels.T)
    np.testing.assert_array_equal(whole["x"].values, (np.arange(60) + 0.5) * 8)


# --- who opens what


def test_an_engine_need_not_be_named_for_a_local_folder(layer: Path) -> None:
    assert xr.open_dataset(layer)["image"].shape == (2, 23, 29, 37)
    assert xr.open_dataset(f"precomputed://file://{layer}")["image"].shape == (2, 23, 29, 37)


def test_guessing_never_asks_the_network_and_never_fails(
    tmp_path: Path, layer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    (tmp_path / "skeletons").mkdir()
    (tmp_path / "skeletons" / "info").write_text('{"@type": "neuroglancer_skeletons"}')
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "info").write_bytes(b"\xff\x00 no JSON")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "info").write_text("[" * 100_000)
    guess = PrecomputedBackendEntrypoint().guess_can_open
    yes = [layer, str(layer), "precomputed://gs://bucket/em", "precomputed::s3://bucket/em"]
    yes.append("gs://bucket/em|neuroglancer-precomputed:")
    no = ["gs://bucket/em", "https://example.org/em", "", "a.nc", tmp_path, b"bytes", 3, None]
    no += [tmp_path / "skeletons", tmp_path / "text", tmp_path / "deep", "odd://\0"]
    assert [guess(address) for address in yes] == [True] * len(yes)
    assert [guess(address) for address in no] == [False] * len(no)


def test_the_engine_loads_no_dask_zarr_or_codec() -> None:
    code = (
        "import sys, xarray; before = set(sys.modules); import precomputed_store.xarray_backend;"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert set(shown.stdout.split()) == {"precomputed_store"}


# --- metadata


def test_the_accessor_knows_info_and_scale(layer: Path) -> None:
    dataset = xr.open_dataset(layer, engine="precomputed")
    assert isinstance(dataset.precomputed.info, ps.VolumeInfo)
    assert dataset.precomputed.scale.voxel_offset == OFFSET
    part = dataset["image"].isel(x=slice(3, 9))
    assert part.precomputed.info.to_json() == dataset.precomputed.info.to_json()
    tree = xr.open_datatree(layer, engine="precomputed")
    assert tree.precomputed.info == dataset.precomputed.info
    loaded = pickle.loads(pickle.dumps(dataset))
    assert loaded.precomputed.scale == dataset.precomputed.scale


def test_the_accessor_says_why_it_knows_nothing(layer: Path, tmp_path: Path) -> None:
    dataset = xr.open_dataset(layer, engine="precomputed", chunks={})
    with pytest.raises(AttributeError, match="was not opened with engine='precomputed'"):
        _ = (dataset["image"] + 1).precomputed.info
    with pytest.raises(AttributeError, match="was not opened with"):
        _ = xr.DataTree().precomputed.info
    em, labels, *_ = image_and_labels(tmp_path)
    merged = xr.merge([xr.open_dataset(path, engine="precomputed") for path in (em, labels)])
    with pytest.raises(AttributeError, match="the dataset holds 2 layers"):
        _ = merged.precomputed.scale
    assert merged["segmentation"].precomputed.info.layer_type == "segmentation"


def test_other_formats_take_the_dataset(layer: Path, tmp_path: Path, voxels: np.ndarray) -> None:
    dataset = xr.open_dataset(layer, engine="precomputed")
    dataset.to_zarr(tmp_path / "copy.zarr", consolidated=False, zarr_format=3)
    copy = xr.open_zarr(tmp_path / "copy.zarr", consolidated=False)
    np.testing.assert_array_equal(copy["image"].values, voxels)
    np.testing.assert_array_equal(copy["x"].values, dataset["x"].values)
    assert copy["image"].attrs["resolution"] == [8, 8, 40]
    json.dumps(dataset.attrs)
    json.dumps(dataset["image"].attrs)
