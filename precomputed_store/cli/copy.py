"""``precomputed copy``: a layer → another place, form or part of it."""

from __future__ import annotations

import sys
from typing import Any, cast

import click

import precomputed_store as ps
from precomputed_store.cli.options import Numbers, key_value_option, root_option, storage_option
from precomputed_store.cli.pyramid import read_sharding, sharding_option
from precomputed_store.cli.region import REGION, read_scale
from precomputed_store.cli.scheduler import scheduler, scheduler_options
from precomputed_store.cli.text import console, count

__all__ = ["command"]


@click.command()
@click.argument("source")
@click.argument("destination")
@click.option(
    "--scale",
    "scales",
    multiple=True,
    help="Index or key of a scale to copy; may be repeated. Default: all.",
)
@click.option(
    "--region",
    type=REGION,
    help="Voxels to copy, in absolute coordinates of the finest of these scales.",
)
@click.option("--encoding", metavar="NAME", help="Default: that of SOURCE.")
@key_value_option(
    "--encoding-option", "encoding_options", help="Parameter of it, such as jpeg_quality=90"
)
@click.option(
    "--chunk-size", type=Numbers("X,Y,Z", whole=True), help="Voxels of a chunk. Default: the same."
)
@sharding_option(default="same", more="same, none, ")
@click.option(
    "--compress",
    type=click.Choice(["auto", "gzip", "br", "zstd", "none"]),
    default="auto",
    help="Compression around chunks that are objects of their own.",
)
@click.option("--linked", is_flag=True, help="Also copy meshes, skeletons and the like.")
@click.option("--verify", is_flag=True, help="Decode every chunk on the way.")
@click.option("--overwrite", is_flag=True, help="Replace a layer at DESTINATION, all of it.")
@click.option("--resume", is_flag=True, help="Go on with a copy that was interrupted.")
@click.option("--dry-run", is_flag=True, help="Say what would be copied how, and copy nothing.")
@scheduler_options
@click.option("--progress/--no-progress", default=None, help="Default: on a terminal.")
@storage_option
@root_option
@key_value_option("--source-storage-option", "source_options", help="The same for SOURCE")
@click.option("--source-root", metavar="FOLDER", help="As --root, for SOURCE.")
def command(source: str, destination: str, **options: Any) -> None:
    """Copy the layer at SOURCE to DESTINATION.

    Chunks are decoded only where they have to be: --dry-run says how each scale is copied.

    \b
    precomputed copy gs://bucket/em em-part --region 0:4096,0:4096,0:512
    precomputed copy labels s3://bucket/labels --sharding auto
    """
    progress = sys.stderr.isatty() if options["progress"] is None else options["progress"]
    with scheduler(options["scheduler"], options["workers"]):
        copied = ps.copy(
            source,
            destination,
            scales=_scales(options["scales"]),
            region=options["region"],
            encoding=options["encoding"],
            encoding_options=options["encoding_options"] or None,
            chunk_size=options["chunk_size"],
            sharding=read_sharding(options["sharding"]),
            compress=False if options["compress"] == "none" else options["compress"],
            linked=options["linked"],
            verify=options["verify"],
            mode="w" if options["overwrite"] else "w-",
            resume=options["resume"],
            dry_run=options["dry_run"],
            progress=progress,
            storage_options=options["storage_options"] or None,
            source_storage_options=options["source_options"] or None,
            root=options["root"],
            source_root=options["source_root"],
        )
    out = console()
    if options["dry_run"]:
        out.print(str(copied), soft_wrap=True, markup=False)
        return
    layer = cast("ps.Layer", copied)
    scales = count(len(layer.info.scales), "scale")
    out.print(f"{layer.storage.url}: {scales}", soft_wrap=True, markup=False)


def _scales(texts: tuple[str, ...]) -> list[Any] | None:
    return [read_scale(text) for text in texts] or None
