"""``precomputed mesh``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import precomputed_store as ps
from precomputed_store.cli import main
from precomputed_store.mesh import Mesh
from tests.meshes.mesh_builders import ball


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    labels = ball(6).astype(np.uint32) * 17
    labels[0, 0, 0] = 42
    ps.to_precomputed(
        labels, tmp_path / "layer", dims=("x", "y", "z"), resolution=(4, 4, 40),
        layer_type="segmentation", pyramid=None,
    )  # fmt: skip
    return tmp_path / "layer"


def run(*arguments: object, code: int = 0, answer: str | None = None) -> str:
    result = CliRunner().invoke(main, ["mesh", *map(str, arguments)], input=answer)
    assert result.exit_code == code, result.output
    return str(result.output)


def test_meshes_are_made_listed_saved_and_removed(layer: Path, tmp_path: Path) -> None:
    shown = run("make", layer, "--sharding", "auto", "--lods", 2, "--bits", 10)
    assert "multi-resolution meshes, sharded, 10 bits" in shown
    assert run("ls", layer).split() == ["17", "42"]
    shown = run("get", layer, 17, 42, "--format", "stl", "-o", tmp_path / "out")
    assert "17.stl" in shown
    loaded = Mesh.load(tmp_path / "out" / "17.stl").deduplicate()
    assert loaded.is_closed
    run("get", layer, 17, 42, "--fuse", "-o", tmp_path / "out")
    assert Mesh.load(tmp_path / "out" / "17.ply").volume > loaded.volume
    assert "Remove the meshes of 1 segments?" in run("rm", layer, 17, code=1, answer="n\n")
    run("rm", layer, 17, "--yes")
    assert run("ls", layer).split() == ["42"]


def test_options_are_handed_on(layer: Path) -> None:
    run(
        "make", layer, 17, "--kind", "legacy", "--folder", "b", "--smooth", 5, "--simplify", 2,
        "--block", "8,8,8", "--min-voxels", 2,
    )  # fmt: skip
    source = ps.open_meshes(layer)
    assert source.url.endswith("/b")
    assert source.info.kind == "legacy"
    assert source.ids() == [17]


def test_meshes_are_replaced_and_jobs_resumed(
    layer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("make", layer)
    run("make", layer, 17, "--overwrite", "--kind", "legacy")
    assert ps.open_meshes(layer).info.kind == "legacy"
    assert run("ls", layer).split() == ["17"]

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("precomputed_store.meshing.workplace.Workplace.clear", killed)
        run("make", layer, 42, code=1)
    assert "--resume goes on with it, --overwrite starts afresh" in run("make", layer, 42, code=1)
    run("make", layer, 42, "--resume")
    assert run("ls", layer).split() == ["17", "42"]


def test_what_is_wrong_is_told_in_a_sentence(layer: Path) -> None:
    assert "links no meshes" in run("ls", layer, code=1)
    run("make", layer)
    assert "no mesh of segment 5" in run("get", layer, 5, code=1)
    assert "lods" in run("make", layer, "--lods", 99, code=1)
    assert "expected a number, or auto" in run("make", layer, "--lods", "x", code=2)
