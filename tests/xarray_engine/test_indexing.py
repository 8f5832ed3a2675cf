"""Every kind of xarray indexing, lazily, against numpy."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.xarray_engine.conftest import CHUNK_SIZE, NUM_CHANNELS, SIZE, Requests

NUM_CHUNKS = 3 * 3 * 3
DIMS = ("channel", "z", "y", "x")


@pytest.fixture
def memory(voxels: np.ndarray) -> xr.DataArray:
    return xr.DataArray(voxels, dims=DIMS)


def opened(layer: Path) -> xr.DataArray:
    return xr.open_dataset(layer, engine="precomputed", coords=None)["image"]


BASIC: list[dict[str, Any]] = [
    {},
    {"x": 3},
    {"x": -1},
    {"channel": 1, "z": 0, "y": 5, "x": -37},
    {"x": slice(10, 20)},
    {"x": slice(None, None, 3), "y": slice(4, None, 7)},
    {"x": slice(30, 2, -4), "z": slice(None, None, -1)},
    {"channel": slice(None, None, -1), "y": slice(-8, -2)},
    {"x": slice(5, 5)},
    {"y": slice(20, 3)},
    {"channel": slice(1, None), "z": 22},
    {"x": slice(100, 200)},
]

OUTER: list[dict[str, Any]] = [
    {"x": [1, 5, 36, 2]},
    {"x": [3, 3, 3]},
    {"x": [], "y": [1, 2]},
    {"x": [-1, 0, -37], "z": [22, 0]},
    {"y": [0, 4, 8, 12], "z": [20, 15, 10]},
    {"channel": [1, 0, 1], "y": slice(None, None, -2), "x": 7},
    {"x": np.arange(37) % 2 == 0},
    {"x": np.zeros(37, bool), "y": slice(2, 9)},
    {"z": np.array([7], np.uint8), "x": np.array([20])},
]


def points(**indices: Any) -> dict[str, xr.DataArray]:
    return {axis: xr.DataArray(values, dims=dims) for axis, (dims, values) in indices.items()}


VECTORISED: list[dict[str, Any]] = [
    points(x=("p", [1, 5, 36]), y=("p", [0, 28, 3])),
    points(
        x=("p", [1, 5, 36]), y=("p", [0, 28, 3]), z=("p", [22, 0, 1]), channel=("p", [1, 0, 1])
    ),
    points(x=("p", [-1, -2]), z=("p", [-23, 3])),
    points(x=(("p", "q"), [[0, 1, 2], [3, 4, 5]]), y=("p", [7, 8])),
    points(x=("p", [4, 2]), y=("q", [9, 1, 5])),
    points(x=("p", np.arange(0)), y=("p", np.arange(0))),
    {**points(x=("p", [1, 5, 36]), y=("p", [0, 28, 3])), "z": slice(3, 20, 4)},
    {**points(x=("x", [9, 4, 30])), "z": 2},
    {**points(z=("x", np.arange(0, 37) % 23), x=("x", np.arange(37)))},
]


@pytest.mark.parametrize("key", [*BASIC, *OUTER, *VECTORISED], ids=str)
def test_isel_equals_numpy(
    layer: Path, memory: xr.DataArray, key: dict[str, Any], requests: Requests
) -> None:
    array = opened(layer)
    requests.clear()
    selected = array.isel(key)
    assert not requests
    expected = memory.isel(key)
    assert selected.dims == expected.dims
    assert selected.dtype == expected.dtype
    np.testing.assert_array_equal(selected.values, expected.values)


@pytest.mark.parametrize("first", [*BASIC[1:8], *OUTER[:5], VECTORISED[0]], ids=str)
@pytest.mark.parametrize("second", [{"y": slice(1, 3)}, {"y": [2, 0]}, {"y": -1}], ids=str)
def test_selections_of_selections_stay_right(
    layer: Path, memory: xr.DataArray, first: dict[str, Any], second: dict[str, Any]
) -> None:
    selected, expected = opened(layer).isel(first), memory.isel(first)
    if expected.sizes.get("y", 0) < 3:
        second = {dim: -1 for dim in expected.dims[-1:] if expected.sizes[dim]}
    np.testing.assert_array_equal(selected.isel(second).values, expected.isel(second).values)


@pytest.mark.parametrize("key", [BASIC[0], BASIC[6], OUTER[3], VECTORISED[1]], ids=str)
async def test_load_async_equals_numpy(
    layer: Path, memory: xr.DataArray, key: dict[str, Any]
) -> None:
    loaded = await opened(layer).isel(key).load_async()
    np.testing.assert_array_equal(loaded.values, memory.isel(key).values)


@pytest.mark.parametrize("key", [*BASIC, *OUTER, *VECTORISED], ids=str)
def test_dask_arrays_of_the_engine_equal_numpy(
    layer: Path, memory: xr.DataArray, key: dict[str, Any]
) -> None:
    array = xr.open_dataset(layer, engine="precomputed", coords=None, chunks={})["image"]
    np.testing.assert_array_equal(array.isel(key).compute().values, memory.isel(key).values)


@pytest.mark.parametrize(
    "key", [{"x": 37}, {"x": [0, 37]}, {"x": xr.DataArray([0, 37], dims="p")}], ids=str
)
def test_outside_is_an_index_error(layer: Path, key: dict[str, Any]) -> None:
    with pytest.raises(IndexError):
        opened(layer).isel(key).load()


def test_only_the_chunks_that_a_selection_touches_are_read(
    layer: Path, requests: Requests
) -> None:
    array = opened(layer)
    x, y, z = CHUNK_SIZE
    with requests.expected(1):
        array.isel(x=slice(0, x), y=slice(0, y), z=slice(0, z)).load()
    with requests.expected(2):
        array.isel(x=[0, 1, 36], y=0, z=0).load()
    with requests.expected(9):
        array.isel(x=5).load()
    with requests.expected(0):
        array.isel(x=slice(3, 3)).load()
    with requests.expected(NUM_CHUNKS):
        array.load()


def test_scattered_points_do_not_read_their_bounding_box(
    layer: Path, requests: Requests, memory: xr.DataArray
) -> None:
    key = points(x=("p", [0, 36, 1]), y=("p", [0, 28, 1]), z=("p", [0, 22, 1]))
    with requests.expected(2):
        found = opened(layer).isel(key).load()
    np.testing.assert_array_equal(found.values, memory.isel(key).values)


def test_a_thousand_scattered_points_read_each_chunk_once(
    layer: Path, requests: Requests, memory: xr.DataArray
) -> None:
    rng = np.random.default_rng(0)
    key = points(
        **{axis: ("p", rng.integers(0, n, 1000)) for axis, n in zip("xyz", SIZE, strict=True)},
        channel=("p", rng.integers(0, NUM_CHANNELS, 1000)),
    )
    with requests.expected(NUM_CHUNKS):
        found = opened(layer).isel(key).load()
    np.testing.assert_array_equal(found.values, memory.isel(key).values)


@pytest.mark.parametrize("order", [("x", "y", "z", "channel"), ("y", "channel", "x", "z")])
# Not BASIC[3]: xarray itself fails to pick a single element of what it transposed lazily.
@pytest.mark.parametrize(
    "key", [*BASIC[:3], *BASIC[4:8], OUTER[0], OUTER[3], VECTORISED[0]], ids=str
)
def test_transposing_lazily_reads_the_same_chunks_and_values(
    layer: Path,
    memory: xr.DataArray,
    order: tuple[str, ...],
    key: dict[str, Any],
    requests: Requests,
) -> None:
    with requests.expected(0):
        turned = opened(layer).transpose(*order).isel(key)
    expected = memory.transpose(*order).isel(key)
    np.testing.assert_array_equal(turned.values, expected.values)
    assert len(requests.chunks) == len(set(requests.chunks))


def test_a_transposed_volume_is_read_as_a_box_not_as_points(
    layer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from precomputed_store.engine import ChunkedArray

    def refused(self: ChunkedArray, points: Any) -> Any:
        raise AssertionError("read as points")

    monkeypatch.setattr(ChunkedArray, "read_points", refused)
    turned = opened(layer).transpose("x", "y", "z", "channel")
    assert turned.isel(x=slice(0, 20, 2), channel=0).load().shape == (10, 29, 23)
    assert turned.load().shape == (37, 29, 23, 2)


def test_a_selection_pickles_small_and_reads_elsewhere(layer: Path, memory: xr.DataArray) -> None:
    selected = opened(layer).isel(x=slice(3, 30, 2), z=[1, 5])
    stored = pickle.dumps(selected)
    assert len(stored) < 4_000
    expected = memory.isel(x=slice(3, 30, 2), z=[1, 5])
    np.testing.assert_array_equal(pickle.loads(stored).values, expected.values)
