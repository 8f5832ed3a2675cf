"""Blocks of a region: all of it, no object in two of them, no more than fits into memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from precomputed_store.codecs.raw import Raw
from precomputed_store.grid import Box
from precomputed_store.metadata import Scale, ShardingSpec
from precomputed_store.sharding import locate
from precomputed_store.write_plan import unit_grid
from precomputed_store.writing.tiling import Tiling, tile

SCALE = Scale(
    key="8_8_8",
    size=(100, 80, 60),
    resolution=(8, 8, 8),
    voxel_offset=(-5, 3, 7),
    chunk_sizes=((16, 10, 9),),
    codec=Raw(),
)
IDENTITY = ShardingSpec(hash="identity", preshift_bits=3, minishard_bits=1, shard_bits=20)
MURMUR = ShardingSpec(hash="murmurhash3_x86_128", preshift_bits=1, minishard_bits=1, shard_bits=3)
SHARDINGS = st.sampled_from([None, IDENTITY, MURMUR])


@st.composite
def regions(draw: st.DrawFn) -> Box:
    bounds = SCALE.grid.bounds
    starts, stops = [], []
    for low, high in zip(bounds.start, bounds.stop, strict=True):
        start = draw(st.integers(low, high - 1))
        starts.append(start)
        stops.append(draw(st.integers(start + 1, high)))
    return Box(tuple(starts), tuple(stops))  # type: ignore[arg-type]


def objects_in(scale: Scale, box: Box) -> set[Any]:
    cells = set(scale.grid.cells(box))
    if scale.sharding is None:
        return cells
    return {locate(scale.sharding, scale.grid.chunk_id(cell)).shard for cell in cells}


@given(
    region=regions(),
    sharding=SHARDINGS,
    whole_chunks=st.booleans(),
    largest=st.integers(1, 90_000),
)
def test_objects_are_in_one_block_and_blocks_cover_the_region(
    region: Box, sharding: ShardingSpec | None, whole_chunks: bool, largest: int
) -> None:
    scale = replace(SCALE, sharding=sharding)
    region = scale.grid.rounded_out(region) if whole_chunks else region
    tiling = tile(scale, region, voxel_bytes=1, largest=largest)
    boxes = [tiling.box(index) for index in tiling.indices()]
    assert sum(math.prod(box.shape) for box in boxes) == math.prod(region.shape)
    assert len(boxes) == tiling.num_blocks
    seen: set[Any] = set()
    for index in tiling.objects.indices():
        box = tiling.objects.box(index)
        found = objects_in(scale, box)
        assert not found & seen
        seen |= found
        members = [tiling.box(member) for member in tiling.members(index)]
        assert sum(math.prod(member.shape) for member in members) == math.prod(box.shape)
        assert all(box.contains(member) for member in members)
    if tiling.grouped is not None:
        assert all(scale.grid.is_aligned(box) for box in boxes)
        assert max(math.prod(box.shape) for box in boxes) <= max(largest, 16 * 10 * 9)


@given(region=regions(), probe=regions(), largest=st.integers(1, 90_000))
def test_the_blocks_that_meet_a_box_are_found(region: Box, probe: Box, largest: int) -> None:
    tiling = tile(SCALE, region, voxel_bytes=1, largest=largest)
    expected = [
        index for index in tiling.indices() if not tiling.box(index).intersection(probe).is_empty
    ]
    assert list(tiling.meeting(probe)) == expected


def test_a_large_shard_is_cut_into_boxes_of_chunks() -> None:
    scale = replace(SCALE, sharding=IDENTITY)
    assert unit_grid(scale).chunk_size == (64, 20, 18)
    tiling = tile(scale, scale.grid.bounds, voxel_bytes=1, largest=32 * 20 * 18)
    assert tiling.largest_block == (32, 20, 18)
    assert tiling.grouped == ((2, 2), (1, 1, 1, 1), (1, 1, 1, 1))
    assert isinstance(tiling.objects, Tiling)
    assert tiling.objects.spans == ((64, 36), (20, 20, 20, 20), (18, 18, 18, 6))


@pytest.mark.parametrize("present", [(64, 36), (100,)], ids=str)
def test_chunks_of_an_array_that_cut_no_object_are_kept(present: tuple[int, ...]) -> None:
    scale = replace(SCALE, sharding=IDENTITY)
    spans = (present, (20, 60), (36, 24))
    tiling = tile(scale, scale.grid.bounds, voxel_bytes=1, present=spans)
    assert tiling.spans == spans
