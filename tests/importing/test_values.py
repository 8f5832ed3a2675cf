"""Data types: conversions that lose nothing, and rescaling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

import precomputed_store as ps
from precomputed_store.importing.values import cast_block, rescale_block

INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]


def saved(folder: Path, values: Any, dtype: str) -> Path:
    np.save(folder / "a.npy", np.asarray(values, dtype).reshape(1, 1, -1))
    return folder / "a.npy"


@pytest.mark.parametrize(
    ("values", "dtype", "target"),
    [
        ([0, 5, 2**40], "int64", "uint64"),
        ([0, 5, 255], "int64", "uint8"),
        ([0.0, 3.0], "float64", "uint8"),
        ([0.1, np.inf, np.nan], "float64", "float32"),
        ([1, 2], "uint8", "float32"),
        ([True, False], "bool", "uint32"),
    ],
)
def test_values_that_fit_are_converted(
    folder: Path, values: list[Any], dtype: str, target: str
) -> None:
    array = ps.open_source(saved(folder, values, dtype), dtype=target)
    assert array.dtype == target
    np.testing.assert_array_equal(array.values.ravel(), np.asarray(values).astype(target))


@pytest.mark.parametrize(
    ("values", "dtype", "target", "culprit"),
    [
        ([3, -1], "int64", "uint64", "-1"),
        ([3, 256], "uint16", "uint8", "256"),
        ([3, 2**63], "uint64", "int64", str(2**63)),
        ([0.5], "float32", "uint8", "0.5"),
        ([np.nan], "float32", "int32", "nan"),
        ([1e300], "float64", "float32", "1e"),
        ([2**53 + 1], "int64", "float64", str(2**53 + 1)),
    ],
)
def test_values_that_do_not_fit_are_errors(
    folder: Path, values: list[Any], dtype: str, target: str, culprit: str
) -> None:
    array = ps.open_source(saved(folder, values, dtype), dtype=target)
    with pytest.raises(ValueError, match=f"{culprit}.* cannot be stored as {target}"):
        array.values  # noqa: B018


@given(st.sampled_from(INTEGERS), st.sampled_from(INTEGERS), st.data())
def test_a_cast_of_integers_changes_nothing_or_fails(a: str, b: str, data: st.DataObject) -> None:
    limits, target = np.iinfo(a), np.iinfo(b)
    value = data.draw(st.integers(int(limits.min), int(limits.max)))
    fits = target.min <= value <= target.max
    block = np.array([value], a)
    if fits:
        assert int(cast_block(block, target=np.dtype(b))[0]) == value
    else:
        with pytest.raises(ValueError, match="cannot be stored"):
            cast_block(block, target=np.dtype(b))


def test_rescaling_fills_the_range_and_clips(folder: Path) -> None:
    path = saved(folder, [0, 100, 150, 200, 300, np.nan], "float32")
    array = ps.open_source(path, rescale=(100, 200))
    assert array.dtype == np.uint8
    assert array.values.ravel().tolist() == [0, 0, 128, 255, 255, 0]
    signed = ps.open_source(path, rescale=(100, 200), dtype="int16")
    assert signed.values.ravel().tolist()[:5] == [-32768, -32768, 0, 32767, 32767]


def test_rescaling_may_turn_around(folder: Path) -> None:
    array = ps.open_source(saved(folder, [0, 255], "uint8"), rescale=(255, 0))
    assert array.values.ravel().tolist() == [255, 0]


def test_rescaling_from_range_to_range_is_the_identity() -> None:
    every = np.arange(2**16, dtype="uint16")
    same = rescale_block(every, target=np.dtype("uint16"), low=0, high=65535)
    np.testing.assert_array_equal(same, every)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rescale": (5, 5)}, "two different numbers"),
        ({"rescale": (0, float("inf"))}, "two different numbers"),
        ({"rescale": (0, 1), "dtype": "float32"}, "integer type"),
        ({"rescale": (0, 1), "dtype": "uint64"}, "integer type of up to 32 bits"),
        ({"dtype": "complex64"}, "dtype is 'complex64'; expected one of uint8"),
        ({"dtype": "foo"}, "dtype is 'foo'; expected one of uint8"),
    ],
)
def test_what_is_no_conversion(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ps.open_source(saved(folder, [1], "uint8"), **options)


def test_complex_numbers_are_no_voxels(folder: Path) -> None:
    with pytest.raises(ValueError, match="complex64 cannot be stored"):
        ps.open_source(saved(folder, [1], "complex64"))
