"""``precomputed downsample``: coarser scales for a layer that is there."""

from __future__ import annotations

import sys
from typing import Any, cast

import click

import precomputed_store as ps
from precomputed_store.cli.options import Numbers, key_value_option, root_option, storage_option
from precomputed_store.cli.pyramid import (
    method_option,
    pyramid_option,
    read_sharding,
    sharding_option,
)
from precomputed_store.cli.region import read_scale
from precomputed_store.cli.scheduler import scheduler, scheduler_options
from precomputed_store.cli.text import by, console
from precomputed_store.metadata import Scale

__all__ = ["command"]


@click.command()
@click.argument("url")
@pyramid_option(default="auto")
@method_option
@click.option(
    "--scale", default="-1", help="Index or key of the scale to start from. Default: the coarsest."
)
@click.option("--encoding", metavar="NAME", help="Default: that of the scale started from.")
@key_value_option(
    "--encoding-option", "encoding_options", help="Parameter of it, such as jpeg_quality=90"
)
@click.option(
    "--chunk-size", type=Numbers("X,Y,Z", whole=True), help="Voxels of a chunk. Default: the same."
)
@sharding_option(default="same", more="same as the scale started from, none, ")
@click.option("--overwrite", is_flag=True, help="Replace scales that are there.")
@click.option("--resume", is_flag=True, help="Go on with a job that was interrupted.")
@scheduler_options
@click.option("--progress/--no-progress", default=None, help="Default: on a terminal.")
@storage_option
@root_option
def command(url: str, **options: Any) -> None:
    """Add coarser scales to the layer at URL.

    Each is made from the one before. The layer's info names them when all are written.

    \b
    precomputed downsample gs://bucket/em
    precomputed downsample labels --pyramid 2x2x1 --method mode --sharding auto
    """
    progress = sys.stderr.isatty() if options["progress"] is None else options["progress"]
    before = {scale.key for scale in ps.open_layer(
        url, storage_options=options["storage_options"] or None, root=options["root"]
    ).info.scales}  # fmt: skip
    with scheduler(options["scheduler"], options["workers"]):
        written = ps.downsample(
            url,
            options["pyramid"],
            scale=read_scale(options["scale"]),
            method=options["method"],
            encoding=options["encoding"],
            encoding_options=options["encoding_options"] or None,
            chunk_size=options["chunk_size"],
            sharding=read_sharding(options["sharding"]),
            overwrite=options["overwrite"],
            resume=options["resume"],
            progress=progress,
            storage_options=options["storage_options"] or None,
            root=options["root"],
        )
    _say(cast("ps.Volume", written), before)


def _say(volume: ps.Volume, before: set[str | None]) -> None:
    out = console()
    new = [scale for scale in volume.scales if scale.key not in before]
    if not new:
        out.print(f"{volume.url}: no new scales", soft_wrap=True)
    for scale in new:
        assert isinstance(scale, Scale)
        out.print(
            f"{volume.url}: {scale.key}, {by(scale.size)} voxels (x, y, z) of "
            f"{by(scale.resolution)} nm",
            soft_wrap=True,
        )
