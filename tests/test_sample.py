"""The volume that comes with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from precomputed_store import sample


def test_the_sample_is_the_training_sample_voxel_for_voxel(real_data: Path) -> None:
    cut = sample.load()
    (x, y, z), (nx, ny, nz) = cut.voxel_offset, sample.SIZE
    box = np.s_[z : z + nz, y : y + ny, x : x + nx]
    with np.load(real_data / "fib25_250.npz") as whole:
        np.testing.assert_array_equal(cut.image, whole["image"][box])
        np.testing.assert_array_equal(cut.segmentation, whole["bodies"][box])


def test_the_sample_has_the_promised_shapes_and_types() -> None:
    cut = sample.load()
    assert cut.image.shape == cut.segmentation.shape == (30, 144, 160)
    assert (cut.image.dtype, cut.segmentation.dtype) == (np.uint8, np.uint64)
    assert cut.resolution == (10, 10, 10)
    assert len(np.unique(cut.segmentation)) == 40


def test_the_sample_names_origin_and_licence_and_stays_small() -> None:
    text = sample.attribution()
    assert "Janelia FlyEM" in text
    assert "CC BY 3.0" in text
    folder = Path(sample.__file__).parent
    data = [path for path in folder.iterdir() if path.suffix in (".png", ".npz", ".md")]
    assert len(data) == 3
    assert sum(path.stat().st_size for path in data) < 500_000
