"""Blocks of a write: unions of whole objects of sensible size."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, strategies as st

from precomputed_store.writing.blocks import Spans, merged_spans

AXIS = st.lists(st.integers(1, 50), min_size=1, max_size=12).map(tuple)


def edges(axis: tuple[int, ...]) -> list[int]:
    return list(itertools.accumulate(axis))


@given(units=st.tuples(AXIS, AXIS, AXIS), voxel_bytes=st.integers(1, 64), data=st.data())
def test_blocks_are_unions_of_units_and_bounded(
    units: Spans, voxel_bytes: int, data: st.DataObject
) -> None:
    largest = data.draw(st.integers(1, 2**28))
    merged = merged_spans(units, voxel_bytes=voxel_bytes, largest=largest)
    for before, after in zip(units, merged, strict=True):
        assert set(edges(after)) <= set(edges(before))
        assert sum(after) == sum(before)
    unit = math.prod(map(max, units)) * voxel_bytes
    assert math.prod(map(max, merged)) * voxel_bytes <= max(largest, unit)


@given(units=st.tuples(AXIS, AXIS, AXIS), data=st.data())
def test_chunks_that_cut_through_no_object_are_kept(units: Spans, data: st.DataObject) -> None:
    def union(axis: tuple[int, ...]) -> tuple[int, ...]:
        cuts = data.draw(st.sets(st.sampled_from(edges(axis)))) | {sum(axis)}
        return tuple(b - a for a, b in itertools.pairwise([0, *sorted(cuts)]))

    x, y, z = map(union, units)
    assert merged_spans(units, voxel_bytes=1, present=(x, y, z)) == (x, y, z)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        # Slices of one voxel are gathered into the objects that they lie in.
        (((1024,), (1024,), (1,) * 1024), (1024, 1024, 64)),
        # Small blocks grow until a task is worth its while.
        (((10,) * 102 + (4,), (10,) * 102 + (4,), (10,) * 102 + (4,)), (256, 256, 256)),
        # Large ones shrink to what fits into memory several times.
        (((1024,), (1024,), (1000, 24)), (512, 512, 512)),
        # Large ones that cut through nothing are the caller's choice.
        (((1024,), (1024,), (1024,)), (1024, 1024, 1024)),
        # Long ones stay long.
        (((1024,), (100,) * 10 + (24,), (100,) * 10 + (24,)), (1024, 128, 128)),
    ],
)
def test_blocks_are_shaped_like_the_chunks_that_there_are(
    present: Spans, expected: tuple[int, int, int]
) -> None:
    unit = (64,) * 16
    spans = merged_spans((unit, unit, unit), voxel_bytes=1, present=present)
    x, y, z = map(max, spans)
    assert (x, y, z) == expected


@pytest.mark.parametrize("smallest", [1 << 20, 16 << 20, 100 << 20])
def test_blocks_grow_to_at_least_half_of_what_is_worth_a_task(smallest: int) -> None:
    unit = (64,) * 16
    spans = merged_spans((unit, unit, unit), voxel_bytes=8, smallest=smallest)
    block = math.prod(map(max, spans)) * 8
    assert smallest < 2 * block <= max(2 * smallest, 2 * 8 * 64**3)
