"""Which chunks share a shard, and the choice of sharding parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from precomputed_store.codecs.compressed_segmentation import CompressedSegmentation
from precomputed_store.codecs.jpeg import Jpeg
from precomputed_store.codecs.raw import Raw
from precomputed_store.grid import ChunkGrid
from precomputed_store.metadata import ShardingSpec
from precomputed_store.shard_shape import ShardTarget, choose_sharding, shard_cells
from precomputed_store.sharding import locate

LABELS = CompressedSegmentation(compressed_segmentation_block_size=(8, 8, 8))

GRIDS = st.builds(
    ChunkGrid,
    size=st.tuples(*[st.integers(1, 17)] * 3),
    voxel_offset=st.tuples(*[st.integers(-9, 9)] * 3),
    chunk_size=st.tuples(*[st.integers(1, 3)] * 3),
)


@given(
    grid=GRIDS,
    preshift_bits=st.integers(0, 6),
    minishard_bits=st.integers(0, 6),
    shard_bits=st.integers(0, 12),
)
def test_shards_are_boxes_just_where_it_says_so(
    grid: ChunkGrid, preshift_bits: int, minishard_bits: int, shard_bits: int
) -> None:
    spec = ShardingSpec(
        hash="identity",
        preshift_bits=preshift_bits,
        minishard_bits=minishard_bits,
        shard_bits=shard_bits,
    )
    extent = shard_cells(grid, spec)
    shards: dict[int, set[Any]] = {}
    for cell in grid.cells():
        shards.setdefault(locate(spec, grid.chunk_id(cell)).shard, set()).add(cell)
    if extent is None:
        assert preshift_bits + minishard_bits + shard_bits < grid.num_chunk_id_bits
        return
    boxes: dict[Any, set[Any]] = {}
    for cell in grid.cells():
        place = tuple(c // n for c, n in zip(cell, extent, strict=True))
        boxes.setdefault(place, set()).add(cell)
    assert sorted(map(sorted, boxes.values())) == sorted(map(sorted, shards.values()))


def test_a_hash_scatters_chunks() -> None:
    grid = ChunkGrid(size=(64,) * 3, voxel_offset=(0, 0, 0), chunk_size=(8,) * 3)
    spec = ShardingSpec(
        hash="murmurhash3_x86_128", preshift_bits=9, minishard_bits=6, shard_bits=15
    )
    assert shard_cells(grid, spec) is None


def hemibrain(chunk: int = 64) -> ChunkGrid:
    return ChunkGrid(size=(34432, 39552, 41408), voxel_offset=(0, 0, 0), chunk_size=(chunk,) * 3)


@pytest.mark.parametrize("chunk", [32, 64, 128])
def test_the_choice_keeps_within_its_targets(chunk: int) -> None:
    grid, target = hemibrain(chunk), ShardTarget()
    spec = choose_sharding(grid, LABELS, voxel_bytes=8, target=target)
    cells = shard_cells(grid, spec)
    assert cells is not None
    assert spec.hash == "identity"
    decoded = math.prod(cells) * chunk**3 * 8
    assert target.decoded_bytes / 2 < decoded <= target.decoded_bytes
    assert 24 << spec.preshift_bits <= target.minishard_index_bytes
    assert 16 << spec.minishard_bits <= target.shard_index_bytes
    assert spec.preshift_bits + spec.minishard_bits + spec.shard_bits == grid.num_chunk_id_bits


def test_shards_of_a_small_volume_are_one_object() -> None:
    grid = ChunkGrid(size=(100, 100, 100), voxel_offset=(0, 0, 0), chunk_size=(64,) * 3)
    spec = choose_sharding(grid, Raw(), voxel_bytes=1, target=ShardTarget())
    assert (spec.shard_bits, shard_cells(grid, spec)) == (0, (2, 2, 2))


def test_images_are_not_gzipped_again_and_labels_are() -> None:
    images = choose_sharding(hemibrain(), Jpeg(), voxel_bytes=1, target=ShardTarget())
    labels = choose_sharding(hemibrain(), LABELS, voxel_bytes=8, target=ShardTarget())
    assert (images.data_encoding, labels.data_encoding) == ("raw", "gzip")


def test_a_chunk_larger_than_the_target_has_a_shard_of_its_own() -> None:
    target = ShardTarget(shard_bytes=1000, decoded_bytes=1000)
    spec = choose_sharding(hemibrain(), Raw(), voxel_bytes=1, target=target)
    assert shard_cells(hemibrain(), spec) == (1, 1, 1)


def test_a_small_shard_index_makes_large_minishards() -> None:
    target = ShardTarget(shard_index_bytes=16, minishard_index_bytes=24)
    spec = choose_sharding(hemibrain(), Raw(), voxel_bytes=1, target=target)
    assert spec.minishard_bits == 0
    assert math.prod(shard_cells(hemibrain(), spec) or ()) == 1 << spec.preshift_bits > 1


@pytest.mark.parametrize("name", ["shard_bytes", "decoded_bytes", "minishard_index_bytes"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "1"])
def test_targets_are_whole_numbers_of_bytes(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        ShardTarget(**{name: value})


def test_many_chunk_ids_are_those_of_each_alone() -> None:
    grid = ChunkGrid(size=(9, 3, 20), voxel_offset=(0, 0, 0), chunk_size=(1, 2, 3))
    cells = list(grid.cells())
    ids = grid.chunk_ids(np.array(cells))
    assert ids.tolist() == [grid.chunk_id(cell) for cell in cells]
    assert grid.cell_array().tolist() == [list(cell) for cell in cells]
