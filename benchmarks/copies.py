"""Copy layers with this package, TensorStore and CloudVolume, in one run.

    python benchmarks/copies.py [--data FOLDER] [--rounds 3] [--job NAME] [--json FILE] [--quick]

The contenders take turns, each turn in a process of its own; reported are medians of the ratios
within a turn, of wall time and of the CPU time of the process, from the libraries imported to
the last object stored. Afterwards TensorStore reads source and copy and compares them voxel
for voxel (jpeg: on average).

The layers are 512³ voxels in chunks of 64³ and shards of 256³: labels in compressed_segmentation
(uint32, gzip in shards) and an image in raw (uint8), the volumes of `write_at_scale.py`.
TensorStore has no copy without decoding; CloudVolume copies by `transfer_to`, without compression
of files, which is not its default, but what others can read.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from copy_turns import CHUNK, CONTENDERS, JOBS, SOURCES, sharding
from turns import run_turn, summary
from write_at_scale import source_array

import precomputed_store as ps

BASELINE = "ours"


def write_sources(folder: Path, *, size: int, data: Path | None) -> None:
    """The layers that are copied."""
    for name, options in SOURCES.items():
        kind, _, form = name.partition(", ")
        data_encoding = "gzip" if kind == "labels" else "raw"
        spec = sharding(size, data_encoding=data_encoding) if form == "sharded" else None
        ps.to_precomputed(
            source_array(kind, size, data), folder / name, dims="zyx", resolution=(8, 8, 8),
            chunk_size=(CHUNK,) * 3, sharding=spec, **options,
        )  # fmt: skip


def run_job(job: str, contender: str, folder: Path) -> dict[str, float]:
    """One turn of a contender, which leaves nothing for the next."""
    try:
        return run_turn("copy_turns.py", job, contender, folder)
    finally:
        shutil.rmtree(folder / "copy", ignore_errors=True)


def markdown(results: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = [
        "| copy; by | wall, s | CPU, s | wall ÷ ours | CPU ÷ ours | memory, MiB | files | MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for job, contenders in results.items():
        for name, of in contenders.items():
            lines.append(
                f"| {job}; {name} | {of['wall_s']:.2f} | {of['cpu_s']:.2f} "
                f"| {of['wall_s_ratio']:.1f} | {of['cpu_s_ratio']:.1f} "
                f"| {of['extra_bytes'] / 2**20:.0f} | {of['files']:.0f} "
                f"| {of['file_bytes'] / 2**20:.1f} |"
            )
    return "\n".join([*lines, "", "Ratios above 1: ours is faster."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the real volumes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--job", action="append", choices=JOBS, help="default: all")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="small layers, once: a smoke test")
    arguments = parser.parse_args()
    size, rounds = (128, 1) if arguments.quick else (512, arguments.rounds)
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sources(folder, size=size, data=arguments.data)
        for job in arguments.job or JOBS:
            turns = [
                {contender: run_job(job, contender, folder) for contender in CONTENDERS}
                for _ in range(rounds)
            ]
            results[job] = summary(turns, BASELINE)
            if arguments.json:
                arguments.json.write_text(json.dumps(results, indent=2))
    print(file=sys.stderr)
    print(markdown(results))


if __name__ == "__main__":
    main()
