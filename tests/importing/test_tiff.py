"""Volumes in one TIFF file; golden values are those of tifffile."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import precomputed_store as ps
from precomputed_store.errors import FormatError


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw"},
        {"compression": "lzw", "rowsperstrip": 7},
        {"compression": "zlib", "tile": (16, 16)},
        {"byteorder": ">"},
        {"bigtiff": True, "contiguous": False},
    ],
    ids=["mapped", "pages", "strips", "tiles", "big-endian", "scattered"],
)
def test_a_volume_is_what_tifffile_reads(
    folder: Path, voxels: np.ndarray, options: dict[str, Any]
) -> None:
    path = folder / "a.tif"
    tifffile.imwrite(path, voxels, **options)
    array = ps.open_source(path)
    np.testing.assert_array_equal(array.values, tifffile.imread(path))
    np.testing.assert_array_equal(array[2:4, 11:20, 3].values, voxels[2:4, 11:20, 3])
    assert array.dtype == np.dtype("uint16")


def test_imagej_metadata_give_the_resolution(folder: Path, voxels: np.ndarray) -> None:
    path = folder / "a.tif"
    tifffile.imwrite(
        path,
        voxels,
        imagej=True,
        resolution=(1 / 0.798, 1 / 0.4),
        metadata={"spacing": 2.0, "unit": "\\u00B5m", "axes": "ZYX"},
    )
    array = ps.open_source(path)
    assert array.attrs["resolution"] == [798, 400, 2000]
    assert array.z.values.tolist() == [1000, 3000, 5000, 7000, 9000]
    volume = ps.to_precomputed(array, "memory://imagej", layer_type="segmentation")
    assert volume.resolution == (798, 400, 2000)
    np.testing.assert_array_equal(volume[...][..., 0], voxels.T)


def test_ome_metadata_give_axes_and_resolution(folder: Path) -> None:
    path = folder / "a.ome.tif"
    stored = np.arange(3 * 2 * 20 * 30, dtype="uint16").reshape(3, 2, 20, 30)
    metadata = {
        "axes": "ZCYX",
        "PhysicalSizeX": 4.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.004,
        "PhysicalSizeZ": 0.05,
        "PhysicalSizeZUnit": "µm",
    }
    tifffile.imwrite(path, stored, metadata=metadata)
    array = ps.open_source(path)
    assert array.dims == ("channel", "z", "y", "x")
    assert array.attrs["resolution"] == [4, 4, 50]
    np.testing.assert_array_equal(array.values, stored.transpose(1, 0, 2, 3))


def test_dots_per_inch_are_no_voxel_size(folder: Path, voxels: np.ndarray) -> None:
    tifffile.imwrite(folder / "a.tif", voxels, resolution=(72, 72), resolutionunit="INCH")
    assert "resolution" not in ps.open_source(folder / "a.tif").attrs


def test_time_is_asked_about(folder: Path, voxels: np.ndarray) -> None:
    path = folder / "a.tif"
    tifffile.imwrite(path, voxels, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(ValueError, match=r"axes t 5, y 30, x 40; .* what is t\? .*axes='zyx'"):
        ps.open_source(path)
    np.testing.assert_array_equal(ps.open_source(path, axes="zyx").values, voxels)


def test_of_several_images_one_is_named(folder: Path, voxels: np.ndarray) -> None:
    path = folder / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((8, 9), "uint8"))
        file.write(voxels)
    with pytest.raises(ValueError, match=r"by its number: #0: uint8 \(8, 9\) YX, #1: uint16"):
        ps.open_source(path)
    np.testing.assert_array_equal(ps.open_source(f"{path}#1").values, voxels)


def test_a_pyramid_is_read_at_its_finest(folder: Path) -> None:
    path = folder / "a.tif"
    fine = np.arange(64 * 64, dtype="uint16").reshape(64, 64)
    with tifffile.TiffWriter(path) as file:
        file.write(fine, subifds=1, tile=(16, 16), compression="zlib")
        file.write(fine[::2, ::2], subfiletype=1, tile=(16, 16), compression="zlib")
    np.testing.assert_array_equal(ps.open_source(path)[0].values, fine)


def test_a_mask_becomes_zeros_and_ones(folder: Path, voxels: np.ndarray) -> None:
    tifffile.imwrite(folder / "a.tif", voxels > 300)
    array = ps.open_source(folder / "a.tif")
    assert (array.dtype, array.attrs["source_dtype"]) == (np.uint8, "bool")
    np.testing.assert_array_equal(array.values, voxels > 300)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.7, 0.9, 0.999])
@pytest.mark.parametrize("slices", [1, 5])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw", "rowsperstrip": 50},
        {"compression": "zlib", "tile": (64, 64)},
        {"metadata": None},
        {"metadata": None, "compression": "lzw"},
        {"imagej": True},
        {"ome": True, "compression": "lzw"},
    ],
    ids=["mapped", "strips", "tiles", "bare", "bare strips", "imagej", "ome"],
)
def test_a_file_that_was_cut_is_broken_and_named(
    folder: Path, options: dict[str, Any], slices: int, part: float
) -> None:
    path = folder / "a.tif"
    noise = np.random.default_rng(0).integers(0, 2**16, (slices, 200, 220), dtype="uint16")
    tifffile.imwrite(path, noise, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    if options.get("ome") and part > 0.99:
        # Of OME the description comes last: the voxels are whole.
        np.testing.assert_array_equal(ps.open_source(path).values, noise)
        return
    with pytest.raises(FormatError, match=r"a\.tif: "):
        ps.open_source(path).values  # noqa: B018


def test_a_file_can_be_read_in_another_process(folder: Path, voxels: np.ndarray) -> None:
    tifffile.imwrite(folder / "a.tif", voxels, compression="lzw")
    array = pickle.loads(pickle.dumps(ps.open_source(folder / "a.tif")))
    np.testing.assert_array_equal(array.values, voxels)
