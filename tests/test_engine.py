"""What is missing, what is corrupt, and what says so."""

from __future__ import annotations

import json
import os
import pickle
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store import isolation
from precomputed_store._native import file_blocks
from precomputed_store.engine import full_selection
from tests.oracles import cloudvolume_write, make_info, tensorstore_write

INFO = make_info(size=(50, 40, 30), chunk_size=(20, 20, 20), voxel_offset=(1, 2, 3))


@pytest.fixture
def data() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.asfortranarray(rng.integers(1, 255, (50, 40, 30, 1), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path, data: np.ndarray) -> Path:
    tensorstore_write(tmp_path / "layer", INFO, data)
    return tmp_path / "layer"


def a_chunk(folder: Path) -> Path:
    return folder / "8_8_8" / "21-41_2-22_3-23"


def test_a_missing_chunk_is_the_fill_value(folder: Path, data: np.ndarray) -> None:
    a_chunk(folder).unlink()
    data[20:40, 0:20, 0:20] = 0
    np.testing.assert_array_equal(ps.open_volume(folder)[...], data)


def test_a_missing_chunk_is_an_error_where_asked(folder: Path) -> None:
    a_chunk(folder).unlink()
    volume = ps.open_volume(folder, missing="raise")
    with pytest.raises(ps.MissingChunkError, match=r"21-41_2-22_3-23.*\[21:41, 2:22, 3:23\]"):
        volume[...]
    assert volume[1:21].any()


def test_a_read_that_finds_nothing_warns_once_and_says_where_it_looked(folder: Path) -> None:
    for path in (folder / "8_8_8").iterdir():
        path.unlink()
    volume = ps.open_volume(folder)
    with pytest.warns(ps.MissingDataWarning, match="none of the 12 chunks.*8_8_8/1-21_2-22_3-23"):
        assert not volume[...].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not volume[...].any()


def test_a_layer_that_has_gone_is_not_zeros(folder: Path) -> None:
    volume = pickle.loads(pickle.dumps(ps.open_volume(folder)))
    for path in [*(folder / "8_8_8").iterdir(), folder / "info"]:
        path.unlink()
    with pytest.raises(ps.VolumeNotFoundError, match="has gone"):
        volume[...]


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"", "empty"), (b"x" * 7999, "7999 bytes; expected 8000"), (b"x" * 8001, "8001 bytes")],
)
def test_a_corrupt_chunk_names_object_voxels_and_cause(
    folder: Path, content: bytes, cause: str
) -> None:
    a_chunk(folder).write_bytes(content)
    with pytest.raises(ps.ChunkError, match=cause) as caught:
        ps.open_volume(folder)[...]
    assert caught.value.key == "8_8_8/21-41_2-22_3-23"
    assert caught.value.box == ps.Box((21, 2, 3), (41, 22, 23))
    assert str(folder) in str(caught.value)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), ps.ChunkError)


@pytest.mark.parametrize("wrong", [b"", bytes(400), bytes(7999), bytes(8001)])
def test_a_part_of_a_corrupt_raw_chunk_is_an_error_too(folder: Path, wrong: bytes) -> None:
    """Also where only those bytes would be read, 400 for a plane, that the part needs."""
    a_chunk(folder).write_bytes(wrong)
    volume = ps.open_volume(folder)
    with pytest.raises(ps.ChunkError, match="21-41_2-22_3-23"):
        volume[21:41, 2:22, 5]
    with pytest.raises(ps.ChunkError, match="21-41_2-22_3-23"):
        volume.read_points(np.array([[25, 5, 5], [25, 5, 6]]))


def test_a_part_of_a_missing_raw_chunk_is_the_fill_value_or_an_error(
    folder: Path, data: np.ndarray
) -> None:
    a_chunk(folder).unlink()
    data[20:40, 0:20, 0:20] = 0
    np.testing.assert_array_equal(ps.open_volume(folder)[:, :, 5], data[:, :, 2:3])
    with pytest.raises(ps.MissingChunkError, match="21-41_2-22_3-23"):
        ps.open_volume(folder, missing="raise")[:, :, 5]


def bytes_read() -> int:
    """By system calls of this process."""
    with open("/proc/self/io") as file:
        return int(dict(line.split(": ") for line in file)["rchar"])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count")
@pytest.mark.skipif(not file_blocks.is_available(), reason="installed without a compiler")
def test_no_more_of_a_raw_chunk_is_read_than_is_wanted(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(1, 1 << 60, (64, 64, 64), np.uint64)
    ps.to_precomputed(
        data, tmp_path, dims=("x", "y", "z"), resolution=(1, 1, 1), encoding="raw",
        chunk_size=(64, 64, 64),
    )  # fmt: skip
    volume = ps.open_volume(tmp_path)
    points = np.array([[3, 5, 7], [8, 6, 9], [50, 41, 32]])
    before = bytes_read()
    overhead = bytes_read() - before
    for box, most in [
        ((slice(3, 9), slice(5, 7), slice(7, 8)), 64 * 2 * 8),
        ((slice(3, 9), slice(5, 7), slice(7, 10)), 3 * 64 * 64 * 8),
        ((slice(0, 64), slice(9, 10), slice(0, 64)), 64 * 64 * 8),
    ]:
        before = bytes_read()
        found = volume[box][..., 0]
        assert bytes_read() - before - overhead <= most
        np.testing.assert_array_equal(found, data[box])
    before = bytes_read()
    found = volume.read_points(points)
    assert bytes_read() - before - overhead <= 3 * 8
    np.testing.assert_array_equal(found, data[tuple(points.T)])


def test_of_a_chunk_from_another_process_no_other_slices_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cloudvolume")
    pytest.importorskip("crackle")
    labels = np.random.default_rng(0).integers(0, 9, (50, 40, 30, 1), np.uint32)
    info = make_info(
        size=labels.shape[:3],
        chunk_size=(20, 20, 20),
        voxel_offset=(1, 2, 3),
        dtype="uint32",
        layer_type="segmentation",
        encoding="crackle",
    )
    cloudvolume_write(tmp_path / "layer", info, labels, compress=False)
    slabs: list[Any] = []
    original = isolation.decoded

    def decoded(*args: Any, slab: Any, **options: Any) -> Any:
        slabs.append(slab)
        return original(*args, slab=slab, **options)

    monkeypatch.setattr(isolation, "decoded", decoded)
    volume = ps.open_volume(tmp_path / "layer")
    np.testing.assert_array_equal(volume[1:21, 2:22, 10:18:3], labels[:20, :20, 7:15:3])
    np.testing.assert_array_equal(volume[2:5, 2:22, 22:24], labels[1:4, :20, 19:21])
    points = np.array([[3, 4, 19], [5, 6, 12], [4, 4, 14]])
    x, y, z = (points - (1, 2, 3)).T
    np.testing.assert_array_equal(volume.read_points(points), labels[x, y, z, 0])
    assert sorted(slabs) == [(0, 1), (7, 14), (9, 17), (19, 20)]


def test_a_chunk_that_may_not_be_read_is_an_error(folder: Path) -> None:
    a_chunk(folder).unlink()
    a_chunk(folder).mkdir()
    with pytest.raises(ps.StorageError):
        ps.open_volume(folder)[...]


@pytest.mark.parametrize("cut", [0, 8, 15, 40])
def test_a_truncated_shard_is_an_error_and_not_zeros(
    tmp_path: Path, data: np.ndarray, cut: int
) -> None:
    sharding = {"hash": "identity", "preshift_bits": 0, "minishard_bits": 0, "shard_bits": 0}
    info = make_info(size=(50, 40, 30), chunk_size=(20, 20, 20), sharding=sharding)
    tensorstore_write(tmp_path / "layer", info, data)
    shard = tmp_path / "layer" / "8_8_8" / "0.shard"
    shard.write_bytes(shard.read_bytes()[:cut])
    with pytest.raises(ps.PrecomputedError, match=r"0\.shard"):
        ps.open_volume(tmp_path / "layer")[...]


def test_a_damaged_minishard_index_is_an_error(tmp_path: Path, data: np.ndarray) -> None:
    sharding = {"hash": "identity", "preshift_bits": 0, "minishard_bits": 0, "shard_bits": 0}
    info = make_info(size=(50, 40, 30), chunk_size=(20, 20, 20), sharding=sharding)
    tensorstore_write(tmp_path / "layer", info, data)
    shard = tmp_path / "layer" / "8_8_8" / "0.shard"
    content = bytearray(shard.read_bytes())
    _, stop = np.frombuffer(bytes(content[:16]), "<u8")
    content[8:16] = int(stop - 1).to_bytes(8, "little")
    shard.write_bytes(content)
    with pytest.raises(ps.ChunkError, match=r"0\.shard.*multiple of 24"):
        ps.open_volume(tmp_path / "layer")[...]


def test_a_layer_that_is_not_there_says_what_is(tmp_path: Path) -> None:
    with pytest.raises(ps.VolumeNotFoundError, match="looked for"):
        ps.open_volume(tmp_path / "nothing")
    (tmp_path / "something.txt").touch()
    with pytest.raises(ps.VolumeNotFoundError, match=r"the folder holds 'something\.txt'"):
        ps.open_volume(tmp_path)
    (tmp_path / "zarr.json").write_text("{}")
    with pytest.raises(ps.VolumeNotFoundError, match="Zarr v3"):
        ps.open_volume(tmp_path)


def test_redirects_are_followed_within_bounds(folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for place, target in ((first, second), (second, folder)):
        place.mkdir()
        (place / "info").write_text(f'{{"redirect": "precomputed://file://{target}"}}')
    assert ps.open_volume(first).url == ps.open_volume(folder).url
    with pytest.raises(ps.MetadataError, match="only 1 redirects are allowed"):
        ps.open_volume(first, max_redirects=1)
    with pytest.raises(ps.MetadataError, match="only 0 redirects"):
        ps.open_volume(first, max_redirects=0)
    (second / "info").write_text(f'{{"redirect": "file://{first}"}}')
    with pytest.raises(ps.MetadataError, match="in a circle"):
        ps.open_volume(first)


@pytest.mark.parametrize("wrong", [-1, True, "3", None])
def test_the_number_of_redirects_is_checked(folder: Path, wrong: Any) -> None:
    with pytest.raises(ValueError, match="max_redirects is"):
        ps.open_volume(folder, max_redirects=wrong)


def test_a_scale_that_cannot_be_used_names_those_that_can(tmp_path: Path) -> None:
    info = make_info(size=(8, 8, 8))
    info["scales"].insert(0, {**info["scales"][0], "key": "first", "encoding": "wavelet"})
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "info").write_text(json.dumps(info))
    message = r"^scale 0 cannot be used, only 1 \('8_8_8'\): scales\[0\]\.encoding"
    with pytest.raises(ps.MetadataError, match=message):
        ps.open_volume(layer)


def test_create_refuses_to_replace_a_layer(folder: Path) -> None:
    with pytest.raises(FileExistsError, match=r"mode='r\+'"):
        ps.create(folder, INFO)
    with pytest.raises(ps.MetadataError, match="size"):
        ps.create(folder / "new", make_info(size=(0, 1, 1)))
    assert not (folder / "new").exists()
    assert ps.create(folder, INFO, overwrite=True).info.scales[0].size == (50, 40, 30)


def test_create_refuses_what_neuroglancer_misreads_without_a_word(tmp_path: Path) -> None:
    info = make_info(size=(8, 8, 8), dtype="uint16", num_channels=2, encoding="png")
    with pytest.raises(ValueError, match="allow_misread=True"):
        ps.create(tmp_path / "layer", info)
    assert not (tmp_path / "layer").exists()
    assert ps.create(tmp_path / "layer", info, allow_misread=True).info.num_channels == 2


def test_nested_folders_of_neuroglancer_scripts_are_read(
    folder: Path, tmp_path: Path, data: np.ndarray
) -> None:
    nested = tmp_path / "nested"
    for path in (folder / "8_8_8").iterdir():
        target = nested / "8_8_8" / path.name.replace("_", "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    (folder / "info").rename(nested / "info")
    np.testing.assert_array_equal(ps.open_volume(nested)[...], data)
    volume = ps.open_volume(nested, mode="r+")
    volume[1:21, 2:22, 3:23] = 7
    data[:20, :20, :20] = 7
    np.testing.assert_array_equal(ps.open_volume(nested)[...], data)
    volume[1:21, 2:22, 3:23] = 0
    data[:20, :20, :20] = 0
    np.testing.assert_array_equal(ps.open_volume(nested)[...], data)


def test_many_threads_may_read_one_volume(folder: Path, data: np.ndarray) -> None:
    volume, wrong = ps.open_volume(folder), []

    def read() -> None:
        wrong.extend(1 for _ in range(5) if not np.array_equal(volume[...], data))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_reads_with_threads_of_its_own(folder: Path, data: np.ndarray) -> None:
    volume = ps.open_volume(folder)
    volume[...]
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(volume[...], data) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_selection_of_everything_is_everything(folder: Path, data: np.ndarray) -> None:
    array = ps.open_layer(folder).array()
    out = array.read(full_selection(array.shape))
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out, data.transpose())
    assert array.num_chunks(full_selection(array.shape)) == 12
