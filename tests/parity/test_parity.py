"""CloudVolume and TensorStore write random volumes and every door reads them; and backwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

import precomputed_store as ps
from tests.oracles import (
    cloudvolume_read,
    cloudvolume_write,
    make_info,
    tensorstore_read,
    tensorstore_write,
)

pytestmark = [
    pytest.mark.parity,
    # Several channels in a segmentation and the like: legal, read right, and said so.
    pytest.mark.filterwarnings("ignore::precomputed_store.errors.CompatibilityWarning"),
]

INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64"]


def through_volume(url: str) -> np.ndarray:
    return ps.open_volume(url)[...]


def through_zarr(url: str) -> np.ndarray:
    array = zarr.open_group(ps.PrecomputedStore(url), mode="r")["0"]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[...]).transpose()


def through_fsspec(url: str) -> np.ndarray:
    array = zarr.open_group(f"precomputed::file://{url}", mode="r")["0"]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[...]).transpose()


def through_xarray(url: str) -> np.ndarray:
    with xr.open_dataset(url, engine="precomputed") as dataset:
        (name,) = dataset.data_vars
        return dataset[name].transpose("x", "y", "z", "channel").values


def through_xarray_chunks(url: str) -> np.ndarray:
    with xr.open_dataset(url, engine="precomputed", chunks={}) as dataset:
        (name,) = dataset.data_vars
        return dataset[name].transpose("x", "y", "z", "channel").compute().values


def through_dask(url: str) -> np.ndarray:
    array: da.Array = ps.open_dask(url)
    return array.compute().transpose()


DOORS = [
    through_volume,
    through_zarr,
    through_fsspec,
    through_xarray,
    through_xarray_chunks,
    through_dask,
]


def random_case(seed: int, *, encoding: str, dtype: str, channels: int) -> tuple[dict, Any]:
    """A volume of random size, offset and chunk size, with runs of equal values and holes."""
    rng = np.random.default_rng(seed)
    size = tuple(int(n) for n in rng.integers(1, 70, 3))
    chunk = tuple(int(n) for n in rng.integers(5, 40, 3))
    offset = tuple(int(n) for n in rng.integers(-50, 50, 3))
    segmentation = encoding in ("compressed_segmentation", "compresso", "crackle")
    info = make_info(
        size=size,
        dtype=dtype,
        num_channels=channels,
        voxel_offset=offset,
        chunk_size=chunk,
        encoding=encoding,
        layer_type="segmentation" if segmentation else "image",
    )
    shape = (*size, channels)
    if np.dtype(dtype).kind == "f":
        return info, np.asfortranarray(rng.standard_normal(shape).astype(dtype))
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, 20, dtype=dtype, endpoint=True)
    coarse = rng.integers(0, 20, [-(-n // 6) for n in size] + [channels])
    labels = coarse.repeat(6, 0).repeat(6, 1).repeat(6, 2)[: size[0], : size[1], : size[2]]
    data = values[labels]
    data[labels == 3] = 0
    return info, np.asfortranarray(data)


RAW = [("raw", dtype, channels) for dtype in [*INTEGERS, "float32"] for channels in (1, 3)]
LOSSLESS_TENSORSTORE = [
    *RAW,
    *[("png", dtype, n) for dtype in ("uint8", "uint16") for n in (1, 2, 3, 4)],
    *[("compressed_segmentation", dtype, n) for dtype in ("uint32", "uint64") for n in (1, 2)],
]
LOSSLESS_CLOUDVOLUME = [
    *RAW,
    ("png", "uint8", 1),
    ("compressed_segmentation", "uint32", 1),
    ("compressed_segmentation", "uint64", 1),
    ("compresso", "uint32", 1),
    ("compresso", "uint64", 1),
    ("crackle", "uint32", 1),
    ("crackle", "uint64", 1),
    ("fpzip", "float32", 1),
    ("zfpc", "float32", 1),
]


@pytest.mark.parametrize(("encoding", "dtype", "channels"), LOSSLESS_TENSORSTORE)
def test_every_door_reads_what_tensorstore_writes(
    tmp_path: Path, encoding: str, dtype: str, channels: int
) -> None:
    for seed in range(3):
        info, data = random_case(seed, encoding=encoding, dtype=dtype, channels=channels)
        folder = tmp_path / str(seed)
        tensorstore_write(folder, info, data)
        for door in DOORS:
            np.testing.assert_array_equal(door(str(folder)), data, err_msg=door.__name__)


@pytest.mark.parametrize("compress", [None, False, "gzip", "br", "zstd"])
@pytest.mark.parametrize(("encoding", "dtype", "channels"), LOSSLESS_CLOUDVOLUME)
def test_every_door_reads_what_cloudvolume_writes(
    tmp_path: Path, encoding: str, dtype: str, channels: int, compress: Any
) -> None:
    info, data = random_case(
        hash_of(encoding, dtype), encoding=encoding, dtype=dtype, channels=channels
    )
    cloudvolume_write(tmp_path / "layer", info, data, compress=compress)
    for door in DOORS:
        np.testing.assert_array_equal(door(str(tmp_path / "layer")), data, err_msg=door.__name__)


def hash_of(*words: str) -> int:
    return sum(ord(letter) for word in words for letter in word)


def write_through_volume(folder: Path, info: dict[str, Any], data: np.ndarray) -> None:
    ps.create(folder, info, allow_misread=True)
    ps.open_volume(folder, mode="r+")[...] = data


def write_through_zarr(folder: Path, info: dict[str, Any], data: np.ndarray) -> None:
    ps.create(folder, info, allow_misread=True)
    array = zarr.open_group(ps.PrecomputedStore(str(folder), read_only=False), mode="r+")["0"]
    assert isinstance(array, zarr.Array)
    array[...] = data.transpose()


def write_with_dask(folder: Path, info: dict[str, Any], data: np.ndarray) -> None:
    ps.create(folder, info, allow_misread=True)
    chunks = (17, 30, 11, -1)
    source = da.from_array(data, chunks=chunks)
    ps.to_precomputed(
        source, folder, dims=("x", "y", "z", "channel"), mode="r+", allow_misread=True
    )


WRITERS: list[Callable[[Path, dict[str, Any], np.ndarray], None]] = [
    write_through_volume,
    write_through_zarr,
    write_with_dask,
]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("encoding", "dtype", "channels"), LOSSLESS_TENSORSTORE)
def test_tensorstore_reads_what_every_door_writes(
    tmp_path: Path, write: Callable[..., None], encoding: str, dtype: str, channels: int
) -> None:
    info, data = random_case(7, encoding=encoding, dtype=dtype, channels=channels)
    write(tmp_path / "layer", info, data)
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "layer"), data)


@pytest.mark.parametrize(("encoding", "dtype", "channels"), LOSSLESS_CLOUDVOLUME)
def test_cloudvolume_reads_what_we_write(
    tmp_path: Path, encoding: str, dtype: str, channels: int
) -> None:
    info, data = random_case(11, encoding=encoding, dtype=dtype, channels=channels)
    for write in WRITERS:
        folder = tmp_path / write.__name__
        write(folder, info, data)
        np.testing.assert_array_equal(cloudvolume_read(folder), data)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_lossy_by_no_more_than_tensorstore_says(tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.integers(-2, 3, (60, 50, 40, channels)), axis=0) + 128
    data = np.clip(smooth, 0, 255).astype(np.uint8)
    info = make_info(
        size=(60, 50, 40), num_channels=channels, encoding="jpeg", chunk_size=(32, 32, 32)
    )
    tensorstore_write(tmp_path / "theirs", info, data)
    theirs = tensorstore_read(tmp_path / "theirs").astype(int)
    ours = through_volume(str(tmp_path / "theirs")).astype(int)
    assert np.abs(ours - theirs).max() <= 2
    write_through_volume(tmp_path / "ours", info, data)
    written = tensorstore_read(tmp_path / "ours").astype(int)
    assert np.abs(written - data).mean() <= np.abs(theirs - data).mean()


SHARDINGS = [
    {
        "hash": hash_,
        "preshift_bits": preshift,
        "minishard_bits": minishard,
        "shard_bits": shard,
        "minishard_index_encoding": index,
        "data_encoding": data,
    }
    for hash_, preshift, minishard, shard, index, data in [
        ("identity", 0, 0, 0, "raw", "raw"),
        ("identity", 1, 2, 3, "gzip", "gzip"),
        ("identity", 3, 1, 5, "gzip", "raw"),
        ("murmurhash3_x86_128", 0, 2, 2, "raw", "gzip"),
        ("murmurhash3_x86_128", 2, 0, 6, "gzip", "gzip"),
    ]
]


@pytest.mark.parametrize("sharding", SHARDINGS, ids=lambda s: "-".join(map(str, s.values())))
@pytest.mark.parametrize(
    ("encoding", "dtype"), [("raw", "uint16"), ("compressed_segmentation", "uint64")]
)
def test_every_door_reads_shards_that_tensorstore_writes(
    tmp_path: Path, sharding: dict[str, Any], encoding: str, dtype: str
) -> None:
    info, data = random_case(3, encoding=encoding, dtype=dtype, channels=1)
    info["scales"][0]["sharding"] = {"@type": "neuroglancer_uint64_sharded_v1", **sharding}
    tensorstore_write(tmp_path / "layer", info, data)
    for door in DOORS:
        np.testing.assert_array_equal(door(str(tmp_path / "layer")), data, err_msg=door.__name__)
