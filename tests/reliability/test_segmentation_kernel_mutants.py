"""compressed_segmentation, compiled, gives of damaged chunks what the specification says.

The specification is written out once more here, in numpy and for any box: a chunk that it can
read must be read, with these voxels, and any other must be refused. The kernel runs in the
user's process, so a read or write beside the arrays would be a crash, or show in what
lies between the voxels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from amounts import amounts
from hostile_chunks import mutants

from precomputed_store._native import segmentation as native
from precomputed_store.codecs.base import CZYX, Ranges
from precomputed_store.codecs.compressed_segmentation import CompressedSegmentation
from precomputed_store.errors import FormatError

pytestmark = pytest.mark.skipif(
    not native.is_available(), reason="the package was installed without a compiler"
)
# Shape (channel, z, y, x), block size (x, y, z), data type.
CHUNKS: list[tuple[CZYX, tuple[int, int, int], str]] = [
    ((1, 10, 9, 11), (4, 4, 4), "uint32"),
    ((2, 7, 8, 9), (8, 8, 8), "uint64"),
    ((1, 12, 12, 12), (5, 3, 7), "uint64"),
    ((1, 1, 17, 40), (64, 64, 1), "uint32"),
    ((3, 6, 6, 6), (1, 1, 2), "uint32"),
    ((1, 9, 16, 16), (16, 16, 16), "uint64"),
]
HOSTILE_BLOCKS = [
    (1, 1, 1),
    (1 << 24, 1, 1),
    (1, 1 << 24, 1),
    (1, 1, 1 << 24),
    (256, 256, 256),
    (4096, 4096, 1),
    (3, 1, 1 << 22),
    (2, 8_388_607, 1),
]
GUARD = 7


def expected(
    data: bytes, shape: CZYX, block: tuple[int, int, int], box: Ranges, dtype: str
) -> npt.NDArray[np.integer] | None:
    """The voxels of a box, or None if a block that has some of them is damaged."""
    (channels, _, sy, sx), (bx, by, bz) = shape, block
    if len(data) % 4:
        return None
    words = np.frombuffer(data, "<u4").astype(np.int64)
    if words.size < channels or words[0] != channels or words[:channels].max() > words.size:
        return None
    entry_words = np.dtype(dtype).itemsize // 4
    z, y, x = np.ix_(*(np.arange(first, stop) for first, stop in box))
    grid_x, grid_y, grid_z = -(-sx // bx), -(-sy // by), -(-shape[1] // bz)
    header = 2 * (x // bx + grid_x * (y // by + grid_y * (z // bz)))
    voxel = x % bx + bx * (y % by + by * (z % bz))
    found = []
    for start in words[:channels]:
        channel = words[start:]
        if channel.size < 2 * grid_x * grid_y * grid_z:
            return None
        first, values = channel[header], channel[header + 1]
        bits, table = first >> 24, first & 0xFFFFFF
        if not np.isin(bits, [0, 1, 2, 4, 8, 16, 32]).all():
            return None
        if np.any((bits > 0) & (values + -(-bits * (bx * by * bz) // 32) > channel.size)):
            return None
        offset = bits * voxel
        word = channel[np.where(bits > 0, values + offset // 32, 0)]
        entry = table + entry_words * np.where(bits, word >> offset % 32 & (1 << bits) - 1, 0)
        if np.any(entry + entry_words > channel.size):
            return None
        labels = channel[entry].astype("uint64")
        if entry_words == 2:
            labels |= channel[entry + 1].astype("uint64") << np.uint64(32)
        found.append(labels.astype(dtype))
    return np.stack(found)


def labels_of(shape: CZYX, dtype: str, rng: np.random.Generator) -> npt.NDArray[np.integer]:
    values = rng.integers(0, np.iinfo(dtype).max, 30, dtype)
    chosen = rng.integers(0, 30, shape) // rng.integers(1, 9, shape)
    labels: npt.NDArray[np.integer] = values[chosen]
    return labels


def a_box(shape: CZYX, rng: np.random.Generator) -> Ranges:
    z, y, x = (np.sort(rng.choice(size + 1, 2, replace=False)).tolist() for size in shape[1:])
    return (z[0], z[1]), (y[0], y[1]), (x[0], x[1])


def check(
    codec: CompressedSegmentation, data: bytes, shape: CZYX, box: Ranges, dtype: str
) -> bool:
    """Decode between guards, from an address that is no multiple of four; whether it was read."""
    sizes = [stop - start for start, stop in box]
    around = np.full((shape[0], *(2 * size + 1 for size in sizes)), GUARD, dtype)
    out = around[:, 1::2, 1::2, 1::2]
    unaligned = memoryview(b"-" + data)[1:]
    try:
        read = codec.decode_box(unaligned, shape=shape, box=box, out=out)
    except FormatError:
        read = False
    block = codec.compressed_segmentation_block_size
    wanted = expected(data, shape, block, box, dtype)
    assert read == (wanted is not None)
    if wanted is not None:
        np.testing.assert_array_equal(out, wanted)
    out[...] = GUARD
    assert np.all(around == GUARD)
    return read


@pytest.mark.slow
@pytest.mark.parametrize("count", amounts(1_000, 33_334))
@pytest.mark.parametrize(("shape", "block", "dtype"), CHUNKS)
def test_damaged_chunks_and_boxes_of_them_are_read_as_specified_or_refused(
    shape: CZYX,
    block: tuple[int, int, int],
    dtype: str,
    count: int,
    record_property: Callable[[str, object], None],
) -> None:
    rng = np.random.default_rng(3)
    codec = CompressedSegmentation(compressed_segmentation_block_size=block)
    encoded = codec.encode(labels_of(shape, dtype, rng))
    whole = (0, shape[1]), (0, shape[2]), (0, shape[3])
    chunks = boxes = 0
    for data in mutants(encoded, count, seed=17):
        chunks += check(codec, data, shape, whole, dtype)
        boxes += check(codec, data, shape, a_box(shape, rng), dtype)
    record_property(
        "figure",
        f"{dtype} {shape} in blocks of {block}, {count} mutants: {chunks} chunks and {boxes} "
        "boxes read as specified, the others refused",
    )
    assert 0 < chunks < count
    assert 0 < boxes < count


@pytest.mark.parametrize("block", HOSTILE_BLOCKS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 7), (1, 1, 1, 300)], ids=str)
@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
def test_block_sizes_far_from_the_chunks_are_read_as_specified_or_refused(
    dtype: str, shape: CZYX, block: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(5)
    codec = CompressedSegmentation(compressed_segmentation_block_size=block)
    whole = (0, shape[1]), (0, shape[2]), (0, shape[3])
    # What another block size wrote, and one label everywhere, which needs no values.
    small = CompressedSegmentation(compressed_segmentation_block_size=(2, 2, 2))
    read = check(codec, codec.encode(np.full(shape, 9, dtype)), shape, whole, dtype)
    assert read
    for data in mutants(small.encode(labels_of(shape, dtype, rng)), 100):
        check(codec, data, shape, whole, dtype)
        check(codec, data, shape, a_box(shape, rng), dtype)
