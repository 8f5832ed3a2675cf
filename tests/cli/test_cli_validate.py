"""``precomputed validate``: what it prints, and what it exits with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import precomputed_store as ps
from precomputed_store.cli import main
from tests.oracles import make_info

INFO = make_info(size=(60, 60, 10), chunk_size=(10, 10, 10))


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    folder = tmp_path / "layer"
    ps.create(folder, INFO)
    ps.open_volume(folder, mode="r+")[...] = np.full((60, 60, 10), 7, np.uint8)
    return folder


def check(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["validate", *map(str, arguments)])


def test_a_sound_layer_exits_with_zero(layer: Path) -> None:
    shown = check(layer)
    assert shown.exit_code == 0
    assert shown.output.splitlines() == [f"file://{layer}", "metadata: valid"]


def test_chunks_are_counted(layer: Path) -> None:
    (layer / "8_8_8" / "0-10_0-10_0-10").unlink()
    shown = check(layer, "--chunks")
    assert shown.exit_code == 0
    assert shown.output.splitlines()[-1] == (
        "scales[0] '8_8_8': 36 chunks looked for: 35 present (35 kB), 1 missing"
    )
    shown = check(layer, "--decode", "--scale", "8_8_8")
    assert shown.output.splitlines()[-1].endswith("35 present (35 kB), 1 missing, 0 corrupt")
    shown = check(layer, "--sample", "3", "--scale", "0")
    assert "3 of 36 chunks read and decoded" in shown.output


def test_a_scale_without_a_check_of_chunks_is_refused(layer: Path) -> None:
    shown = check(layer, "--scale", "8_8_8")
    assert shown.exit_code == 2
    assert "add --chunks, --decode or --sample N" in shown.output
    with pytest.raises(ValueError, match="pass chunks=, decode= or sample= too"):
        ps.validate(layer, scale=0)


def test_problems_of_the_document_exit_with_one_and_are_all_named(tmp_path: Path) -> None:
    info = {**INFO, "num_channels": 0, "type": "picture"}
    (tmp_path / "info").write_text(json.dumps(info))
    shown = check(tmp_path)
    assert shown.exit_code == 1
    assert "metadata: 2 problems:" in shown.output
    assert "  - num_channels: " in shown.output
    assert "  - type: " in shown.output


def test_corrupt_chunks_exit_with_one_and_twenty_are_named(layer: Path) -> None:
    for path in (layer / "8_8_8").iterdir():
        path.write_bytes(b"")
    shown = check(layer, "--decode")
    assert shown.exit_code == 1
    assert "36 corrupt" in shown.output
    named = [line for line in shown.output.splitlines() if line.startswith("  - 8_8_8/")]
    assert len(named) == 20
    assert "empty (0 bytes)" in named[0]
    assert "and 16 more (--json lists all)" in shown.output
    document = json.loads(check(layer, "--decode", "--json").output)
    assert len(document["scales"][0]["corrupt"]) == 36


def test_a_layer_of_nothing_is_pointed_out(tmp_path: Path) -> None:
    ps.create(tmp_path / "layer", INFO)
    shown = check(tmp_path / "layer", "--chunks")
    assert shown.exit_code == 0
    assert "nothing at all is stored" in shown.output


def test_unknown_objects_are_named(layer: Path) -> None:
    (layer / "8_8_8" / "[red]").write_bytes(b"")
    shown = check(layer, "--chunks")
    assert shown.exit_code == 0
    assert "1 unknown object in the folder" in shown.output
    assert "  - [red]: not a chunk of this scale's grid" in shown.output


def test_the_json_has_one_schema_whatever_is_found(layer: Path, tmp_path: Path) -> None:
    (layer / "8_8_8" / "0-10_0-10_0-10").write_bytes(b"")
    shown = check(layer, "--chunks", "--json")
    assert shown.exit_code == 1
    found = json.loads(shown.output)
    (tmp_path / "info").write_text("[]")
    broken = json.loads(check(tmp_path, "--json").output)
    assert list(found) == list(broken) == ["url", "ok", "problems", "warnings", "scales"]
    assert broken["ok"] is found["ok"] is False
    assert list(broken["problems"][0]) == ["location", "message"]
    assert list(found["scales"][0]) == [
        "index",
        "key",
        "num_chunks",
        "num_checked",
        "decoded",
        "num_present",
        "num_missing",
        "num_corrupt",
        "num_bytes",
        "corrupt",
        "unknown",
    ]


def test_a_wrong_scale_lists_those_that_there_are(layer: Path) -> None:
    shown = check(layer, "--chunks", "--scale", "-7")
    assert shown.exit_code == 1
    assert "0: key '8_8_8'" in shown.output
