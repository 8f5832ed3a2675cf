"""Fixtures shared by all tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from servers.fixtures import gcs_server, no_credentials, s3_server, web_server

__all__ = ["gcs_server", "no_credentials", "s3_server", "web_server"]

HERE = Path(__file__).parent

# No test fails because the machine was busy.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    """Input → output facts of the format, taken from TensorStore's test expectations."""
    loaded: dict[str, Any] = json.loads((HERE / "vectors.json").read_text())
    return loaded


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real volumes, or skip: a bare clone has none."""
    folder = os.environ.get("PRECOMPUTED_TEST_DATA")
    path = Path(folder) if folder else HERE.parent.parent / "shared" / "data"
    if not (path / "fib25_250.npz").is_file():
        pytest.skip("no real data: set PRECOMPUTED_TEST_DATA to its folder")
    return path


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is long is slow too: ``-m "not slow"`` leaves it out."""
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker("slow")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The figures that tests of reliability measured, for docs/reliability.md."""
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.getreports(kind)]
    figures = [
        value
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.write_line(figure)
