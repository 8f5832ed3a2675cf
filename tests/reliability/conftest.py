"""Fixtures of the tests of reliability."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from places import REMOTE, RemotePlace, remote_place


@pytest.fixture(params=REMOTE)
def place(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RemotePlace]:
    # gcsfs would ask Google's own servers for the bucket's type, with long waits.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    moto = request.getfixturevalue("s3_server") if request.param == "s3" else None
    with remote_place(request.param, moto) as found:
        yield found
