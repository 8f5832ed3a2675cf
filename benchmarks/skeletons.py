"""Reads and writes of skeletons side by side with CloudVolume, in turns, in one run.

    python benchmarks/skeletons.py [--count 1000] [--rounds 5]

Skeletons of 500 vertices with radius and type, in a sharded source on a local disk. Each
program reads all by id with nothing cached of the source, and writes all as a shard.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import precomputed_store as ps
from precomputed_store.metadata.skeleton import VertexAttribute
from precomputed_store.shard_cache import clear_index_cache
from precomputed_store.skeleton import Skeleton

VERTICES = 500
# As CloudVolume stores them.
ATTRIBUTES = (VertexAttribute("radius"), VertexAttribute("vertex_types", "uint8"))


def skeletons(count: int) -> dict[int, Skeleton]:
    """Random walks, whose bytes are about as hard to compress as those of real skeletons."""
    rng = np.random.default_rng(0)
    ids = rng.choice(2**62, count, replace=False)
    parents = np.arange(VERTICES - 1)
    made = {}
    for segment_id in ids.tolist():
        steps = rng.integers(-40, 41, (VERTICES, 3)).cumsum(axis=0)
        attributes = {
            "radius": rng.integers(50, 400, VERTICES).astype(np.float32),
            "vertex_types": np.zeros(VERTICES, np.uint8),
        }
        edges = np.stack([parents, parents + 1], axis=1)
        made[segment_id] = Skeleton(steps.astype(np.float32), edges, attributes)
    return made


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def cloudvolume_write(folder: Path, data: dict[int, Skeleton], spec: ps.ShardingSpec) -> None:
    """As Igneous does it: encode, synthesize shards, put them."""
    from cloudfiles import CloudFiles
    from cloudvolume import Skeleton as TheirSkeleton
    from cloudvolume.datasource.precomputed.sharding import ShardingSpecification

    encoded = {
        segment_id: TheirSkeleton(
            each.vertices, each.edges, each.attributes["radius"], each.attributes["vertex_types"]
        ).to_precomputed()
        for segment_id, each in data.items()
    }
    shards = ShardingSpecification.from_dict(spec.to_json()).synthesize_shards(encoded)
    CloudFiles(f"file://{folder}", progress=False).puts(
        ((name, shard) for name, shard in shards.items()), compress=None
    )


def cloudvolume_read(layer: Path, ids: list[int]) -> None:
    from cloudvolume import CloudVolume

    assert len(CloudVolume(f"file://{layer}", progress=False).skeleton.get(ids)) == len(ids)


def run(layer: Path, count: int, rounds: int) -> dict[str, tuple[float, float]]:
    data = skeletons(count)
    ids = list(data)
    ps.create(
        layer,
        ps.VolumeInfo.from_json(
            {
                "type": "segmentation",
                "data_type": "uint64",
                "num_channels": 1,
                "scales": [
                    {
                        "key": "1",
                        "size": [64, 64, 64],
                        "resolution": [8, 8, 8],
                        "chunk_sizes": [[64, 64, 64]],
                        "encoding": "raw",
                    }
                ],
            }
        ),
    )
    source = ps.write_skeletons(layer / "skeletons", data, sharding="auto", attributes=ATTRIBUTES)
    spec = source.info.sharding
    assert spec is not None

    def read() -> None:
        clear_index_cache()
        assert len(ps.open_volume(layer).skeletons.get(ids)) == count

    def write() -> None:
        ps.write_skeletons(layer / "skeletons", data, sharding="auto", mode="replace")

    turns = {
        "read": (read, lambda: cloudvolume_read(layer, ids)),
        "write": (write, lambda: cloudvolume_write(layer / "theirs", data, spec)),
    }
    return {name: medians(*programs, rounds) for name, programs in turns.items()}


def medians(
    ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int
) -> tuple[float, float]:
    """Seconds of both programs, which take turns; the first turn warms up."""
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds + 1)][1:]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for name, (ours, theirs) in run(Path(folder), options.count, options.rounds).items():
            figures = {"ours_s": round(ours, 4), "cloudvolume_s": round(theirs, 4)}
            print(json.dumps({"what": name, **figures, "ratio": round(theirs / ours, 2)}))


if __name__ == "__main__":
    main()
