"""Raw layers of local disks are read straight into place, and otherwise as all others are."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import precomputed_store as ps
from precomputed_store import block_plan
from precomputed_store._native import file_blocks as native
from precomputed_store.chunk_source import FileSource
from precomputed_store.engine import ChunkedArray
from precomputed_store.errors import ChunkError, MissingChunkError, StorageError
from tests import oracles

needs_kernel = pytest.mark.skipif(
    not native.is_available(), reason="the package was installed without a compiler"
)
SIZE = (37, 29, 23)
CHUNK = (8, 5, 6)
OFFSET = (-3, 100, 7)
DTYPES = ["uint8", "uint16", "uint32", "uint64", "float32"]
NUM_CHUNKS = 5 * 6 * 4


@pytest.fixture(autouse=True)
def _tiny_chunks_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_plan, "_FEWEST_BYTES", 0)


def voxels(dtype: str, channels: int) -> np.ndarray[Any, Any]:
    """``(x, y, z, channel)``, none of them zero."""
    rng = np.random.default_rng(4)
    return rng.integers(1, 200, (*SIZE, channels)).astype(dtype)


@pytest.fixture(scope="module", params=[(d, c) for d in DTYPES for c in (1, 3)], ids=str)
def layer(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An array and the layer that TensorStore wrote of it."""
    dtype, channels = request.param
    data = voxels(dtype, channels)
    info = oracles.make_info(size=SIZE, dtype=dtype, encoding="raw", layer_type="image")
    info["num_channels"] = channels
    info["scales"][0] |= {"chunk_sizes": [list(CHUNK)], "voxel_offset": list(OFFSET)}
    folder = tmp_path_factory.mktemp("raw")
    oracles.tensorstore_write(folder, info, data)
    return data, ps.open_volume(folder).array


@contextlib.contextmanager
def nothing_is_fetched() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileSource, "fetch", lambda *_: pytest.fail("a chunk was fetched"))
        yield


@needs_kernel
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_boxes_are_read_into_their_places(layer: Any, data: st.DataObject) -> None:
    stored, array = layer
    expected = stored.transpose()
    box = [
        range(*sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))))
        for n in expected.shape
    ]
    with nothing_is_fetched():
        found = array.read(tuple(box))
    np.testing.assert_array_equal(found, expected[np.ix_(*box)])


@needs_kernel
def test_points_are_read_into_their_places(layer: Any) -> None:
    stored, array = layer
    expected = stored.transpose()
    rng = np.random.default_rng(1)
    for count in (1, 2, 1000):
        points = tuple(rng.integers(0, n, count) for n in expected.shape)
        with nothing_is_fetched():
            found = array.read_points(points)
        np.testing.assert_array_equal(found, expected[points])
    assert array.read_points(tuple(np.empty((4, 0), np.intp))).shape == (0,)


def test_without_the_kernel_the_same_comes_out(
    layer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "is_available", lambda: False)
    stored, array = layer
    array = ChunkedArray(**array.__getstate__())
    object.__setattr__(array, "storage", ps.open_volume(array.storage.url).array.storage)
    assert not array.storage.has_blocks
    expected = stored.transpose()
    np.testing.assert_array_equal(array.read(tuple(map(range, expected.shape))), expected)


def test_steps_and_index_arrays_are_no_boxes(layer: Any) -> None:
    stored, array = layer
    expected = stored.transpose()
    c, z, y, x = map(range, expected.shape)
    for selection in [(c, z[::2], y, x), (c, z, np.array([3, 1, 7]), x)]:
        found = array.read(selection)
        np.testing.assert_array_equal(found, expected[np.ix_(*selection)])


def a_layer(folder: Path) -> tuple[np.ndarray[Any, Any], ps.Volume, Path]:
    data = voxels("uint16", 1)[..., 0]
    volume = ps.to_precomputed(
        data, folder, dims=("x", "y", "z"), resolution=(8, 8, 8), encoding="raw",
        chunk_size=CHUNK, layer_type="image",
    )  # fmt: skip
    path = folder / "8_8_8" / "8-16_5-10_6-12"
    assert path.stat().st_size == 8 * 5 * 6 * 2
    return data, volume, path


def test_chunks_that_are_not_plain_files_are_fetched(tmp_path: Path) -> None:
    data, _, path = a_layer(tmp_path / "layer")
    moved = path.with_name("8-16_10-15_6-12").rename(tmp_path / "layer" / "elsewhere")
    path.with_name("8-16_10-15_6-12").symlink_to(moved)
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    done = []
    array = ps.open_volume(tmp_path / "layer").array
    found = array.read(tuple(map(range, array.shape)), advance=done.append)
    np.testing.assert_array_equal(found[0].T, data)
    assert sum(done) == NUM_CHUNKS


def test_missing_chunks_are_zeros_or_an_error(tmp_path: Path) -> None:
    data, volume, path = a_layer(tmp_path / "layer")
    path.unlink()
    data[8:16, 5:10, 6:12] = 0
    np.testing.assert_array_equal(volume[...][..., 0], data)
    points = np.argwhere(np.ones(SIZE, bool))[::7]
    np.testing.assert_array_equal(volume.read_points(points), data[tuple(points.T)])
    strict = ps.open_volume(tmp_path / "layer", missing="raise")
    for read in (lambda: strict[...], lambda: strict.read_points(points)):
        with pytest.raises(MissingChunkError, match="8-16_5-10_6-12"):
            read()


def test_chunks_of_another_length_are_errors_that_name_them(tmp_path: Path) -> None:
    _, volume, path = a_layer(tmp_path / "layer")
    for data in (path.read_bytes()[:-1], path.read_bytes() + b"-"):
        path.write_bytes(data)
        with pytest.raises(ChunkError, match=r"8-16_5-10_6-12.*raw chunk is"):
            volume[...]


def test_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    _, volume, path = a_layer(tmp_path / "parent" / "layer")
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="outside of"):
        volume[...]


def test_an_empty_folder_warns_as_ever(tmp_path: Path) -> None:
    _, volume, path = a_layer(tmp_path / "layer")
    for chunk in path.parent.iterdir():
        chunk.unlink()
    with pytest.warns(ps.MissingDataWarning, match=f"none of the {NUM_CHUNKS} chunks"):
        assert not volume[...].any()


@needs_kernel
def test_reads_are_shared_out_without_a_gap(layer: Any) -> None:
    _, array = layer
    plan = block_plan.SelectionPlan(
        selection=tuple(map(range, array.shape)),
        grid=array.grid,  # type: ignore[arg-type]
    )
    blocks = plan.blocks(array.num_channels, np.empty(array.shape, array.dtype))
    assert blocks is not None
    assert len(blocks) == NUM_CHUNKS
    found = [number for share in block_plan.shares(blocks) for number in range(NUM_CHUNKS)[share]]
    assert found == list(range(NUM_CHUNKS))
    assert len(block_plan.shares(blocks)) > 1
