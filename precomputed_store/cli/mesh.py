"""``precomputed mesh``: making, getting, listing, indexing and removing meshes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click

import precomputed_store as ps
from precomputed_store.cli.options import Numbers, box_options, queried_ids, storage_option
from precomputed_store.cli.pyramid import read_sharding, sharding_option
from precomputed_store.cli.region import read_scale
from precomputed_store.cli.scheduler import scheduler, scheduler_options
from precomputed_store.cli.text import console

__all__ = ["command"]

_BITS: dict[str | None, Literal[10, 16] | None] = {None: None, "10": 10, "16": 16}


class _Lods(click.ParamType[Any]):
    """``auto`` or a whole number."""

    name = "n|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto" or isinstance(value, int):
            return value
        if not str(value).isdecimal():
            self.fail(f"{value!r}: expected a number, or auto", param, ctx)
        return int(value)


@click.group()
def command() -> None:
    """Meshes of a segmentation: make, get, ls, index, rm."""


@command.command()
@click.argument("url")
@click.argument("ids", nargs=-1, type=int)
@click.option("--scale", default="0", help="Index or key of the scale. Default: the finest.")
@click.option("--kind", type=click.Choice(["multilod", "legacy"]), help="Default: multilod.")
@click.option("--folder", help="Relative to the layer. Default: what its info links, or mesh.")
@sharding_option(default="none", more="none, ")
@click.option("--lods", type=_Lods(), default="auto", help="Levels of detail. Default: auto.")
@click.option("--bits", type=click.Choice(["10", "16"]), help="Of coordinates. Default: 16.")
@click.option(
    "--min-voxels", type=click.IntRange(min=0), default=0, help="Leave smaller ones out."
)
@click.option("--smooth", type=click.IntRange(min=0), default=0, help="Rounds of smoothing.")
@click.option("--simplify", type=float, default=1.0, help="So many times fewer triangles.")
@click.option("--block", type=Numbers("X,Y,Z", whole=True), help="Voxels that a task holds.")
@click.option("--overwrite", is_flag=True, help="Replace all meshes of the folder.")
@click.option("--resume", is_flag=True, help="Go on with a job that was interrupted.")
@scheduler_options
@click.option("--progress/--no-progress", default=None, help="Default: on a terminal.")
@storage_option
def make(url: str, ids: tuple[int, ...], **options: Any) -> None:
    """Make meshes of the segments of the layer at URL: of all, or of those with IDS.

    \b
    precomputed mesh make gs://bucket/segmentation --sharding auto
    precomputed mesh make labels 17 42 --kind legacy --smooth 10
    """
    progress = sys.stderr.isatty() if options["progress"] is None else options["progress"]
    with scheduler(options["scheduler"], options["workers"]), _in_words_of_options():
        source = ps.make_meshes(
            url,
            ids=ids or None,
            scale=read_scale(options["scale"]),
            kind=options["kind"],
            folder=options["folder"],
            sharding=read_sharding(options["sharding"]),
            lods=options["lods"],
            vertex_quantization_bits=_BITS[options["bits"]],
            min_voxels=options["min_voxels"],
            smooth=options["smooth"],
            simplify=options["simplify"],
            block_shape=options["block"],
            mode="w" if options["overwrite"] else "a",
            resume=options["resume"],
            progress=progress,
            storage_options=options["storage_options"] or None,
        )
    console().print(str(source).strip("<>"), soft_wrap=True, markup=False)


@contextmanager
def _in_words_of_options() -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        text = str(error).replace("resume=True", "--resume").replace("mode='w'", "--overwrite")
        raise FileExistsError(text) from error


@command.command()
@click.argument("url")
@click.argument("ids", nargs=-1, type=int, required=True)
@click.option("--output", "-o", type=click.Path(path_type=Path), default=Path(), help="A folder.")
@click.option("--format", "suffix", type=click.Choice(["ply", "obj", "stl", "glb"]), default="ply")
@click.option("--lod", type=int, default=0, help="Level of detail; -1 is the coarsest.")
@click.option("--fuse", is_flag=True, help="One file of all, named after the first.")
@storage_option
def get(url: str, ids: tuple[int, ...], **options: Any) -> None:
    """Save the meshes of segments IDS as files, in nanometres.

    URL is a layer or a folder of meshes.
    """
    source = ps.open_meshes(url, storage_options=options["storage_options"] or None)
    found = source.get(ids, lod=options["lod"], deduplicate=True)
    if options["fuse"]:
        found = {ids[0]: ps.Mesh.concatenate(*found.values())}
    folder: Path = options["output"]
    folder.mkdir(parents=True, exist_ok=True)
    for segment_id, mesh in found.items():
        path = folder / f"{segment_id}.{options['suffix']}"
        mesh.save(path)
        text = f"{path}: {len(mesh.vertices)} vertices, {len(mesh.faces)} faces"
        console().print(text, soft_wrap=True, markup=False, highlight=False)


@command.command()
@click.argument("url")
@box_options
@storage_option
def ls(url: str, box: Any, index: str | None, storage_options: dict[str, Any]) -> None:
    """List the segments that have a mesh, one a line."""
    source = ps.open_meshes(url, storage_options=storage_options or None)
    found = queried_ids(source, box, index)
    for segment_id in source.ids() if found is None else found:
        click.echo(segment_id)


@command.command()
@click.argument("url")
@click.argument("database")
@click.option("--progress/--no-progress", default=None, help="Default: on a terminal.")
@storage_option
def index(url: str, database: str, **options: Any) -> None:
    """Copy the spatial index into DATABASE, for 'ls --box --index'.

    DATABASE is a file of SQLite or a URL of SQLAlchemy; an index there is replaced.
    """
    shown = sys.stderr.isatty() if options["progress"] is None else options["progress"]
    source = ps.open_meshes(url, storage_options=options["storage_options"] or None)
    source.save_index(database, progress=shown)


@command.command()
@click.argument("url")
@click.argument("ids", nargs=-1, type=int, required=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@storage_option
def rm(url: str, ids: tuple[int, ...], yes: bool, storage_options: dict[str, Any]) -> None:
    """Remove the meshes of segments IDS, after asking."""
    if not yes:
        click.confirm(f"Remove the meshes of {len(ids)} segments?", abort=True, err=True)
    ps.delete_meshes(url, ids, storage_options=storage_options or None)
