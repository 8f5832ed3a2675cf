"""``precomputed rm``: removing a layer, a scale or the chunks of a region."""

from __future__ import annotations

from typing import Any

import click

from precomputed_store.cli.options import root_option, storage_option
from precomputed_store.cli.region import REGION, read_scale
from precomputed_store.cli.text import console
from precomputed_store.copying.deleting import plan_deletion

__all__ = ["command"]


@click.command()
@click.argument("url")
@click.option("--scale", help="Index or key of the scale to remove. Default: the whole layer.")
@click.option(
    "--region",
    type=REGION,
    help="Remove the chunks of these voxels of --scale, in absolute coordinates, and no others.",
)
@click.option("--linked", is_flag=True, help="With the layer, also its meshes and the like.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@click.option("--progress/--no-progress", default=None, help="Default: on a terminal.")
@storage_option
@root_option
def command(url: str, **options: Any) -> None:
    """Remove the layer at URL, or a part of it, after asking.

    Only what is clearly of the layer goes: chunks and shards of its scales, and its info.
    """
    removal = plan_deletion(
        url,
        scale=None if options["scale"] is None else read_scale(options["scale"]),
        region=options["region"],
        linked=options["linked"],
        storage_options=options["storage_options"] or None,
        root=options["root"],
    )
    out = console()
    out.print(str(removal), soft_wrap=True, markup=False)
    if options["dry_run"]:
        return
    if not options["yes"]:
        click.confirm(f"Remove {removal.amount}?", abort=True, err=True)
    shown = removal.is_long if options["progress"] is None else options["progress"]
    removal.carry_out(progress=shown)
    out.print("removed")
