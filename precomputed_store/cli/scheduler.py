"""Where a command's tasks run: in threads of this process, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from precomputed_store.errors import UnsupportedError

__all__ = ["scheduler", "scheduler_options"]

F = TypeVar("F", bound=Callable[..., Any])


def scheduler_options(command: F) -> F:
    """``--scheduler`` and ``--workers``, for `scheduler`."""
    threads = click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Threads that do it here. Default: one for each core.",
    )
    cluster = click.option(
        "--scheduler", metavar="ADDRESS", help="dask cluster that does it, as in tcp://host:8786."
    )
    return cluster(threads(command))


@contextmanager
def scheduler(address: str | None, workers: int | None) -> Iterator[None]:
    """Run tasks of dask on the cluster at an address, or in threads here.

    Raises
    ------
    click.UsageError
        Both were asked for.
    UnsupportedError
        `distributed` is not installed.
    """
    if address is not None and workers is not None:
        raise click.UsageError("--workers are threads of this process; a cluster has its own")
    if address is None:
        import dask

        with dask.config.set(scheduler="threads", num_workers=workers):
            yield
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise UnsupportedError(
            "--scheduler needs the package 'distributed': pip install "
            "'precomputed-store[distributed]'"
        ) from error
    with Client(address):  # type: ignore[no-untyped-call]
        yield
