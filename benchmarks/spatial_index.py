"""A spatial index of skeletons in a database, beside its files and CloudVolume.

Builds a database of SQLite, then asks for all ids and for those in boxes. Programs take turns,
every one in a process of its own; the peak of its memory counts from before the work on.

    python benchmarks/spatial_index.py --cells 20 --ids 500
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import precomputed_store as ps
from precomputed_store.metadata.spatial_index import SpatialIndexSpec

VOXELS, RESOLUTION = 64, 8
CELL_NM = VOXELS * RESOLUTION
SHARES = {"an eighth": 0.5, "the bounds": 1.0}
QUERIES = ("one cell", *SHARES, "all of space")
MEASURED = "measured.json"


def make(layer: Path, cells: int, ids: int) -> None:
    """A layer of `cells`³ cells with `ids` boxes each, and no skeletons."""
    size = [VOXELS * cells] * 3
    scale = {
        "key": "8",
        "size": size,
        "resolution": [RESOLUTION] * 3,
        "chunk_sizes": [[64] * 3],
        "encoding": "raw",
    }
    info = {"type": "segmentation", "data_type": "uint64", "num_channels": 1, "scales": [scale]}
    ps.create(layer, ps.VolumeInfo.from_json(info))
    spec = SpatialIndexSpec(resolution=(RESOLUTION,) * 3, chunk_size=(CELL_NM,) * 3)
    source = ps.write_skeletons(layer / "skeletons", {}, spatial_index=spec)
    rng = np.random.default_rng(0)
    grid = source.spatial_index.grid
    assert grid is not None
    boxes = {}
    for cell in grid.cells():
        low = np.array(cell) * CELL_NM
        corners = np.sort(rng.integers(0, CELL_NM, (ids, 2, 3)), axis=1) + low
        labels = rng.choice(10**6, ids, replace=False) + 1
        rows = map(tuple, corners.reshape(-1, 6).tolist())
        boxes[cell] = dict(zip(labels.tolist(), rows, strict=True))
    source.spatial_index.write(boxes)


def box(name: str, cells: int) -> list[list[float]]:
    if name == "one cell":
        low = cells // 2 * CELL_NM
        return [[low + 20] * 3, [low + 400] * 3]
    if name == "all of space":
        return [[-math.inf] * 3, [math.inf] * 3]
    return [[0] * 3, [cells * CELL_NM * SHARES[name]] * 3]


def cloudvolume(layer: Path, database: Path | None = None) -> Any:
    from cloudvolume import CloudVolume

    named = None if database is None else f"sqlite://{database}"
    volume = CloudVolume(f"file://{layer}", spatial_index_db=named, progress=False)
    return volume.skeleton.spatial_index


def task(program: str, what: str, folder: Path, cells: int) -> Callable[[], Any]:
    """What is measured; everything that it needs is imported and open."""
    layer, database = folder / "layer", folder / f"{program}.db"
    if program == "cloudvolume":
        from cloudvolume import Bbox

        theirs = cloudvolume(layer, database)
        if what == "build":
            return lambda: theirs.to_sqlite(str(database), progress=False)
        bounds = box("the bounds" if what == "all of space" else what, cells)
        return lambda: theirs.query(Bbox(*bounds, dtype=int))
    source = ps.open_skeletons(layer / "skeletons")
    if what == "build":
        import sqlalchemy  # noqa: F401

        return lambda: source.save_index(database)
    index = None if program == "files" else database
    return lambda: source.query_ids(box(what, cells), index=index)


def measure(program: str, what: str, folder: Path, cells: int) -> None:
    """In a process of its own; the first call warms up, unless it builds."""
    run = task(program, what, folder, cells)
    before = peak_mb()
    if what == "build":
        (folder / f"{program}.db").unlink(missing_ok=True)
    else:
        run()
    start = time.perf_counter()
    found = run()
    seconds = time.perf_counter() - start
    answer = None if found is None else len(found)
    measured = {"s": round(seconds, 4), "mb": peak_mb() - before, "found": answer}
    # Not printed: programs say something themselves, even at their end and within a line.
    (folder / MEASURED).write_text(json.dumps(measured))


def peak_mb() -> int:
    """Of this program alone: `ru_maxrss` begins with what its parent had."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1000


def child(program: str, what: str, folder: Path, cells: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--folder", str(folder), "--cells", str(cells)]
    found = folder / MEASURED
    found.unlink(missing_ok=True)
    subprocess.run(
        [*command, "--program", program, "--what", what], check=True, capture_output=True
    )
    measured: dict[str, Any] = json.loads(found.read_text())
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=20, help="along each axis")
    parser.add_argument("--ids", type=int, default=150, help="in each cell")
    parser.add_argument("--rounds", type=int, default=3)
    for hidden in ("--folder", "--program", "--what"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.program:
        measure(options.program, options.what, Path(options.folder), options.cells)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "layer", options.cells, options.ids)
        for what in ("build", *QUERIES):
            programs = ["database", "cloudvolume"] + ["files"] * (what != "build")
            turns = [
                {each: child(each, what, folder, options.cells) for each in programs}
                for _ in range(options.rounds)
            ]
            for each in programs:
                figures = {k: statistics.median(t[each][k] for t in turns) for k in ("s", "mb")}
                found = turns[0][each]["found"]
                print(json.dumps({"what": what, "program": each, **figures, "found": found}))
        for each in ("database", "cloudvolume"):
            size = (folder / f"{each}.db").stat().st_size
            print(json.dumps({"program": each, "file_mb": size / 1e6}))


if __name__ == "__main__":
    main()
