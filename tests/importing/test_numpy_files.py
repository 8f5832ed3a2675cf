"""``.npy`` and ``.npz``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.errors import FormatError


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["uint16", ">u4", "float32"])
def test_npy_in_both_orders(folder: Path, voxels: np.ndarray, order: str, dtype: str) -> None:
    np.save(folder / "a.npy", np.asarray(voxels, dtype, order=order))  # type: ignore[call-overload]
    array = ps.open_source(folder / "a.npy")
    assert array.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(array.values, voxels)


def test_axes_are_as_the_caller_says(folder: Path, voxels: np.ndarray) -> None:
    np.save(folder / "a.npy", voxels[None])
    assert ps.open_source(folder / "a.npy").dims == ("channel", "z", "y", "x")
    array = ps.open_source(folder / "a.npy", axes="txyz")
    assert array.dims == ("z", "y", "x")
    np.testing.assert_array_equal(array.values, voxels.T)
    with pytest.raises(ValueError, match=r"axes 'zyx' are 3, but the array has 4: \(1, 5, 30, 40"):
        ps.open_source(folder / "a.npy", axes="zyx")


def test_a_plane_is_one_slice(folder: Path, voxels: np.ndarray) -> None:
    np.save(folder / "a.npy", voxels[0])
    assert ps.open_source(folder / "a.npy").shape == (1, 30, 40)


def test_a_large_file_is_cut_into_whole_chunks_of_its_layer(folder: Path) -> None:
    shape = (200, 1000, 1000)
    np.lib.format.open_memmap(folder / "a.npy", mode="w+", dtype="uint8", shape=shape)
    assert ps.open_source(folder / "a.npy").data.chunksize == (64, 1000, 1000)
    fortran = np.lib.format.open_memmap(
        folder / "f.npy", mode="w+", dtype="uint8", shape=shape, fortran_order=True
    )
    fortran[150, 3, 4] = 9
    fortran.flush()
    array = ps.open_source(folder / "f.npy")
    assert array.data.chunksize[0] == 200
    assert array[150, 3, 4] == 9


def test_npz_with_one_array_or_a_name(folder: Path, voxels: np.ndarray) -> None:
    np.savez_compressed(folder / "one.npz", a=voxels)
    np.testing.assert_array_equal(ps.open_source(folder / "one.npz").values, voxels)
    np.savez(folder / "two.npz", a=voxels, b=voxels + 1)
    np.testing.assert_array_equal(ps.open_source(f"{folder}/two.npz#b").values, voxels + 1)
    with pytest.raises(ValueError, match="pick one of the arrays in this file: #a, #b"):
        ps.open_source(folder / "two.npz")


def test_garbage_is_no_npy(folder: Path) -> None:
    (folder / "a.npy").write_bytes(b"garbage")
    with pytest.raises(FormatError, match=r"a\.npy"):
        ps.open_source(folder / "a.npy")
    np.save(folder / "b.npy", np.array(["text"]))
    with pytest.raises(ValueError, match=r"axes \? 1"):
        ps.open_source(folder / "b.npy")
    np.save(folder / "c.npy", np.array([["text"]]))
    with pytest.raises(ValueError, match="cannot be stored"):
        ps.open_source(folder / "c.npy")
