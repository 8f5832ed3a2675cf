"""``precomputed info``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from precomputed_store.cli import main
from tests.oracles import make_info

SHARDS = {
    "hash": "murmurhash3_x86_128",
    "preshift_bits": 9,
    "minishard_bits": 6,
    "shard_bits": 11,
}


@pytest.fixture
def info() -> dict[str, Any]:
    info = make_info(
        size=(100, 90, 80),
        voxel_offset=(-5, 0, 7),
        dtype="uint32",
        encoding="compressed_segmentation",
        layer_type="segmentation",
        sharding=SHARDS,
        mine="kept",
    )
    damaged = {**info["scales"][0], "key": "16_16_16", "size": [0, 0, 0], "encoding": "mp3"}
    coarse = {**info["scales"][0], "key": "32_32_40", "resolution": [32, 32, 40.5]}
    del coarse["sharding"]
    return {**info, "mesh": "mesh_dir", "scales": [info["scales"][0], damaged, coarse]}


@pytest.fixture
def layer(tmp_path: Path, info: dict[str, Any]) -> Path:
    (tmp_path / "info").write_text(json.dumps(info))
    return tmp_path


def show(*arguments: object) -> str:
    shown = CliRunner().invoke(main, ["info", *map(str, arguments)])
    assert shown.exit_code == 0, shown.output
    return shown.output


def test_the_json_has_the_metadata_and_what_follows_from_it(
    layer: Path, info: dict[str, Any]
) -> None:
    shown = json.loads(show(layer, "--json"))
    assert shown["url"] == f"file://{layer}"
    assert (shown["layer_type"], shown["data_type"]) == ("segmentation", "uint32")
    assert (shown["num_channels"], shown["mesh"]) == (1, "mesh_dir")
    assert shown["info"]["scales"][0]["mine"] == "kept"
    assert shown["info"]["scales"][1] == info["scales"][1]
    fine = shown["scales"][0]
    assert {name: fine[name] for name in ("index", "key", "usable", "hidden")} == {
        "index": 0,
        "key": "8_8_8",
        "usable": True,
        "hidden": False,
    }
    assert fine["bounds"] == [[-5, 0, 7], [95, 90, 87]]
    assert fine["chunk_size"] == [64, 64, 64]
    assert fine["encoding_parameters"] == {"compressed_segmentation_block_size": [8, 8, 8]}
    assert fine["sharding"]["shard_bits"] == 11
    assert (fine["grid_shape"], fine["num_chunks"]) == ([2, 2, 2], 8)
    assert (fine["num_voxels"], fine["num_bytes"]) == (720_000, 2_880_000)
    coarse = shown["scales"][2]
    assert (coarse["index"], coarse["sharding"]) == (2, None)
    assert coarse["resolution_nm"] == [32, 32, 40.5]


def test_the_json_names_what_is_wrong_with_a_damaged_scale(layer: Path) -> None:
    damaged = json.loads(show(layer, "--json"))["scales"][1]
    assert (damaged["index"], damaged["key"], damaged["usable"]) == (1, "16_16_16", False)
    places = {problem["location"] for problem in damaged["problems"]}
    assert places >= {"scales[1].encoding", "scales[1].size[0]", "scales[1].size[2]"}


def test_the_table_shows_every_scale_and_every_problem(layer: Path) -> None:
    shown = show(layer)
    lines = shown.splitlines()
    assert lines[1] == "segmentation, uint32, 1 channel, 3 scales"
    assert "mesh: 'mesh_dir'" in lines
    for text in (
        "8 × 8 × 8",
        "32 × 32 × 40.5",
        "100 × 90 × 80",
        "from -5, 0, 7",
        "8 of 64 × 64 × 64",
        "compressed_segmentation",
        "block_size 8 × 8 × 8",
        "in up to 2,048 shards of 64 minishards",
        "2.88 MB",
        "scales[1] ('16_16_16') cannot be used:",
        "scales[1].encoding",
        "scales[1].size[0]",
    ):
        assert text in shown


def test_what_other_programs_refuse_is_told_in_words_and_not_as_a_python_warning(
    tmp_path: Path,
) -> None:
    (tmp_path / "info").write_text(json.dumps(make_info(size=(5, 4, 3), dtype="float64")))
    assert "Neuroglancer and TensorStore cannot read float64" in show(tmp_path)
    warnings = json.loads(show(tmp_path, "--json"))["warnings"]
    assert [warning["location"] for warning in warnings] == ["data_type"]


def test_text_in_brackets_is_not_taken_for_markup(tmp_path: Path) -> None:
    info = make_info(size=(5, 4, 3))
    info["scales"][0]["key"] = "[bold]x[/bold]"
    (tmp_path / "info").write_text(json.dumps(info))
    assert "[bold]x[/bold]" in show(tmp_path)


def test_a_document_without_a_usable_scale_is_an_error_that_lists_everything(
    tmp_path: Path,
) -> None:
    info = make_info(size=(5, 4, 0), dtype="uint7")
    (tmp_path / "info").write_text(json.dumps(info))
    shown = CliRunner().invoke(main, ["info", str(tmp_path)])
    assert shown.exit_code == 1
    assert "scales[0].size[2]" in shown.output
    assert "data_type" in shown.output
