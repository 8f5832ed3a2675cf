"""Turns of several programs, each in a process of its own, and what comes of them."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

__all__ = ["Turn", "run_turn", "summary"]

Turn = dict[str, dict[str, float]]


def run_turn(program: str, *arguments: object) -> dict[str, float]:
    """One measurement: the last line that a program of this folder prints."""
    path = Path(__file__).with_name(program)
    command = [sys.executable, "-W", "ignore", *map(str, (path, *arguments))]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    if shown.returncode:
        raise SystemExit(f"{'; '.join(map(str, arguments))}:\n{shown.stderr}")
    print(".", end="", file=sys.stderr, flush=True)
    return json.loads(shown.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def summary(turns: list[Turn], baseline: str) -> dict[str, dict[str, float]]:
    """Medians of each program's figures, and of the ratios of its times to the baseline's."""
    found = {}
    for name in turns[0]:
        medians = {
            key: statistics.median(turn[name][key] for turn in turns) for key in turns[0][name]
        }
        for key in ("wall_s", "cpu_s"):
            medians[f"{key}_ratio"] = statistics.median(
                turn[name][key] / max(turn[baseline][key], 1e-3) for turn in turns
            )
        found[name] = medians
    return found
