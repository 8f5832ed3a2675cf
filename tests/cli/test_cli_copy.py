"""``precomputed copy`` and ``precomputed rm``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import precomputed_store as ps
from precomputed_store.cli import main


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (20, 18, 7), dtype=np.uint8)


@pytest.fixture
def layer(tmp_path: Path, voxels: np.ndarray) -> Path:
    ps.to_precomputed(
        voxels, tmp_path / "layer", dims="xyz", resolution=(4, 4, 40), chunk_size=(8, 8, 4),
        layer_type="image", pyramid=[(2, 2, 1)],
    )  # fmt: skip
    return tmp_path / "layer"


def run(*arguments: object, code: int = 0, answer: str | None = None) -> str:
    result = CliRunner().invoke(main, list(map(str, arguments)), input=answer)
    assert result.exit_code == code, result.output
    return str(result.output)


def test_a_layer_is_copied_in_another_form(
    layer: Path, tmp_path: Path, voxels: np.ndarray
) -> None:
    shown = run(
        "copy", layer, tmp_path / "b", "--scale", "4_4_40", "--encoding", "png",
        "--encoding-option", "png_level=1", "--sharding", "auto", "--workers", "1",
    )  # fmt: skip
    assert "1 scale" in shown
    scale = ps.open_layer(tmp_path / "b").scale(0)
    assert (scale.encoding, scale.sharding is not None) == ("png", True)
    np.testing.assert_array_equal(ps.open_volume(tmp_path / "b")[...][..., 0], voxels)


def test_a_region_is_copied(layer: Path, tmp_path: Path, voxels: np.ndarray) -> None:
    run("copy", layer, tmp_path / "b", "--region", "8:20,:,0:4", "--scale", "0")
    volume = ps.open_volume(tmp_path / "b")
    assert volume.voxel_offset == (8, 0, 0)
    np.testing.assert_array_equal(volume[...][..., 0], voxels[8:20, :, 0:4])


def test_a_dry_run_says_how_each_scale_is_copied(layer: Path, tmp_path: Path) -> None:
    shown = run("copy", layer, tmp_path / "b", "--sharding", "auto", "--dry-run")
    assert "encoded chunks as they are (same encoding and chunks, other sharding)" in shown
    shown = run("copy", layer, tmp_path / "b", "--chunk-size", "4,4,4", "--dry-run")
    assert "encoded again block by block (chunks of (4, 4, 4) instead of" in shown
    assert not (tmp_path / "b").exists()


def test_a_layer_that_is_there_is_replaced_if_asked(layer: Path, tmp_path: Path) -> None:
    run("copy", layer, tmp_path / "b")
    assert "there is a layer already" in run("copy", layer, tmp_path / "b", code=1)
    run("copy", layer, tmp_path / "b", "--overwrite")
    run("copy", layer, tmp_path / "b", "--resume")


@pytest.mark.parametrize("region", ["1:2", "a:b,:,:", "0:8,0:8,0:8,0:8"])
def test_a_wrong_region_says_how_it_is_written(layer: Path, tmp_path: Path, region: str) -> None:
    shown = run("copy", layer, tmp_path / "b", "--region", region, code=2)
    assert "for instance 0:64,:,10:20" in shown


def test_rm_asks_first(layer: Path) -> None:
    stored = [path.stat().st_size for path in layer.rglob("*") if path.is_file()]
    asked = run("rm", layer, code=1, answer="n\n")
    assert f"Remove {len(stored)} objects ({sum(stored) / 1024:.4g} KiB)?" in asked
    assert (layer / "info").exists()
    run("rm", layer, answer="y\n")
    assert not (layer / "info").exists()


def test_rm_takes_a_scale_or_a_region(layer: Path, voxels: np.ndarray) -> None:
    run("rm", layer, "--scale", "8_8_40", "--yes")
    assert len(ps.open_layer(layer).info.scales) == 1
    said = run("rm", layer, "--scale", "0", "--region", "0:8,:,:", "--dry-run")
    assert "6 objects" in said
    run("rm", layer, "--scale", "0", "--region", "0:8,:,:", "-y")
    expected = voxels.copy()
    expected[:8] = 0
    np.testing.assert_array_equal(ps.open_volume(layer)[...][..., 0], expected)
