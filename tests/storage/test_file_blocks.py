"""Blocks of files, straight into an array: what is read, and what is left alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from precomputed_store._native import file_blocks as native
from precomputed_store.errors import StorageError
from precomputed_store.storage import Storage
from precomputed_store.storage.blocks import FileBlocks

pytestmark = pytest.mark.skipif(
    not native.is_available(), reason="the package was installed without a compiler"
)
GUARD = 7
SHAPE = (2, 3, 4, 5)
STORED = np.arange(8, 8 + 2 * 3 * 4 * 5, dtype=np.uint8).reshape(SHAPE)
HUGE = [1 << 31, 1 << 40, (1 << 62) + 1, (1 << 63) - 1, -1, -(1 << 40)]


def block_of(box: tuple[slice, ...], out: npt.NDArray[Any], place: int = 0) -> list[int]:
    """The block of a box of `STORED` that goes to the beginning of an array of its shape."""
    steps = STORED.strides
    start = sum(axis.start * step for axis, step in zip(box, steps, strict=True))
    lengths = [axis.stop - axis.start for axis in box]
    return [start, *steps[:3], *lengths[:3], lengths[3] * STORED.itemsize, place]


def read(
    path: Path | list[Path], block: list[int], out: npt.NDArray[Any], size: int = 120
) -> list[bool]:
    paths = path if isinstance(path, list) else [path]
    done = native.read_blocks(
        [os.fsencode(each) for each in paths],
        np.full(len(paths), size),
        np.arange(len(paths) + 1),
        np.array([block] * len(paths), np.int64),
        out,
    )
    return done.tolist()  # type: ignore[no-any-return]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "stored"
    path.write_bytes(STORED.tobytes())
    return path


def test_every_box_comes_to_its_place(stored: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        pairs = [sorted(rng.choice(n + 1, 2, replace=False).tolist()) for n in SHAPE]
        box = tuple(slice(*pair) for pair in pairs)
        wanted = STORED[box]
        out = np.full([n + 2 for n in wanted.shape], GUARD, np.uint8)
        inner = tuple(slice(1, n + 1) for n in wanted.shape)
        place = sum(out.strides)
        assert read(stored, block_of(box, out, place), out) == [True]
        np.testing.assert_array_equal(out[inner], wanted)
        out[inner] = GUARD
        assert (out == GUARD).all()


def test_planes_far_apart_are_read_one_by_one(tmp_path: Path) -> None:
    """Of a chunk of 64 KiB, rows that together are 1/256 of it."""
    voxels = np.random.default_rng(0).integers(0, 256, (1, 32, 64, 32), np.uint8)
    path = tmp_path / "chunk"
    path.write_bytes(voxels.tobytes())
    out = np.zeros((1, 32, 2, 4), np.uint8)
    block = [5 * 32 + 3, voxels.strides[0], 64 * 32, 32, 1, 32, 2, 4, 0]
    assert read(path, block, out, size=voxels.nbytes) == [True]
    np.testing.assert_array_equal(out, voxels[:, :, 5:7, 3:7])


def test_what_is_not_such_a_file_is_left(stored: Path, tmp_path: Path) -> None:
    out = np.full(SHAPE, GUARD, np.uint8)
    block = block_of(tuple(slice(0, n) for n in SHAPE), out)
    link, folder, pipe = tmp_path / "link", tmp_path / "folder", tmp_path / "pipe"
    link.symlink_to(stored)
    folder.mkdir()
    os.mkfifo(pipe)
    for path in (tmp_path / "missing", stored / "below", link, folder, pipe):
        assert read(path, block, out) == [False]
    for size in (119, 121, 0, -1, 1 << 40):
        assert read(stored, block, out, size=size) == [False]
    assert (out == GUARD).all()
    assert read([link, stored, folder], block, out) == [False, True, False]
    np.testing.assert_array_equal(out, STORED)


@pytest.mark.parametrize("field", range(native.BLOCK_FIELDS))
@pytest.mark.parametrize("value", HUGE)
def test_no_block_reaches_beyond_file_or_array(stored: Path, field: int, value: int) -> None:
    memory = np.full(3 * 120, GUARD, np.uint8)
    out = memory[120:240].reshape(SHAPE)
    block = block_of(tuple(slice(0, n) for n in SHAPE), out)
    block[field] = value
    assert read(stored, block, out) == [False]
    assert (memory == GUARD).all()


def test_blocks_a_little_too_large_are_refused(stored: Path) -> None:
    memory = np.full(3 * 120, GUARD, np.uint8)
    out = memory[120:240].reshape(SHAPE)
    whole = block_of(tuple(slice(0, n) for n in SHAPE), out)
    for field in (0, 4, 5, 6, 7, 8):
        block = list(whole)
        block[field] += 1
        # Rows more of a plane than it has lie in the file and the array, but for the last.
        expected = read(stored, block, out)
        assert expected == [False], field
    assert (memory == GUARD).all()


@pytest.mark.parametrize(
    ("first", "blocks"),
    [([0], 1), ([0, 2], 1), ([-1, 1], 1), ([1, 0], 1), ([0, 1, 1], 1)],
)
def test_lists_that_do_not_fit_are_refused(stored: Path, first: list[int], blocks: int) -> None:
    out = np.zeros(SHAPE, np.uint8)
    block = block_of(tuple(slice(0, n) for n in SHAPE), out)
    with pytest.raises(ValueError, match="do not fit"):
        native.read_blocks(
            [os.fsencode(stored)],
            np.array([120]),
            np.array(first),
            np.array([block] * blocks, np.int64),
            out,
        )


def test_paths_with_a_nul_and_arrays_that_cannot_be_written_are_refused(stored: Path) -> None:
    out = np.zeros(SHAPE, np.uint8)
    block = block_of(tuple(slice(0, n) for n in SHAPE), out)
    with pytest.raises(ValueError, match="do not fit"):
        read(Path(f"{stored}\0"), block, out)
    with pytest.raises(ValueError, match="do not fit"):
        read(stored, block, out[..., ::2])
    out.flags.writeable = False
    assert read(stored, block, out) == [False]


def blocks_of(name: str, out: npt.NDArray[Any]) -> FileBlocks:
    block = block_of(tuple(slice(0, n) for n in SHAPE), out)
    return FileBlocks(
        names=[name], sizes=np.array([120]), first=np.array([0, 1]), blocks=np.array([block])
    )


@pytest.mark.parametrize("folder", ["", "8_8_8", "a/b", "../beside", "8_8_8/../8_8_8"])
def test_a_storage_reads_from_a_folder_of_its_own(tmp_path: Path, folder: str) -> None:
    out = np.zeros(SHAPE, np.uint8)
    storage = Storage(url=(tmp_path / "layer").as_uri())
    assert storage.has_blocks
    (tmp_path / "layer" / "8_8_8").mkdir(parents=True)
    path = tmp_path / "layer" / folder / "stored"
    os.makedirs(path.parent, exist_ok=True)
    assert storage.read_blocks(folder, blocks_of("stored", out), out) == [0]
    path.write_bytes(STORED.tobytes())
    assert storage.read_blocks(folder, blocks_of("stored", out), out) == []
    np.testing.assert_array_equal(out, STORED)


def test_a_folder_outside_of_the_root_is_refused(stored: Path, tmp_path: Path) -> None:
    layer = tmp_path / "parent" / "layer"
    layer.mkdir(parents=True)
    (layer / "8_8_8").symlink_to(tmp_path)
    out = np.zeros(SHAPE, np.uint8)
    with pytest.raises(StorageError, match="outside of"):
        Storage(url=layer.as_uri()).read_blocks("8_8_8", blocks_of("stored", out), out)
    assert not out.any()


def test_other_storages_have_no_blocks() -> None:
    storage = Storage(url="memory://blocks")
    out = np.zeros(SHAPE, np.uint8)
    assert not storage.has_blocks
    assert storage.read_blocks("8_8_8", blocks_of("stored", out), out) == [0]
