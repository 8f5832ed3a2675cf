"""``precomputed downsample``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import precomputed_store as ps
from precomputed_store.cli import main
from tests.writing.reference import coarse


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 4, (20, 18, 7), dtype=np.uint32)


@pytest.fixture
def layer(tmp_path: Path, voxels: np.ndarray) -> Path:
    ps.to_precomputed(voxels, tmp_path, dims="xyz", resolution=(4, 4, 40), chunk_size=(8, 8, 4))
    return tmp_path


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["downsample", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return str(result.output)


def test_scales_are_added_and_told(layer: Path, voxels: np.ndarray) -> None:
    shown = run(layer)
    assert "8_8_40, 10 × 9 × 7 voxels (x, y, z) of 8 × 8 × 40 nm" in shown
    read = ps.open_volume(layer, scale=1)[...][..., 0]
    np.testing.assert_array_equal(read, coarse(voxels, (0, 0, 0), (2, 2, 1), "mode"))


def test_options_are_handed_on(layer: Path, voxels: np.ndarray) -> None:
    run(
        layer, "--pyramid", "[[3,1,2]]", "--method", "max", "--sharding", "auto",
        "--encoding", "raw", "--chunk-size", "4,4,4", "--scale", "4_4_40", "--workers", "1",
    )  # fmt: skip
    scale = ps.open_layer(layer).scale(1)
    assert (scale.key, scale.encoding, scale.chunk_size) == ("12_4_80", "raw", (4, 4, 4))
    assert scale.sharding is not None
    read = ps.open_volume(layer, scale=1)[...][..., 0]
    np.testing.assert_array_equal(read, coarse(voxels, (0, 0, 0), (3, 1, 2), "max"))


def test_scales_that_are_there_are_replaced_if_asked(layer: Path) -> None:
    run(layer, "--pyramid", "1")
    assert "already" in run(layer, "--pyramid", "1", "--scale", "0", code=1)
    run(layer, "--pyramid", "1", "--scale", "0", "--overwrite")
    assert "no new scales" in run(layer, "--pyramid", "1", "--scale", "0", "--resume")


def test_a_wrong_pyramid_is_an_error(layer: Path) -> None:
    assert "Error" in run(layer, "--pyramid", "2x2", code=1)
