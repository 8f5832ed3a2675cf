"""Read meshes by id from local sources with this package and CloudVolume, in one run.

    python benchmarks/meshes.py --data FOLDER [--meshes 200] [--rounds 5] [--json FILE]

Meshes of real segments (``fib25_250.npz``) are written once, sharded and not. Both programs
read all of them by id, each time from a source opened anew, in turns. Reported are the
medians of wall and CPU time, and of the ratio within a turn (CloudVolume's time / ours). The
floor is what no reader can go below: the Draco library alone, decoding the same fragments from
memory on as many threads as there are processors, its results thrown away.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import precomputed_store as ps
from precomputed_store.concurrency import num_cores
from precomputed_store.mesh_layouts import ShardLayout
from precomputed_store.shard_cache import clear_index_cache

KINDS: dict[str, dict[str, Any]] = {
    "multi-resolution, sharded": {"sharding": "auto"},
    "multi-resolution, files": {},
    "legacy": {"kind": "legacy"},
}


def make_layers(folder: Path, labels: np.ndarray, count: int) -> dict[str, Path]:
    """A layer for each kind, with the meshes of the `count` largest segments."""
    present, sizes = np.unique(labels, return_counts=True)
    order = np.argsort(-sizes)
    ids = [int(one) for one in present[order] if one][:count]
    layers: dict[str, Path] = {}
    for name, options in KINDS.items():
        layer = folder / name.replace(" ", "-")
        ps.to_precomputed(
            labels, layer, dims=("z", "y", "x"), resolution=(10, 10, 10),
            layer_type="segmentation", pyramid=None,
        )  # fmt: skip
        ps.make_meshes(layer, ids=ids, block_shape=(128, 128, 128), **options)
        layers[name] = layer
    return layers


def ours(layer: Path, ids: list[int]) -> dict[int, Any]:
    clear_index_cache()
    return ps.open_meshes(layer).get(ids)


def theirs(layer: Path, ids: list[int]) -> dict[int, Any]:
    from cloudvolume import CloudVolume

    source = CloudVolume(f"file://{layer}", progress=False).mesh
    if "legacy" in layer.name:
        return source.get(ids, fuse=False)
    return source.get(ids)


def fragments(layer: Path, ids: list[int]) -> list[bytes]:
    """The Draco streams of all meshes in full detail; none of legacy meshes."""
    source = ps.open_meshes(layer)
    found: list[bytes] = []
    if source.info.kind == "legacy":
        return found
    layout = source.layout.prepared(ids)
    for one in ids:
        manifest, path, start = source.manifest(one), layer / "mesh" / str(one), 0
        if isinstance(layout, ShardLayout) and (place := layout.places[one]):
            path = layer / "mesh" / place.key
            start = place.place.start - manifest.data_bytes
        starts = [start + int(each) for each in manifest.fragment_starts(0)]
        data = path.read_bytes()
        found += [data[a:b] for a, b in itertools.pairwise(starts) if a < b]
    return found


def draco_alone(streams: list[bytes]) -> None:
    import DracoPy

    with ThreadPoolExecutor(num_cores()) as pool:
        for each in [pool.submit(DracoPy.decode, stream) for stream in streams]:
            each.result()


def timed(read: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    read()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(layer: Path, rounds: int) -> dict[str, float]:
    ids = ps.open_meshes(layer).ids()
    here, there = ours(layer, ids), theirs(layer, ids)
    for one in ids:
        assert len(here[one].faces) == len(there[one].faces)
        np.testing.assert_allclose(here[one].vertices, there[one].vertices, rtol=1e-6, atol=1e-3)
    streams = fragments(layer, ids)
    figures = [
        (
            timed(lambda: ours(layer, ids)),
            timed(lambda: theirs(layer, ids)),
            timed(lambda: draco_alone(streams)),
        )
        for _ in range(rounds)
    ]

    def median(values: list[float]) -> float:
        return round(statistics.median(values), 3)

    return {
        "meshes": len(ids),
        "ours_wall_s": median([a[0] for a, _, _ in figures]),
        "cloudvolume_wall_s": median([b[0] for _, b, _ in figures]),
        "floor_wall_s": median([c[0] for _, _, c in figures]),
        "ours_cpu_s": median([a[1] for a, _, _ in figures]),
        "cloudvolume_cpu_s": median([b[1] for _, b, _ in figures]),
        "floor_cpu_s": median([c[1] for _, _, c in figures]),
        "wall_ratio": median([b[0] / a[0] for a, b, _ in figures]),
        "cpu_ratio": median([b[1] / a[1] for a, b, _ in figures]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--meshes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with np.load(arguments.data / "fib25_250.npz") as arrays:
        labels = arrays["bodies"]
    with tempfile.TemporaryDirectory() as folder:
        layers = make_layers(Path(folder), labels, arguments.meshes)
        found = {name: compare(layer, arguments.rounds) for name, layer in layers.items()}
    print(
        "| kind | meshes | ours, s | CloudVolume, s | floor, s | ours, CPU s | CloudVolume, CPU s "
        "| floor, CPU s | wall ratio | CPU ratio |"
    )
    print("| --- |" + " --- |" * 9)
    for name, row in found.items():
        print(f"| {name} | {' | '.join(str(value) for value in row.values())} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
