"""Layers as dask arrays: values, graphs, tokens."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.engine import ChunkedArray
from tests.oracles import make_info, tensorstore_write

SIZE = (37, 29, 23)


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    return np.random.default_rng(5).integers(1, 255, (2, *reversed(SIZE)), dtype=np.uint8)


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory, voxels: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("dask") / "layer"
    info = make_info(size=SIZE, num_channels=2, voxel_offset=(-5, 10, 100), chunk_size=(16, 10, 8))
    tensorstore_write(folder, info, voxels.transpose())
    return folder


def petavoxels(folder: Path) -> Path:
    folder.mkdir()
    info = make_info(size=(250_000, 250_000, 25_000), encoding="jpeg")
    (folder / "info").write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ({}, (2, 8, 10, 16)),
        ("auto", (2, 23, 29, 37)),
        (7, (2, 7, 7, 7)),
        (-1, (2, 23, 29, 37)),
        ((1, 5, -1, 16), (1, 5, 29, 16)),
        ({"z": 16, "channel": 1}, (1, 16, 10, 16)),
        ({1: 16, -1: -1}, (2, 16, 10, 37)),
        (((2,), (8, 15), (29,), (37,)), (2, 15, 29, 37)),
    ],
    ids=str,
)
def test_chunks_are_taken_as_dask_takes_them(
    layer: Path, voxels: np.ndarray, chunks: Any, expected: tuple[int, ...]
) -> None:
    array = ps.open_dask(layer, chunks=chunks)
    assert array.chunksize == expected
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array.compute(), voxels)


@pytest.mark.parametrize(
    ("key", "most"),
    [
        (np.s_[:, 3:9, 5:7, 20:30], 2 * 6 * 2 * 10),
        (np.s_[1, 4, :, 30], 29),
        (np.s_[:, ::5, 3:20:4, :5], 2 * 5 * 5 * 5),
        (np.s_[:, [5, 3, 22], 10:20, :9], 2 * 23 * 10 * 9),
        (np.s_[0, :9, [5, 3, 20], 10:20], 9 * 29 * 10),
        (np.s_[:, :4, np.array([4, 4, 28]), 3], 2 * 4 * 29),
        (np.s_[:, 9:5:-1, ::-1, :3], 2 * 23 * 29 * 37),
    ],
    ids=str,
)
def test_what_is_sliced_away_is_not_read(
    layer: Path, voxels: np.ndarray, monkeypatch: pytest.MonkeyPatch, key: Any, most: int
) -> None:
    sizes = []
    read = ChunkedArray.read

    def counting(self: ChunkedArray, selection: Any, **options: Any) -> Any:
        sizes.append(int(np.prod(list(map(len, selection)))))
        return read(self, selection, **options)

    monkeypatch.setattr(ChunkedArray, "read", counting)
    array = ps.open_dask(layer)
    assert array.npartitions == 1
    found = array[key].compute()
    expected = da.from_array(voxels, chunks=-1)[key].compute()
    np.testing.assert_array_equal(found, expected)
    assert sum(sizes) <= most


def test_automatic_chunks_are_whole_stored_chunks(tmp_path: Path) -> None:
    folder = petavoxels(tmp_path / "large")
    with dask.config.set({"array.chunk-size": "4MiB"}):
        array = ps.open_dask(folder)
    # The last block takes what is left of the volume with it.
    assert all(length % 64 == 0 for axis in array.chunks[1:] for length in axis[:-1])
    assert 2**20 <= np.prod(array.chunksize) <= 2**23


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ({"w": 3}, "names the axis 'w'"),
        ({4: 3}, "names the axis 4"),
        ((1, 2, 3), "3 entries; expected 4"),
    ],
    ids=str,
)
def test_wrong_chunks_say_what_is_wrong(layer: Path, chunks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ps.open_dask(layer, chunks=chunks)


def test_chunks_of_a_wrong_type_are_refused(layer: Path) -> None:
    with pytest.raises(TypeError, match=r"chunks is 1\.5; expected 'auto'"):
        ps.open_dask(layer, chunks=1.5)  # type: ignore[arg-type]


def test_a_wrong_scale_lists_those_that_there_are(layer: Path) -> None:
    with pytest.raises(ValueError, match="8_8_8"):
        ps.open_dask(layer, scale="4_4_4")


@pytest.mark.parametrize(
    "key",
    [
        np.s_[1, 3:20, ::-1, 5:30:7],
        np.s_[:, [3, 1, 1]],
        np.s_[..., [20, 2, 36]],
        np.s_[:, :, np.arange(29) % 3 == 0],
        np.s_[:, 5:5],
    ],
    ids=str,
)
def test_indexing_equals_numpy(layer: Path, voxels: np.ndarray, key: Any) -> None:
    np.testing.assert_array_equal(ps.open_dask(layer, chunks={})[key].compute(), voxels[key])


def test_points_equal_numpy(layer: Path, voxels: np.ndarray) -> None:
    where = tuple(np.random.default_rng(0).integers(0, n, 50) for n in voxels.shape)
    found = ps.open_dask(layer, chunks={}).vindex[where]
    np.testing.assert_array_equal(found.compute(), voxels[where])


@pytest.mark.parametrize("scheduler", ["threads", "synchronous", "processes"])
def test_every_scheduler_computes_the_same(
    layer: Path, voxels: np.ndarray, scheduler: str
) -> None:
    array = ps.open_dask(layer, chunks={})
    with dask.config.set(scheduler=scheduler):
        total = int(array.astype("u8").sum().compute())
    assert total == int(voxels.sum())


def test_the_graph_does_not_grow_with_the_number_of_chunks(tmp_path: Path) -> None:
    array = ps.open_dask(petavoxels(tmp_path / "large"), chunks={})
    assert array.npartitions > 5e9
    assert len(array.dask.layers) == 1
    # The lengths of 8,000 chunks along three axes take most of it.
    assert len(pickle.dumps(array)) < 80_000
    assert len(pickle.dumps(array[0, :64, :64, :64])) < 80_000


def test_a_part_of_a_petavoxel_volume_reads_its_chunks_alone(tmp_path: Path) -> None:
    array = ps.open_dask(petavoxels(tmp_path / "large"), chunks={}, missing="raise")
    with pytest.raises(ps.MissingChunkError, match="64-128_0-64_0-64"):
        array[0, 5:6, 7:8, 70].compute()


def test_names_are_the_same_in_every_process(layer: Path) -> None:
    code = "import sys, precomputed_store as ps; print(ps.open_dask(sys.argv[1], chunks={}).name)"
    names = {
        subprocess.run(
            [sys.executable, "-c", code, str(layer)],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert names == {ps.open_dask(layer, chunks={}).name}
    assert ps.open_dask(layer, chunks=8).name not in names
    assert isinstance(ps.open_dask(layer), da.Array)
