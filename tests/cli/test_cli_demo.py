"""``precomputed demo``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyspng
import pytest
from click.testing import CliRunner, Result

from precomputed_store import sample
from precomputed_store.cli import main
from precomputed_store.cli.picture import overlay_png
from precomputed_store.validation import validate
from tests.oracles import tensorstore_read

# What `pip install precomputed-store` alone does not bring.
EXTRAS = ["aiohttp", "s3fs", "gcsfs", "imagecodecs", "crackle", "isal", "brotli", "zstandard"]
OTHERS = ["matplotlib", "PIL", "scipy", "distributed", "cloudvolume", "tensorstore"]


def demo(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["demo", *map(str, arguments)])


def test_the_demo_writes_layers_that_tensorstore_reads(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shown = demo(folder)
    assert shown.exit_code == 0, shown.output
    cut = sample.load()
    segmentation = tensorstore_read(folder / "segmentation")[..., 0].T
    np.testing.assert_array_equal(segmentation, cut.segmentation)
    image = tensorstore_read(folder / "image")[..., 0].T
    error = np.abs(image.astype(int) - cut.image)
    assert f"by {error.mean():.1f} of 255 on average, {error.max()} at most" in shown.output
    info = json.loads((folder / "image" / "info").read_text())
    assert info["scales"][0]["voxel_offset"] == list(cut.voxel_offset)
    assert info["scales"][0]["encoding"] == "jpeg"
    for name in ("image", "segmentation"):
        report = validate(folder / name, decode=True)
        assert report.ok
        assert report.warnings == ()
        assert (report.scales[0].num_present, report.scales[0].unknown) == (18, ())
    assert "Janelia FlyEM" in (folder / "README.md").read_text(encoding="utf-8")


def test_the_demo_tells_what_it_does(tmp_path: Path) -> None:
    shown = demo(tmp_path).output
    for text in (
        "18/18 chunks",
        "<xarray.Dataset>",
        "dask.array<chunksize=(1, 16, 64, 64)",
        "all 691,200 voxels are equal, bit for bit",
        "at z = 455 nm",
        f"precomputed info {tmp_path.as_posix()}/image",
        "[70:134, 40:104, 45]",
        f'CloudVolume("file://{tmp_path.as_posix()}/segmentation", mip=0)',
        "https://neuroglancer-demo.appspot.com/#!%7B",
    ):
        assert text in shown
    ids, counts = np.unique(sample.load().segmentation, return_counts=True)
    largest = int(ids[counts.argmax()])
    assert f"  {largest:>7}   {counts.max() * 1e-6:>12.4f}" in shown


def test_a_second_run_in_the_same_folder_is_fine(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    assert demo(folder).exit_code == 0
    chunk = next((folder / "segmentation" / "10_10_10").iterdir())
    chunk.write_bytes(b"old")
    (folder / "mine.txt").write_text("mine")
    picture = (folder / "demo.png").read_bytes()
    (folder / "demo.png").unlink()
    shown = demo(folder)
    assert shown.exit_code == 0, shown.output
    assert (folder / "demo.png").read_bytes() == picture
    assert validate(folder / "segmentation", decode=True).ok
    assert (folder / "mine.txt").read_text() == "mine"


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# My data")
    shown = demo(tmp_path)
    assert shown.exit_code == 1
    assert "is not empty, and not from an earlier demo" in shown.output
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "# My data"
    assert demo(tmp_path / "README.md").exit_code == 2


def test_the_picture_is_grey_on_the_left_and_coloured_on_the_right() -> None:
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5) * 10
    labels = np.array([[0, 0, 7, 7, 7]] * 4, np.uint64)
    picture = pyspng.load(overlay_png(grey, labels, enlarge=2))
    assert picture.shape == (8, 10 + 12 + 10, 3)
    left, gap, right = picture[:, :10], picture[:, 10:22], picture[:, 22:]
    np.testing.assert_array_equal(left[::2, ::2], np.repeat(grey[..., np.newaxis], 3, axis=2))
    assert (gap == 255).all()
    np.testing.assert_array_equal(right[:, :4], left[:, :4])
    assert np.ptp(right[:, 4:].astype(int), axis=2).min() > 0


def test_the_demo_runs_as_a_program_on_the_base_install_alone(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({[*EXTRAS, *OTHERS]!r}))\n"
        "from precomputed_store.cli import main\n"
        "main(['demo'], prog_name='precomputed')"
    )
    shown = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=tmp_path,
        check=False,
        timeout=120,
    )
    assert shown.returncode == 0, shown.stderr
    assert "18/18 chunks" in shown.stderr
    assert (tmp_path / "precomputed-demo" / "demo.png").stat().st_size > 10_000


@pytest.mark.parametrize("layer", ["image", "segmentation"])
def test_the_commands_that_the_demo_names_work(tmp_path: Path, layer: str) -> None:
    shown = demo(tmp_path).output
    for line in shown.splitlines():
        if line.startswith("precomputed ") and layer in line:
            again = CliRunner().invoke(main, line.split()[1:])
            assert again.exit_code == 0, again.output
            break
    else:
        pytest.fail(f"no command for {layer}")
