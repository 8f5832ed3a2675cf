"""Planning against numpy's own indexing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from precomputed_store.read_plan import ChunkPart, plan_points, plan_selection

SHAPE = (2, 7, 9, 11)
CHUNK = (4, 3, 5)
ARRAY = np.arange(np.prod(SHAPE)).reshape(SHAPE)


def axis_selections(length: int) -> st.SearchStrategy[range | np.ndarray]:
    edges = st.tuples(st.integers(0, length), st.integers(0, length), st.integers(1, length + 2))
    ranges = edges.map(lambda e: range(min(e[:2]), max(e[:2]), e[2]))
    arrays = st.lists(st.integers(0, length - 1), max_size=8)
    return ranges | arrays.map(lambda values: np.array(values, dtype=np.intp))


def assemble(parts: list[ChunkPart], shape: tuple[int, ...]) -> np.ndarray:
    out = np.full(shape, -1)
    for part in parts:
        origin = [g * c for g, c in zip(part.cell, CHUNK, strict=True)]
        x, y, z = (slice(o, o + c) for o, c in zip(origin, CHUNK, strict=True))
        out[part.target] = ARRAY[:, z, y, x][part.source]
    return out


@given(st.tuples(*(axis_selections(n) for n in SHAPE)))
def test_outer_selection_equals_numpy(selection: tuple) -> None:
    parts = list(plan_selection(selection, CHUNK))
    out = assemble(parts, tuple(len(axis) for axis in selection))
    indices = [np.asarray(list(axis), dtype=np.intp) for axis in selection]
    np.testing.assert_array_equal(out, ARRAY[np.ix_(*indices)])
    cells = [part.cell for part in parts]
    assert len(cells) == len(set(cells))


@given(st.lists(st.tuples(*(st.integers(0, n - 1) for n in SHAPE)), max_size=40))
def test_scattered_points_equal_numpy_and_touch_each_chunk_once(points: list) -> None:
    columns = tuple(np.array(points, dtype=np.intp).reshape(-1, 4).T)
    parts = list(plan_points(columns, CHUNK))
    np.testing.assert_array_equal(assemble(parts, (len(points),)), ARRAY[columns])
    cells = [part.cell for part in parts]
    assert len(cells) == len(set(cells))


def test_a_step_larger_than_a_chunk_skips_chunks() -> None:
    selection = (range(1), range(1), range(1), range(0, 11, 9))
    assert [part.cell for part in plan_selection(selection, CHUNK)] == [(0, 0, 0), (2, 0, 0)]


def test_chunks_come_x_fastest() -> None:
    selection = tuple(range(n) for n in SHAPE)
    cells = [part.cell for part in plan_selection(selection, CHUNK)]
    assert cells[:4] == [(0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 1, 0)]
