"""The benchmarks run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parity
def test_every_program_writes_the_same_layer(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, BENCHMARKS / "write_at_scale.py", "--quick", "--json", figures]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    (layer,) = json.loads(figures.read_text()).values()
    assert {each["files"] for each in layer.values()} == {2}
    assert shown.stdout.startswith("| layer; written by |")


@pytest.mark.slow
@pytest.mark.parity
def test_every_program_reads_and_writes_in_turns(tmp_path: Path) -> None:
    figures, picture = tmp_path / "figures.json", tmp_path / "ratios.png"
    command = [
        sys.executable, BENCHMARKS / "compare.py", "--quick", "--json", figures, "--plot", picture,
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    results = json.loads(figures.read_text())
    assert len(results) == 12
    for name, result in results.items():
        assert {"CloudVolume", "TensorStore"} <= set(result["ratios"]), name
    sizes = results["cseg uint64; write"]["bytes"]
    assert sizes["ours"] <= sizes["TensorStore"]
    assert "| geometric means |" in shown.stdout
    assert picture.stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parity
def test_remote_chunks_cost_no_more_requests_than_promised(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, BENCHMARKS / "remote.py", "--quick", "--json", figures]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    results = json.loads(figures.read_text())
    assert {name.split("; ")[2] for name in results} == {"HTTP", "S3"}
    for name, result in results.items():
        assert 1 <= result["ours"]["requests"] <= 3, name


@pytest.mark.slow
@pytest.mark.parity
def test_other_costs_are_measured_for_every_program(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, BENCHMARKS / "costs.py", "--quick", "--json", figures]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    results = json.loads(figures.read_text())
    assert len(results["import, ms"]) == 3
    (graph,) = (name for name in results if name.startswith("dask graph"))
    assert "10077696 chunks" in graph
    # Of a graph with a task for each chunk, hundreds of megabytes.
    assert results["its pickle, bytes"]["ours"] < 20_000


@pytest.mark.slow
@pytest.mark.parity
def test_skeletons_are_read_and_written_by_both_programs() -> None:
    pytest.importorskip("cloudvolume")
    command = [sys.executable, BENCHMARKS / "skeletons.py", "--count", "20", "--rounds", "1"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    figures = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [each["what"] for each in figures] == ["read", "write"]
    assert all(each["ours_s"] > 0 and each["cloudvolume_s"] > 0 for each in figures)


@pytest.mark.slow
@pytest.mark.parity
def test_a_spatial_index_is_asked_by_every_program() -> None:
    command = [sys.executable, BENCHMARKS / "spatial_index.py", "--cells", "3", "--ids", "20"]
    shown = subprocess.run(
        [*command, "--rounds", "1"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    figures = [json.loads(line) for line in shown.stdout.splitlines()]
    for what in ("one cell", "an eighth", "the bounds", "all of space"):
        found = [each["found"] for each in figures if each.get("what") == what]
        assert len(found) == 3
        assert len({*found}) == 1


@pytest.mark.slow
@pytest.mark.parity
def test_every_program_copies_in_turns(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [
        sys.executable, BENCHMARKS / "copies.py", "--quick", "--json", figures,
        "--job", "chunks into shards", "--job", "raw chunks to png",
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    into_shards, _ = json.loads(figures.read_text()).values()
    assert {name: each["files"] for name, each in into_shards.items()} == {
        "ours": 1, "TensorStore": 1, "CloudVolume": 2,
    }  # fmt: skip
    assert shown.stdout.startswith("| copy; by |")
