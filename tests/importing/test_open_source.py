"""`open_source` as a whole: finding files, layers as sources, what the caller says."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, strategies as st

import precomputed_store as ps
from precomputed_store.errors import UnsupportedError
from precomputed_store.importing import FORMATS
from precomputed_store.importing.arrange import arrange
from precomputed_store.importing.lazy import block_shape
from precomputed_store.importing.locate import natural_key


def test_the_callers_word_goes_before_the_files(folder: Path, voxels: np.ndarray) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0, "PhysicalSizeZ": 1.0}
    tifffile.imwrite(folder / "a.ome.tif", voxels, metadata=metadata)
    array = ps.open_source(
        folder / "a.ome.tif", resolution=(4, 4.5, 40), voxel_offset=(-10, 20, 30)
    )
    volume = ps.to_precomputed(array, folder / "layer", layer_type="image")
    assert volume.resolution == (4, 4.5, 40)
    assert volume.voxel_offset == (-10, 20, 30)
    # What is cut out stays where it was.
    part = array.sel(x=slice(0, 40), y=slice(100, None))
    written = ps.to_precomputed(part, folder / "part", layer_type="image")
    np.testing.assert_array_equal(written[...], volume[written.bounds])


def test_a_single_slice_keeps_its_thickness(folder: Path, voxels: np.ndarray) -> None:
    tifffile.imwrite(folder / "a.tif", voxels[0])
    array = ps.open_source(folder / "a.tif", resolution=(4, 4, 40), voxel_offset=(0, 0, 7))
    volume = ps.to_precomputed(array, "memory://one-slice", layer_type="image")
    assert (volume.resolution, volume.voxel_offset) == ((4, 4, 40), (0, 0, 7))


@pytest.mark.parametrize("resolution", [(0, 1, 1), (1, 1), (1, float("nan"), 1)])
def test_a_resolution_that_is_none(
    folder: Path, voxels: np.ndarray, resolution: tuple[float, float, float]
) -> None:
    np.save(folder / "a.npy", voxels)
    with pytest.raises(ValueError, match="resolution is"):
        ps.open_source(folder / "a.npy", resolution=resolution)


class TestLayers:
    @pytest.fixture
    def layer(self, folder: Path, voxels: np.ndarray) -> Path:
        ps.to_precomputed(
            voxels.astype("uint32"),
            folder / "layer",
            dims=("z", "y", "x"),
            resolution=(4, 4, 40),
            voxel_offset=(1, 2, 3),
            chunk_size=(16, 8, 4),
        )
        return folder / "layer"

    def test_a_layer_is_a_source_and_its_encoding_is_kept(
        self, layer: Path, voxels: np.ndarray
    ) -> None:
        copies = [str(layer), f"precomputed://file://{layer}", f"file://{layer}#0"]
        for index, source in enumerate(copies):
            url = f"memory://copy-of-a-layer/{index}"
            copy = ps.to_precomputed(ps.open_source(source), url)
            assert (copy.layer_type, copy.scale.encoding) == (
                "segmentation",
                "compressed_segmentation",
            )
            assert copy.chunk_size == (16, 8, 4)
            assert (copy.resolution, copy.voxel_offset) == ((4, 4, 40), (1, 2, 3))
            np.testing.assert_array_equal(copy[...][..., 0], voxels.T)

    def test_another_resolution_and_type(self, layer: Path, voxels: np.ndarray) -> None:
        array = ps.open_source(layer, resolution=(8, 8, 8), dtype="uint16")
        copy = ps.to_precomputed(array, "memory://layer-as-uint16")
        assert (copy.resolution, copy.voxel_offset) == ((8, 8, 8), (1, 2, 3))
        assert (copy.dtype, copy.scale.encoding) == (np.uint16, "raw")
        np.testing.assert_array_equal(copy[...][..., 0], voxels.T)

    def test_a_layer_is_not_replaced_by_itself(self, layer: Path) -> None:
        with pytest.raises(ValueError, match="read lazily from"):
            ps.to_precomputed(ps.open_source(layer), layer, mode="w")


class TestFindingFiles:
    def test_what_is_not_there(self, folder: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no such file"):
            ps.open_source(folder / "nothing.tif")
        with pytest.raises(FileNotFoundError, match="no file matches"):
            ps.open_source(folder / "*.tif")
        with pytest.raises(FileNotFoundError, match="no slices in this folder"):
            ps.open_source(folder)

    def test_an_unknown_suffix_lists_those_that_are_known(
        self, folder: Path, voxels: np.ndarray
    ) -> None:
        np.save(folder / "a.npy", voxels)
        (folder / "a.npy").rename(folder / "a.dat")
        with pytest.raises(ValueError, match=r"a\.dat: its suffix is not known\. Known are \.tif"):
            ps.open_source(folder / "a.dat")
        with pytest.raises(ValueError, match="format is 'nrrd'; expected one of tiff, image"):
            ps.open_source(folder / "a.dat", format="nrrd")
        array = ps.open_source(folder / "a.dat", format="npy")
        np.testing.assert_array_equal(array.values, voxels)

    def test_several_files_are_slices(self, folder: Path, voxels: np.ndarray) -> None:
        np.save(folder / "a.npy", voxels)
        np.save(folder / "b.npy", voxels)
        tifffile.imwrite(folder / "c.tif", voxels[0])
        for source in ([folder / "a.npy", folder / "b.npy"], [folder / "c.tif", folder / "b.npy"]):
            with pytest.raises(ValueError, match=r"[ab]\.npy: several files are taken for slices"):
                ps.open_source(source)
        with pytest.raises(ValueError, match="no source"):
            ps.open_source([])

    def test_a_pattern_that_matches_one_file_is_that_file(
        self, folder: Path, voxels: np.ndarray
    ) -> None:
        np.save(folder / "only.npy", voxels)
        np.testing.assert_array_equal(ps.open_source(folder / "on*.npy").values, voxels)

    def test_a_file_may_have_a_hash_in_its_name(self, folder: Path, voxels: np.ndarray) -> None:
        np.save(folder / "a#b.npy", voxels)
        np.testing.assert_array_equal(ps.open_source(folder / "a#b.npy").values, voxels)

    def test_what_is_only_read_from_disks(self) -> None:
        with pytest.raises(UnsupportedError, match="hdf5 is read from local disks only"):
            ps.open_source("s3://bucket/a.h5")


@pytest.mark.parametrize(
    ("module", "name"),
    [("tifffile", "a.tif"), ("h5py", "a.h5"), ("nibabel", "a.nii"), ("PIL", "a.png")],
)
def test_a_library_that_is_missing_is_named_with_its_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    (folder / name).write_bytes(b"")
    for loaded in [*sys.modules]:
        if loaded.partition(".")[0] == module:
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnsupportedError, match=rf"{module}.*precomputed-store\[convert\]"):
        ps.open_source(folder / name)


def test_every_format_has_a_name_and_suffixes_of_its_own() -> None:
    suffixes = [suffix for found in FORMATS.values() for suffix in found.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert all(name == found.name for name, found in FORMATS.items())


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=6, unique=True))
def test_numbers_in_names_sort_by_value(numbers: list[int]) -> None:
    names = [f"Scan_{number}.tif" for number in numbers]
    expected = [f"Scan_{number}.tif" for number in sorted(numbers)]
    assert sorted(names, key=natural_key) == expected


@given(st.lists(st.text("ab09.-_ ²", max_size=6), max_size=6))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    keys = [natural_key(name) for name in names]
    assert sorted(keys, reverse=True)[::-1] == sorted(keys)


@pytest.mark.parametrize("axes", ["".join(p) for p in itertools.permutations("czyx")])
def test_axes_come_into_order_from_any(axes: str, folder: Path) -> None:
    lengths = {"c": 2, "z": 3, "y": 4, "x": 5}
    golden = np.arange(120, dtype="uint8").reshape(2, 3, 4, 5)
    stored = golden.transpose(["czyx".index(axis) for axis in axes])
    assert stored.shape == tuple(lengths[axis] for axis in axes)
    np.save(folder / "a.npy", np.ascontiguousarray(stored))
    array = ps.open_source(folder / "a.npy", axes=axes)
    np.testing.assert_array_equal(array.values, golden)


@pytest.mark.parametrize("axes", ["zy", "zyy", "z-yx", ""])
def test_letters_that_are_no_axes(axes: str, folder: Path, voxels: np.ndarray) -> None:
    np.save(folder / "a.npy", voxels)
    with pytest.raises(ValueError, match=r"axes is .*expected one letter for each axis"):
        ps.open_source(folder / "a.npy", axes=axes)


def test_two_axes_of_channels_are_asked_about() -> None:
    with pytest.raises(ValueError, match=r"what is c\? Say which"):
        arrange("cyxc", (2, 8, 9, 3), is_given=False)
    assert arrange("tcyx", (1, 2, 8, 9), is_given=False).dims == ("channel", "z", "y", "x")


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 300)), min_size=2, max_size=4),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from(["C", "F"]),
)
def test_blocks_are_whole_stored_chunks_and_bounded(
    axes: list[tuple[int, int]], itemsize: int, order: str
) -> None:
    shape = tuple(n for n, _ in axes)
    stored = tuple(min(n, c) for n, c in axes)
    block = block_shape(shape, itemsize, stored=stored, order=order, largest=1 << 22)  # type: ignore[arg-type]
    for b, n, c in zip(block, shape, stored, strict=True):
        assert b == n or b % c == 0
    most = max(1 << 22, int(np.prod(stored)) * itemsize)
    assert int(np.prod(block)) * itemsize <= most
