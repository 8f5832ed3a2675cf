"""Layers for the tests of the zarr store, and requests counted."""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.fixtures import s3_server, web_server

import precomputed_store as ps
from precomputed_store.storage import Storage
from tests.oracles import make_info

__all__ = ["s3_server", "web_server"]

KINDS: dict[str, dict[str, Any]] = {
    "raw": {"dtype": "uint8", "num_channels": 2},
    "raw-float32": {"dtype": "float32"},
    "compressed_segmentation": {
        "dtype": "uint32",
        "num_channels": 2,
        "encoding": "compressed_segmentation",
    },
    "png": {"dtype": "uint8", "num_channels": 3, "encoding": "png"},
}
"""Arguments of `make_info` for volumes that differ in what a chunk is."""


@dataclass
class Layer:
    """A layer on disk and the array ``(channel, z, y, x)`` that it should be."""

    folder: Path
    expected: np.ndarray

    @property
    def url(self) -> str:
        return str(self.folder)

    def files(self) -> dict[str, int]:
        """Sizes of the chunk files, by name."""
        return {path.name: path.stat().st_size for path in (self.folder / "8_8_8").iterdir()}


@dataclass
class LayerInMemory:
    """As `Layer`, without a folder."""

    url: str
    expected: np.ndarray


MakeLayer = Callable[..., Layer]


def build_layer(folder: Path, kind: str = "raw", *, empty: bool = False, **changes: Any) -> Layer:
    """A layer full of random values; edges are cropped, the offset is negative."""
    arguments = {
        "size": (25, 35, 17),
        "chunk_size": (8, 10, 6),
        "voxel_offset": (-7, 3, 11),
        **KINDS[kind],
        **changes,
    }
    return Layer(folder, write_layer(folder, make_info(**arguments), empty=empty))


def write_layer(url: str | Path, info: dict[str, Any], *, empty: bool = False) -> np.ndarray:
    array = ps.create(url, info).array(0)
    expected = np.zeros(array.shape, array.dtype)
    if not empty:
        expected[...] = np.random.default_rng(0).integers(1, 200, expected.shape)
        ps.open_volume(url, mode="r+")[...] = expected.transpose()
    return expected


@pytest.fixture(params=KINDS)
def memory_layer(request: pytest.FixtureRequest) -> Iterator[LayerInMemory]:
    """A full layer of each kind, to write to."""
    import fsspec

    info = make_info(
        size=(25, 35, 17), chunk_size=(8, 10, 6), voxel_offset=(-7, 3, 11), **KINDS[request.param]
    )
    url = f"memory://{uuid.uuid4().hex}"
    yield LayerInMemory(url, write_layer(url, info))
    fsspec.filesystem("memory").rm(url, recursive=True)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where layers that many tests copy are built once."""
    return tmp_path_factory.mktemp("templates")


@pytest.fixture
def make_layer(tmp_path: Path, templates: Path) -> MakeLayer:
    """Build a layer of one's own; see `build_layer`."""

    def make(kind: str = "raw", *, empty: bool = False, **changes: Any) -> Layer:
        folder = tmp_path / f"layer{len(list(tmp_path.iterdir()))}"
        if empty or changes:
            return build_layer(folder, kind, empty=empty, **changes)
        template = templates / kind
        if not template.exists():
            build_layer(template, kind)
        shutil.copytree(template, folder)
        return Layer(folder, ps.open_volume(template)[...].transpose().copy())

    return make


@pytest.fixture(scope="session", params=KINDS)
def layer(request: pytest.FixtureRequest, templates: Path) -> Layer:
    """A full layer of each kind, for reading only."""
    return build_layer(templates / f"{request.param} to read", request.param)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What is asked of storages from now on: ``"get info"``, ``"put 8_8_8/0-8_…"``."""
    counted: Counter[str] = Counter()

    def count(name: str, original: Any) -> Any:
        def blocking(self: Storage, key: str = "", *args: Any, **options: Any) -> Any:
            counted[f"{name} {key}".strip()] += 1
            return original(self, key, *args, **options)

        return blocking

    for name in ("get", "put", "delete", "exists", "list_names"):
        monkeypatch.setattr(Storage, name, count(name, getattr(Storage, name)))
    for name in ("get", "put", "delete", "exists"):
        original = getattr(Storage, f"{name}_async")
        monkeypatch.setattr(Storage, f"{name}_async", count(name, original))
    return counted
