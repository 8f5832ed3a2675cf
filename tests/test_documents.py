"""What the documents show is what happens."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

import precomputed_store
from precomputed_store.cli import main

ROOT = Path(__file__).parent.parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    result = CliRunner().invoke(main, ["demo", str(folder / "precomputed-demo")])
    assert result.exit_code == 0, result.output
    return folder


def python_blocks(text: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


@pytest.mark.parametrize(
    "name",
    ["README.md", "docs/copying.md", "docs/meshes.md", "docs/skeletons.md", "docs/writing.md"],
)
def test_examples_run_and_print_what_they_say(
    name: str, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(demo)
    source = python_blocks((ROOT / name).read_text(encoding="utf-8"))
    names = {"demo": str(demo / "precomputed-demo")}
    test = doctest.DocTestParser().get_doctest(source, names, name, name, 0)
    assert len(test.examples) > 5
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def all_modules() -> list[str]:
    found = pkgutil.walk_packages(precomputed_store.__path__, "precomputed_store.")
    # The hook runs where the package is built, and there only.
    left_out = ("__main__", "hatch_build")
    return [module.name for module in found if not module.name.endswith(left_out)]


@pytest.mark.parametrize("module", all_modules())
def test_examples_in_docstrings_run(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importlib.import_module(module), optionflags=FLAGS)
    assert failed == 0


def test_links_in_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_architecture_page_has_a_line_per_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = Path(precomputed_store.__file__).parent
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        if path.name not in ("__init__.py", "__main__.py"):
            assert f"`{name}`" in text, f"{name} is not on the page"
    for name in re.findall(r"`([a-z_/]+\.py)`", text):
        assert (package / name).exists(), f"{name} is on the page and not in the package"


def test_commands_of_the_reliability_page_name_tests_that_there_are() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    commands = set(re.findall(r"`(python -m pytest [^`]*tests/[^`]*)`", text))
    assert len(commands) > 10
    for command in commands:
        words = shlex.split(command)
        path = next(ROOT / word for word in words if word.startswith("tests/"))
        assert path.exists(), command
        files = [path] if path.is_file() else [*path.glob("test_*.py")]
        tests = re.findall(
            r"def (test_\w+)", "".join(file.read_text(encoding="utf-8") for file in files)
        )
        wanted = words[words.index("-k") + 1].split(" or ") if "-k" in words else [""]
        for each in wanted:
            assert any(each in test for test in tests), command
