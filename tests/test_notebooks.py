"""The notebooks run from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.filterwarnings("ignore")  # Of Jupyter's own, in this process; cells have theirs.
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    assert not list(tmp_path.iterdir()), "a notebook leaves nothing behind"


def test_notebooks_speak_of_no_machine() -> None:
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        for folder in ("/home/", "/root/", "/tmp/", "/Users/", "file:///"):
            assert folder not in text
