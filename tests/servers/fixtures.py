"""Fixtures that start the servers. Import those you need in a ``conftest.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .fake_gcs import FakeGcs
from .moto import MotoServer, moto_server
from .web import WebServer

__all__ = ["gcs_server", "no_credentials", "s3_server", "web_server"]


@pytest.fixture
def web_server() -> Iterator[WebServer]:
    with WebServer() as server:
        assert isinstance(server, WebServer)
        yield server


@pytest.fixture
def gcs_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    # gcsfs would ask Google's own servers for the bucket's type, with long waits.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    with FakeGcs() as server:
        assert isinstance(server, FakeGcs)
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[MotoServer]:
    pytest.importorskip("moto")
    with moto_server() as server:
        yield server


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without credentials for any cloud."""
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ):
        monkeypatch.delenv(name, raising=False)
    nowhere = str(tmp_path / "nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
    monkeypatch.setenv("AWS_CONFIG_FILE", nowhere)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", nowhere)
