"""One browser, and a web server for the layers that it shows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from precomputed_store import Volume
from tests.neuroglancer_client.client import Client
from tests.neuroglancer_client.files import FileServer

__all__ = ["Neuroglancer", "neuroglancer"]

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True, kw_only=True)
class Neuroglancer:
    """The client, and a server of everything in the tests' temporary folders."""

    client: Client
    files: FileServer

    def read(self, volume: Volume) -> np.ndarray:
        """Voxels ``(x, y, z, channel)`` as the client's own decoder sees them."""
        url = self.files.url_of(Path(volume.url.removeprefix("file://")))
        if volume.dtype in ("uint32", "uint64"):
            return self.client.read_by_shader(
                url,
                bounds=volume.bounds,
                dtype=volume.dtype,
                num_channels=volume.info.num_channels,
            )
        return self.client.read(url)


@pytest.fixture(scope="module")
def neuroglancer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neuroglancer]:
    pytest.importorskip("neuroglancer")
    chromium = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if chromium is None:
        pytest.skip("no Chromium: looked for " + ", ".join(_CHROMIUM))
    with (
        FileServer(tmp_path_factory.getbasetemp()) as files,
        Client(chromium, tmp_path_factory.mktemp("chromium")) as client,
    ):
        yield Neuroglancer(client=client, files=files)
