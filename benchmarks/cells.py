"""What `compare.py` reads and writes: layers of one volume, parts of them, and who does it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import precomputed_store as ps
from precomputed_store import sample
from tests import oracles

CHUNK = 64
SHARDING = ps.ShardingSpec(
    hash="identity",
    preshift_bits=3,
    minishard_bits=3,
    shard_bits=3,
    minishard_index_encoding="gzip",
    data_encoding="gzip",
)
IN_TENSORSTORE = {"raw", "jpeg", "png", "compressed_segmentation"}
Read = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A layer.

    Attributes
    ----------
    dtype : {"uint8", "float32", "uint32", "uint64"}
        Images are uint8 and float32, segmentations the others.
    gzip : bool
        Whether chunks are compressed once more.
    """

    name: str
    encoding: str
    dtype: str
    sharded: bool = False
    gzip: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def layer_type(self) -> str:
        return "image" if self.dtype in {"uint8", "float32"} else "segmentation"

    @property
    def in_tensorstore(self) -> bool:
        # Of files named chunk.gz it reads zeros.
        return self.encoding in IN_TENSORSTORE and (self.sharded or not self.gzip)

    def arguments(self) -> dict[str, Any]:
        """Of `to_precomputed`, for an array ``(x, y, z)``."""
        return {
            "dims": ("x", "y", "z"),
            "layer_type": self.layer_type,
            "resolution": (8, 8, 8),
            "chunk_size": (CHUNK,) * 3,
            "encoding": self.encoding,
            "encoding_options": self.options,
            "sharding": SHARDING if self.sharded else None,
            "compress": "gzip" if self.gzip and not self.sharded else "auto",
        }


CELLS = (
    Cell(name="raw", encoding="raw", dtype="uint8"),
    Cell(name="raw, gzip", encoding="raw", dtype="uint8", gzip=True),
    Cell(name="raw, sharded, gzip", encoding="raw", dtype="uint8", sharded=True, gzip=True),
    Cell(name="jpeg", encoding="jpeg", dtype="uint8", options={"jpeg_quality": 85}),
    Cell(name="png", encoding="png", dtype="uint8"),
    Cell(name="jxl", encoding="jxl", dtype="uint8"),
    Cell(name="cseg uint32", encoding="compressed_segmentation", dtype="uint32"),
    Cell(name="cseg uint64", encoding="compressed_segmentation", dtype="uint64"),
    Cell(name="cseg uint64, gzip", encoding="compressed_segmentation", dtype="uint64", gzip=True),
    Cell(
        name="cseg uint64, sharded, gzip", encoding="compressed_segmentation", dtype="uint64",
        sharded=True, gzip=True,
    ),
    Cell(name="compresso", encoding="compresso", dtype="uint64"),
    Cell(name="crackle", encoding="crackle", dtype="uint64"),
    Cell(name="fpzip", encoding="fpzip", dtype="float32"),
)  # fmt: skip
QUICK = ("raw", "cseg uint64")


def volume(dtype: str, size: int, data: Path | None) -> np.ndarray[Any, Any]:
    """A cube ``(x, y, z)`` of image or labels, Fortran order."""
    if data is not None:
        with np.load(data / "fib25_250.npz") as arrays:
            image, labels = arrays["image"], arrays["bodies"]
    else:
        crop = sample.load()
        image, labels = crop.image, crop.segmentation
    source = image if dtype in {"uint8", "float32"} else labels
    tiles = [-(-size // n) for n in source.shape]
    cube = np.tile(source, tiles)[(slice(size),) * 3].astype(dtype)
    if dtype == "float32":
        # Real floats have noise in their last bits, which is what fpzip spends its time on.
        cube += np.random.default_rng(0).random(cube.shape, "float32")
    return cube.T


def parts(size: int) -> dict[str, Any]:
    """Name → a box of voxels along x, y, z, or points ``(n, 3)``."""
    start = size // 3
    edge = min(100, size - start)
    chunk = CHUNK * (size // CHUNK // 2)
    return {
        "whole": (slice(0, size),) * 3,
        f"cutout {edge}³": (slice(start, start + edge),) * 3,
        "one chunk": (slice(chunk, min(chunk + CHUNK, size)),) * 3,
        "xy slice": (slice(0, size), slice(0, size), slice(start, start + 1)),
        "1,000 points": np.random.default_rng(1).integers(0, size, (1000, 3)),
    }


def readers(folder: Path, cell: Cell, part: Any, *, doors: bool) -> dict[str, Read]:
    """Who reads a part: ours first."""
    ours = ps.open_volume(folder)
    found: dict[str, Read] = {}
    if isinstance(part, np.ndarray):
        found["ours"] = lambda: ours.read_points(part)
        theirs = oracles._cloudvolume(folder)
        found["CloudVolume"] = lambda: theirs.scattered_points(part)
        if cell.in_tensorstore:
            store = oracles._tensorstore(folder)
            x, y, z = part.T
            found["TensorStore"] = lambda: store.vindex[x, y, z, 0].read().result()
        return found
    found["ours"] = lambda: ours[part]
    if doors:
        found |= other_doors(folder, part)
    theirs = oracles._cloudvolume(folder)
    found["CloudVolume"] = lambda: theirs[part]
    if cell.in_tensorstore:
        store = oracles._tensorstore(folder)
        found["TensorStore"] = lambda: store[part].read(order="F").result()
    if all(axis == slice(0, ours.shape[0]) for axis in part):
        found["floor"] = lambda: floor(ours.array)
    return found


def other_doors(folder: Path, part: tuple[slice, ...]) -> dict[str, Read]:
    """The same part through xarray, dask and zarr, opened beforehand as the others are."""
    import xarray as xr
    import zarr

    zyx = (slice(None), *part[::-1])
    dataset = xr.open_dataset(folder, engine="precomputed")
    (name,) = dataset.data_vars
    lazy = ps.open_dask(folder)
    array = zarr.open_group(ps.PrecomputedStore(folder), mode="r")["0"]
    return {
        "xarray": lambda: dataset[name][zyx].to_numpy(),
        "dask": lambda: lazy[zyx].compute(scheduler="threads"),
        "zarr": lambda: array[zyx],
    }


def floor(array: Any) -> np.ndarray[Any, Any]:
    """Bare codec calls (with their checks) and one copy per voxel, in one thread."""
    out = np.empty(array.shape, array.dtype)
    for cell in array.grid.cells():
        data = array.source.unpack(array.source.fetch(cell), cell)
        shape = array.chunk_shape_at(cell)
        chunk = array.scale.codec.decode(data, shape=shape, dtype=array.dtype)
        x, y, z = (g * c for g, c in zip(cell, array.scale.chunk_size, strict=True))
        out[:, z : z + shape[1], y : y + shape[2], x : x + shape[3]] = chunk
    return out


def writers(folder: Path, cell: Cell, data: np.ndarray[Any, Any]) -> dict[str, Read]:
    """Who writes the whole volume, each into an empty folder of its own."""
    size = data.shape
    info = oracles.make_info(
        size=(size[0], size[1], size[2]),
        dtype=cell.dtype,
        encoding=cell.encoding,
        layer_type=cell.layer_type,
        **cell.options,
    )
    voxels = data[..., np.newaxis]

    def ours() -> None:
        ps.to_precomputed(data, folder / "ours", **cell.arguments())

    def cloudvolume() -> None:
        compress = "gzip" if cell.gzip else False
        oracles.cloudvolume_write(folder / "CloudVolume", info, voxels, compress=compress)

    def tensorstore() -> None:
        oracles.tensorstore_write(folder / "TensorStore", info, voxels)

    found: dict[str, Read] = {"ours": ours, "CloudVolume": cloudvolume}
    return found | ({"TensorStore": tensorstore} if cell.in_tensorstore else {})
