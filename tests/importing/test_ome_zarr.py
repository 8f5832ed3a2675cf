"""Zarr and OME-Zarr; golden values are those of zarr, metadata partly written by ome-zarr."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import precomputed_store as ps
from precomputed_store.errors import FormatError, PrecomputedWarning, UnsupportedError


def write_image(
    path: Path,
    voxels: np.ndarray,
    *,
    version: str = "0.5",
    unit: str = "nanometer",
    steps: list[list[dict[str, Any]]] | None = None,
    whole: list[dict[str, Any]] | None = None,
    axes: str = "zyx",
) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    group.create_array("s0", data=voxels, chunks=(2, 16, 16))
    group.create_array("s1", data=voxels[:, ::2, ::2], chunks=(2, 16, 16))
    steps = steps or [
        [{"type": "scale", "scale": [40, 4, 8]}],
        [{"type": "scale", "scale": [40, 8, 16]}],
    ]
    image = {
        "axes": [{"name": name, "type": "space", "unit": unit} for name in axes],
        "datasets": [
            {"path": f"s{index}", "coordinateTransformations": step}
            for index, step in enumerate(steps)
        ],
        "version": version,
    }
    if whole is not None:
        image["coordinateTransformations"] = whole
    group.attrs.update(
        {"ome": {"version": version, "multiscales": [image]}}
        if version == "0.5"
        else {"multiscales": [image]}
    )
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_finest_dataset_unless_another_is_named(
    folder: Path, voxels: np.ndarray, version: str
) -> None:
    path = write_image(folder / "image", voxels, version=version)
    array = ps.open_source(path)
    assert array.attrs["resolution"] == [8, 4, 40]
    np.testing.assert_array_equal(array.values, voxels)
    coarse = ps.open_source(f"{path}#s1")
    assert coarse.attrs["resolution"] == [16, 8, 40]
    np.testing.assert_array_equal(coarse.values, voxels[:, ::2, ::2])
    with pytest.raises(ValueError, match=r"no array 's7' here; there are #s0, #s1"):
        ps.open_source(f"{path}#s7")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_bare_array(folder: Path, voxels: np.ndarray, zarr_format: Any) -> None:
    array = zarr.create_array(
        folder / "a.zarr", data=voxels, chunks=(2, 16, 16), zarr_format=zarr_format
    )
    array.attrs.update({"resolution": [40, 4, 8], "offset": [0, 40, 80]})
    found = ps.open_source(folder / "a.zarr")
    assert found.attrs["resolution"] == [8, 4, 40]
    assert found.attrs["voxel_offset"] == [10, 10, 0]
    np.testing.assert_array_equal(found.values, voxels)
    group = zarr.open_group(folder / "group", mode="w", zarr_format=zarr_format)
    group.create_array("raw", data=voxels)
    np.testing.assert_array_equal(ps.open_source(folder / "group").values, voxels)
    group.create_array("labels", data=voxels)
    with pytest.raises(ValueError, match="pick one of the arrays in this group: #labels, #raw"):
        ps.open_source(folder / "group")


def test_dimension_names_are_axes(folder: Path, voxels: np.ndarray) -> None:
    names = {"dimension_names": ("x", "y", "z")}
    zarr.create_array(folder / "3.zarr", data=voxels, zarr_format=3, **names)  # type: ignore[arg-type]
    old = zarr.create_array(folder / "2.zarr", data=voxels, zarr_format=2)
    old.attrs["_ARRAY_DIMENSIONS"] = list("xyz")
    for name in ("2.zarr", "3.zarr"):
        np.testing.assert_array_equal(ps.open_source(folder / name).values, voxels.T)


@pytest.mark.parametrize(
    ("unit", "resolution"),
    [
        ("micrometer", [8000, 4000, 40_000]),
        ("angstrom", [0.8, 0.4, 4]),
        ("furlong", None),
        ("", None),
    ],
)
def test_units_become_nanometres(
    folder: Path, voxels: np.ndarray, unit: str, resolution: list[float] | None
) -> None:
    path = write_image(folder / "image.zarr", voxels, unit=unit)
    assert ps.open_source(path).attrs.get("resolution") == resolution


@pytest.mark.parametrize(
    ("places", "offset"),
    [([80, 400, -8], [-1, 100, 2]), ([20, 2, 4], [0, 0, 0]), ([100, 402, 804], [100, 100, 2])],
    ids=["corners", "centres of the first voxels", "centres"],
)
def test_a_translation_is_the_voxel_offset(
    folder: Path, voxels: np.ndarray, places: list[float], offset: list[int]
) -> None:
    step = [{"type": "scale", "scale": [40, 4, 8]}, {"type": "translation", "translation": places}]
    path = write_image(folder / "image.zarr", voxels, steps=[step, step])
    array = ps.open_source(path)
    assert array.attrs["voxel_offset"] == offset
    volume = ps.to_precomputed(array, folder / "layer", layer_type="image")
    assert list(volume.voxel_offset) == offset


def test_transformations_of_the_whole_image_come_after(folder: Path, voxels: np.ndarray) -> None:
    step = [
        {"type": "scale", "scale": [1, 1, 1]},
        {"type": "translation", "translation": [1, 2, 3]},
    ]
    path = write_image(
        folder / "a.zarr",
        voxels,
        steps=[step, step],
        whole=[{"type": "scale", "scale": [40, 4, 8]}],
    )
    array = ps.open_source(path)
    assert array.attrs["resolution"] == [8, 4, 40]
    assert array.attrs["voxel_offset"] == [3, 2, 1]


def test_a_place_between_voxels_is_said(folder: Path, voxels: np.ndarray) -> None:
    step = [
        {"type": "scale", "scale": [40, 4, 8]},
        {"type": "translation", "translation": [0, 1, 0]},
    ]
    path = write_image(folder / "a.zarr", voxels, steps=[step, step])
    with pytest.warns(PrecomputedWarning, match="begins at 1 along y"):
        assert ps.open_source(path).attrs["voxel_offset"] == [0, 0, 0]


def test_an_image_that_ome_zarr_wrote(folder: Path) -> None:
    writer = pytest.importorskip("ome_zarr.writer")
    voxels = np.arange(2 * 8 * 32 * 32, dtype="uint16").reshape(2, 8, 32, 32)
    group = zarr.open_group(folder / "image.zarr", mode="w")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer.write_multiscale(
            [voxels, voxels[..., ::2, ::2]],
            group,
            axes=[
                {"name": "c", "type": "channel"},
                *({"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"),
            ],
            coordinate_transformations=[
                [{"type": "scale", "scale": [1, 0.5, 0.1, 0.1]}],
                [{"type": "scale", "scale": [1, 0.5, 0.2, 0.2]}],
            ],
        )
    ome = group.attrs.asdict()["ome"]
    for axis in ome["multiscales"][0]["axes"][1:]:
        axis.setdefault("unit", "micrometer")  # which newer versions leave out
    group.attrs["ome"] = ome
    array = ps.open_source(folder / "image.zarr")
    assert array.dims == ("channel", "z", "y", "x")
    assert array.attrs["resolution"] == [100, 100, 500]
    np.testing.assert_array_equal(array.values, voxels)


def test_broken_metadata_are_named(folder: Path, voxels: np.ndarray) -> None:
    path = write_image(folder / "a.zarr", voxels, axes="zyxc")
    with pytest.raises(FormatError, match="OME-Zarr metadata are broken"):
        ps.open_source(path)
    (folder / "b.zarr").mkdir()
    with pytest.raises(FormatError, match=r"b\.zarr: no zarr array or group"):
        ps.open_source(folder / "b.zarr")


def test_an_array_can_be_read_in_another_process(folder: Path, voxels: np.ndarray) -> None:
    path = write_image(folder / "a.zarr", voxels)
    array = pickle.loads(pickle.dumps(ps.open_source(path)))
    np.testing.assert_array_equal(array.values, voxels)


def test_n5_is_refused_with_advice(folder: Path) -> None:
    (folder / "a.n5").mkdir()
    (folder / "b").mkdir()
    (folder / "b" / "attributes.json").write_text("{}")
    for name in ("a.n5", "b"):
        with pytest.raises(UnsupportedError, match="TensorStore"):
            ps.open_source(folder / name)
