"""Cells, boxes, names and ids of chunks."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from precomputed_store.grid import XYZ, Box, ChunkGrid


def triples(elements: st.SearchStrategy[int]) -> st.SearchStrategy[XYZ]:
    return st.tuples(elements, elements, elements)


def make_grid(size: XYZ, voxel_offset: XYZ, chunk_size: XYZ) -> ChunkGrid:
    return ChunkGrid(size=size, voxel_offset=voxel_offset, chunk_size=chunk_size)


SMALL_GRIDS = st.builds(
    make_grid,
    triples(st.integers(1, 20)),
    triples(st.integers(-30, 30)),
    triples(st.integers(1, 9)),
)
GRIDS = SMALL_GRIDS | st.builds(
    make_grid,
    triples(st.integers(1, 2**61)),
    triples(st.integers(-(2**61), 2**61)),
    triples(st.integers(1, 2**20)),
)


@st.composite
def grids_and_cells(draw: st.DrawFn) -> tuple[ChunkGrid, XYZ]:
    grid = draw(GRIDS)
    x, y, z = (draw(st.integers(0, n - 1)) for n in grid.shape)
    return grid, (x, y, z)


@st.composite
def grids_and_boxes(draw: st.DrawFn) -> tuple[ChunkGrid, Box]:
    """Boxes inside, across and outside the bounds, some of them empty."""
    grid = draw(SMALL_GRIDS)
    start = draw(triples(st.integers(-45, 60)))
    x, y, z = (a + draw(st.integers(0, 30)) for a in start)
    return grid, Box(start, (x, y, z))


class TestVectors:
    def test_bits_along_each_axis(self, vectors: dict[str, Any]) -> None:
        for case in vectors["compressed_z_index_bits"]:
            shape = [int(n) for n in case["shape"]]
            for size, chunk, bits in zip(shape, case["chunk"], case["bits"], strict=True):
                for axis in range(3):
                    sizes, chunks = [1, 1, 1], [1, 1, 1]
                    sizes[axis], chunks[axis] = size, chunk
                    grid = make_grid(tuple(sizes), (0, 0, 0), tuple(chunks))  # type: ignore[arg-type]
                    assert grid.num_chunk_id_bits == bits
            whole = make_grid(tuple(shape), (0, 0, 0), tuple(case["chunk"]))  # type: ignore[arg-type]
            assert whole.num_chunk_id_bits == sum(case["bits"])

    def test_compressed_morton_codes(self, vectors: dict[str, Any]) -> None:
        for case in vectors["compressed_morton_code"]:
            size = tuple(2**bits for bits in case["bits_xyz"])
            grid = make_grid(size, (0, 0, 0), (1, 1, 1))  # type: ignore[arg-type]
            cell = tuple(case["index_xyz"])
            assert grid.chunk_id(cell) == case["code"]
            assert grid.cell_of_id(case["code"]) == cell

    def test_chunk_names(self, vectors: dict[str, Any]) -> None:
        volume = next(case for case in vectors["raw_chunks"] if "voxel_offset" in case)
        grid = make_grid(*(tuple(volume[name]) for name in ("size", "voxel_offset", "chunk_size")))
        written = volume["written"]
        start = tuple(written["origin_xyzc"][:3])
        stop = tuple(a + n for a, n in zip(start, np.shape(written["data_xyzc"]), strict=False))
        names = {f"1_1_1/{grid.chunk_name(cell)}" for cell in grid.cells(Box(start, stop))}
        assert names == set(vectors["key_names"]["cases"]) == set(volume["files"])


def spelled_out_chunk_id(grid: ChunkGrid, cell: XYZ) -> int:
    """The algorithm of volume.md, "Compressed morton code", step by step."""
    j, code = 0, 0
    for i in range(64):
        for dim in range(3):
            if 2**i < grid.shape[dim]:
                code |= ((cell[dim] >> i) & 1) << j
                j += 1
    return code


@given(grids_and_cells())
def test_chunk_ids_follow_the_specification_step_by_step(case: tuple[ChunkGrid, XYZ]) -> None:
    grid, cell = case
    assert grid.chunk_id(cell) == spelled_out_chunk_id(grid, cell)


@given(grids_and_cells())
def test_cell_of_id_is_the_inverse_of_chunk_id(case: tuple[ChunkGrid, XYZ]) -> None:
    grid, cell = case
    chunk_id = grid.chunk_id(cell)
    assert 0 <= chunk_id < 1 << grid.num_chunk_id_bits
    assert grid.cell_of_id(chunk_id) == cell


@given(SMALL_GRIDS)
def test_every_number_is_the_id_of_one_cell_or_of_none(grid: ChunkGrid) -> None:
    numbers = range(-3, (1 << grid.num_chunk_id_bits) + 3)
    found = {number: grid.cell_of_id(number) for number in numbers}
    cells = {number: cell for number, cell in found.items() if cell is not None}
    assert sorted(cells.values()) == sorted(grid.cells())
    assert all(grid.chunk_id(cell) == number for number, cell in cells.items())


@given(grids_and_cells())
def test_cell_of_name_is_the_inverse_of_chunk_name(case: tuple[ChunkGrid, XYZ]) -> None:
    grid, cell = case
    assert grid.cell_of_name(grid.chunk_name(cell)) == cell


@given(
    SMALL_GRIDS, st.from_regex(r"-?[0-9]{1,2}(-|_|--)[0-9]{1,2}_0-[0-9]_0-[0-9]", fullmatch=True)
)
def test_cell_of_name_takes_only_names_that_chunk_name_gives(grid: ChunkGrid, name: str) -> None:
    names = {grid.chunk_name(cell): cell for cell in grid.cells()}
    assert grid.cell_of_name(name) == names.get(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "0-64_0-64",
        "0-64_0-64_0-64.gz",
        " 0-64_0-64_0-64",
        "0-64_0-64_0-64\n",
        "00-64_0-64_0-64",
        "-0-64_0-64_0-64",
        "+0-64_0-64_0-64",
        "0-64_0-64_0-63",
        "1-65_0-64_0-64",
        "0-128_0-64_0-64",
        "64-128_0-64_0-64",
        "-64-0_0-64_0-64",
        "٠-64_0-64_0-64",
        "info",
        pytest.param("9" * 5000 + "-64_0-64_0-64", id="5000 digits"),
    ],
)
def test_cell_of_name_refuses(name: str) -> None:
    grid = make_grid((64, 64, 64), (0, 0, 0), (64, 64, 64))
    assert grid.cell_of_name("0-64_0-64_0-64") == (0, 0, 0)
    assert grid.cell_of_name(name) is None


@given(SMALL_GRIDS)
def test_chunks_tile_the_bounds_exactly(grid: ChunkGrid) -> None:
    covered = np.zeros(grid.size, dtype=np.uint8)
    ox, oy, oz = grid.voxel_offset
    for cell in grid.cells():
        box = grid.cell_box(cell)
        assert grid.bounds.contains(box)
        assert box.shape == grid.chunk_shape(cell)
        assert not box.is_empty
        (x0, y0, z0), (x1, y1, z1) = box.start, box.stop
        covered[x0 - ox : x1 - ox, y0 - oy : y1 - oy, z0 - oz : z1 - oz] += 1
    assert (covered == 1).all()


@given(SMALL_GRIDS)
def test_cells_come_once_each_with_x_fastest(grid: ChunkGrid) -> None:
    nx, ny, nz = grid.shape
    expected = [(x, y, z) for z in range(nz) for y in range(ny) for x in range(nx)]
    assert list(grid.cells()) == expected
    assert grid.num_cells == len(expected)


@given(grids_and_boxes())
def test_cells_of_a_box_are_those_whose_chunks_meet_it(case: tuple[ChunkGrid, Box]) -> None:
    grid, box = case
    meets = [c for c in grid.cells() if not grid.cell_box(c).intersection(box).is_empty]
    assert list(grid.cells(box)) == meets


@given(grids_and_boxes())
def test_rounded_out_is_the_union_of_the_chunks_that_meet_the_box(
    case: tuple[ChunkGrid, Box],
) -> None:
    grid, box = case
    rounded = grid.rounded_out(box)
    boxes = [grid.cell_box(cell) for cell in grid.cells(box)]
    if not boxes:
        assert rounded.is_empty
        return
    start = tuple(min(b.start[i] for b in boxes) for i in range(3))
    stop = tuple(max(b.stop[i] for b in boxes) for i in range(3))
    assert rounded == Box(start, stop)  # type: ignore[arg-type]
    assert grid.rounded_out(rounded) == rounded
    assert grid.is_aligned(rounded)


@given(grids_and_boxes())
def test_a_box_is_aligned_if_it_contains_every_chunk_that_it_meets(
    case: tuple[ChunkGrid, Box],
) -> None:
    grid, box = case
    whole = all(box.contains(grid.cell_box(cell)) for cell in grid.cells(box))
    assert grid.is_aligned(box) == (grid.bounds.contains(box) and whole)


def test_an_empty_box_is_aligned_wherever_it_lies() -> None:
    grid = make_grid((10, 10, 10), (0, 0, 0), (4, 4, 4))
    empty = Box((5, 0, 0), (5, 10, 10))
    assert grid.rounded_out(empty) == empty
    assert grid.is_aligned(empty)


def test_cropped_chunks_count_as_whole() -> None:
    grid = make_grid((10, 10, 10), (-3, 0, 0), (4, 4, 4))
    assert grid.is_aligned(Box((5, 0, 0), (7, 10, 4)))
    assert not grid.is_aligned(Box((5, 0, 0), (6, 10, 4)))
    assert not grid.is_aligned(Box((5, 0, 0), (9, 10, 4)))


def test_names_of_negative_coordinates_keep_their_signs() -> None:
    grid = make_grid((6, 4, 4), (-5, -4, 0), (4, 4, 4))
    assert [grid.chunk_name(cell) for cell in grid.cells()] == ["-5--1_-4-0_0-4", "-1-1_-4-0_0-4"]


def test_the_grid_counts_from_the_offset_not_from_zero() -> None:
    grid = make_grid((64, 1, 1), (10, 0, 0), (64, 1, 1))
    assert grid.shape == (1, 1, 1)
    assert grid.num_chunk_id_bits == 0
    assert grid.chunk_id((0, 0, 0)) == 0


def test_a_grid_of_the_largest_extent_costs_no_more_than_a_small_one() -> None:
    grid = make_grid((2**62 - 1,) * 3, (0, 0, 0), (64, 64, 64))  # type: ignore[arg-type]
    last = tuple(n - 1 for n in grid.shape)
    assert grid.num_chunk_id_bits == 3 * 56
    assert grid.cell_of_id(grid.chunk_id(last)) == last  # type: ignore[arg-type]
    assert next(grid.cells()) == (0, 0, 0)


@given(grids_and_boxes(), triples(st.integers(-45, 60)))
def test_intersection_holds_the_voxels_that_both_boxes_hold(
    case: tuple[ChunkGrid, Box], voxel: XYZ
) -> None:
    grid, box = case
    inside = [
        all(a <= v < b for a, v, b in zip(one.start, voxel, one.stop, strict=True))
        for one in (box, grid.bounds, box.intersection(grid.bounds))
    ]
    assert inside[2] == (inside[0] and inside[1])


def test_shape_of_an_inverted_box_is_zero_where_it_is_inverted() -> None:
    box = Box((0, 0, 0), (5, 5, 5)).intersection(Box((7, 2, 0), (9, 9, 9)))
    assert box.is_empty
    assert box.shape == (0, 3, 5)


def test_box_reads_like_a_slice() -> None:
    assert str(Box((-8, 0, 3), (56, 64, 64))) == "[-8:56, 0:64, 3:64]"


def test_grids_and_boxes_are_values() -> None:
    grids = [make_grid((10, 10, 10), (0, 0, 0), (4, 4, 4)) for _ in range(2)]
    assert grids[0].chunk_id((1, 1, 1)) == 7  # fills caches, which must not count
    assert len(set(grids)) == 1
    assert pickle.loads(pickle.dumps(grids[0])) == grids[1]
    assert pickle.loads(pickle.dumps(grids[0].bounds)) == grids[1].bounds
    assert len({grid.bounds for grid in grids}) == 1
    for one, other in itertools.combinations([(4, 4, 4), (4, 4, 5), (5, 4, 4)], 2):
        assert make_grid((9, 9, 9), (0, 0, 0), one) != make_grid((9, 9, 9), (0, 0, 0), other)
