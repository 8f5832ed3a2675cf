"""The numpy-like door: coordinates, bounds, writing, and what it says of itself."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

import precomputed_store as ps
from tests.oracles import make_info, tensorstore_read, tensorstore_write

SIZE = (70, 45, 33)
OFFSET = (-7, 10, 100)


@pytest.fixture
def data() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.asfortranarray(rng.integers(1, 2**16, (*SIZE, 2), dtype=np.uint16))


@pytest.fixture
def folder(tmp_path: Path, data: np.ndarray) -> Path:
    info = make_info(
        size=SIZE,
        dtype="uint16",
        num_channels=2,
        voxel_offset=OFFSET,
        chunk_size=(32, 16, 20),
        resolution=(4, 4, 40),
    )
    tensorstore_write(tmp_path / "layer", info, data)
    return tmp_path / "layer"


def test_indexing_is_absolute_and_always_four_dimensional(folder: Path, data: np.ndarray) -> None:
    volume = ps.open_volume(folder)
    cutout = volume[-7:3, 12:20, 105]
    assert cutout.shape == (10, 8, 1, 2)
    assert cutout.flags.f_contiguous
    np.testing.assert_array_equal(cutout, data[0:10, 2:10, 5:6])
    np.testing.assert_array_equal(volume[..., 1], data[..., 1:])
    np.testing.assert_array_equal(volume[-5:60:7, ::3, ::11], data[2:67:7, ::3, ::11])
    box = ps.Box((0, 10, 100), (5, 12, 110))
    np.testing.assert_array_equal(volume[box], data[7:12, 0:2, 0:10])


def test_an_empty_slice_reads_nothing(folder: Path) -> None:
    assert ps.open_volume(folder)[5:5].shape == (0, 45, 33, 2)


def test_outside_is_an_error_unless_asked_otherwise(folder: Path, data: np.ndarray) -> None:
    volume = ps.open_volume(folder)
    with pytest.raises(IndexError, match="x -8:0 is outside the volume's -7:63"):
        volume[-8:0]
    clipped = volume.read(np.s_[-20:0], bounds="clip")
    np.testing.assert_array_equal(clipped, data[:7])
    filled = volume.read(np.s_[-20:0, 0:12], bounds="fill")
    assert filled.shape == (20, 12, 33, 2)
    np.testing.assert_array_equal(filled[13:, 10:], data[:7, :2])
    assert not filled[:13].any()
    assert not filled[:, :10].any()
    elsewhere = ps.open_volume(folder, bounds="fill")[1000:1003, 10:11]
    assert elsewhere.shape == (3, 1, 33, 2)
    assert not elsewhere.any()


def test_scattered_points_equal_the_voxels(folder: Path, data: np.ndarray) -> None:
    volume = ps.open_volume(folder)
    rng = np.random.default_rng(2)
    local = np.stack([rng.integers(0, n, 500) for n in SIZE], axis=1)
    values = volume.read_points(local + OFFSET, channel=1)
    np.testing.assert_array_equal(values, data[(*local.T, 1)])
    with pytest.raises(IndexError, match="outside the volume"):
        volume.read_points([[-8, 10, 100]])
    with pytest.raises(IndexError, match="channel 2"):
        volume.read_points([[0, 10, 100]], channel=2)
    with pytest.raises(TypeError, match="integers"):
        volume.read_points([[0.5, 10, 100]])
    with pytest.raises(ValueError, match=r"expected \(n, 3\)"):
        volume.read_points([0, 10, 100])
    assert volume.read_points(np.empty((0, 3))).shape == (0,)


def test_reading_from_a_coroutine_equals_reading(folder: Path, data: np.ndarray) -> None:
    volume = ps.open_volume(folder)

    async def several() -> list[np.ndarray]:
        reads = [volume.read_async(np.s_[x : x + 10]) for x in range(-7, 53, 10)]
        return await asyncio.gather(*reads)

    np.testing.assert_array_equal(np.concatenate(asyncio.run(several())), data[:60])


def test_what_a_volume_says_of_itself(folder: Path, data: np.ndarray) -> None:
    volume = ps.open_volume(folder)
    assert volume.shape == (*SIZE, 2)
    assert (volume.ndim, volume.size, volume.dtype) == (4, data.size, np.uint16)
    assert volume.nbytes == data.nbytes
    assert volume.bounds == ps.Box(OFFSET, (63, 55, 133))
    assert volume.resolution == (4, 4, 40)
    assert volume.voxel_offset == OFFSET
    assert volume.chunk_size == (32, 16, 20)
    assert volume.layer_type == "image"
    assert len(volume) == 70
    assert len(volume.scales) == 1
    assert str(folder) in repr(volume)
    assert "70 × 45 × 33 voxels" in volume._repr_html_()
    np.testing.assert_array_equal(np.asarray(volume), data)
    np.testing.assert_array_equal(np.asarray(volume, dtype=float), data.astype(float))
    with pytest.raises(ValueError, match="makes a copy"):
        np.asarray(volume, copy=False)


def test_positions_and_voxels_convert(folder: Path) -> None:
    volume = ps.open_volume(folder)
    assert volume.to_nm([[1, 2, 3]]).tolist() == [[4, 8, 120]]
    assert volume.to_voxel([[7.9, -0.1, 120]]).tolist() == [[1, -1, 3]]
    assert volume.box_from_nm((0, 0, 0), (9, 8, 41)) == ps.Box((0, 0, 0), (3, 2, 2))


def test_a_volume_travels_light(folder: Path, data: np.ndarray) -> None:
    volume = ps.open_volume(folder)
    volume[...]
    travelled = pickle.loads(pickle.dumps(volume))
    assert travelled == volume
    assert len(pickle.dumps(volume)) < 4000
    np.testing.assert_array_equal(travelled[...], data)


def test_a_wrong_scale_lists_what_there_is(folder: Path) -> None:
    for selector in (3, "1_1_1", (9, 9, 9)):
        with pytest.raises((ValueError, IndexError), match="4_4_40"):
            ps.open_volume(folder, scale=selector)
    assert ps.open_volume(folder, scale=(4, 4, 40)).at(-1).at("4_4_40").scale_index == 0


def test_writes_are_read_by_tensorstore(folder: Path, data: np.ndarray) -> None:
    volume = ps.open_volume(folder, mode="r+")
    box = np.s_[-7:25, 10:26, 120:133]
    volume[box] = 5
    data[0:32, 0:16, 20:33] = 5
    np.testing.assert_array_equal(tensorstore_read(folder), data)


def test_part_of_a_chunk_is_refused_before_anything_is_touched(
    folder: Path, data: np.ndarray
) -> None:
    volume = ps.open_volume(folder, mode="r+")
    with pytest.raises(ValueError, match=r"whole chunks around it are \[-7:57, 10:26, 100:133\]"):
        volume[-7:26, 10:26, 100:133] = 5
    np.testing.assert_array_equal(tensorstore_read(folder), data)


def test_without_conditions_parts_of_chunks_are_refused_before_anything_is_touched(
    folder: Path, data: np.ndarray
) -> None:
    # A chain that can store, but not depending on what is stored.
    url, options = f"dir::file://{folder}", {"dir": {"path": str(folder)}}
    volume = ps.open_volume(url, mode="r+", unaligned="read-modify-write", storage_options=options)
    with pytest.raises(ps.UnsupportedError, match="unguarded-read-modify-write"):
        volume[-7:26, 10:26, 100:133] = 5
    np.testing.assert_array_equal(tensorstore_read(folder), data)
    volume[-7:25, 10:26, 100:120] = 5
    single = ps.open_volume(
        url, mode="r+", unaligned="unguarded-read-modify-write", storage_options=options
    )
    single[-7:26, 10:26, 100:133] = 6
    data[0:33, 0:16, 0:33] = 6
    np.testing.assert_array_equal(tensorstore_read(folder), data)


def _write_half(folder: Path, half: slice, rounds: int) -> None:
    volume = ps.open_volume(folder, mode="r+", unaligned="read-modify-write")
    for number in range(1, rounds + 1):
        volume[half, 0:16, 0:16] = number
        # Whoever wrote over it with what was there before would have set it back.
        assert (volume[half, 0:16, 0:16] == number).all()


def test_two_processes_write_halves_of_a_chunk_and_lose_nothing(tmp_path: Path) -> None:
    info = make_info(size=(32, 16, 16), chunk_size=(32, 16, 16), dtype="uint8")
    ps.create(tmp_path, info)
    context = multiprocessing.get_context("spawn")
    halves = (slice(0, 16), slice(16, 32))
    writers = [context.Process(target=_write_half, args=(tmp_path, half, 100)) for half in halves]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert np.unique(ps.open_volume(tmp_path)[...]).tolist() == [100]


def test_read_modify_write_keeps_the_rest_of_the_chunks(folder: Path, data: np.ndarray) -> None:
    volume = ps.open_volume(folder, mode="r+", unaligned="read-modify-write")
    rng = np.random.default_rng(3)
    for _ in range(10):
        start = [int(rng.integers(0, n)) for n in SIZE]
        stop = [int(rng.integers(a, n + 1)) for a, n in zip(start, SIZE, strict=True)]
        local = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        key = tuple(slice(a + o, b + o) for a, b, o in zip(start, stop, OFFSET, strict=True))
        value = rng.integers(0, 2**16, data[local].shape, dtype=np.uint16)
        volume[key] = value
        data[local] = value
    np.testing.assert_array_equal(tensorstore_read(folder), data)


def test_the_fill_value_removes_chunks(folder: Path, data: np.ndarray) -> None:
    volume = ps.open_volume(folder, mode="r+")
    before = {path.name for path in (folder / "4_4_40").iterdir()}
    volume[-7:25, 10:26, 100:120] = 0
    after = {path.name for path in (folder / "4_4_40").iterdir()}
    assert before - after == {"-7-25_10-26_100-120"}
    data[0:32, 0:16, 0:20] = 0
    np.testing.assert_array_equal(volume[...], data)
    stored = ps.open_volume(folder, mode="r+", write_empty_chunks=True)
    stored[-7:25, 10:26, 100:120] = 0
    assert (folder / "4_4_40" / "-7-25_10-26_100-120").stat().st_size == 32 * 16 * 20 * 4


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        (np.s_[-8:25], 1, IndexError, "outside the volume"),
        (np.s_[::2], 1, ValueError, "without a step"),
        (np.s_[..., 0], 1, ValueError, "every channel"),
        (np.s_[...], 1.5, TypeError, "without loss"),
        (np.s_[...], 2**16, ValueError, "does not fit into uint16"),
        (np.s_[...], np.zeros(3, np.uint32), TypeError, r"array.astype\('uint16'\)"),
        (np.s_[...], np.zeros((3, 3), np.uint8), ValueError, "expected"),
    ],
)
def test_wrong_writes_are_refused_before_anything_is_touched(
    folder: Path, data: np.ndarray, key: object, value: object, error: type, message: str
) -> None:
    volume = ps.open_volume(folder, mode="r+")
    with pytest.raises(error, match=message):
        volume[key] = value
    np.testing.assert_array_equal(tensorstore_read(folder), data)


def test_a_volume_is_read_only_unless_asked_otherwise(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"mode='r\+'"):
        ps.open_volume(folder)[...] = 0


@pytest.mark.parametrize(
    "options", [{"mode": "w"}, {"bounds": "wrap"}, {"missing": "zero"}, {"compress": "lz4"},
                {"unaligned": True}]
)  # fmt: skip
def test_unknown_options_are_refused(folder: Path, options: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        ps.open_volume(folder, **options)


def test_progress_is_shown_when_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ps.open_volume(folder).read(progress=True)
    assert "18/18" in capsys.readouterr().err
    ps.open_volume(folder, mode="r+").write(np.s_[...], 1, progress=True)
    assert "18/18" in capsys.readouterr().err
    ps.open_volume(folder)[...]
    assert capsys.readouterr().err == ""
