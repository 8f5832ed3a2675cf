"""Fixtures shared by all tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from servers.fixtures import gcs_server, no_credentials, s3_server, web_server

__all__ = ["gcs_server", "no_credentials", "s3_server", "web_server"]

HERE = Path(__file__).parent


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
