"""The commands of docs/convert.md, each on a file of the kind that it is for."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner

import precomputed_store as ps
from precomputed_store.cli import main

GUIDE = (Path(__file__).parents[2] / "docs" / "convert.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"\| `precomputed (convert [^`]*)` \|", GUIDE)
SHAPE = (5, 30, 40)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guide")
    voxels = np.arange(np.prod(SHAPE), dtype="uint16").reshape(SHAPE)
    (folder / "slices").mkdir()
    for index, plane in enumerate(voxels.astype("uint8")):
        tifffile.imwrite(folder / "slices" / f"{index}.tif", plane)
    tifffile.imwrite(folder / "labels.tif", voxels)
    tifffile.imwrite(
        folder / "confocal.tif",
        voxels,
        imagej=True,
        resolution=(10, 10),
        metadata={"axes": "ZYX", "spacing": 0.5, "unit": "um"},
    )
    image = nibabel.Nifti1Image(voxels.T, np.eye(4))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, folder / "brain.nii.gz")
    with h5py.File(folder / "cremi.h5", "w") as file:
        raw = file.create_dataset("volumes/raw", data=voxels.astype("uint8"))
        raw.attrs["resolution"] = [40, 4, 4]
    np.save(folder / "volume.npy", voxels)
    zarr.create_array(folder / "image.zarr", data=voxels).attrs["resolution"] = [40, 4, 4]
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_guide_run(
    command: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    shown = CliRunner().invoke(main, shlex.split(command))
    assert shown.exit_code == 0, shown.output
    destination = re.split(r" --", command)[0].split()[-1]
    assert ps.validate(files / destination, decode=True).ok


def test_the_guide_has_a_command_for_each_kind_of_file() -> None:
    assert len(COMMANDS) >= 10


def test_the_options_that_the_guide_names_exist() -> None:
    from precomputed_store.cli.convert import command

    known = {name for option in command.params for name in option.opts}
    text = re.sub(r"\| step \| now \|.*?\n\n", "", GUIDE, flags=re.DOTALL)
    assert set(re.findall(r"`(--[a-z-]+)", text)) <= known | {"--help"}


def test_the_python_of_the_guide_runs(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    exec(code.replace("400, 4000", "40, 120"), {})
    assert ps.open_volume("middle").shape == (40, 30, 2, 1)


def test_open_source_documents_every_parameter() -> None:
    text = inspect.getdoc(ps.open_source) or ""
    assert all(f"\n{name} :" in text for name in inspect.signature(ps.open_source).parameters)
