"""Indexing keys against numpy, and the rules of absolute coordinates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from precomputed_store.grid import Box
from precomputed_store.selection import parse_absolute, parse_basic

SHAPE = (3, 4, 5, 6)
ARRAY = np.arange(np.prod(SHAPE)).reshape(SHAPE)
VOLUME = Box((-3, 10, 0), (7, 15, 4))


@given(hnp.basic_indices(SHAPE, allow_newaxis=False, allow_ellipsis=True))
def test_basic_selection_equals_numpy(key: object) -> None:
    parsed = parse_basic(key, SHAPE)
    read = ARRAY[tuple(slice(r.start, r.stop, r.step) for r in parsed.ranges)]
    np.testing.assert_array_equal(parsed.postprocess(read), ARRAY[key])


@pytest.mark.parametrize("key", [3, -4, (0, 0, 0, 6), (0, 0, 0, 0, 0)])
def test_basic_selection_outside_is_an_index_error(key: object) -> None:
    with pytest.raises(IndexError):
        parse_basic(key, SHAPE)


@pytest.mark.parametrize("key", [1.0, "a", None, [1, 2], True])
def test_other_keys_are_type_errors(key: object) -> None:
    with pytest.raises(TypeError, match="integer, a slice or Ellipsis"):
        parse_basic((0, key), SHAPE)
    with pytest.raises(TypeError, match="integer, a slice or Ellipsis"):
        parse_absolute((0, key), VOLUME, num_channels=2)


def test_negative_numbers_are_coordinates() -> None:
    selection = parse_absolute(np.s_[-3:-1, 12], VOLUME, num_channels=2)
    assert selection.wanted == (range(-3, -1), range(12, 13), range(4), range(2))
    assert selection.shape == (2, 1, 4, 2)


def test_a_box_selects_itself_and_all_channels() -> None:
    box = Box((0, 10, 1), (2, 12, 3))
    selection = parse_absolute(box, VOLUME, num_channels=2)
    assert selection.wanted == (range(2), range(10, 12), range(1, 3), range(2))


@pytest.mark.parametrize(
    "key", [np.s_[-4:0], np.s_[:, 9], np.s_[:, :, 0:5], np.s_[..., 2], np.s_[7]]
)
def test_outside_the_bounds_is_an_index_error_that_names_the_way_out(key: object) -> None:
    with pytest.raises(IndexError, match=r'bounds="clip" or bounds="fill"'):
        parse_absolute(key, VOLUME, num_channels=2)


@given(start=st.integers(-20, 20), length=st.integers(0, 30), step=st.integers(1, 7))
def test_clip_and_fill_agree_with_plain_membership(start: int, length: int, step: int) -> None:
    key = np.s_[start : start + length : step]
    wanted = range(start, start + length, step)
    members = [i for i in wanted if -3 <= i < 7]
    clipped = parse_absolute(key, VOLUME, num_channels=1, bounds="clip")
    assert list(clipped.wanted[0]) == members == list(clipped.inside[0])
    filled = parse_absolute(key, VOLUME, num_channels=1, bounds="fill")
    assert filled.wanted[0] == wanted
    assert list(filled.inside[0]) == members
    assert [wanted[i] for i in range(len(wanted))[filled.target[0]]] == members


def test_backward_slices_and_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="ends before it starts"):
        parse_absolute(np.s_[3:1], VOLUME, num_channels=1)
    with pytest.raises(ValueError, match="positive"):
        parse_absolute(np.s_[::-1], VOLUME, num_channels=1)
    with pytest.raises(IndexError, match="5 indices for 4 axes"):
        parse_absolute((0, 10, 0, 0, 0), VOLUME, num_channels=1)
    with pytest.raises(IndexError, match="single Ellipsis"):
        parse_absolute((..., 0, ...), VOLUME, num_channels=1)
