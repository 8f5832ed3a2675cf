"""Write a volume and its pyramid with this package, TensorStore and CloudVolume, in one run.

    python benchmarks/write_at_scale.py [--data FOLDER] [--rounds 3] [--layer NAME]
        [--json FILE] [--quick]

The contenders take turns, each turn in a process of its own. What is measured begins when
libraries are imported, workers are up and the array is in memory (dask.distributed reads it
from a file), and ends when the last scale is stored: wall time, CPU time of all processes,
and the memory that they took on top of what they had before, at its peak. Reported are medians
of the ratios within a turn. Afterwards each scale of each layer is read by TensorStore and
compared voxel for voxel with a plain implementation of the rule by which it was made.

The array is 512³: the segmentation of ``pinky40_512.ckl.gz`` (uint32) and the image of
``fib25_250.npz``, tiled, with --data; else the shipped sample, tiled. Each has four coarser scales
of 2x2x2, by mode or mean, in chunks of 64³ and shards of 256³. gzip is the default of each
program: level 6 here, 9 in TensorStore, which has no other, 6 in CloudVolume. CloudVolume has no
downsampling of its own: it is tinybrain's if that is installed, else this package's.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from turns import run_turn, summary
from write_turns import CONTENDERS, LAYERS, downsampler, reduction

BASELINE = "ours, numpy"


def source_array(name: str, size: int, data: Path | None) -> np.ndarray:
    """A cube ``(z, y, x)``."""
    if data is None:
        from precomputed_store import sample

        crop = sample.load()
        array = crop.image if name == "image" else crop.segmentation.astype(np.uint32)
    elif name == "image":
        with np.load(data / "fib25_250.npz") as arrays:
            array = arrays["image"]
    else:
        import crackle

        packed = gzip.decompress((data / "pinky40_512.ckl.gz").read_bytes())
        array = crackle.decompress(packed).T
    tiles = [-(-size // n) for n in array.shape]
    return np.ascontiguousarray(np.tile(array, tiles)[(slice(size),) * 3])


def windows(block: np.ndarray) -> np.ndarray:
    """The eight voxels of each window, along the first axis."""
    return np.stack([block[z::2, y::2, x::2] for z, y, x in np.ndindex(2, 2, 2)])


def plain_mode(block: np.ndarray) -> np.ndarray:
    """The most frequent of eight, the smallest of several, by comparing each with each."""
    values = np.sort(windows(block), axis=0)
    counts = sum((values == other).astype(np.int8) for other in values)
    best = np.argmax(counts, axis=0)[None]
    return np.take_along_axis(values, best, axis=0)[0]


def plain_mean(block: np.ndarray) -> np.ndarray:
    """Half to even."""
    return np.rint(windows(block).astype(np.float64).mean(axis=0)).astype(block.dtype)


PLAIN = {"mode": plain_mode, "mean": plain_mean}


def save_references(folder: Path, *, size: int, levels: int, data: Path | None) -> None:
    """The arrays, and each scale by our rule and by tinybrain's where it is another."""
    for layer in {layer.source: layer for layer in LAYERS.values()}.values():
        plain = source_array(layer.source, size, data)
        others = {"tinybrain": plain} if downsampler() == "tinybrain" else {}
        np.save(folder / f"{layer.source}-plain-0.npy", plain)
        for index in range(1, levels):
            slabs = [PLAIN[layer.method](slab) for slab in np.split(plain, max(1, size // 64))]
            plain, size_now = np.concatenate(slabs), plain.shape[0] // 2
            assert plain.shape == (size_now,) * 3
            np.save(folder / f"{layer.source}-plain-{index}.npy", plain)
            for rule, finer in others.items():
                others[rule] = reduction(layer.method)(finer.T[..., None])[..., 0].T
                np.save(folder / f"{layer.source}-{rule}-{index}.npy", others[rule])


def run_layer(layer: str, contender: str, *, levels: int, folder: Path) -> dict[str, float]:
    """One turn of a contender, which leaves nothing for the next."""
    try:
        return run_turn("write_turns.py", layer, contender, levels, folder)
    finally:
        shutil.rmtree(folder / "layer", ignore_errors=True)


def run(folder: Path, layers: list[str], *, levels: int, rounds: int) -> Iterator[tuple[str, Any]]:
    for layer in layers:
        turns = [
            {
                contender: run_layer(layer, contender, levels=levels, folder=folder)
                for contender in CONTENDERS
            }
            for _ in range(rounds)
        ]
        yield layer, summary(turns, BASELINE)


def markdown(results: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = [
        "| layer; written by | wall, s | CPU, s | wall ÷ ours | CPU ÷ ours | memory, MiB "
        "| files | MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for layer, contenders in results.items():
        for name, of in contenders.items():
            lines.append(
                f"| {layer}; {name} | {of['wall_s']:.1f} | {of['cpu_s']:.1f} "
                f"| {of['wall_s_ratio']:.2f} | {of['cpu_s_ratio']:.2f} "
                f"| {of['extra_bytes'] / 2**20:.0f} | {of['files']:.0f} "
                f"| {of['file_bytes'] / 2**20:.1f} |"
            )
    return "\n".join(
        [
            *lines,
            "",
            f"Ratios to {BASELINE}: above 1 ours is faster. CloudVolume with the kernels of "
            f"{downsampler()}. Memory is on top of the array.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the real volumes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layer", action="append", choices=LAYERS, help="default: all")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="a small layer, once: a smoke test")
    arguments = parser.parse_args()
    layers = arguments.layer or list(LAYERS)[: 1 if arguments.quick else None]
    size, levels, rounds = (128, 2, 1) if arguments.quick else (512, 5, arguments.rounds)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        save_references(Path(folder), size=size, levels=levels, data=arguments.data)
        for layer, found in run(Path(folder), layers, levels=levels, rounds=rounds):
            results[layer] = found
            if arguments.json:
                arguments.json.write_text(json.dumps(results, indent=2))
    print(file=sys.stderr)
    print(markdown(results))


if __name__ == "__main__":
    main()
