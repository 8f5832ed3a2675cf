"""A stack of labels through neuroglancer-scripts, and through one command of ours."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

import precomputed_store as ps
from precomputed_store.cli import main
from tests.oracles import cloudvolume_read, tensorstore_read

RESOLUTION = (798, 798, 2000)
SHAPE = (50, 300, 400)
"""z, y, x"""


def labels() -> np.ndarray:
    """60 balls on background."""
    rng = np.random.default_rng(7)
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    made = np.zeros(SHAPE, "uint16")
    for label in range(1, 61):
        cz, cy, cx = rng.integers((4, 20, 20), (46, 280, 380))
        radius = rng.integers(6, 25)
        made[((z - cz) * 2.5) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < radius**2] = label
    return made


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("guide") / "data"
    folder.mkdir()
    voxels = labels()
    for index, plane in enumerate(voxels):
        # Names sort the same by letters, which is how neuroglancer-scripts does it.
        tifffile.imwrite(folder / f"slice{index:03d}.tif", plane, compression="lzw")
    return folder, voxels


@pytest.fixture(scope="module")
def ours(stack: tuple[Path, np.ndarray]) -> Path:
    layer = stack[0].parent / "ours"
    arguments = [str(stack[0]), str(layer), "--resolution", "798,798,2000"]
    options = ["--layer-type", "segmentation", "--target-chunk-size", "128"]
    shown = CliRunner().invoke(main, ["convert", *arguments, *options])
    assert shown.exit_code == 0, shown.output
    return layer


@pytest.mark.parity
def test_the_layer_holds_the_labels_for_every_reader(
    ours: Path, stack: tuple[Path, np.ndarray]
) -> None:
    expected = stack[1].transpose(2, 1, 0)[..., np.newaxis]
    volume = ps.open_volume(ours)
    assert (volume.resolution, volume.layer_type) == (RESOLUTION, "segmentation")
    np.testing.assert_array_equal(volume[...], expected)
    np.testing.assert_array_equal(cloudvolume_read(ours), expected)
    np.testing.assert_array_equal(tensorstore_read(ours), expected)
    assert ps.validate(ours, decode=True).ok


@pytest.fixture(scope="module")
def scripts() -> Path:
    """The folder of the programs of neuroglancer-scripts."""
    beside_python = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    folders = os.environ.get("NEUROGLANCER_SCRIPTS", beside_python)
    found = shutil.which("slices-to-precomputed", path=folders)
    if found is None:
        pytest.skip("no neuroglancer-scripts: pip install it, or set NEUROGLANCER_SCRIPTS")
    return Path(found).parent


@pytest.fixture(scope="module")
def theirs(scripts: Path, stack: tuple[Path, np.ndarray]) -> Path:
    return by_five_steps(scripts, stack[0].parent, "stride")


def by_five_steps(scripts: Path, folder: Path, method: str) -> Path:
    scale = {
        "chunk_sizes": [],
        "encoding": "raw",
        "key": "",
        "resolution": RESOLUTION,
        "size": SHAPE[::-1],
        "voxel_offset": [0, 0, 0],
    }
    members = {"type": "segmentation", "num_channels": 1, "data_type": "uint16"}
    (folder / "info").write_text(json.dumps({**members, "scales": [scale]}))
    for command in (
        ["generate-scales-info", "info", method, "--target-chunk-size", "128"],
        ["slices-to-precomputed", "data", method, "--flat", "--no-gzip"],
        ["compute-scales", method, "--flat", "--no-gzip", "--downscaling-method", method],
    ):
        subprocess.run(
            [scripts / command[0], *command[1:]], cwd=folder, check=True, capture_output=True
        )
    return folder / method


@pytest.mark.parity
def test_the_five_steps_of_the_guide_give_the_same_voxels(ours: Path, theirs: Path) -> None:
    ours_volume, their_volume = ps.open_volume(ours), ps.open_volume(theirs)
    assert ours_volume.resolution == their_volume.resolution
    np.testing.assert_array_equal(ours_volume[...], their_volume[...])
    np.testing.assert_array_equal(cloudvolume_read(theirs), ours_volume[...])
    np.testing.assert_array_equal(tensorstore_read(theirs), ours_volume[...])


@pytest.mark.parity
@pytest.mark.parametrize("method", ["stride", pytest.param("majority", marks=pytest.mark.slow)])
def test_one_command_makes_their_coarser_scales_too(
    scripts: Path, stack: tuple[Path, np.ndarray], tmp_path: Path, method: str
) -> None:
    theirs = stack[0].parent / method
    if not theirs.exists():
        by_five_steps(scripts, stack[0].parent, method)
    scales = ps.open_layer(theirs).info.scales
    assert len(scales) > 1
    factors = [
        [round(b / a) for a, b in zip(fine.resolution, coarse.resolution, strict=True)]
        for fine, coarse in itertools.pairwise(scales)  # type: ignore[union-attr]
    ]
    arguments = [str(stack[0]), str(tmp_path / "ours"), "--resolution", "798,798,2000"]
    options = ["--layer-type", "segmentation", "--chunk-size", "128", "--sharding", "auto"]
    ours_method = {"stride": "stride", "majority": "mode"}[method]
    pyramid = ["--pyramid", json.dumps(factors), "--method", ours_method]
    shown = CliRunner().invoke(main, ["convert", *arguments, *options, *pyramid])
    assert shown.exit_code == 0, shown.output
    for index in range(len(scales)):
        ours_scale = ps.open_volume(tmp_path / "ours", scale=index)
        their_scale = ps.open_volume(theirs, scale=index)
        np.testing.assert_array_equal(ours_scale[...], their_scale[...])
