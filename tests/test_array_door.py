"""Requests for voxels: what is asked for, as ranges, outer products or points."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import precomputed_store as ps
from precomputed_store.array_door import (
    ArrayDoor,
    OuterRequest,
    PointsRequest,
    request_outer,
    request_points,
)
from tests.oracles import make_info

SHAPE = (2, 5, 6, 7)
VOXELS = np.arange(2 * 5 * 6 * 7).reshape(SHAPE)


class NumpyDoor(ArrayDoor):
    """Reads of a numpy array, as the engine would make them."""

    def __init__(self) -> None:
        pass

    @property
    def shape(self) -> Any:
        return SHAPE

    def read(self, request: OuterRequest | PointsRequest) -> np.ndarray:
        if isinstance(request, OuterRequest):
            axes = [np.asarray(axis, np.intp) for axis in request.selection]
            for axis in request.selection:
                assert not isinstance(axis, range) or axis.step > 0
            return request.arrange(VOXELS[np.ix_(*axes)])
        return request.arrange(VOXELS[request.points])


def axis_index(length: int) -> st.SearchStrategy[Any]:
    bound = st.none() | st.integers(-length - 2, length + 2)
    steps = st.none() | st.integers(-3, 3).filter(bool)
    arrays = st.lists(st.integers(-length, length - 1), max_size=4)
    return (
        st.integers(-length, length - 1)
        | st.builds(slice, bound, bound, steps)
        | arrays.map(lambda found: np.array(found, np.int64))
    )


@given(key=st.tuples(*map(axis_index, SHAPE)))
def test_an_outer_request_is_numpys_orthogonal_indexing(key: tuple[Any, ...]) -> None:
    expected: np.ndarray = VOXELS
    for axis in reversed(range(4)):
        item = key[axis]
        expected = expected[(slice(None),) * axis + (item,)]
    found = NumpyDoor().read(request_outer(key, SHAPE))
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@st.composite
def pointwise(draw: st.DrawFn) -> tuple[np.ndarray, ...]:
    """Four arrays that broadcast together: dense, constant along some axes, or orthogonal."""
    ndim = draw(st.integers(0, 4))
    full = draw(st.tuples(*[st.integers(0, 4)] * ndim))
    arrays = []
    for length in SHAPE:
        shape = tuple(n if draw(st.booleans()) else 1 for n in full)
        values = draw(
            st.lists(
                st.integers(-length, length - 1),
                min_size=int(np.prod(shape)),
                max_size=int(np.prod(shape)),
            )
        )
        array = np.array(values, np.int64).reshape(shape)
        if draw(st.booleans()):
            array = np.ascontiguousarray(np.broadcast_to(array, full))
        arrays.append(array)
    return tuple(arrays)


@given(key=pointwise())
@settings(max_examples=300)
def test_a_points_request_is_numpys_advanced_indexing(key: tuple[np.ndarray, ...]) -> None:
    found = NumpyDoor().read(request_points(key, SHAPE))
    expected = VOXELS[key]
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("axes", [(0,), (3,), (0, 2), (1, 2, 3)])
def test_slices_in_a_points_request_go_to_the_end(axes: tuple[int, ...]) -> None:
    where = np.array([[1, 0, 1], [0, 1, 1]])
    key = tuple(slice(None, None, -2) if axis in axes else where for axis in range(4))
    found = NumpyDoor().read(request_points(key, SHAPE))
    strided = VOXELS[tuple(slice(None, None, -2) if a in axes else slice(None) for a in range(4))]
    moved = np.moveaxis(strided, axes, range(-len(axes), 0))
    np.testing.assert_array_equal(found, moved[(where,) * (4 - len(axes))])


def test_evenly_spaced_indices_become_ranges() -> None:
    key = (slice(None), np.array([1, 3]), np.array([5, 4, 3]), np.array([0, 1, 3]))
    selection = request_outer(key, SHAPE).selection
    assert selection[:3] == (range(2), range(1, 4, 2), range(3, 6))
    assert isinstance(selection[3], np.ndarray)


def test_dense_indices_of_an_outer_product_are_read_as_one() -> None:
    dense = np.broadcast_arrays(*np.ix_(range(2), [0, 1], [5, 3, 2], range(7)))
    request = request_points(tuple(np.ascontiguousarray(a) for a in dense), SHAPE)
    assert isinstance(request, OuterRequest)
    diagonal = np.arange(2)
    assert isinstance(request_points((diagonal,) * 4, SHAPE), PointsRequest)


@given(data=st.data())
def test_one_index_array_is_numpys(data: st.DataObject) -> None:
    lengths = st.integers(0, 3)
    axis = data.draw(lengths)
    basic = axis_index(9).filter(lambda item: not isinstance(item, np.ndarray))
    key: list[Any] = [data.draw(basic) for _ in SHAPE]
    key = [k if isinstance(k, slice) else k % n for k, n in zip(key, SHAPE, strict=True)]
    array = data.draw(st.lists(st.integers(-SHAPE[axis], SHAPE[axis] - 1), max_size=4))
    key[axis] = data.draw(st.sampled_from([array, np.array(array, np.int64)]))
    expected = VOXELS[tuple(np.array(k, np.intp) if k is key[axis] else k for k in key)]
    found = NumpyDoor()[tuple(key)]
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "key",
    [([0, 1], [0, 1]), (..., np.zeros((2, 2), int)), (np.array([True, False]),), ([0.5],)],
    ids=str,
)
def test_other_index_arrays_are_a_type_error(key: Any) -> None:
    with pytest.raises(TypeError, match=r"one index array|expected integers"):
        NumpyDoor()[key]


@pytest.mark.parametrize(
    ("request_", "key", "message"),
    [
        (request_outer, (0, 5, 0, 0), "index 5 is out of bounds for axis 1 with size 5"),
        (request_outer, (0, 0, np.array([0, 6]), 0), "index 6 is out of bounds for axis 2"),
        (request_outer, (0, 0, np.array([-7, 1]), 0), "index -7 is out of bounds for axis 2"),
        (request_points, (np.array([2]),) * 4, "index 2 is out of bounds for axis 0"),
        (
            request_points,
            (np.zeros(2, int), np.zeros(3, int), np.zeros(2, int), np.zeros(2, int)),
            "do not broadcast together",
        ),
    ],
)
def test_wrong_indices_say_what_is_wrong(request_: Any, key: Any, message: str) -> None:
    with pytest.raises(IndexError, match=message):
        request_(key, SHAPE)


def test_fractional_indices_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="axis 3 are float64; expected integers"):
        request_outer((0, 0, 0, np.array([1.5])), SHAPE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    info = make_info(size=(100, 90, 70), voxel_offset=(3, 2, 1), chunk_size=(64, 32, 100))
    ps.create(tmp_path / "layer", info)
    return tmp_path / "layer"


def test_a_door_is_an_array_without_being_read(folder: Path) -> None:
    door = ArrayDoor(ps.open_layer(folder).array(0))
    assert door.shape == (1, 70, 90, 100)
    assert door.ndim == 4
    assert door.dtype == np.uint8
    assert door.chunks == (1, 70, 32, 64)
    assert door.size == door.nbytes == 70 * 90 * 100


def test_a_door_pickles_to_its_address_and_metadata(folder: Path) -> None:
    door = ArrayDoor(ps.open_layer(folder).array(0))
    door.array.source.key((0, 0, 0))
    stored = pickle.dumps(door)
    assert len(stored) < 2_000
    assert pickle.loads(stored) == door


def test_tokens_are_the_same_in_every_process_and_differ_by_what_matters(folder: Path) -> None:
    code = (
        "import sys, precomputed_store as ps\n"
        "from dask.base import tokenize\n"
        "from precomputed_store.array_door import ArrayDoor\n"
        "options = {'auto_mkdir': True, 'nested': {'b': 1, 'a': [1, 2]}}\n"
        "layer = ps.open_layer(sys.argv[1], storage_options=options, missing='raise')\n"
        "print(tokenize(ArrayDoor(layer.array(0))))"
    )
    tokens = {
        subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(tokens) == 1
    from dask.base import tokenize

    doors = [
        ArrayDoor(ps.open_layer(folder).array(0)),
        ArrayDoor(ps.open_layer(folder, missing="raise").array(0)),
        ArrayDoor(ps.open_layer(folder, missing_statuses=(404, 403)).array(0)),
        ArrayDoor(ps.open_layer(folder, storage_options={"a": 1}).array(0)),
    ]
    assert len({tokenize(door) for door in doors}) == len(doors)
