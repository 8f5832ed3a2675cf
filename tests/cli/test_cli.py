"""The command line as a whole: help, errors, options of every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import precomputed_store as ps
from precomputed_store.cli import COMMANDS, main
from tests.oracles import make_info


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    ps.create(tmp_path / "layer", make_info(size=(5, 4, 3)))
    return tmp_path / "layer"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "precomputed_store", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )


def test_help_names_every_command_and_loads_none_of_them() -> None:
    code = (
        "import sys; from precomputed_store.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert all(f"  {name}" in shown.stdout for name in COMMANDS)
    loaded = {name.partition(".")[0] for name in shown.stderr.split()}
    assert not loaded & {"numpy", "fsspec", "xarray", "dask", "zarr", "rich"}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_of_the_table_exists_and_explains_itself(name: str) -> None:
    shown = CliRunner().invoke(main, [name, "--help"])
    assert shown.exit_code == 0
    assert "Usage: " in shown.output
    assert "--debug" in shown.output


def test_the_version_is_that_of_the_package() -> None:
    shown = CliRunner().invoke(main, ["--version"])
    assert shown.output.split()[1] == ps.__version__


def test_an_error_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    shown = run("info", tmp_path)
    assert shown.returncode == 1
    assert shown.stdout == ""
    (line,) = shown.stderr.splitlines()
    assert line.startswith("Error: file://")
    assert "no Precomputed volume here" in line


@pytest.mark.parametrize("arguments", [("--debug", "info"), ("info", "--debug")])
def test_debug_shows_the_traceback(arguments: tuple[str, ...], tmp_path: Path) -> None:
    shown = run(*arguments, tmp_path)
    assert shown.returncode == 1
    assert "Traceback" in shown.stderr
    assert "VolumeNotFoundError" in shown.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("info",),
        ("info", "--no-such-option", "x"),
        ("info", "x", "--storage-option", "no-equals-sign"),
        ("info", "x", "--missing-status", "200"),
        ("validate", "x", "--sample", "0"),
    ],
)
def test_a_wrong_usage_exits_with_two(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_storage_options_are_json_or_text(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def open_layer(url: str, **options: object) -> ps.Layer:
        seen.update(options)
        return ps.open_layer(url)

    monkeypatch.setattr("precomputed_store.cli.info.open_layer", open_layer)
    options = ["token=anon", "requester_pays=true", 'client_kwargs={"a": [1]}', "key=a=b"]
    flags = [flag for option in options for flag in ("--storage-option", option)]
    shown = CliRunner().invoke(main, ["info", str(layer), "--missing-status", "403", *flags])
    assert shown.exit_code == 0
    assert seen == {
        "storage_options": {
            "token": "anon",
            "requester_pays": True,
            "client_kwargs": {"a": [1]},
            "key": "a=b",
        },
        "missing_statuses": (404, 403),
        "root": None,
    }


def test_output_survives_a_terminal_without_the_characters(layer: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "precomputed_store", "info", str(layer)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert b"5 ? 4 ? 3" in shown.stdout


def test_the_process_prints_json_for_programs(layer: Path) -> None:
    shown = run("info", layer, "--json")
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["scales"][0]["size"] == [5, 4, 3]
