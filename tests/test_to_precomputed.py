"""Arrays of every kind written as layers, and read by TensorStore and CloudVolume."""

from __future__ import annotations

import json
import pickle
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

import precomputed_store as ps
from tests.oracles import cloudvolume_read, make_info, tensorstore_read, tensorstore_write

SIZE = (37, 29, 23)
RESOLUTION = (8, 8, 40)
DIMS = ("channel", "z", "y", "x")


@pytest.fixture
def voxels() -> np.ndarray:
    """``(channel, z, y, x)``, no voxel zero."""
    return np.random.default_rng(7).integers(1, 255, (1, *reversed(SIZE)), dtype=np.uint8)


def stored(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write(array: Any, folder: Path, **options: Any) -> ps.Volume:
    volume = ps.to_precomputed(array, folder, **options)
    assert isinstance(volume, ps.Volume)
    return volume


# --- every kind of array, in every order


def with_coordinates(voxels: np.ndarray) -> xr.DataArray:
    coordinates = {
        name: (np.arange(n) + 0.5) * r for name, n, r in zip("xyz", SIZE, RESOLUTION, strict=True)
    }
    return xr.DataArray(voxels, coordinates, DIMS)


def as_opened(voxels: np.ndarray, tmp_path: Path, **options: Any) -> xr.Dataset:
    info = make_info(size=SIZE, resolution=RESOLUTION, chunk_size=(16, 10, 8))
    tensorstore_write(tmp_path / "source", info, voxels.T)
    return xr.open_dataset(tmp_path / "source", engine="precomputed", **options)


KINDS: dict[str, Callable[[np.ndarray, Path], tuple[Any, dict[str, Any]]]] = {
    "numpy": lambda v, _: (v, {"dims": DIMS}),
    "numpy without channel": lambda v, _: (v[0], {"dims": "zyx"}),
    "numpy x first": lambda v, _: (v.T, {"dims": ("x", "y", "z", "c")}),
    "numpy Fortran order": lambda v, _: (np.asfortranarray(v[0].T), {"dims": ("x", "y", "z")}),
    "numpy odd order": lambda v, _: (
        v.transpose(2, 0, 3, 1),
        {"dims": ("y", "channel", "x", "z")},
    ),
    "big-endian numpy": lambda v, _: (v.astype(">u2"), {"dims": DIMS, "layer_type": "image"}),
    "dask": lambda v, _: (da.from_array(v, chunks=(1, 5, 7, 11)), {"dims": DIMS}),
    "dask x first": lambda v, _: (da.from_array(v.T, chunks=(20, 3, -1, 1)), {"dims": "xyzc"}),
    "dask without channel": lambda v, _: (da.from_array(v[0], chunks=9), {"dims": "zyx"}),
    "DataArray": lambda v, _: (with_coordinates(v), {}),
    "DataArray x first": lambda v, _: (
        with_coordinates(v).transpose("x", "y", "z", "channel"),
        {},
    ),
    "DataArray without channel": lambda v, _: (with_coordinates(v)[0], {}),
    "DataArray in chunks": lambda v, _: (with_coordinates(v).chunk(x=10, z=9), {}),
    "DataArray with names to come": lambda v, _: (xr.DataArray(v), {"dims": DIMS}),
    "Dataset": lambda v, _: (with_coordinates(v).to_dataset(name="image"), {}),
    "lazy dataset": lambda v, path: (as_opened(v, path), {}),
    "lazy dataset, transposed": lambda v, path: (
        as_opened(v, path).transpose("x", "channel", "z", "y"),
        {},
    ),
    "dataset in chunks": lambda v, path: (as_opened(v, path, chunks={}), {}),
    "dataset without coordinates": lambda v, path: (as_opened(v, path, coords=None), {}),
    "dataset of voxel indices": lambda v, path: (as_opened(v, path, coords="voxel"), {}),
    "zarr array": lambda v, _: (zarr.array(v, chunks=(1, 10, 10, 10)), {"dims": DIMS}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("delayed", [False, True], ids=["now", "delayed"])
def test_every_kind_of_array_is_written_exactly(
    tmp_path: Path, voxels: np.ndarray, kind: str, delayed: bool
) -> None:
    array, options = KINDS[kind](voxels, tmp_path)
    options = {"resolution": RESOLUTION, "chunk_size": (16, 10, 8), **options}
    volume = ps.to_precomputed(array, tmp_path / "layer", compute=not delayed, **options)
    if delayed:
        assert not list((tmp_path / "layer").glob("*/*"))
        volume = volume.compute()  # type: ignore[union-attr]
    assert isinstance(volume, ps.Volume)
    found = tensorstore_read(tmp_path / "layer")
    np.testing.assert_array_equal(found, voxels.T)
    assert volume.info.scales[0].key == "8_8_40"
    assert len(list((tmp_path / "layer" / "8_8_40").iterdir())) == 3 * 3 * 3


def test_several_channels_are_written_exactly(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 2**16, (20, 3, 30, 25), dtype=np.uint16)
    write(
        voxels,
        tmp_path / "layer",
        dims=("x", "channel", "y", "z"),
        layer_type="image",
        resolution=RESOLUTION,
        chunk_size=(9, 9, 9),
    )
    found = tensorstore_read(tmp_path / "layer")
    np.testing.assert_array_equal(found, voxels.transpose(0, 2, 3, 1))


# --- where it came from, and where it goes


def test_what_was_opened_is_written_as_it_was(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 9, (*SIZE, 1), dtype=np.uint64)
    info = make_info(
        size=SIZE,
        dtype="uint64",
        layer_type="segmentation",
        encoding="compressed_segmentation",
        compressed_segmentation_block_size=[4, 8, 2],
        chunk_size=(16, 10, 8),
        voxel_offset=(-5, 3, 100),
        resolution=(4.5, 4, 40),
    )
    tensorstore_write(tmp_path / "source", info, labels)
    for chunks in (None, {}):
        dataset = xr.open_dataset(tmp_path / "source", engine="precomputed", chunks=chunks)
        folder = tmp_path / f"copy {chunks}"
        dataset.precomputed.to_precomputed(folder)
        (copied,) = json.loads((folder / "info").read_text())["scales"]
        (source,) = info["scales"]
        assert copied == {**source, "key": "4.5_4.0_40.0"}
        np.testing.assert_array_equal(tensorstore_read(folder), labels)


def test_a_slice_keeps_its_place(tmp_path: Path, voxels: np.ndarray) -> None:
    dataset = as_opened(voxels, tmp_path)
    part = dataset["image"].isel(x=slice(5, 30), y=slice(2, 9), z=slice(3, 23))
    volume = write(part, tmp_path / "part")
    assert volume.bounds == ps.Box((5, 2, 3), (30, 9, 23))
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "part"), part.values.T)


def test_averaged_voxels_land_on_the_next_scale(tmp_path: Path, voxels: np.ndarray) -> None:
    image = as_opened(voxels, tmp_path, chunks={})["image"]
    coarse = image.coarsen(x=2, y=2, boundary="trim").max()
    volume = write(coarse, tmp_path / "coarse")
    assert volume.resolution == (16, 16, 40)
    assert volume.voxel_offset == (0, 0, 0)
    assert volume.scale.size == (18, 14, 23)
    assert volume.scale.key == "16_16_40"


def test_an_explicit_word_wins_over_what_was_opened(tmp_path: Path, voxels: np.ndarray) -> None:
    volume = write(
        as_opened(voxels, tmp_path),
        tmp_path / "layer",
        layer_type="segmentation",
        encoding="PNG",
        encoding_options={"png_level": 3},
        resolution=(9, 9.0, 9.5),
        voxel_offset=(-1, -2, -3),
        chunk_size=(8, 8, 8),
        key="finest",
    )
    scale = volume.info.scales[0].to_json()  # type: ignore[union-attr]
    assert volume.layer_type == "segmentation"
    assert scale == {
        "key": "finest",
        "size": list(SIZE),
        "resolution": [9, 9, 9.5],
        "voxel_offset": [-1, -2, -3],
        "chunk_sizes": [[8, 8, 8]],
        "encoding": "png",
        "png_level": 3,
    }


def test_another_encoding_does_not_inherit_options(tmp_path: Path) -> None:
    labels = np.ones((8, 8, 8), np.uint32)
    write(labels, tmp_path / "source", dims="xyz", resolution=(8, 8, 8))
    dataset = xr.open_dataset(tmp_path / "source", engine="precomputed")
    volume = write(dataset, tmp_path / "copy", encoding="raw")
    assert volume.scale.codec.to_parameters() == {}


@pytest.mark.parametrize(
    ("units", "factor"),
    [("nm", 1), ("um", 1e-3), ("µm", 1e-3), ("micrometers", 1e-3), ("mm", 1e-6), ("m", 1e-9),
     ("Angstrom", 10), (None, 1)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_units_of_coordinates_are_understood(
    tmp_path: Path, units: str | None, factor: float, dtype: str
) -> None:
    attrs = {} if units is None else {"units": units}
    coordinates = {
        name: (name, ((np.arange(20, 30) + 0.5) * r * factor).astype(dtype), attrs)
        for name, r in zip("xyz", (8, 4.2, 33), strict=True)
    }
    array = xr.DataArray(np.ones((10, 10, 10), np.uint8), coordinates, ("x", "y", "z"))
    volume = write(array, tmp_path / "layer")
    assert volume.resolution == (8, 4.2, 33)
    assert volume.voxel_offset == (20, 20, 20)


def test_fractional_resolutions_survive_any_number_of_copies(tmp_path: Path) -> None:
    resolution = (4.123456789, 1 / 3, 33.3)
    array = np.ones((30, 20, 10), np.uint8)
    write(array, tmp_path / "0", dims="xyz", resolution=resolution, voxel_offset=(10**6, 0, -7))
    for i in range(3):
        dataset = xr.open_dataset(tmp_path / f"{i}", engine="precomputed")
        volume = write(dataset, tmp_path / f"{i + 1}")
        assert volume.resolution == resolution
        assert volume.voxel_offset == (10**6, 0, -7)


# --- what is guessed, and what is not


@pytest.mark.parametrize(
    ("dtype", "name", "expected"),
    [
        ("uint8", None, ("image", "raw")),
        ("float32", None, ("image", "raw")),
        ("uint64", None, ("segmentation", "compressed_segmentation")),
        ("uint32", None, ("segmentation", "compressed_segmentation")),
        ("uint32", "image", ("image", "raw")),
        ("uint16", "image", ("image", "raw")),
        ("uint16", "segmentation", ("segmentation", "raw")),
    ],
)
def test_type_and_encoding_follow_from_name_and_data_type(
    tmp_path: Path, dtype: str, name: str | None, expected: tuple[str, str]
) -> None:
    array = xr.DataArray(np.ones((3, 3, 3), dtype), dims=("x", "y", "z"), name=name)
    volume = write(array, tmp_path / "layer", resolution=(8, 8, 8))
    assert (volume.layer_type, volume.scale.encoding) == expected


def test_chunks_are_64_cubed_or_as_small_as_the_array(tmp_path: Path) -> None:
    array = np.ones((100, 20, 64), np.uint8)
    volume = write(array, tmp_path / "layer", dims="xyz", resolution=(8, 8, 8))
    assert volume.chunk_size == (64, 20, 64)


def xyz(dtype: str = "uint8", shape: tuple[int, ...] = (20, 20, 20)) -> np.ndarray:
    return np.ones(shape, dtype)


def labelled(**coordinates: Any) -> xr.DataArray:
    return xr.DataArray(xyz(), coordinates, ("x", "y", "z"))


GOOD: dict[str, Any] = {"dims": "xyz", "resolution": (8, 8, 8)}

REFUSED: dict[str, tuple[Callable[[], Any], dict[str, Any], type[Exception], str]] = {
    "no names": (xyz, {"resolution": (8, 8, 8)}, ValueError, "pass dims="),
    "no z": (lambda: xyz()[..., 0], GOOD | {"dims": "xy"}, ValueError, "no 'z'"),
    "unknown axis": (xyz, GOOD | {"dims": ("x", "y", "t")}, ValueError, "unknown 't'"),
    "axis twice": (xyz, GOOD | {"dims": "xyx"}, ValueError, "named twice"),
    "too few names": (xyz, GOOD | {"dims": "xy"}, ValueError, "2 names for 3 axes"),
    "empty": (lambda: xyz(shape=(0, 3, 3)), GOOD, ValueError, "is empty"),
    "no array": (lambda: [[[1]]], GOOD, TypeError, "it is no array"),
    "masked": (lambda: np.ma.masked_equal(xyz(), 1), GOOD, TypeError, "filled"),
    "two variables": (
        lambda: xr.Dataset({"a": (("x",), [1]), "b": (("x",), [1])}), {}, ValueError,
        "2 variables",
    ),
    "a tree": (xr.DataTree, {}, TypeError, "write one node"),
    "unknown chunks": (
        lambda: (d := da.from_array(xyz(), chunks=5))[d.sum(axis=(1, 2)) > 0],
        GOOD, ValueError, "compute_chunk_sizes",
    ),
    "complex": (lambda: xyz("complex64"), GOOD | {"layer_type": "image"}, ValueError, "complex64"),
    "strings": (lambda: xyz("U3"), GOOD, ValueError, "cannot be stored"),
    "no resolution": (xyz, {"dims": "xyz"}, ValueError, "along x, y, z: pass resolution="),
    "no resolution in z": (
        lambda: labelled(x=np.arange(20) * 8 + 4, y=np.arange(20) * 8 + 4), {}, ValueError,
        "along z: pass resolution=",
    ),
    "two resolutions": (xyz, GOOD | {"resolution": (8, 8)}, ValueError, "expected three numbers"),
    "negative resolution": (xyz, GOOD | {"resolution": (8, 8, -1)}, ValueError, "resolution"),
    "uneven": (
        lambda: labelled(x=np.arange(20.0) ** 2), {}, ValueError, "not evenly spaced",
    ),
    "decreasing": (lambda: labelled(x=np.arange(20)[::-1]), {}, ValueError, "do not increase"),
    "text coordinates": (lambda: labelled(x=list("abcdefghijklmnopqrst")), {}, ValueError, "Drop"),
    "unknown unit": (
        lambda: labelled(x=("x", np.arange(20), {"units": "furlong"})), {}, ValueError,
        "'furlong'",
    ),
    "corners": (
        lambda: labelled(x=np.arange(20) * 8), {"resolution": (8, 8, 8)}, ValueError,
        "not the centre of a voxel",
    ),
    "other spacing": (
        lambda: labelled(x=np.arange(20) * 4 + 2), {"resolution": (8, 8, 8)}, ValueError,
        "4 nm apart; voxels are 8 nm",
    ),
    "layer type": (xyz, GOOD | {"layer_type": "img"}, ValueError, "'image' or 'segmentation'"),
    "ambiguous type": (lambda: xyz("uint16"), GOOD, ValueError, "pass layer_type="),
    "encoding": (xyz, GOOD | {"encoding": "jpg"}, ValueError, "did you mean 'jpeg'"),
    "encoding option": (
        xyz, GOOD | {"encoding": "jpeg", "encoding_options": {"quality": 3}}, ValueError,
        "did you mean 'jpeg_quality'",
    ),
    "option without use": (
        xyz, GOOD | {"encoding_options": {"jpeg_quality": 3}}, ValueError, "it takes none",
    ),
    "option value": (
        xyz, GOOD | {"encoding": "jpeg", "encoding_options": {"jpeg_quality": 300}}, ValueError,
        "jpeg_quality",
    ),
    "data type of encoding": (
        lambda: xyz("float32"), GOOD | {"encoding": "jpeg"}, ValueError, "jpeg holds uint8",
    ),
    "channels of encoding": (
        lambda: xyz(shape=(2, 9, 9, 9)), GOOD | {"dims": "cxyz", "encoding": "jpeg"}, ValueError,
        "num_channels is 2",
    ),
    "misread": (
        lambda: xyz("uint16", (3, 9, 9, 9)),
        GOOD | {"dims": "cxyz", "encoding": "png", "layer_type": "image"}, ValueError,
        "allow_misread=True",
    ),
    "chunk size": (
        xyz, GOOD | {"chunk_size": (0, 8, 8)}, ValueError, r"^chunk_size\[0\]: expected an int",
    ),
    "fractional offset": (
        xyz, GOOD | {"voxel_offset": (0.5, 0, 0)}, ValueError, r"^voxel_offset\[0\]",
    ),
    "boolean offset": (
        xyz, GOOD | {"voxel_offset": (True, 0, 0)}, ValueError, "three numbers",
    ),
    "encoding that is no name": (xyz, GOOD | {"encoding": 3}, TypeError, "such as 'jpeg'"),
    "options that are no mapping": (
        xyz, GOOD | {"encoding": "jpeg", "encoding_options": 90}, TypeError, "jpeg_quality",
    ),
    "storage options that are no mapping": (
        xyz, GOOD | {"storage_options": "anon"}, TypeError, "expected a mapping",
    ),
    "empty key": (xyz, GOOD | {"key": ""}, ValueError, "name of a folder"),
    "key of the info file": (xyz, GOOD | {"key": "info/a"}, ValueError, "other than 'info'"),
    "key that is no name": (xyz, GOOD | {"key": 8}, TypeError, "such as '8_8_8'"),
    "segments that have become floats": (
        lambda: xr.DataArray(xyz("float64"), dims=("x", "y", "z"), name="segmentation"),
        {"resolution": (8, 8, 8)}, ValueError, r"where\(\) a 0",
    ),
    "chunk size of two": (xyz, GOOD | {"chunk_size": (8, 8)}, ValueError, "three numbers"),
    "mode": (xyz, GOOD | {"mode": "x"}, ValueError, "'w-', 'w', 'a' or 'r\\+'"),
    "compress": (xyz, GOOD | {"compress": "lz4"}, ValueError, "'gzip', 'br', 'zstd'"),
    "compress level": (
        xyz, GOOD | {"compress": "gzip", "compress_level": 11}, ValueError, "from 0 to 9",
    ),
    "compress level that is none": (
        xyz, GOOD | {"compress_level": "9"}, TypeError, "compress_level is '9'",
    ),
    "unaligned": (xyz, GOOD | {"unaligned": "yes"}, ValueError, "read-modify-write"),
    "region of nothing": (
        xyz, GOOD | {"region": {"x": slice(0, 20)}}, ps.VolumeNotFoundError, "no Precomputed",
    ),
    "scale of nothing": (xyz, GOOD | {"scale": 0}, ValueError, "existing layer"),
    "nothing to write into": (xyz, GOOD | {"mode": "r+"}, ps.VolumeNotFoundError, "no Precomp"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("compute", [True, False])
def test_a_refused_write_touches_nothing(tmp_path: Path, name: str, compute: bool) -> None:
    build, options, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        ps.to_precomputed(build(), tmp_path / "layer", compute=compute, **options)
    assert not (tmp_path / "layer").exists()


def test_a_missing_library_is_noticed_before_anything_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(ps.UnsupportedError, match="simplejpeg"):
        ps.to_precomputed(xyz(), tmp_path / "layer", encoding="jpeg", **GOOD)
    assert not (tmp_path / "layer").exists()


def test_a_volume_is_no_array_to_write(tmp_path: Path) -> None:
    volume = write(xyz(), tmp_path / "layer", **GOOD)
    with pytest.raises(TypeError, match="absolute coordinates"):
        ps.to_precomputed(volume, tmp_path / "other", dims="xyzc")


def test_a_cut_array_without_coordinates_has_to_say_where_it_lay(
    tmp_path: Path, voxels: np.ndarray
) -> None:
    image = as_opened(voxels, tmp_path, coords=None)["image"]
    with pytest.raises(ValueError, match="cut along x from 37 to 10 voxels"):
        ps.to_precomputed(image.isel(x=slice(5, 15)), tmp_path / "layer")
    volume = write(image.isel(x=slice(5, 15)), tmp_path / "layer", voxel_offset=(5, 0, 0))
    assert volume.bounds == ps.Box((5, 0, 0), (15, 29, 23))


def test_what_neuroglancer_misreads_needs_the_word(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    array = np.random.default_rng(0).integers(0, 2**16, (3, 9, 9, 9), dtype=np.uint16)
    options = {"dims": "cxyz", "resolution": (8, 8, 8), "layer_type": "image", "encoding": "png"}
    volume = write(array, tmp_path / "layer", allow_misread=True, **options)
    np.testing.assert_array_equal(volume[...], array.transpose(1, 2, 3, 0))


@pytest.mark.parametrize("dtype", ["float64", "int64", "bool"])
def test_data_types_that_neuroglancer_cannot_show_are_warned_of(
    tmp_path: Path, dtype: str
) -> None:
    array = np.random.default_rng(0).integers(0, 2, (9, 9, 9)).astype(dtype)
    with pytest.warns(ps.CompatibilityWarning, match=f"cannot read {dtype}") as caught:
        volume = ps.to_precomputed(
            array, tmp_path / "layer", dims="xyz", resolution=(8, 8, 8), layer_type="image"
        )
    assert caught[0].filename == __file__
    assert isinstance(volume, ps.Volume)
    np.testing.assert_array_equal(volume[...][..., 0], array)


# --- encodings and compressions, read by others


@pytest.mark.parametrize(
    ("dtype", "encoding", "options"),
    [
        ("uint8", "raw", {}),
        ("uint16", "raw", {}),
        ("float32", "raw", {}),
        ("uint8", "png", {"png_level": 1}),
        ("uint32", "compressed_segmentation", {}),
        (
            "uint64",
            "compressed_segmentation",
            {"compressed_segmentation_block_size": (4, 16, 2)},
        ),
        ("uint64", "compresso", {}),
        ("float32", "fpzip", {}),
    ],
    ids=str,
)
def test_other_programs_read_what_was_written(
    tmp_path: Path, dtype: str, encoding: str, options: dict[str, Any]
) -> None:
    blocks = np.random.default_rng(0).integers(0, 200, (5, 5, 5)).repeat(7, 0).repeat(7, 1)
    array = blocks.astype(dtype)
    write(
        array,
        tmp_path / "layer",
        dims="xyz",
        resolution=(8, 8, 8),
        layer_type="segmentation" if dtype in ("uint32", "uint64") else "image",
        encoding=encoding,
        encoding_options=options,
        chunk_size=(16, 16, 16),
        voxel_offset=(3, -4, 100),
    )
    np.testing.assert_array_equal(cloudvolume_read(tmp_path / "layer")[..., 0], array)
    if encoding not in ("compresso", "fpzip"):
        np.testing.assert_array_equal(tensorstore_read(tmp_path / "layer")[..., 0], array)


@pytest.mark.parametrize(
    ("compress", "suffix"), [("gzip", ".gz"), ("br", ".br"), ("zstd", ".zstd")]
)
def test_compressed_chunks_are_read_by_cloudvolume(
    tmp_path: Path, voxels: np.ndarray, compress: str, suffix: str
) -> None:
    write(voxels, tmp_path / "layer", dims=DIMS, resolution=RESOLUTION, compress=compress)
    assert all(name.endswith(suffix) for name in stored(tmp_path / "layer") if name != "info")
    np.testing.assert_array_equal(cloudvolume_read(tmp_path / "layer"), voxels.T)


def test_nothing_is_compressed_on_a_local_disk_by_itself(
    tmp_path: Path, voxels: np.ndarray
) -> None:
    write(voxels, tmp_path / "layer", dims=DIMS, resolution=RESOLUTION)
    (chunk,) = [data for name, data in stored(tmp_path / "layer").items() if name != "info"]
    assert chunk == voxels.tobytes()


def test_empty_chunks_are_not_stored_unless_asked(tmp_path: Path) -> None:
    array = np.zeros((32, 16, 16), np.uint8)
    array[20, 3, 3] = 1
    options = {"dims": "xyz", "resolution": (8, 8, 8), "chunk_size": (16, 16, 16)}
    write(array, tmp_path / "sparse", **options)
    assert set(stored(tmp_path / "sparse")) == {"info", "8_8_8/16-32_0-16_0-16"}
    write(array, tmp_path / "dense", write_empty_chunks=True, **options)
    assert len(stored(tmp_path / "dense")) == 3
    array[:] = 0
    write(array, tmp_path / "sparse", dims="xyz", mode="r+")
    assert set(stored(tmp_path / "sparse")) == {"info"}


# --- modes


def test_a_layer_is_not_overwritten_by_accident(tmp_path: Path, voxels: np.ndarray) -> None:
    write(voxels, tmp_path / "layer", dims=DIMS, resolution=RESOLUTION)
    before = stored(tmp_path / "layer")
    with pytest.raises(FileExistsError, match="mode='w' replaces it"):
        ps.to_precomputed(voxels[::-1], tmp_path / "layer", dims=DIMS, resolution=RESOLUTION)
    assert stored(tmp_path / "layer") == before


def test_replacing_leaves_nothing_of_the_old_chunks(tmp_path: Path, voxels: np.ndarray) -> None:
    folder = tmp_path / "layer"
    write(voxels, folder, dims=DIMS, resolution=RESOLUTION, chunk_size=(8, 8, 8), compress="gzip")
    (folder / "mesh").mkdir()
    (folder / "mesh" / "info").write_text("{}")
    (folder / "8_8_40" / "notes.txt").write_text("kept")
    small = np.zeros((20, 20, 20), np.uint8)
    small[:5] = 9
    write(small, folder, dims="xyz", resolution=RESOLUTION, chunk_size=(8, 8, 8), mode="w")
    np.testing.assert_array_equal(tensorstore_read(folder)[..., 0], small)
    np.testing.assert_array_equal(cloudvolume_read(folder)[..., 0], small)
    names = set(stored(folder))
    assert {"mesh/info", "8_8_40/notes.txt"} <= names
    assert not any(name.endswith(".gz") for name in names)


def test_replacing_removes_every_scale_and_shards(tmp_path: Path, voxels: np.ndarray) -> None:
    folder = tmp_path / "layer"
    info = make_info(
        size=SIZE,
        sharding={
            "hash": "identity", "preshift_bits": 1, "minishard_bits": 1, "shard_bits": 1,
            "minishard_index_encoding": "raw", "data_encoding": "raw",
        },
        chunk_size=(16, 16, 16),
    )  # fmt: skip
    tensorstore_write(folder, info, voxels.T)
    assert any(name.endswith(".shard") for name in stored(folder))
    write(voxels, folder, dims=DIMS, resolution=RESOLUTION, mode="w")
    assert set(stored(folder)) == {"info", "8_8_40/0-37_0-29_0-23"}


def test_replacing_nothing_creates(tmp_path: Path, voxels: np.ndarray) -> None:
    write(voxels, tmp_path / "layer", dims=DIMS, resolution=RESOLUTION, mode="w")
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "layer"), voxels.T)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (b"no JSON", "remove the folder yourself"),
        (b'{"scales": [{"key": "../other/8_8_8"}]}', "outside of its folder"),
        (b'{"scales": [{"key": "nested"}]}', "nested x/y/z folders"),
    ],
)
def test_what_cannot_be_replaced_safely_is_left_alone(
    tmp_path: Path, voxels: np.ndarray, info: bytes, message: str
) -> None:
    folder = tmp_path / "layer"
    (folder / "nested" / "0-64" / "0-64").mkdir(parents=True)
    (folder / "nested" / "0-64" / "0-64" / "0-64").write_bytes(b"chunk")
    (folder / "info").write_bytes(info)
    before = stored(folder)
    with pytest.raises(ValueError, match=message):
        ps.to_precomputed(voxels, folder, dims=DIMS, resolution=RESOLUTION, mode="w")
    assert stored(folder) == before


@pytest.mark.parametrize("chunks", [None, {}, "open_dask"], ids=str)
def test_a_layer_is_not_replaced_by_what_is_still_read_from_it(
    tmp_path: Path, voxels: np.ndarray, chunks: Any
) -> None:
    folder = tmp_path / "layer"
    write(voxels, folder, dims=DIMS, resolution=RESOLUTION, layer_type="image")
    before = stored(folder)
    lazy: Any
    if chunks == "open_dask":
        lazy = ps.open_dask(folder)[:, ::-1] * 2
    else:
        lazy = xr.open_dataset(folder, engine="precomputed", chunks=chunks)["image"]
        lazy = lazy * 2 if chunks is not None else lazy.isel(x=slice(None, None, 2))
    with pytest.raises(ValueError, match="is read lazily from"):
        ps.to_precomputed(
            lazy, folder, dims=DIMS, resolution=RESOLUTION, voxel_offset=(0, 0, 0), mode="w"
        )
    assert stored(folder) == before


def test_appending_creates_and_then_writes_into(tmp_path: Path, voxels: np.ndarray) -> None:
    for array in (voxels, voxels[:, ::-1]):
        write(array, tmp_path / "layer", dims=DIMS, resolution=RESOLUTION, mode="a")
        np.testing.assert_array_equal(tensorstore_read(tmp_path / "layer"), array.T)


# --- into an existing layer

OFFSET = (-5, 10, 100)


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    info = make_info(
        size=(64, 48, 40), voxel_offset=OFFSET, chunk_size=(16, 16, 16), resolution=(8, 8, 40)
    )
    (finest,) = info["scales"]
    coarse = {"key": "16_16_40", "size": [32, 24, 40], "resolution": [16, 16, 40]}
    info["scales"].append({**finest, **coarse, "voxel_offset": [-2, 5, 100]})
    ps.create(tmp_path / "layer", info)
    return tmp_path / "layer"


@pytest.mark.parametrize(
    "place",
    [
        {"region": ps.Box((11, 10, 116), (59, 42, 140))},
        {"region": {"x": slice(11, None), "y": slice(None, 42), "z": slice(116, 140)}},
        {"voxel_offset": (11, 10, 116), "mode": "r+"},
        {"voxel_offset": (11, 10, 116), "mode": "a"},
    ],
    ids=str,
)
@pytest.mark.parametrize("chunks", [None, 7, 16], ids=str)
def test_a_region_is_replaced_and_nothing_else(
    layer: Path, place: dict[str, Any], chunks: int | None
) -> None:
    part = np.random.default_rng(1).integers(1, 99, (48, 32, 24), dtype=np.uint8)
    array = part if chunks is None else da.from_array(part, chunks=chunks)
    write(array, layer, dims="xyz", scale=0, **place)
    expected = np.zeros((64, 48, 40), np.uint8)
    expected[16:64, 0:32, 16:40] = part
    np.testing.assert_array_equal(tensorstore_read(layer)[..., 0], expected)


def test_coordinates_say_where_an_array_belongs(layer: Path) -> None:
    ps.open_volume(layer, mode="r+")[...] = 3
    image = xr.open_dataset(layer, engine="precomputed", chunks={})["image"]
    part = image.sel(x=slice(88, 340), y=slice(None, 340)).isel(z=slice(16, None)) + 1
    write(part.isel(y=slice(0, 32)), layer, region="auto")
    expected = np.full((64, 48, 40), 3, np.uint8)
    expected[16:48, 0:32, 16:40] = 4
    np.testing.assert_array_equal(tensorstore_read(layer)[..., 0], expected)


def test_a_single_slice_knows_its_place(layer: Path) -> None:
    ps.open_volume(layer, mode="r+")[...] = 3
    image = xr.open_dataset(layer, engine="precomputed")["image"]
    section = image.isel(z=7).load() + np.uint8(2)
    write(section.expand_dims("z"), layer, region="auto", unaligned="read-modify-write")
    expected = np.full((64, 48, 40), 3, np.uint8)
    expected[:, :, 7] = 5
    np.testing.assert_array_equal(tensorstore_read(layer)[..., 0], expected)


def test_the_scale_follows_from_the_resolution(layer: Path) -> None:
    with pytest.warns(ps.MissingDataWarning):
        image = xr.open_dataset(layer, engine="precomputed", scale=1)["image"].load()
    volume = write(image + np.uint8(5), layer, mode="r+")
    assert volume.scale.key == "16_16_40"
    assert (tensorstore_read(layer, scale_index=1) == 5).all()
    bare = np.ones((32, 24, 40), np.uint8)
    write(bare, layer, dims="xyz", mode="r+", resolution=(16, 16, 40))
    write(bare + 1, layer, dims="xyz", mode="r+", scale="16_16_40")
    assert (tensorstore_read(layer, scale_index=1) == 2).all()


def test_a_smaller_data_type_is_widened(layer: Path, tmp_path: Path) -> None:
    ps.create(tmp_path / "wide", make_info(size=(20, 20, 20), dtype="uint32"))
    array = np.arange(8000, dtype=np.uint16).reshape(20, 20, 20)
    write(da.from_array(array, chunks=7), tmp_path / "wide", dims="xyz", mode="r+")
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "wide")[..., 0], array)


PART = {"dims": "xyz", "scale": 0, "region": {n: slice(o, o + 16) for n, o in zip("xyz", OFFSET)}}  # noqa: B905


MISFITS: dict[str, tuple[Callable[[], Any], dict[str, Any], type[Exception], str]] = {
    "data type": (lambda: np.ones((16,) * 3, "f4"), PART, TypeError, "cannot write float32"),
    "sign": (lambda: np.ones((16,) * 3, "i1"), PART, TypeError, "cannot write int8"),
    "channels": (
        lambda: np.ones((2, 16, 16, 16), "u1"), PART | {"dims": "cxyz"}, ValueError, "2 channel",
    ),
    "shape": (lambda: np.ones((15, 16, 16), "u1"), PART, ValueError, "is \\(16, 16, 16\\) voxels"),
    "unaligned": (
        lambda: np.ones((16,) * 3, "u1"),
        PART | {"region": {"x": slice(0, 16), "y": slice(10, 26), "z": slice(100, 116)}},
        ValueError, "whole chunks around it",
    ),
    "outside": (
        lambda: np.ones((16,) * 3, "u1"),
        PART | {"region": {"x": slice(59, 75), "y": slice(10, 26), "z": slice(100, 116)}},
        IndexError, "outside the volume",
    ),
    "step": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"region": {"x": slice(0, 32, 2)}}, ValueError,
        "without a step",
    ),
    "index": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"region": {"x": 3}}, ValueError, "a slice",
    ),
    "fraction": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"region": {"x": slice(0.5, 16.5)}}, TypeError,
        "float",
    ),
    "axis": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"region": {"t": slice(0, 1)}}, ValueError, "'t'",
    ),
    "no region": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"region": (0, 16)}, TypeError, "expected a Box",
    ),
    "nowhere": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"region": None, "mode": "r+"}, ValueError,
        "where it belongs along x",
    ),
    "no coordinates": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"region": "auto"}, ValueError,
        "none along x, y, z",
    ),
    "two places": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"voxel_offset": (0, 0, 0)}, ValueError,
        "pass one of them",
    ),
    "which scale": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"scale": None}, ValueError, "or scale=",
    ),
    "unknown scale": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"scale": "4_4_40"}, ValueError, "16_16_40",
    ),
    "other resolution": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"resolution": (4, 4, 40)}, ValueError,
        "has \\(8, 8, 40\\) nm",
    ),
    "other encoding": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"encoding": "jpeg"}, ValueError, "has 'raw'",
    ),
    "other option": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"encoding_options": {"jpeg_quality": 3}},
        ValueError, "has None",
    ),
    "other chunks": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"chunk_size": (8, 8, 8)}, ValueError,
        "has \\(16, 16, 16\\)",
    ),
    "other type": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"layer_type": "segmentation"}, ValueError,
        "has 'image'",
    ),
    "replace a region": (
        lambda: np.ones((16,) * 3, "u1"), PART | {"mode": "w"}, ValueError, "mode='r\\+'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
@pytest.mark.parametrize("chunks", [None, 5], ids=["numpy", "dask"])
def test_what_does_not_fit_a_layer_leaves_it_untouched(
    layer: Path, name: str, chunks: int | None
) -> None:
    ps.open_volume(layer, mode="r+")[...] = 3
    before = stored(layer)
    build, options, error, message = MISFITS[name]
    array = build() if chunks is None else da.from_array(build(), chunks=chunks)
    with pytest.raises(error, match=message):
        ps.to_precomputed(array, layer, **options)
    assert stored(layer) == before


def test_the_same_part_that_misfits_fits_when_it_is_right(layer: Path) -> None:
    write(np.ones((16,) * 3, "u1"), layer, **PART)
    assert (tensorstore_read(layer)[:16, :16, :16] == 1).all()


@pytest.mark.parametrize("chunks", [None, 5, 16], ids=str)
def test_chunks_in_part_are_read_first_if_asked(layer: Path, chunks: int | None) -> None:
    rng = np.random.default_rng(2)
    expected = rng.integers(1, 99, (64, 48, 40), dtype=np.uint8)
    ps.open_volume(layer, mode="r+")[...] = expected[..., None]
    part = rng.integers(100, 255, (41, 30, 25), dtype=np.uint8)
    array = part if chunks is None else da.from_array(part, chunks=chunks)
    write(
        array,
        layer,
        dims="xyz",
        scale=0,
        region=ps.Box((-2, 13, 103), (39, 43, 128)),
        unaligned="read-modify-write",
    )
    expected[3:44, 3:33, 3:28] = part
    np.testing.assert_array_equal(tensorstore_read(layer)[..., 0], expected)


# --- tasks


def test_no_two_tasks_touch_the_same_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from precomputed_store.storage import Storage

    keys: list[str] = []
    put = Storage.put

    def counted(self: Storage, key: str, *args: Any, **options: Any) -> None:
        keys.append(key)
        put(self, key, *args, **options)

    monkeypatch.setattr(Storage, "put", counted)
    source = da.ones((100, 90, 80), chunks=(7, 90, 13), dtype=np.uint8)
    write(source, tmp_path / "layer", dims="xyz", resolution=(8, 8, 8), chunk_size=(16, 16, 16))
    chunks = [key for key in keys if "/" in key]
    assert len(chunks) == len(set(chunks)) == 7 * 6 * 5


def test_aligned_chunks_are_kept(tmp_path: Path) -> None:
    source = da.ones((1, 64, 64, 64), chunks=(1, 32, 16, 48), dtype=np.uint8)
    delayed = ps.to_precomputed(
        source, tmp_path / "layer", dims=DIMS, resolution=(8, 8, 8), chunk_size=(16, 16, 16),
        compute=False,
    )  # fmt: skip
    tasks = dict(delayed.__dask_graph__())  # type: ignore[union-attr]
    # One for each block, which makes and writes it, and one that waits for them.
    assert len(tasks) == 2 * 4 * 2 + 1


def test_a_graph_is_built_without_a_task_for_each_block(tmp_path: Path) -> None:
    source = da.ones((1, 64_000, 64_000, 6_400), chunks=(1, 64, 64, 64), dtype=np.uint8)
    assert source.npartitions == 100_000_000
    delayed: Any = ps.to_precomputed(
        source, tmp_path / "layer", dims=DIMS, resolution=(8, 8, 8), compute=False
    )
    assert len(delayed.dask.layers) <= 3
    assert len(pickle.dumps(delayed.dask)) < 100_000


@pytest.mark.parametrize("dims", [("x", "y", "z"), ("channel", "z", "y", "x")])
@pytest.mark.parametrize("compute", ["array", "blocks"])
def test_making_and_writing_a_block_is_one_task(
    tmp_path: Path, dims: tuple[str, ...], compute: str
) -> None:
    """Otherwise every block goes from process to process before it is written."""
    chunks = tuple(((1,) if name == "channel" else (8, 8)) for name in dims)
    array = (
        da.map_blocks(_ones, chunks=chunks, dtype=np.uint8)
        if compute == "blocks"
        else da.ones(tuple(map(sum, chunks)), chunks=chunks, dtype=np.uint8) * np.uint8(3) + 1
    )
    delayed = ps.to_precomputed(
        array, tmp_path, dims=dims, resolution=(8, 8, 8), chunk_size=(8, 8, 8), compute=False
    )
    assert len(dict(delayed.__dask_graph__())) == 8 + 1
    delayed.compute()
    assert (ps.open_volume(tmp_path)[...] == (1 if compute == "blocks" else 4)).all()


def _ones(block_info: dict[Any, Any]) -> np.ndarray:
    return np.ones(block_info[None]["chunk-shape"], np.uint8)


def test_a_task_that_runs_twice_changes_nothing(tmp_path: Path, voxels: np.ndarray) -> None:
    delayed: Any = ps.to_precomputed(
        da.from_array(voxels, chunks=9),
        tmp_path / "layer",
        dims=DIMS,
        resolution=RESOLUTION,
        compute=False,
    )
    delayed.compute()
    before = stored(tmp_path / "layer")
    delayed.compute(scheduler="synchronous")
    assert stored(tmp_path / "layer") == before


def test_an_interrupted_write_can_be_resumed(tmp_path: Path, voxels: np.ndarray) -> None:
    broken = da.from_array(voxels, chunks=(1, 8, 10, 16)).map_blocks(_fail_at_the_edge)
    options = {"dims": DIMS, "resolution": RESOLUTION, "chunk_size": (16, 10, 8)}
    with dask.config.set(scheduler="synchronous"), pytest.raises(RuntimeError, match="unlucky"):
        write(broken, tmp_path / "layer", **options)
    assert (tmp_path / "layer" / "info").exists()
    write(voxels, tmp_path / "layer", mode="r+", **options)
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "layer"), voxels.T)


def _fail_at_the_edge(block: np.ndarray) -> np.ndarray:
    if block.shape[-1] == 5:
        raise RuntimeError("unlucky")
    return block


class Bounded:
    """An array of no memory that refuses to be read in large pieces."""

    dtype = np.dtype(np.uint8)
    shape = (1024, 1024, 512)
    ndim = 3
    largest = 0

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        shape = [len(range(*item.indices(n))) for item, n in zip(key, self.shape, strict=True)]
        type(self).largest = max(self.largest, int(np.prod(shape)))
        assert np.prod(shape) <= 128 << 20
        return np.zeros(shape, np.uint8)


def test_lazy_arrays_are_read_block_by_block(tmp_path: Path) -> None:
    write(Bounded(), tmp_path / "layer", dims="zyx", resolution=(8, 8, 8), chunk_size=(256,) * 3)
    assert 64 << 20 <= Bounded.largest <= 128 << 20


def test_a_lazy_dataset_larger_than_a_block_is_copied_exactly(
    tmp_path: Path, voxels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from precomputed_store.writer import RegionWriter
    from precomputed_store.writing import run, tiling

    blocks: list[Any] = []
    original = RegionWriter.write

    def noted(self: RegionWriter, region: Any, *args: Any, **options: Any) -> None:
        blocks.append(region)
        original(self, region, *args, **options)

    monkeypatch.setattr(RegionWriter, "write", noted)
    monkeypatch.setattr(run, "tile", partial(tiling.tile, largest=2000))
    monkeypatch.setattr(run, "LARGEST_BLOCK_BYTES", 2000)
    write(as_opened(voxels, tmp_path), tmp_path / "copy")
    assert len(blocks) > 10
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "copy"), voxels.T)


@pytest.mark.parametrize("chunks", [None, 16], ids=["numpy", "dask"])
def test_progress_is_shown_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chunks: int | None
) -> None:
    array: Any = np.ones((64, 64, 64), np.uint8)
    if chunks is not None:
        array = da.from_array(array, chunks=chunks)
    options = {"dims": "xyz", "resolution": (8, 8, 8), "chunk_size": (16, 16, 16)}
    write(array, tmp_path / "quiet", **options)
    assert capsys.readouterr().err == ""
    write(array, tmp_path / "shown", progress=True, **options)
    assert "64/64" in capsys.readouterr().err


def test_the_accessor_writes_with_every_option(tmp_path: Path, voxels: np.ndarray) -> None:
    import inspect

    from precomputed_store.xarray_accessor import PrecomputedAccessor

    function = inspect.signature(ps.to_precomputed).parameters
    method = inspect.signature(PrecomputedAccessor.to_precomputed).parameters
    assert list(function.values())[1:] == list(method.values())[1:]
    dataset = as_opened(voxels, tmp_path)
    volume = dataset.precomputed.to_precomputed(tmp_path / "layer", chunk_size=(8, 8, 8))
    assert volume.chunk_size == (8, 8, 8)
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "layer"), voxels.T)


def test_memory_layers_are_written_too(voxels: np.ndarray) -> None:
    url = "memory://test-to-precomputed/layer"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(voxels, url, dims=DIMS, resolution=RESOLUTION, mode="w")  # type: ignore[arg-type]
        write(voxels[:, :-1], url, dims=DIMS, resolution=RESOLUTION, mode="w")  # type: ignore[arg-type]
    np.testing.assert_array_equal(ps.open_volume(url)[...], voxels[:, :-1].T)
