"""Progress bars for long work, in terminals and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

__all__ = ["Advance", "progress_bar"]

Advance: TypeAlias = Callable[[int], None]
"""Says that so many more steps are done; may be called from any thread."""


@contextmanager
def progress_bar(
    description: str, *, total: int | None, enabled: bool, unit: str = "chunks"
) -> Iterator[Advance]:
    """A progress bar on the terminal's error stream or in the notebook.

    Parameters
    ----------
    description : str
        What is being done.
    total : int or None
        Number of steps; None if unknown.
    enabled : bool
        False shows nothing.
    unit : str
        What a step is.
    """
    if not enabled:
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        # Names of scales may look like markup.
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        job = bar.add_task(description, total=total)
        yield lambda steps: bar.advance(job, steps)
