"""One turn of `write_at_scale.py`: one contender writes one layer, in a process of its own.

Each contender is a function that prepares what is not measured (imports, files of metadata,
workers) and gives back the work that is.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import precomputed_store as ps

CHUNK = 64
RESOLUTION = (8, 8, 8)
Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What is written, and by which rule scales are made.

    Attributes
    ----------
    source : str
        Name of the array.
    method : {"mode", "mean"}
    shard_edge : int or None
        Voxels along each edge of a shard; None: a file for each chunk.
    levels : int
        Scales, the finest included.
    """

    source: str
    layer_type: str
    encoding: str
    method: str
    shard_edge: int | None
    levels: int = 5
    compressible: bool = True

    @property
    def dtype(self) -> str:
        return "uint8" if self.layer_type == "image" else "uint32"

    def sharding(self, shape: tuple[int, ...]) -> ps.ShardingSpec | None:
        """Cubes of chunks: the identity hash of as many bits as they need."""
        if self.shard_edge is None:
            return None
        cells = max(-(-n // CHUNK) for n in shape)
        in_shard = 3 * (self.shard_edge // CHUNK).bit_length() - 3
        return ps.ShardingSpec(
            hash="identity",
            preshift_bits=min(in_shard, 9),
            minishard_bits=in_shard - min(in_shard, 9),
            shard_bits=max(0, 3 * (cells - 1).bit_length() - in_shard),
            minishard_index_encoding="gzip",
            data_encoding="gzip" if self.compressible else "raw",
        )

    def arguments(self, shape: tuple[int, ...], *, levels: int = 0) -> dict[str, Any]:
        """Of `to_precomputed` and `plan`."""
        return {
            "dims": ("z", "y", "x"),
            "layer_type": self.layer_type,
            "encoding": self.encoding,
            "encoding_options": {"jpeg_quality": 85} if self.encoding == "jpeg" else {},
            "chunk_size": (CHUNK,) * 3,
            "resolution": RESOLUTION,
            "sharding": self.sharding(shape),
            "pyramid": [(2, 2, 2)] * ((levels or self.levels) - 1),
        }


LAYERS = {
    "segmentation, sharded": Layer(
        source="labels", layer_type="segmentation", encoding="compressed_segmentation",
        method="mode", shard_edge=256,
    ),
    "segmentation, unsharded": Layer(
        source="labels", layer_type="segmentation", encoding="compressed_segmentation",
        method="mode", shard_edge=None,
    ),
    "image, raw, sharded": Layer(
        source="image", layer_type="image", encoding="raw", method="mean", shard_edge=256,
    ),
    "image, jpeg, unsharded": Layer(
        source="image", layer_type="image", encoding="jpeg", method="mean", shard_edge=None,
        compressible=False,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a process, and the workers that it has, used up to now, or at the most."""

    cpu_s: float
    peak_bytes: int
    resident_bytes: int


def usage() -> Usage:
    """Of this process and the children that have ended."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    times = [resource.getrusage(each) for each in who]
    cpu = sum(each.ru_utime + each.ru_stime for each in times)
    status = Path("/proc/self/status")
    if not status.exists():
        peak = times[0].ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Usage(cpu_s=cpu, peak_bytes=peak, resident_bytes=0)
    # Unlike ru_maxrss, these do not begin with what the parent had when it made this process.
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    peak, resident = (int(lines[name].split()[0]) << 10 for name in ("VmHWM", "VmRSS"))
    return Usage(cpu_s=cpu, peak_bytes=peak, resident_bytes=resident)


def write_info(source: np.ndarray, layer: Layer, folder: Path) -> list[Any]:
    """The metadata that this package would write, for other programs; its scales."""
    planned = ps.plan(source, folder, **layer.arguments(source.shape))
    scales = [each.scale for each in planned.scales]
    info = {
        "@type": "neuroglancer_multiscale_volume",
        "type": layer.layer_type,
        "data_type": str(source.dtype),
        "num_channels": 1,
        "scales": [scale.to_json() for scale in scales],
    }
    folder.mkdir(parents=True)
    (folder / "info").write_text(json.dumps(info))
    return scales


def boxes(size: tuple[int, ...], edge: int | None) -> Iterator[tuple[slice, ...]]:
    """A volume in cubes, or as a whole."""
    axes = [[slice(a, min(a + (edge or n), n)) for a in range(0, n, edge or n)] for n in size]
    yield from itertools.product(*axes)


def warm_up(layer: Layer) -> None:
    """Write a layer of one chunk, which imports everything that writing imports."""
    import dask

    voxels, address = np.ones((8, 8, 8), layer.dtype), "memory://warm-up"
    with dask.config.set(scheduler="threads"):
        ps.to_precomputed(voxels, address, **layer.arguments(voxels.shape, levels=2), mode="w")


def ours(path: Path, layer: Layer, folder: Path) -> Work:
    source = np.load(path)
    warm_up(layer)
    return lambda: ps.to_precomputed(source, folder, **layer.arguments(source.shape))


def ours_by_threads(path: Path, layer: Layer, folder: Path) -> Work:
    import dask.array as da

    source = da.from_array(np.load(path), chunks=256)
    warm_up(layer)
    return lambda: ps.to_precomputed(source, folder, **layer.arguments(source.shape))


def ours_by_workers(path: Path, layer: Layer, folder: Path) -> Work:
    """Two processes of one thread each, which read the array from its file."""
    import dask.array as da
    from distributed import Client, LocalCluster

    client = Client(
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0)
    )
    warm_up(layer)
    client.run(warm_up, layer)
    mapped = np.load(path, mmap_mode="r")
    chunks = da.core.normalize_chunks(256, mapped.shape)
    source = da.map_blocks(read_block, str(path), chunks=chunks, dtype=mapped.dtype)

    def work() -> object:
        return ps.to_precomputed(source, folder, **layer.arguments(source.shape))

    work.workers = client  # type: ignore[attr-defined]
    return work


def read_block(path: str, block_info: Any = None) -> np.ndarray:
    where = tuple(slice(a, b) for a, b in block_info[None]["array-location"])
    return np.array(np.load(path, mmap_mode="r")[where])


def tensorstore(path: Path, layer: Layer, folder: Path) -> Work:
    """One write of everything in a transaction, then each scale by the downsample driver."""
    import tensorstore as ts

    source = np.load(path)
    scales = write_info(source, layer, folder)

    def work() -> None:
        stores = [open_tensorstore(folder, index) for index in range(len(scales))]
        with ts.Transaction() as transaction:
            stores[0].with_transaction(transaction)[...].write(source.T[..., None]).result()
        for fine, coarse in itertools.pairwise(stores):
            made = ts.downsample(fine, [2, 2, 2, 1], layer.method)
            with ts.Transaction() as transaction:
                coarse.with_transaction(transaction)[...].write(made).result()

    return work


def open_tensorstore(folder: Path, index: int) -> Any:
    import tensorstore as ts

    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        "scale_index": index,
    }
    return ts.open(spec, open=True).result()


def cloudvolume(path: Path, layer: Layer, folder: Path) -> Work:
    """Shard by shard where there are shards; each scale from the one before as it is stored.

    It has no downsampling of its own: that is tinybrain's where it is installed, else ours.
    Without compression of files, which is not its default, but what others can read.
    """
    from cloudvolume import CloudVolume

    source = np.load(path)
    scales = write_info(source, layer, folder)
    reduce = reduction(layer.method)

    def work() -> None:
        volumes = [
            CloudVolume(f"file://{folder}", mip=i, progress=False, compress=False)
            for i in range(len(scales))
        ]
        for box in boxes(scales[0].size, layer.shard_edge):
            volumes[0][box] = source.T[box][..., None]
        for fine, coarse in itertools.pairwise(volumes):
            for box in boxes(tuple(coarse.shape[:3]), layer.shard_edge):
                finer = tuple(
                    slice(2 * axis.start, min(2 * axis.stop, n))
                    for axis, n in zip(box, fine.shape[:3], strict=True)
                )
                coarse[box] = reduce(np.asarray(fine[finer]))

    return work


def reduction(method: str, name: str | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """What halves an array ``(x, y, z, 1)``."""
    if (name or downsampler()) == "tinybrain":
        import tinybrain

        found = {
            "mode": tinybrain.downsample_segmentation,
            "mean": tinybrain.downsample_with_averaging,
        }[method]
        return lambda block: found(block, factor=(2, 2, 2))[0]  # type: ignore[no-any-return]
    from precomputed_store.downsampling import downsample

    return lambda block: downsample(
        block.T, factor=(2, 2, 2), start=(0, 0, 0), method=method  # type: ignore[arg-type]
    ).T  # fmt: skip


def downsampler() -> str:
    """Whose kernel makes CloudVolume's scales here."""
    return "tinybrain" if importlib.util.find_spec("tinybrain") else "precomputed_store"


CONTENDERS: dict[str, Callable[[Path, Layer, Path], Work]] = {
    "ours, numpy": ours,
    "ours, dask threads": ours_by_threads,
    "ours, dask distributed": ours_by_workers,
    "TensorStore": tensorstore,
    "CloudVolume": cloudvolume,
}


def measured(work: Work) -> dict[str, float]:
    """Wall and CPU seconds, and how much memory it took on top of what was there before."""
    client = getattr(work, "workers", None)

    def everyone() -> list[Usage]:
        return [usage(), *(client.run(usage).values() if client else ())]

    before, start = everyone(), time.perf_counter()
    work()
    wall, after = time.perf_counter() - start, everyone()
    if client:
        client.shutdown()
    return {
        "wall_s": wall,
        "cpu_s": sum(b.cpu_s - a.cpu_s for a, b in zip(before, after, strict=True)),
        "extra_bytes": sum(
            b.peak_bytes - a.resident_bytes for a, b in zip(before, after, strict=True)
        ),
    }


def stored(folder: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "info"]
    return {"files": len(files), "file_bytes": sum(path.stat().st_size for path in files)}


def check(folder: Path, references: Path, layer: Layer, contender: str) -> None:
    """Compare every scale, as TensorStore reads it, with what it has to be.

    Raises
    ------
    SystemExit
    """
    rule = downsampler() if contender == "CloudVolume" else "plain"
    for index in range(layer.levels):
        name = f"{layer.source}-{'plain' if not index else rule}-{index}.npy"
        if not (references / name).exists():
            name = f"{layer.source}-plain-{index}.npy"
        expected = np.load(references / name)
        found = open_tensorstore(folder, index)[..., 0].read(order="F").result().T
        if layer.encoding == "jpeg":
            # Scales are made from what is stored, and JPEG changes that.
            off = np.abs(found.astype(np.int16) - expected).mean()
            if off > 8:
                raise SystemExit(f"{contender}: scale {index} is off by {off} on average")
        elif not np.array_equal(found, expected):
            raise SystemExit(
                f"{contender}: {np.count_nonzero(found != expected)} wrong voxels in scale {index}"
            )


def main() -> None:
    name, contender, levels, workdir = sys.argv[1:]
    layer, folder = replace(LAYERS[name], levels=int(levels)), Path(workdir)
    written = folder / "layer"
    work = CONTENDERS[contender](folder / f"{layer.source}-plain-0.npy", layer, written)
    result = measured(work) | stored(written)
    check(written, folder, layer, contender)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
