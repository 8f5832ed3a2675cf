"""A box cut out of an encoded chunk holds what the chunk holds there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

import precomputed_store as ps
from precomputed_store.codecs.compressed_segmentation import CompressedSegmentation
from precomputed_store.errors import FormatError
from tests.oracles import make_info, tensorstore_write

SHAPES = st.tuples(st.integers(1, 2), *[st.integers(1, 40)] * 3)
BLOCKS = st.sampled_from([(8, 8, 8), (5, 7, 3), (16, 4, 2)])


@given(
    shape=SHAPES,
    block=BLOCKS,
    dtype=st.sampled_from(["uint32", "uint64"]),
    labels=st.integers(1, 300),
    data=st.data(),
)
def test_a_cut_decodes_to_that_part_of_the_whole(
    shape: tuple[int, int, int, int],
    block: tuple[int, int, int],
    dtype: str,
    labels: int,
    data: st.DataObject,
) -> None:
    codec = CompressedSegmentation(compressed_segmentation_block_size=block)
    voxels = np.random.default_rng(labels).integers(0, labels, shape).astype(dtype)
    encoded = codec.encode(voxels)
    box = []
    for length in shape[1:]:
        first = data.draw(st.integers(0, length - 1))
        box.append((first, data.draw(st.integers(first + 1, length))))
    cut = codec.cut(encoded, shape=shape, dtype=voxels.dtype, box=tuple(box))  # type: ignore[arg-type]
    if cut is None:
        return
    part = codec.decode(cut.data, shape=cut.shape, dtype=voxels.dtype)
    wanted = tuple(slice(a - s, b - s) for (a, b), s in zip(box, cut.start, strict=True))
    whole = tuple(slice(a, b) for a, b in box)
    np.testing.assert_array_equal(part[(slice(None), *wanted)], voxels[(slice(None), *whole)])


CODEC = CompressedSegmentation(compressed_segmentation_block_size=(8, 8, 8))
SHAPE = (1, 32, 32, 32)
CORNER = ((0, 5), (0, 5), (0, 5))


def encoded() -> bytes:
    return CODEC.encode(np.arange(32**3, dtype="uint32").reshape(SHAPE) // 7)


def test_a_small_part_is_cut_and_a_large_one_is_not() -> None:
    dtype = np.dtype("uint32")
    small = CODEC.cut(encoded(), shape=SHAPE, dtype=dtype, box=CORNER)
    assert small is not None
    assert (small.shape, small.start) == ((1, 8, 8, 8), (0, 0, 0))
    assert CODEC.cut(encoded(), shape=SHAPE, dtype=dtype, box=((0, 32),) * 3) is None


@pytest.mark.parametrize("length", [0, 3, 4, 100, 508])
def test_a_chunk_cut_short_is_an_error(length: int) -> None:
    with pytest.raises(FormatError):
        CODEC.cut(encoded()[:length], shape=SHAPE, dtype=np.dtype("uint32"), box=CORNER)


def test_blocks_that_refer_to_the_headers_are_decoded_as_a_whole() -> None:
    words = np.frombuffer(encoded(), "<u4").copy()
    words[1] &= 0xFF000000
    cut = CODEC.cut(words.tobytes(), shape=SHAPE, dtype=np.dtype("uint32"), box=CORNER)
    assert cut is None


@given(changes=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=8))
def test_damage_is_an_error_or_gives_voxels(changes: list[Any]) -> None:
    damaged = bytearray(encoded())
    for at, value in changes:
        damaged[at % len(damaged)] = value
    dtype = np.dtype("uint32")
    try:
        cut = CODEC.cut(bytes(damaged), shape=SHAPE, dtype=dtype, box=CORNER)
        if cut is not None:
            assert CODEC.decode(cut.data, shape=cut.shape, dtype=dtype).shape == cut.shape
    except FormatError:
        return


@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
def test_doors_read_parts_as_tensorstore_wrote_them(tmp_path: Path, dtype: str) -> None:
    size = (70, 50, 40)
    voxels = np.random.default_rng(3).integers(0, 50, (*size, 2)).astype(dtype)
    info = make_info(
        size=size, dtype=dtype, num_channels=2, chunk_size=(32, 32, 32), voxel_offset=(3, -4, 5),
        encoding="compressed_segmentation", layer_type="image",
    )  # fmt: skip
    tensorstore_write(tmp_path, info, voxels)
    volume, rng = ps.open_volume(tmp_path), np.random.default_rng(4)
    for _ in range(30):
        start = [int(rng.integers(0, n)) for n in size]
        stop = [int(rng.integers(a, n)) + 1 for a, n in zip(start, size, strict=True)]
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        absolute = tuple(
            slice(s.start + o, s.stop + o) for s, o in zip(box, (3, -4, 5), strict=True)
        )
        np.testing.assert_array_equal(volume[absolute], voxels[box])
    points = np.stack([rng.integers(0, n, 200) for n in size], axis=1)
    values = volume.read_points(points + np.array((3, -4, 5)), channel=1)
    np.testing.assert_array_equal(values, voxels[(*points.T, 1)])
    array = ps.open_dask(tmp_path, chunks={})
    picked = array[1, [3, 39, 4], 7:20:3, -5:].compute()
    np.testing.assert_array_equal(picked, voxels.T[1][[3, 39, 4], 7:20:3, -5:])
