"""The command line: ``precomputed``.

A command is one module of this package with a `click.Command` called ``command``, and
one line in `COMMANDS`. Modules are imported when their command runs, so that
``precomputed --help`` is quick.
"""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Mapping
from typing import Any

import click

from precomputed_store import __version__
from precomputed_store.errors import PrecomputedError

__all__ = ["COMMANDS", "main"]

COMMANDS: Mapping[str, str] = {
    "convert": "Make a layer of a TIFF stack, NIfTI, HDF5, npy, zarr or OME-Zarr volume.",
    "copy": "Copy a layer, some of its scales, or a region of it.",
    "demo": "Write a small real volume, open it, compute on it, and show a picture.",
    "downsample": "Add coarser scales to a layer.",
    "info": "Show the metadata of a layer.",
    "mesh": "Make, get, list or remove meshes of segments.",
    "rm": "Remove a layer, a scale, or the chunks of a region.",
    "skeleton": "List, fetch, remove and convert skeletons.",
    "validate": "Check a layer against the specification, and its chunks on request.",
}
"""Name of each command (and of its module) → what it does, for ``--help``."""


def _remember_debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().meta[__name__] = True


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_remember_debug,
        help="Show the traceback of an error.",
    )


class _Commands(click.Group):
    """Commands that are imported when they run, and errors that are told in a sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        if not any("--debug" in option.opts for option in command.params):
            command.params.append(_debug_option())
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            # A legacy Windows code page has no "×": better a question mark than a crash.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (PrecomputedError, OSError, ValueError, TypeError, IndexError) as error:
            broken_pipe = isinstance(error, OSError) and error.errno == errno.EPIPE
            if broken_pipe or ctx.meta.get(__name__):
                raise
            hint = " (--debug shows where)" if isinstance(error, TypeError) else ""
            raise click.ClickException(f"{error}{hint}") from error


@click.group(
    cls=_Commands,
    params=[_debug_option()],
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="'precomputed COMMAND --help' explains a command.",
)
@click.version_option(__version__, message="precomputed-store %(version)s")
def main() -> None:
    """Neuroglancer Precomputed volumes on the command line."""
