"""What the package says of itself agrees with what it is."""

from __future__ import annotations

import itertools
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import precomputed_store
from precomputed_store.codecs import ENCODINGS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return loaded


def test_the_version_is_stated_once_and_the_same(project: dict[str, Any]) -> None:
    assert project["version"] == precomputed_store.__version__
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_conda_environment_installs_what_pyproject_says(project: dict[str, Any]) -> None:
    text = (ROOT / "environment.yml").read_text()
    python = re.search(r"- python(\S+)", text)
    assert python is not None
    assert python.group(1) == project["requires-python"]
    extras = re.search(r"- -e \.\[(\S+)\]", text)
    assert extras is not None
    assert set(extras.group(1).split(",")) <= set(project["optional-dependencies"])
    assert "all" in extras.group(1)


def test_the_extra_all_holds_every_other_runtime_extra(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    named = re.search(r"\[(.*)\]", extras["all"][0])
    assert named is not None
    assert set(named.group(1).split(",")) == set(extras) - {"all", "test"}


def test_no_dependency_lets_the_broken_zfpy_in(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"].values()
    everything = [*project["dependencies"], *itertools.chain.from_iterable(extras)]
    for requirement in everything:
        if requirement.startswith("zfpy"):
            assert "!=1.0.1.post0" in requirement
    if any(requirement.startswith("zfpc") for requirement in everything):
        assert any(requirement.startswith("zfpy") for requirement in everything)


def test_every_encoding_has_a_numcodecs_entry_point() -> None:
    names = {entry.name for entry in entry_points(group="numcodecs.codecs")}
    assert {f"precomputed.{encoding}" for encoding in ENCODINGS} <= names


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("xarray.backends", "precomputed"),
        ("zarr.codecs", "precomputed"),
        ("fsspec.specs", "precomputed"),
        ("console_scripts", "precomputed"),
    ],
)
def test_entry_points_load(group: str, name: str) -> None:
    (entry,) = entry_points(group=group, name=name)
    assert entry.load() is not None
