"""``precomputed validate``: a layer against the specification."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from precomputed_store.cli.options import json_option, url_options
from precomputed_store.cli.text import console, count, print_json, size
from precomputed_store.validation import Report, ScaleReport, validate

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["command"]

_SHOWN = 20


@click.command()
@url_options
@click.option(
    "--chunks",
    is_flag=True,
    help="Also look which chunks are stored, of which size, and what else is there.",
)
@click.option("--decode", is_flag=True, help="Also read and decode every chunk.")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="Read and decode N chunks of each scale, picked at random.",
)
@click.option(
    "--scale", metavar="SCALE", help="Only the chunks of this scale: its index or its key."
)
@json_option
def command(
    url: str,
    storage_options: dict[str, Any],
    missing_statuses: tuple[int, ...],
    root: str | None,
    chunks: bool,
    decode: bool,
    sample: int | None,
    scale: str | None,
    as_json: bool,
) -> None:
    """Check the layer at URL against the specification.

    Without options only the metadata is checked: every problem is listed with its
    location, and so is what other programs refuse or misread.

    Exit code: 0 if nothing is wrong, 1 if something is. Warnings, chunks that are not
    stored (readers take zeros) and unknown objects are not wrong.
    """
    if scale is not None and not (chunks or decode or sample):
        raise click.UsageError(
            "--scale says whose chunks to check: add --chunks, --decode or --sample N"
        )
    report = validate(
        url,
        chunks=chunks,
        decode=decode,
        sample=sample,
        scale=_selector(scale),
        storage_options=storage_options,
        missing_statuses=missing_statuses,
        root=root,
        progress=not as_json and sys.stderr.isatty(),
    )
    if as_json:
        print_json(report.to_json())
    else:
        _print(report, console())
    if not report.ok:
        raise click.exceptions.Exit(1)


def _selector(text: str | None) -> int | str | None:
    """An index if it looks like one, else a key."""
    if text is None:
        return None
    return int(text) if text.lstrip("-").isdecimal() else text


def _print(report: Report, out: Console) -> None:
    out.print(report.url, style="bold", soft_wrap=True)
    if report.problems:
        title = f"metadata: {count(len(report.problems), 'problem')}"
        _list(out, title, report.problems, style="red", shown=None)
    else:
        out.print("metadata: valid", style="green")
    if report.warnings:
        title = f"{count(len(report.warnings), 'warning')}: other programs may refuse or misread"
        _list(out, title, report.warnings, style="yellow", shown=None)
    for scale in report.scales:
        _print_scale(scale, out)


def _print_scale(scale: ScaleReport, out: Console) -> None:
    checked = count(scale.num_chunks, "chunk")
    if scale.num_checked < scale.num_chunks:
        checked = f"{scale.num_checked:,} of {checked}"
    stored = "" if scale.num_bytes is None else f" ({size(scale.num_bytes)})"
    corrupt = f", {len(scale.corrupt):,} corrupt" if scale.corrupt or scale.decoded else ""
    out.print(
        f"scales[{scale.index}] {scale.key!r}: {checked} "
        f"{'read and decoded' if scale.decoded else 'looked for'}: "
        f"{scale.num_present:,} present{stored}, {scale.num_missing:,} missing{corrupt}",
        style="red" if scale.corrupt else "green",
        soft_wrap=True,
    )
    if not scale.num_present:
        out.print("  nothing at all is stored: readers see zeros only", style="yellow")
    if scale.corrupt:
        _list(out, "  corrupt chunks", scale.corrupt, style="red")
    if scale.unknown:
        title = (
            f"  {count(len(scale.unknown), 'unknown object')} in the folder, which nothing reads"
        )
        _list(out, title, scale.unknown, style="yellow")


def _list(
    out: Console, title: str, lines: Iterable[object], *, style: str, shown: int | None = _SHOWN
) -> None:
    out.print(f"{title}:", style=style, soft_wrap=True)
    every = list(lines)
    for line in every[:shown]:
        out.print(f"  - {line}", soft_wrap=True)
    if shown is not None and len(every) > shown:
        out.print(f"  … and {len(every) - shown:,} more (--json lists all)")
