"""NIfTI; golden values are those of nibabel."""

from __future__ import annotations

import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.errors import FormatError, PrecomputedWarning, UnsupportedError


def image(voxels: np.ndarray, *, zooms: tuple[float, ...], unit: str) -> nibabel.Nifti1Image:
    made = nibabel.Nifti1Image(voxels, np.diag([-1.0, 1, 1, 1]))
    made.header.set_zooms(zooms)
    made.header.set_xyzt_units(unit)
    return made


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(
    ("unit", "zooms", "resolution"),
    [
        ("micron", (0.798, 0.798, 2), [798, 798, 2000]),
        ("mm", (0.1, 0.2, 0.3), [100_000, 200_000, 300_000]),
        ("unknown", (1, 1, 1), None),
    ],
)
def test_voxels_and_resolution_are_those_of_the_file(
    folder: Path,
    voxels: np.ndarray,
    name: str,
    unit: str,
    zooms: tuple[float, ...],
    resolution: list[float] | None,
) -> None:
    nibabel.save(image(voxels.T, zooms=zooms, unit=unit), folder / name)
    array = ps.open_source(folder / name)
    golden = np.asarray(nibabel.load(folder / name).dataobj)
    assert array.dims == ("z", "y", "x")
    assert array.dtype == golden.dtype == np.uint16
    np.testing.assert_array_equal(array.values, golden.T)
    np.testing.assert_array_equal(array[1:3, 4:9, 7].values, golden.T[1:3, 4:9, 7])
    assert array.attrs.get("resolution") == resolution


def test_a_fourth_axis_is_the_channel(folder: Path, voxels: np.ndarray) -> None:
    four = np.stack([voxels.T, voxels.T + 1], axis=-1)
    nibabel.save(image(four, zooms=(1, 1, 1, 1), unit="micron"), folder / "a.nii")
    array = ps.open_source(folder / "a.nii")
    assert array.dims == ("channel", "z", "y", "x")
    np.testing.assert_array_equal(array.values, four.T)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_scaled_values_are_scaled_and_said_to_be(
    folder: Path, voxels: np.ndarray, name: str
) -> None:
    made = image(voxels.T.astype("int16"), zooms=(1, 1, 1), unit="micron")
    made.header.set_slope_inter(0.5, 10)
    nibabel.save(made, folder / name)
    assert nibabel.load(folder / name).dataobj.slope == 0.5
    with pytest.warns(PrecomputedWarning, match=r"scaled by 0\.5 and shifted by 10, to float32"):
        array = ps.open_source(folder / name)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array.values, nibabel.load(folder / name).get_fdata().T)


def test_a_gzipped_file_is_cut_into_slabs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("precomputed_store.importing.nifti._SLAB_BYTES", 1)
    voxels = np.random.default_rng(0).integers(0, 200, (20, 30, 150), dtype="uint8")
    nibabel.save(image(voxels, zooms=(1, 1, 1), unit="micron"), folder / "a.nii.gz")
    array = ps.open_source(folder / "a.nii.gz")
    assert array.chunks == ((64, 64, 22), (30,), (20,))
    np.testing.assert_array_equal(array.values, voxels.T)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_file_can_be_read_in_another_process(
    folder: Path, voxels: np.ndarray, name: str
) -> None:
    nibabel.save(image(voxels.T, zooms=(1, 1, 1), unit="mm"), folder / name)
    array = pickle.loads(pickle.dumps(ps.open_source(folder / name)))
    np.testing.assert_array_equal(array.values, voxels)


def test_big_endian_files(folder: Path, voxels: np.ndarray) -> None:
    made = nibabel.Nifti1Image(voxels.T, np.eye(4))
    swapped = nibabel.Nifti1Image(voxels.T, None, made.header.as_byteswapped(">"))
    nibabel.save(swapped, folder / "a.nii")
    assert nibabel.load(folder / "a.nii").header.endianness == ">"
    np.testing.assert_array_equal(ps.open_source(folder / "a.nii").values, voxels)


def test_what_is_no_nifti(folder: Path, voxels: np.ndarray) -> None:
    (folder / "a.nii").write_bytes(b"garbage")
    with pytest.raises(FormatError, match=r"a\.nii"):
        ps.open_source(folder / "a.nii")
    colours = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), folder / "b.nii")
    with pytest.raises(UnsupportedError, match="colours"):
        ps.open_source(folder / "b.nii")
    nibabel.save(image(voxels.T, zooms=(1, 1, 1), unit="mm"), folder / "c.nii.gz")
    data = (folder / "c.nii.gz").read_bytes()
    (folder / "c.nii.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"c\.nii\.gz"):
        ps.open_source(folder / "c.nii.gz").values  # noqa: B018
