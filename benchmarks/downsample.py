"""Input voxels per CPU second of each downsampling method, in one thread.

    python benchmarks/downsample.py [--rounds 5] [--data FOLDER] [--tensorstore]

The data are the shipped sample, tiled; or real volumes (``fib25_250.npz`` and
``pinky40_512.ckl.gz``) with --data. What is reported is the best round: CPU time of the whole
process, so threads would not hide. Noise is the worst case of the mode.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parent.parent))

from precomputed_store import sample
from precomputed_store.downsampling import METHODS, Method, downsample
from precomputed_store.grid import XYZ

Array = npt.NDArray[Any]

FACTORS: list[XYZ] = [(2, 2, 2), (2, 2, 1), (3, 3, 1), (3, 3, 3), (4, 4, 4)]


def sample_volumes() -> Iterator[tuple[str, Array]]:
    shipped = sample.load()
    yield "image uint8, sample", np.tile(shipped.image, (2, 2, 2))
    yield "labels uint64, sample", np.tile(shipped.segmentation, (2, 2, 2))


def real_volumes(folder: Path) -> Iterator[tuple[str, Array]]:
    import crackle

    with np.load(folder / "fib25_250.npz") as stored:
        yield "image uint8, fib25", stored["image"]
        yield "labels uint64, fib25", stored["bodies"]
    packed = gzip.decompress((folder / "pinky40_512.ckl.gz").read_bytes())
    labels = np.ascontiguousarray(crackle.decompress(packed).T[:128])
    yield "labels uint32, pinky40", labels
    yield "labels uint64, pinky40", labels.astype(np.uint64)


def noise() -> tuple[str, Array]:
    rng = np.random.default_rng(0)
    return "noise uint64", rng.integers(0, 2**63, (64, 128, 128), np.uint64)


def methods_for(name: str) -> tuple[Method, ...]:
    if name.startswith("image"):
        return tuple(method for method in METHODS if method != "mode")
    return ("mode",)


def best_rate(work: Callable[[], object], voxels: int, rounds: int) -> float:
    """Millions of voxels per CPU second in the best round."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return voxels / best / 1e6


def by_us(block: Array, factor: XYZ, method: Method) -> Callable[[], object]:
    return lambda: downsample(block, factor=factor, start=(0, 0, 0), method=method)


def by_tensorstore(block: Array, factor: XYZ, method: Method) -> Callable[[], object]:
    import tensorstore

    limits = tensorstore.Context({"data_copy_concurrency": {"limit": 1}})
    fine = tensorstore.array(block, context=limits)
    coarse = tensorstore.downsample(fine, [1, *factor[::-1]], method)
    return lambda: coarse.read().result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tensorstore", action="store_true", help="measure its kernels too")
    options = parser.parse_args()
    volumes = real_volumes(options.data) if options.data else sample_volumes()
    columns = ["x".join(map(str, factor)) for factor in FACTORS]
    print(f"{'million voxels per CPU second':42}", *(f"{column:>7}" for column in columns))
    contenders = {"": by_us}
    if options.tensorstore:
        contenders[" (TensorStore)"] = by_tensorstore
    for name, volume in (*volumes, noise()):
        for method, (who, prepare) in itertools.product(methods_for(name), contenders.items()):
            rates = [
                best_rate(prepare(volume[None], factor, method), volume.size, options.rounds)
                for factor in FACTORS
            ]
            print(f"{f'{name}, {method}{who}':42}", *(f"{rate:7.0f}" for rate in rates))


if __name__ == "__main__":
    main()
