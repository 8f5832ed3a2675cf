"""``precomputed skeleton``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import precomputed_store as ps
from precomputed_store.cli import main
from precomputed_store.skeleton import Skeleton
from tests.oracles import make_info

# Two branches off a soma, in µm, as a tracing program writes them.
SWC = "# made by hand\n1 1 0 1 2 0.5 -1\n2 3 0 1 3 0.25 1\n3 3 0 2 2 0.25 1\n"
VERTICES = [[0, 1000, 2000], [0, 1000, 3000], [0, 2000, 2000]]


def run(*arguments: object, code: int = 0, answer: str | None = None) -> str:
    result = CliRunner().invoke(main, ["skeleton", *map(str, arguments)], input=answer)
    assert result.exit_code == code, result.output
    return str(result.output)


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    info = make_info(size=(64, 64, 64), layer_type="segmentation", dtype="uint64")
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer" / "info").write_text(json.dumps(info))
    return tmp_path / "layer"


@pytest.fixture
def swc(tmp_path: Path) -> Path:
    folder = tmp_path / "swc"
    folder.mkdir()
    for segment_id in (7, 2**63 + 1):
        (folder / f"{segment_id}.swc").write_text(SWC)
    (folder / "README.txt").write_text("not a skeleton")
    return folder


@pytest.mark.parametrize("sharding", ["auto", "none"])
def test_swc_files_become_skeletons_and_come_back(
    layer: Path, swc: Path, tmp_path: Path, sharding: str
) -> None:
    shown = run("convert", swc, layer / "skeletons", "--scale", 1000, "--sharding", sharding)
    assert "2 skeletons stored at file://" in shown
    source = ps.open_volume(layer).skeletons
    assert (source.info.sharding is not None) == (sharding == "auto")
    assert source[7].vertices.tolist() == VERTICES
    assert source[7].attributes["radius"].tolist() == [500, 250, 250]
    assert source[7].attributes["vertex_types"].tolist() == [1, 3, 3]
    assert sorted(map(int, run("ls", layer).split())) == [7, 2**63 + 1]
    assert sorted(json.loads(run("ls", layer / "skeletons", "--json"))) == ["7", str(2**63 + 1)]

    shown = run("convert", layer, tmp_path / "back", "--scale", 1000, "--progress")
    assert "2 files written" in shown
    files = sorted(path.name for path in (tmp_path / "back").iterdir())
    assert files == sorted(path.name for path in swc.glob("*.swc"))
    again = Skeleton.from_swc((tmp_path / "back" / "7.swc").read_text(), scale=1000)
    assert again.vertices.tolist() == VERTICES


def test_skeletons_are_fetched_removed_and_searched(
    layer: Path, swc: Path, tmp_path: Path
) -> None:
    folder = layer / "skeletons"
    run("convert", swc, folder, "--spatial-index")
    one = run("get", layer, 7)
    assert Skeleton.from_swc(one).vertices.tolist() == [[0, 1, 2], [0, 1, 3], [0, 2, 2]]
    assert sorted(run("ls", layer, "--box", "0,0,0,1,2,4").split()) == ["7", str(2**63 + 1)]
    assert run("ls", layer, "--box", "5,0,0,6,2,4") == ""
    run("get", layer, 7, 2**63 + 1, "-o", tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert "--overwrite" in run("get", layer, 7, "-o", tmp_path / "out", code=1)
    run("get", layer, 7, "-o", tmp_path / "out", "--overwrite")
    assert "Aborted" in run("rm", layer, 7, answer="n\n", code=1)
    assert "removed 1 skeleton" in run("rm", layer, 7, 9, "--yes")
    assert "none of these" in run("rm", layer, 7, "--yes")
    assert list(ps.open_skeletons(folder)) == [2**63 + 1]
    assert "no skeleton of 7" in run("get", layer, 7, code=1)


def test_a_database_of_the_index_is_made_and_asked(layer: Path, swc: Path, tmp_path: Path) -> None:
    run("convert", swc, layer / "skeletons", "--spatial-index")
    assert run("index", layer, tmp_path / "index.db") == ""
    for box, expected in (("0,0,0,1,2,4", ["7", str(2**63 + 1)]), ("5,0,0,6,2,4", [])):
        assert run("ls", layer, "--box", box, "--index", tmp_path / "index.db").split() == expected
    # The database is asked, not the files.
    for path in (layer / "skeletons").glob("*.spatial"):
        path.unlink()
    assert run("ls", layer, "--box", "0,0,0,1,2,4", "--index", tmp_path / "index.db").split()
    shown = run("index", layer, tmp_path / "other.db", "--progress", code=1)
    assert "is missing" in shown
    assert "by --box" in run("ls", layer, "--index", tmp_path / "index.db", code=2)
    assert "no such file" in run("ls", layer, "--box", "0,0,0,1,2,4", "--index", "none", code=1)


def test_replacing_removes_the_others(layer: Path, swc: Path) -> None:
    ps.write_skeletons(layer / "skeletons", {1: Skeleton([(0, 0, 0)])})
    run("convert", swc, layer / "skeletons", "--replace", code=1)  # it stores no vertex_types
    assert list(ps.open_skeletons(layer / "skeletons")) == [1]
    (swc / "1.swc").write_text(SWC)
    run("convert", swc, layer / "others")
    for name in swc.glob("[!1]*.swc"):
        name.unlink()
    run("convert", swc, layer / "others", "--replace")
    assert list(ps.open_skeletons(layer / "others")) == [1]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("neuron.swc", SWC, "named after a segment id"),
        ("007.swc", SWC, "named after the same id"),
        ("9.swc", "1 1 0 0\n", "9.swc: line 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_nothing_is_stored(
    layer: Path, swc: Path, name: str, text: str, message: str
) -> None:
    (swc / name).write_text(text)
    assert message in run("convert", swc, layer / "skeletons", code=1)
    assert not (layer / "skeletons").exists()


def test_cycles_are_named_with_what_to_do(tmp_path: Path) -> None:
    ring = Skeleton([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1), (1, 2), (2, 0)])
    ps.write_skeletons(tmp_path / "skeletons", {5: ring})
    shown = run("get", tmp_path / "skeletons", 5, code=1)
    assert "skeleton 5: " in shown
    assert "--break-cycles" in shown
    assert len(run("get", tmp_path / "skeletons", 5, "--break-cycles").splitlines()) >= 3


def test_wrong_use_is_told(tmp_path: Path, swc: Path, layer: Path) -> None:
    assert "neither files *.swc nor" in run("convert", tmp_path / "no", tmp_path / "out", code=1)
    assert "--output says" in run("get", layer, 1, 2, code=2)
    assert "says nothing in this direction" in run(
        "convert", swc, layer / "skeletons", "--overwrite", code=2
    )
    assert "links no skeletons" in run("ls", layer, code=1)
