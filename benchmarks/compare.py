"""Read and write the same local volumes with this package, CloudVolume and TensorStore, in turns.

    python benchmarks/compare.py [--size 512] [--rounds 7] [--data FOLDER] [--cells NAME ...]
        [--json FILE] [--plot FILE] [--quick]

The contenders take turns, and what is reported are medians of the ratios within a turn (their
time / ours: above 1 we are faster), of wall and CPU time, with the quartiles of the wall ratio.
TensorStore reads in Fortran order with its cache off, CloudVolume with its defaults; all use
what processors there are, as they do by default. The floor is what no reader can avoid: reading
each file, decoding it by a bare call of the codec (with the checks that safety needs), and one
copy into the output, in one thread. Whoever writes has an empty folder to write to. Sharded
layers are written by `write_at_scale.py`.

The data are the shipped sample, tiled; or real volumes (``fib25_250.npz``) with --data.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from cells import CELLS, QUICK, Cell, Read, parts, readers, volume, writers

import precomputed_store as ps

PEERS = ("CloudVolume", "TensorStore")
DOORS = ("xarray", "dask", "zarr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    wall: float
    cpu: float


def timed(work: Read) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    timing = Timing(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)
    del result  # Giving memory back is nobody's time.
    return timing


def compare(
    contenders: dict[str, Read], rounds: int, *, before: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Medians of the paired ratios, and our own median times.

    `before` makes ready for a contender, in nobody's time.
    """
    turns = []
    for number in range(rounds + 1):
        # Another begins each turn: who comes later finds the files in the processor's cache.
        first = number % len(contenders)
        order = [*contenders][first:] + [*contenders][:first]
        turn = {}
        for name in order:
            if before is not None:
                before(name)
            turn[name] = timed(contenders[name])
        if number:  # The first warms the page cache up.
            turns.append(turn)
    return {
        "ours_wall_s": statistics.median(turn["ours"].wall for turn in turns),
        "ours_cpu_s": statistics.median(turn["ours"].cpu for turn in turns),
        "ratios": {name: paired(turns, name) for name in contenders if name != "ours"},
    }


def paired(turns: list[dict[str, Timing]], name: str) -> dict[str, float]:
    wall = [turn[name].wall / turn["ours"].wall for turn in turns]
    low, _, high = statistics.quantiles(wall, n=4) if len(wall) > 1 else wall * 3
    return {
        "wall": statistics.median(wall),
        "low": low,
        "high": high,
        "cpu": statistics.median(turn[name].cpu / turn["ours"].cpu for turn in turns),
    }


def run(cells: list[Cell], size: int, rounds: int, data: Path | None) -> dict[str, Any]:
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for cell in cells:
            voxels = volume(cell.dtype, size, data)
            layer = Path(scratch, "layer")
            ps.to_precomputed(voxels, layer, **cell.arguments())
            doors = cell.name in QUICK
            for what, part in parts(size).items():
                contenders = readers(layer, cell, part, doors=doors)
                repeated = rounds if what == "whole" else 3 * rounds
                results[f"{cell.name}; {what}"] = compare(contenders, repeated)
                print(".", end="", file=sys.stderr, flush=True)
            if not cell.sharded:
                results[f"{cell.name}; write"] = compare_writes(cell, voxels, scratch, rounds)
            shutil.rmtree(layer)
    print(file=sys.stderr)
    return results


def compare_writes(cell: Cell, voxels: Any, scratch: str, rounds: int) -> dict[str, Any]:
    folder = Path(scratch, "written")
    contenders = writers(folder, cell, voxels)

    def make_room(name: str) -> None:
        # Put aside, not removed: file systems take longer to make files where some have gone.
        if (folder / name).exists():
            (folder / name).rename(folder / f"{name} {len(list(folder.iterdir()))}")
        (folder / name).mkdir(parents=True)

    result = compare(contenders, max(1, rounds // 2), before=make_room)
    result["bytes"] = {name: stored(folder / name) for name in contenders}
    shutil.rmtree(folder)
    return result


def stored(folder: Path) -> int:
    """Bytes of all chunks."""
    return sum(path.stat().st_size for path in folder.glob("*/*") if path.is_file())


def geometric_means(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By kind of access, over all layers: each peer's, and that of the faster one of each."""
    kinds: dict[str, dict[str, list[float]]] = {}
    for name, result in results.items():
        found = {
            peer: result["ratios"][peer]["wall"] for peer in PEERS if peer in result["ratios"]
        }
        lists = kinds.setdefault(name.split("; ")[1], {})
        for peer, ratio in (*found.items(), ("better peer", min(found.values()))):
            lists.setdefault(peer, []).append(ratio)
    return {
        kind: {peer: statistics.geometric_mean(values) for peer, values in lists.items()}
        for kind, lists in kinds.items()
    }


def markdown(results: dict[str, Any]) -> str:
    lines = [
        "| layer; what | ours, ms | CloudVolume ÷ ours | TensorStore ÷ ours | ours ÷ floor |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        found = result["ratios"]
        shown = [
            "{wall:.1f} [{low:.1f}–{high:.1f}] ({cpu:.1f})".format(**found[peer])
            if peer in found
            else "–"
            for peer in PEERS
        ]
        over = f"{1 / found['floor']['cpu']:.2f}" if "floor" in found else "–"
        lines.append(
            f"| {name} | {result['ours_wall_s'] * 1e3:.1f} | {' | '.join(shown)} | {over} |"
        )
    lines += [
        "",
        "Medians of ratios of wall time, their quartiles, and of CPU time in brackets; the floor "
        "by CPU time.",
        "",
        "| geometric means | CloudVolume ÷ ours | TensorStore ÷ ours | the faster ÷ ours |",
        "| --- | --- | --- | --- |",
    ]
    for kind, means in geometric_means(results).items():
        shown = [f"{means[n]:.2f}" if n in means else "–" for n in (*PEERS, "better peer")]
        lines.append(f"| {kind} | {' | '.join(shown)} |")
    lines += ["", *doors(results)]
    return "\n".join(lines)


def doors(results: dict[str, Any]) -> list[str]:
    """What the other doors cost on top of `Volume`."""
    lines = [f"| layer; read | {' | '.join(f'{door} ÷ Volume' for door in DOORS)} |"]
    lines.append("| --- | --- | --- | --- |")
    for name, result in results.items():
        if set(DOORS) <= set(result["ratios"]):
            shown = [f"{result['ratios'][door]['wall']:.2f}" for door in DOORS]
            lines.append(f"| {name} | {' | '.join(shown)} |")
    return lines


def plot(results: dict[str, Any], path: Path) -> None:
    """The ratios of wall time as a picture."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    names = list(results)[::-1]
    figure, axes = plt.subplots(figsize=(7, 0.16 * len(names) + 1))
    for peer, colour in zip(PEERS, ("tab:orange", "tab:blue"), strict=True):
        at = [i for i, name in enumerate(names) if peer in results[name]["ratios"]]
        found = [results[names[i]]["ratios"][peer] for i in at]
        middle = [each["wall"] for each in found]
        spread = [
            [m - each["low"] for m, each in zip(middle, found, strict=True)],
            [each["high"] - m for m, each in zip(middle, found, strict=True)],
        ]
        axes.errorbar(middle, at, xerr=spread, fmt="o", ms=3, lw=1, color=colour, label=peer)
    axes.axvline(1, color="black", lw=0.8)
    axes.set(xscale="log", xlabel="their wall time ÷ ours (right of 1: this package is faster)")
    axes.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="edge of the volume, in voxels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", type=Path, help="folder with fib25_250.npz")
    parser.add_argument("--cells", nargs="*", choices=[cell.name for cell in CELLS])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--plot", type=Path, help="draw them here")
    parser.add_argument("--quick", action="store_true", help="two small layers, one round")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.size, arguments.rounds = 128, 1
    names = arguments.cells or (QUICK if arguments.quick else [cell.name for cell in CELLS])
    warnings.simplefilter("ignore")
    chosen = [cell for cell in CELLS if cell.name in names]
    results = run(chosen, arguments.size, arguments.rounds, arguments.data)
    print(markdown(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
