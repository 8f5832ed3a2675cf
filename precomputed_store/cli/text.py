"""How the commands write numbers, and where they print."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from precomputed_store.errors import Problem

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["by", "console", "count", "print_json", "problems_json", "size"]

_WIDTH_OF_A_FILE = 160


def console() -> Console:
    """Standard output, with tables as wide as they like where it is not a terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _WIDTH_OF_A_FILE
    return Console(width=width, highlight=False, markup=False, emoji=False)


def by(numbers: Sequence[float]) -> str:
    """``160 × 144 × 30``."""
    return " × ".join(f"{number:g}" if number % 1 else f"{number:.0f}" for number in numbers)


def count(number: int, noun: str) -> str:
    """``1 chunk``, ``12,345 chunks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(num_bytes: float) -> str:
    """``5.53 MB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.3g} PB"


def print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def problems_json(problems: Iterable[Problem]) -> list[dict[str, str]]:
    return [problem._asdict() for problem in problems]
