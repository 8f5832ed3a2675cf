"""What else it costs to use each program: import, opening, graphs, a large write, memory.

    python benchmarks/costs.py [--rounds 5] [--write-mb 1024] [--size 512] [--json FILE] [--quick]

Every figure is the median over processes started anew, the programs in turns. Imports are
counted beyond numpy's. Peak memory is the process's own (VmHWM), less what it had before it
read a raw volume of size³ voxels. The write is of a dask array to compressed_segmentation, by
two processes. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PROGRAMS = ("ours", "CloudVolume", "TensorStore")

IMPORT = {
    "ours": "import precomputed_store",
    "CloudVolume": "import cloudvolume",
    "TensorStore": "import tensorstore",
}
OPEN = {
    "ours": "open = lambda: precomputed_store.open_volume(folder)",
    "CloudVolume": "open = lambda: cloudvolume.CloudVolume('file://' + folder, progress=False)",
    "TensorStore": (
        "open = lambda: tensorstore.open({'driver': 'neuroglancer_precomputed', "
        "'kvstore': {'driver': 'file', 'path': folder + '/'}}, open=True, "
        "context=tensorstore.Context({'cache_pool': {'total_bytes_limit': 0}})).result()"
    ),
}
READ = {
    "ours": "opened[:, :, :]",
    "CloudVolume": "opened[:, :, :]",
    "TensorStore": "opened.read(order='F').result()",
}

PRELUDE = """
import json, pickle, re, sys, time, warnings
import numpy
warnings.simplefilter("ignore")
folder = sys.argv[1]
def peak():
    status = open_file("/proc/self/status").read()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024
open_file = open
"""
TIMED_IMPORT = """
start = time.perf_counter()
{import_}
print((time.perf_counter() - start) * 1e3)
"""
FIRST_OPEN = """
start = time.perf_counter()
{import_}
{open}
open()
print((time.perf_counter() - start) * 1e3)
"""
TIMED_OPEN = """
{import_}
{open}
open()
times = []
for _ in range(20):
    start = time.perf_counter()
    open()
    times.append(time.perf_counter() - start)
print(sorted(times)[10] * 1e3)
"""
PEAK = """
{import_}
{open}
opened = open()
before = peak()
result = {read}
print(peak() - before)
"""
GRAPH = """
import precomputed_store, dask.array
precomputed_store.open_dask(folder, chunks=(1, 64, 64, 64))
start = time.perf_counter()
array = precomputed_store.open_dask(folder, chunks=(1, 64, 64, 64))
built = time.perf_counter()
size = len(pickle.dumps(array))
print(array.npartitions, (built - start) * 1e3, (time.perf_counter() - built) * 1e3, size)
"""
WRITE = """
import dask, dask.array, precomputed_store
from precomputed_store import sample
if __name__ == "__main__":
    mb = int(sys.argv[2])
    labels = sample.load().segmentation.astype("uint64")
    edge = 256 if mb >= 128 else 64
    tiles = [-(-edge // n) for n in labels.shape]
    block = numpy.tile(labels, tiles)[:edge, :edge, :edge]
    count = max(1, (mb << 20) // block.nbytes)
    blocks = dask.array.concatenate([dask.array.from_array(block, chunks=-1)] * count)
    start = time.perf_counter()
    with dask.config.set(scheduler="processes", num_workers=2):
        precomputed_store.to_precomputed(
            blocks, folder, dims=("z", "y", "x"), layer_type="segmentation",
            resolution=(8, 8, 8), chunk_size=(64, 64, 64),
        )
    print(blocks.nbytes / 2**20, time.perf_counter() - start)
"""


def child(script: str, *arguments: str) -> list[float]:
    """The numbers that a new process prints."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(PRELUDE + script)
        file.flush()
        found = subprocess.run(
            [sys.executable, file.name, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    if found.returncode:
        raise RuntimeError(found.stderr)
    return [float(word) for word in found.stdout.split()]


def by_program(script: str, rounds: int, *arguments: str) -> dict[str, float]:
    """Medians, the programs in turns."""
    texts = {
        name: script.format(import_=IMPORT[name], open=OPEN[name], read=READ[name])
        for name in PROGRAMS
    }
    turns = [{name: child(texts[name], *arguments)[0] for name in texts} for _ in range(rounds)]
    return {name: statistics.median(turn[name] for turn in turns) for name in texts}


def make_layer(folder: Path, size: int) -> str:
    """Raw noise of size³."""
    import numpy as np

    import precomputed_store as ps

    voxels = np.random.default_rng(0).integers(0, 256, (size,) * 3, "uint8")
    ps.to_precomputed(
        voxels, folder, dims=("z", "y", "x"), layer_type="image", resolution=(8, 8, 8)
    )
    return str(folder)


def make_huge(folder: Path, edge: int) -> str:
    """An `info` of edge³ voxels, without chunks."""
    scale = {
        "key": "8_8_8",
        "size": [edge] * 3,
        "resolution": [8, 8, 8],
        "chunk_sizes": [[64, 64, 64]],
        "encoding": "raw",
    }
    info = {"type": "image", "data_type": "uint8", "num_channels": 1, "scales": [scale]}
    folder.mkdir()
    (folder / "info").write_text(json.dumps(info))
    return str(folder)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    rounds = arguments.rounds
    with tempfile.TemporaryDirectory() as scratch:
        layer = make_layer(Path(scratch, "layer"), arguments.size)
        graph = child(GRAPH, make_huge(Path(scratch, "graph"), 64 * 216))
        written = child(WRITE, str(Path(scratch, "written")), str(arguments.write_mb))
        return {
            "import, ms": by_program(TIMED_IMPORT, rounds, layer),
            "import and first opening, ms": by_program(FIRST_OPEN, rounds, layer),
            "opening a layer, ms": by_program(TIMED_OPEN, rounds, layer),
            "opening a petavoxel, ms": by_program(
                TIMED_OPEN, rounds, make_huge(Path(scratch, "huge"), 100_000)
            ),
            f"peak memory of reading {arguments.size}³ raw, MB": by_program(PEAK, rounds, layer),
            f"dask graph of {graph[0]:.0f} chunks: building, ms": {"ours": graph[1]},
            "pickling it, ms": {"ours": graph[2]},
            "its pickle, bytes": {"ours": graph[3]},
            f"writing {written[0]:.0f} MB by two processes, s": {"ours": written[1]},
        }


def markdown(results: dict[str, Any]) -> str:
    lines = [f"| what | {' | '.join(PROGRAMS)} |", "| --- | --- | --- | --- |"]
    for name, result in results.items():
        shown = [f"{result[who]:.4g}" if who in result else "–" for who in PROGRAMS]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write-mb", type=int, default=1024)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="small data, one round")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.write_mb, arguments.size = 1, 4, 64
    results = run(arguments)
    print(markdown(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
