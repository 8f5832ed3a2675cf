"""A volume of which every voxel is different, for the tests of importing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

SHAPE = (5, 30, 40)
"""z, y, x"""


@pytest.fixture
def voxels() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype="uint16").reshape(SHAPE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
