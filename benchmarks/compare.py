"""Read the same local volumes with this package, CloudVolume and TensorStore, in one run.

    python benchmarks/compare.py [--size 512] [--rounds 7] [--data FOLDER] [--json FILE]

The contenders take turns, and what is reported is the median of the ratios within a turn
(their time / our time: above 1 we are faster), of wall and of CPU time. TensorStore reads
in Fortran order with its cache off, CloudVolume with its defaults. The floor is what no
reader can avoid: reading each file, decoding it by a bare call of the codec (with the
input validation that safety needs), and one copy into the output, in one thread.

The data are the shipped sample, tiled; or real volumes (``fib25_250.npz``) with --data.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import precomputed_store as ps
from precomputed_store import sample
from tests import oracles

SHARDING = {
    "hash": "identity",
    "preshift_bits": 3,
    "minishard_bits": 3,
    "shard_bits": 3,
    "minishard_index_encoding": "gzip",
    "data_encoding": "gzip",
}

CELLS: dict[str, dict[str, Any]] = {
    "raw": {"encoding": "raw", "dtype": "uint8"},
    "raw, sharded, gzip": {"encoding": "raw", "dtype": "uint8", "sharding": SHARDING},
    "jpeg": {"encoding": "jpeg", "dtype": "uint8"},
    "png": {"encoding": "png", "dtype": "uint8"},
    "compressed_segmentation, uint32": {
        "encoding": "compressed_segmentation",
        "dtype": "uint32",
    },
    "compressed_segmentation, uint64": {
        "encoding": "compressed_segmentation",
        "dtype": "uint64",
    },
    "compresso, uint64": {"encoding": "compresso", "dtype": "uint64"},
}
TENSORSTORE = {"raw", "jpeg", "png", "compressed_segmentation"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    wall: float
    cpu: float


def timed(read: Callable[[], Any]) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    read()
    return Timing(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


def source_arrays(size: int, data: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels ``(x, y, z, 1)`` of the wanted size."""
    if data is not None:
        with np.load(data / "fib25_250.npz") as arrays:
            image, labels = arrays["image"], arrays["bodies"]
    else:
        crop = sample.load()
        image, labels = crop.image, crop.segmentation
    tiles = [-(-size // n) for n in image.shape]
    cut = (slice(size),) * 3
    return tuple(  # type: ignore[return-value]
        np.asfortranarray(np.tile(a, tiles)[cut].transpose()[..., np.newaxis])
        for a in (image, labels)
    )


def floor(array: Any) -> np.ndarray:
    """Bare codec calls and one copy per voxel, in one thread."""
    out = np.empty(array.shape, array.dtype)
    for cell in array.grid.cells():
        data = array.source.unpack(array.source.fetch(cell), cell)
        shape = array.chunk_shape_at(cell)
        chunk = array.scale.codec.decode(data, shape=shape, dtype=array.dtype)
        x, y, z = (g * c for g, c in zip(cell, array.scale.chunk_size, strict=True))
        out[:, z : z + shape[1], y : y + shape[2], x : x + shape[3]] = chunk
    return out


def contenders(folder: Path, encoding: str, box: tuple[slice, ...]) -> dict[str, Any]:
    """Name → a function that reads the box."""
    ours = ps.open_volume(folder)
    found: dict[str, Callable[[], Any]] = {"ours": lambda: ours[box]}
    cloudvolume = oracles._cloudvolume(folder)
    found["CloudVolume"] = lambda: cloudvolume[box]
    if encoding in TENSORSTORE:
        tensorstore = oracles._tensorstore(folder)
        found["TensorStore"] = lambda: tensorstore[box].read(order="F").result()
    if box == (slice(None),) * 3:
        found["floor"] = lambda: floor(ours.array)
    return found


def compare(readers: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """Medians of the paired ratios, and our own median times."""
    turns = []
    for number in range(rounds + 1):
        turn = {name: timed(read) for name, read in readers.items()}
        if number:  # The first warms the page cache up.
            turns.append(turn)
    ours = [turn["ours"] for turn in turns]
    return {
        "ours_wall_s": statistics.median(t.wall for t in ours),
        "ours_cpu_s": statistics.median(t.cpu for t in ours),
        "ratios": {
            name: {
                kind: statistics.median(
                    getattr(turn[name], kind) / getattr(turn["ours"], kind) for turn in turns
                )
                for kind in ("wall", "cpu")
            }
            for name in readers
            if name != "ours"
        },
    }


def write_layer(folder: Path, cell: dict[str, Any], data: np.ndarray) -> None:
    """Written by a peer, where one writes it."""
    dtype, encoding = cell["dtype"], cell["encoding"]
    info = oracles.make_info(
        size=data.shape[:3],
        layer_type="image" if dtype == "uint8" else "segmentation",
        **cell,
    )
    values = data.astype(dtype)
    if encoding in TENSORSTORE:
        oracles.tensorstore_write(folder, info, values)
    else:
        oracles.cloudvolume_write(folder, info, values, compress=False)


def run(size: int, rounds: int, data: Path | None) -> dict[str, Any]:
    image, labels = source_arrays(size, data)
    start = size // 3
    boxes = {
        "whole volume": (slice(None),) * 3,
        "cutout 100³": (slice(start, start + 100),) * 3,
    }
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, cell in CELLS.items():
            layer = Path(folder) / name.replace(", ", "_")
            write_layer(layer, cell, image if cell["dtype"] == "uint8" else labels)
            for what, box in boxes.items():
                readers = contenders(layer, cell["encoding"], box)
                repeated = rounds if what == "whole volume" else 3 * rounds
                results[f"{name}; {what}"] = compare(readers, repeated)
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return results


def markdown(results: dict[str, Any]) -> str:
    lines = [
        "| layer; read | ours, ms | CloudVolume ÷ ours | TensorStore ÷ ours | ours ÷ floor |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        ratios = result["ratios"]
        shown = [
            "{wall:.1f} ({cpu:.1f})".format(**ratios[peer]) if peer in ratios else "–"
            for peer in ("CloudVolume", "TensorStore")
        ]
        over = f"{1 / ratios['floor']['cpu']:.2f}" if "floor" in ratios else "–"
        lines.append(
            f"| {name} | {result['ours_wall_s'] * 1e3:.1f} | {' | '.join(shown)} | {over} |"
        )
    return "\n".join(
        [*lines, "", "Ratios of wall time, of CPU time in brackets; the floor by CPU."]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="edge of the volume, in voxels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", type=Path, help="folder with fib25_250.npz")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results = run(arguments.size, arguments.rounds, arguments.data)
    print(markdown(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
