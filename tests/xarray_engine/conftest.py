"""A small layer of odd size and offset, written by TensorStore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from precomputed_store.storage import Storage
from tests.oracles import make_info, tensorstore_write

SIZE = (37, 29, 23)
OFFSET = (-5, 10, 100)
CHUNK_SIZE = (16, 10, 8)
NUM_CHANNELS = 2


@pytest.fixture(scope="session")
def voxels() -> np.ndarray:
    """``(channel, z, y, x)``, no voxel zero."""
    shape = (NUM_CHANNELS, *reversed(SIZE))
    return np.random.default_rng(5).integers(1, 2**16, shape, dtype=np.uint16)


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory, voxels: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("xarray") / "layer"
    info = make_info(
        size=SIZE,
        dtype="uint16",
        num_channels=NUM_CHANNELS,
        voxel_offset=OFFSET,
        chunk_size=CHUNK_SIZE,
        resolution=(8, 8, 40),
    )
    tensorstore_write(folder, info, voxels.transpose())
    return folder


class Requests(list[str]):
    """Keys of the objects that were asked for, in order."""

    @property
    def chunks(self) -> list[str]:
        return [key for key in self if "/" in key]

    @contextmanager
    def expected(self, number: int) -> Iterator[None]:
        """Exactly so many chunk requests happen inside."""
        self.clear()
        yield
        assert len(self.chunks) == number


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    """Counts reads of every storage."""
    found = Requests()
    get, read_blocks = Storage.get, Storage.read_blocks

    def counted_blocks(self: Storage, folder: str, blocks: Any, out: Any) -> list[int]:
        left = read_blocks(self, folder, blocks, out)
        names = (name for number, name in enumerate(blocks.names) if number not in left)
        found.extend(f"{folder}/{name}" for name in names)
        return left

    def counted(self: Storage, key: str, *args: Any, **options: Any) -> Any:
        found.append(key)
        return get(self, key, *args, **options)

    monkeypatch.setattr(Storage, "get", counted)
    monkeypatch.setattr(Storage, "read_blocks", counted_blocks)
    return found
