"""Going on with a write that was interrupted: what is stored is done, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.storage import Storage
from precomputed_store.writing import coarse_scales, run, tiling

RECORD = "write-in-progress.json"
SIZE = (40, 33, 27)
SHARDINGS: dict[str, Any] = {
    "none": None,
    "boxes": ps.ShardingSpec(hash="identity", preshift_bits=2, minishard_bits=1, shard_bits=9),
    "scattered": ps.ShardingSpec(
        hash="murmurhash3_x86_128", preshift_bits=1, minishard_bits=1, shard_bits=3
    ),
}
Files = dict[str, tuple[int, bytes]]


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """Without an empty chunk at any scale."""
    return np.random.default_rng(0).integers(1, 4, SIZE, dtype=np.uint32)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (coarse_scales, run):
        monkeypatch.setattr(module, "LARGEST_BLOCK_BYTES", 1 << 14)
    monkeypatch.setitem(tiling.tile.__kwdefaults__, "largest", 1 << 14)


def write(array: Any, folder: Path, **options: Any) -> Any:
    given: dict[str, Any] = {
        "dims": ("x", "y", "z"),
        "resolution": (8, 8, 8),
        "chunk_size": (8, 8, 8),
        "pyramid": [(2, 2, 2), (2, 2, 1)],
    }
    return ps.to_precomputed(array, folder, **{**given, **options})


def files(folder: Path) -> Files:
    """Of each file the number of its inode, which a new file does not have, and its bytes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class InterruptedHereError(Exception):
    pass


def interrupt_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let so many chunks or shards be stored, then fail."""
    original, left = Storage.put, [count]

    def put(self: Storage, key: str, data: Any, **options: Any) -> None:
        if "/" in key:
            if left[0] <= 0:
                raise InterruptedHereError
            left[0] -= 1
        original(self, key, data, **options)

    monkeypatch.setattr(Storage, "put", put)


@pytest.mark.parametrize("count", [0, 1, 5, 60, 10**9])
@pytest.mark.parametrize("chunks", [None, 11], ids=["numpy", "dask"])
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_resumed_job_equals_an_uninterrupted_one_and_rewrites_nothing(
    tmp_path: Path, labels: np.ndarray, sharding: str, chunks: Any, count: int
) -> None:
    array = labels if chunks is None else da.from_array(labels, chunks=chunks)
    options = {"sharding": SHARDINGS[sharding]}
    write(array, tmp_path / "whole", **options)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, count)
        try:
            write(array, tmp_path / "layer", **options)
        except InterruptedHereError:
            assert count < 10**9
    before = files(tmp_path / "layer")
    volume = write(array, tmp_path / "layer", resume=True, **options)
    after = files(tmp_path / "layer")
    assert len(volume.scales) == 3
    expected = {name: data for name, (_, data) in files(tmp_path / "whole").items()}
    assert {name: data for name, (_, data) in after.items()} == expected
    kept = [name for name in before if "/" in name and ".staging" not in name]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}


@pytest.mark.parametrize(
    "other",
    [
        {"method": "max"},
        {"pyramid": [(2, 2, 2)]},
        {"encoding": "raw"},
        {"sharding": "auto"},
        {"write_empty_chunks": True},
        {"voxel_offset": (1, 2, 3)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_job_is_not_resumed(
    tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    interrupt_after(monkeypatch, 3)
    with pytest.raises(InterruptedHereError):
        write(labels, tmp_path)
    before = files(tmp_path)
    with pytest.raises(ValueError, match="is of another job"):
        write(labels, tmp_path, resume=True, **other)
    assert files(tmp_path) == before


def test_an_interrupted_write_is_not_begun_again_unasked(
    tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, 3)
    with pytest.raises(InterruptedHereError):
        write(labels, tmp_path)
    with pytest.raises(FileExistsError, match="resume=True goes on with it"):
        write(labels, tmp_path)
    monkeypatch.undo()
    write(labels, tmp_path, mode="w")
    assert not (tmp_path / RECORD).exists()
    np.testing.assert_array_equal(ps.open_volume(tmp_path)[...][..., 0], labels)


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.usefixtures("small_blocks")
def test_replacing_an_interrupted_write_leaves_nothing_of_it(
    tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch, sharding: str
) -> None:
    source = da.from_array(labels, chunks=11)
    interrupt_after(monkeypatch, 110 if sharding == "none" else 20)
    # Threads of dask would end what they had begun after the first error.
    with dask.config.set(scheduler="synchronous"), pytest.raises(InterruptedHereError):
        write(source, tmp_path, sharding=SHARDINGS[sharding])
    monkeypatch.undo()
    write(labels, tmp_path, mode="w", pyramid=None, key="mine")
    assert {name.partition("/")[0] for name in files(tmp_path)} == {"info", "mine"}


def test_with_nothing_to_resume_the_layer_is_made(tmp_path: Path, labels: np.ndarray) -> None:
    write(labels, tmp_path, resume=True)
    np.testing.assert_array_equal(ps.open_volume(tmp_path)[...][..., 0], labels)


@pytest.mark.parametrize("compute", [True, False], ids=["now", "later"])
def test_what_is_complete_is_left_alone(tmp_path: Path, labels: np.ndarray, compute: bool) -> None:
    write(labels, tmp_path)
    before = files(tmp_path)
    volume = write(labels, tmp_path, resume=True, compute=compute)
    volume = volume if compute else volume.compute()
    assert len(volume.scales) == 3
    assert files(tmp_path) == before


def test_layers_that_are_complete_are_each_given_back(tmp_path: Path, labels: np.ndarray) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        write(labels, folder)
    volumes = dask.compute(*(write(labels, each, resume=True, compute=False) for each in folders))
    assert [volume.url for volume in volumes] == [folder.as_uri() for folder in folders]


def test_another_layer_is_not_taken_for_a_complete_one(tmp_path: Path, labels: np.ndarray) -> None:
    write(labels, tmp_path, pyramid=None)
    with pytest.raises(FileExistsError, match="there is a layer already"):
        write(labels, tmp_path, resume=True)


def test_writes_into_a_layer_are_not_resumed(tmp_path: Path, labels: np.ndarray) -> None:
    write(labels, tmp_path)
    with pytest.raises(ValueError, match="resume=True goes on with the making of a layer"):
        write(labels, tmp_path, mode="r+", pyramid=None, resume=True)


def test_a_layer_without_info_but_with_chunks_is_not_written_over(
    tmp_path: Path, labels: np.ndarray
) -> None:
    write(labels, tmp_path)
    (tmp_path / "info").unlink()
    with pytest.raises(FileExistsError, match="there is no layer, but chunks of one"):
        write(labels, tmp_path)
    write(labels, tmp_path, mode="w")
    np.testing.assert_array_equal(ps.open_volume(tmp_path)[...][..., 0], labels)


def test_a_file_that_is_no_record_is_left_alone(tmp_path: Path, labels: np.ndarray) -> None:
    (tmp_path / RECORD).write_text('{"mine": 1}')
    with pytest.raises(ps.StorageError, match="is not the record of a write"):
        write(labels, tmp_path, resume=True)
    assert (tmp_path / RECORD).read_text() == '{"mine": 1}'


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_downsampling_is_resumed_too(tmp_path: Path, labels: np.ndarray, sharding: str) -> None:
    write(labels, tmp_path / "whole", sharding=SHARDINGS[sharding])
    write(labels, tmp_path / "layer", sharding=SHARDINGS[sharding], pyramid=None)
    factors = [(2, 2, 2), (2, 2, 1)]
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(InterruptedHereError):
            ps.downsample(tmp_path / "layer", factors)
    assert len(ps.open_layer(tmp_path / "layer").info.scales) == 1
    with pytest.raises(FileExistsError, match="resume=True"):
        ps.downsample(tmp_path / "layer", factors)
    with pytest.raises(ValueError, match="is of another job: its method"):
        ps.downsample(tmp_path / "layer", factors, method="max", resume=True)
    before = files(tmp_path / "layer")
    ps.downsample(tmp_path / "layer", factors, resume=True)
    after = files(tmp_path / "layer")
    expected = {name: data for name, (_, data) in files(tmp_path / "whole").items()}
    assert {name: data for name, (_, data) in after.items()} == expected
    kept = [name for name in before if "/" in name]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    ps.downsample(tmp_path / "layer", factors, resume=True, scale=0)
    assert files(tmp_path / "layer") == after


def test_a_job_whose_scales_are_named_already_is_resumed_too(
    tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(labels, tmp_path, pyramid=None)

    def interrupted(_: Storage) -> None:
        raise InterruptedHereError

    monkeypatch.setattr(coarse_scales, "end_record", interrupted)
    with pytest.raises(InterruptedHereError):
        ps.downsample(tmp_path, [(2, 2, 2)])
    monkeypatch.undo()
    volume = ps.downsample(tmp_path, [(2, 2, 2)], resume=True)
    assert [scale.key for scale in volume.scales] == ["8_8_8", "16_16_16"]
    assert not (tmp_path / RECORD).exists()


def test_coarser_scales_are_not_made_of_one_that_is_not_complete(
    tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, 3)
    with pytest.raises(InterruptedHereError):
        write(labels, tmp_path)
    monkeypatch.undo()
    with pytest.raises(FileExistsError, match="its writing was interrupted"):
        ps.downsample(tmp_path, 1, overwrite=True)
    with pytest.raises(ValueError, match="is of another job"):
        ps.downsample(tmp_path, 1, resume=True)
    assert (tmp_path / RECORD).exists()


PROGRAM = """
import sys, time
import numpy as np, dask.array as da, precomputed_store as ps
labels = np.random.default_rng(0).integers(1, 4, (40, 33, 27), dtype=np.uint32)
def slow(block):
    time.sleep(0.03)
    return block
source = da.from_array(labels, chunks=8).map_blocks(slow, dtype=labels.dtype)
ps.to_precomputed(
    source, sys.argv[1], dims=("x", "y", "z"), resolution=(8, 8, 8), chunk_size=(8, 8, 8),
    pyramid=[(2, 2, 2), (2, 2, 1)], resume=True,
)
"""


@pytest.mark.slow
def test_a_job_that_is_killed_again_and_again_ends_like_any_other(
    tmp_path: Path, labels: np.ndarray
) -> None:
    write(labels, tmp_path / "whole")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "layer")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    kills = 0
    for attempt in range(30):
        with subprocess.Popen(command, env=environment) as process:
            stored = -1
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                found = len(list((tmp_path / "layer").rglob("*_*_*")))
                stored = found if stored < 0 and (tmp_path / "layer" / RECORD).exists() else stored
                if attempt < 8 and stored >= 0 and found >= stored + 12:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.002)
            process.wait()
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills > 1
    expected = {name: data for name, (_, data) in files(tmp_path / "whole").items()}
    found_files = {
        name: data
        for name, (_, data) in files(tmp_path / "layer").items()
        if not Path(name).name.startswith(".precomputed-")
    }
    assert found_files == expected
    assert json.loads(found_files["info"])["scales"][2]["key"] == "32_32_16"
