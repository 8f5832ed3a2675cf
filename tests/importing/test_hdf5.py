"""HDF5 datasets; golden values are those of h5py."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.errors import FormatError, PrecomputedWarning


def write(path: Path, voxels: np.ndarray, name: str = "volumes/raw", **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(name, data=voxels, chunks=True, compression="gzip")
        dataset.attrs.update(attributes)
    return path


def test_the_only_dataset_need_not_be_named(folder: Path, voxels: np.ndarray) -> None:
    path = write(folder / "a.h5", voxels)
    for source in (str(path), f"{path}#/volumes/raw", f"{path}#volumes/raw"):
        array = ps.open_source(source)
        assert array.dims == ("z", "y", "x")
        np.testing.assert_array_equal(array.values, voxels)


def test_of_several_datasets_one_is_named(folder: Path, voxels: np.ndarray) -> None:
    path = write(folder / "a.h5", voxels)
    with h5py.File(path, "a") as file:
        file["labels"] = voxels + 1
        file["table"] = np.zeros(7)
    with pytest.raises(
        ValueError, match=r"pick one of .*#/labels uint16 \(5, 30, 40\), #/volumes/raw uint16"
    ):
        ps.open_source(path)
    with pytest.raises(ValueError, match="pick one of the datasets"):
        ps.open_source(f"{path}#nothing")
    np.testing.assert_array_equal(ps.open_source(f"{path}#labels").values, voxels + 1)


def test_blocks_are_whole_chunks_of_the_file(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("a", (500, 700, 900), "uint8", chunks=(50, 40, 100))
    blocks = ps.open_source(folder / "a.h5").data.chunksize
    assert all(block % stored == 0 for block, stored in zip(blocks, (50, 40, 100), strict=True))
    assert np.prod(blocks) <= 64 << 20


@pytest.mark.parametrize(
    ("attributes", "resolution", "offset"),
    [
        ({"resolution": [40, 4, 8]}, [8, 4, 40], [0, 0, 0]),
        ({"voxel_size": [40, 4, 8], "offset": [80, -4, 800]}, [8, 4, 40], [100, -1, 2]),
        ({"element_size_um": [0.04, 0.004, 0.008]}, [8, 4, 40], [0, 0, 0]),
        (
            {"resolution": [0.04, 0.004, 0.008], "units": ["um", "um", "um"]},
            [8, 4, 40],
            [0, 0, 0],
        ),
        ({"resolution": 8}, [8, 8, 8], [0, 0, 0]),
        ({"resolution": "coarse"}, None, None),
        ({"resolution": [0, 0, 0]}, None, None),
    ],
)
def test_attributes_say_where_voxels_are(
    folder: Path,
    voxels: np.ndarray,
    attributes: dict[str, Any],
    resolution: list[float] | None,
    offset: list[int] | None,
) -> None:
    array = ps.open_source(write(folder / "a.h5", voxels, **attributes))
    assert array.attrs.get("resolution") == resolution
    assert array.attrs.get("voxel_offset") == offset
    if resolution is not None:
        volume = ps.to_precomputed(array, folder / "layer", layer_type="image")
        assert list(volume.resolution) == resolution
        assert list(volume.voxel_offset) == offset


def test_numbers_belong_to_the_axes_of_the_array(folder: Path, voxels: np.ndarray) -> None:
    path = write(folder / "a.h5", voxels[..., None], resolution=[8, 4, 40])
    assert ps.open_source(path, axes="xyzc").attrs["resolution"] == [8, 4, 40]
    assert ps.open_source(path, axes="zyxc").attrs["resolution"] == [40, 4, 8]


def test_a_place_between_voxels_is_said_and_left_out(folder: Path, voxels: np.ndarray) -> None:
    path = write(folder / "a.h5", voxels, resolution=[40, 4, 4], offset=[50, 4, 4])
    with pytest.warns(PrecomputedWarning, match="begins at 50 along z, which is not a whole"):
        array = ps.open_source(path)
    assert array.attrs["voxel_offset"] == [1, 1, 0]


@pytest.mark.parametrize("how", ["axistags", "labels", "axis_names"])
def test_axes_that_the_file_names(folder: Path, voxels: np.ndarray, how: str) -> None:
    path = write(folder / "a.h5", voxels[..., None])
    with h5py.File(path, "a") as file:
        dataset = file["volumes/raw"]
        if how == "axistags":
            tags = {"axes": [{"key": key, "resolution": 0} for key in "xyzc"]}
            dataset.attrs["axistags"] = json.dumps(tags)
        elif how == "axis_names":
            dataset.attrs["axis_names"] = ["x", "y", "z", "c^"]
        else:
            for dimension, label in zip(dataset.dims, "xyzc", strict=True):
                dimension.label = label
    array = ps.open_source(path)
    assert array.dims == ("channel", "z", "y", "x")
    np.testing.assert_array_equal(array.values[0], voxels.T)


def test_a_dataset_can_be_read_in_another_process(folder: Path, voxels: np.ndarray) -> None:
    array = pickle.loads(pickle.dumps(ps.open_source(write(folder / "a.h5", voxels))))
    np.testing.assert_array_equal(array.values, voxels)


def test_a_chunk_that_was_overwritten_is_broken_and_named(
    folder: Path, voxels: np.ndarray
) -> None:
    path = write(folder / "a.h5", voxels)
    with h5py.File(path) as file:
        chunk = file["volumes/raw"].id.get_chunk_info(0)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(bytes(chunk.size))
    with pytest.raises(FormatError, match=r"a\.h5: "):
        ps.open_source(path).values  # noqa: B018


def test_garbage_is_no_hdf5(folder: Path) -> None:
    (folder / "a.h5").write_bytes(b"garbage")
    with pytest.raises(FormatError, match=r"a\.h5"):
        ps.open_source(folder / "a.h5")
    with h5py.File(folder / "b.h5", "w"):
        pass
    with pytest.raises(ValueError, match="it has none"):
        ps.open_source(folder / "b.h5")
