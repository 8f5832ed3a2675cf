"""``precomputed skeleton``: skeletons by segment id, and SWC files."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from precomputed_store.cli.options import (
    Numbers,
    box_options,
    json_option,
    queried_ids,
    storage_option,
)
from precomputed_store.cli.swc_folder import SwcFolder, write_swc_file
from precomputed_store.cli.text import count, print_json
from precomputed_store.errors import MetadataError, VolumeNotFoundError
from precomputed_store.metadata.skeleton import VertexAttribute
from precomputed_store.progress import progress_bar
from precomputed_store.skeleton import Skeleton
from precomputed_store.skeleton_source import SkeletonSource, open_skeletons
from precomputed_store.skeleton_writing import delete_skeletons, write_skeletons
from precomputed_store.volume import open_volume

__all__ = ["command"]

_AT_ONCE = 100
_ID = click.IntRange(0, 2**64 - 1)
_SWC_ATTRIBUTES = (VertexAttribute("radius"), VertexAttribute("vertex_types"))

_scale_option = click.option(
    "--scale",
    type=Numbers("X,Y,Z", alone=True),
    default="1",
    help="Nanometres per unit of the SWC files: 1000 if they are in µm. Default: 1.",
)
_progress_option = click.option(
    "--progress/--no-progress", default=None, help="Default: on a terminal."
)
_break_option = click.option(
    "--break-cycles", is_flag=True, help="Leave out edges that close a cycle; SWC holds trees."
)


@click.group()
def command() -> None:
    """Skeletons of a layer, or of a folder of skeletons, at URL."""


@command.command()
@click.argument("url")
@box_options
@json_option
@storage_option
def ls(url: str, box: Any, index: str | None, **options: Any) -> None:
    """List the segment ids that have a skeleton."""
    source = _open(url, options["storage_options"])
    found = queried_ids(source, box, index)
    ids = source.ids() if found is None else found
    if options["as_json"]:
        # As text: JavaScript rounds numbers beyond 2**53.
        print_json([str(segment_id) for segment_id in ids])
        return
    for segment_id in ids:
        click.echo(segment_id)


@command.command()
@click.argument("url")
@click.argument("ids", type=_ID, nargs=-1, required=True)
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for files ID.swc. Default, of one skeleton: standard output.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@_scale_option
@_break_option
@_progress_option
@storage_option
def get(url: str, ids: tuple[int, ...], output: Path | None, **options: Any) -> None:
    """Fetch skeletons as SWC files."""
    if output is None and len(ids) > 1:
        raise click.UsageError("--output says which folder to put several skeletons into")
    source = _open(url, options["storage_options"])
    wanted = list(dict.fromkeys(ids))
    if output is None:
        (skeleton,) = _fetch(source, wanted).values()
        click.echo(_swc(wanted[0], skeleton, options), nl=False)
        return
    _write_files(source, wanted, output, options)


@command.command()
@click.argument("url")
@click.argument("ids", type=_ID, nargs=-1, required=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@storage_option
def rm(url: str, ids: tuple[int, ...], yes: bool, storage_options: dict[str, Any]) -> None:
    """Remove skeletons, after asking. They may be absent."""
    source = _open(url, storage_options)
    stored = [i for i, there in source.reader.contains(ids).items() if there]
    if not stored:
        click.echo("none of these is stored")
        return
    if not yes:
        what = count(len(stored), "skeleton")
        click.confirm(f"Remove {what} from {source.storage.url}?", abort=True, err=True)
    delete_skeletons(source.storage.url, stored, storage_options=storage_options or None)
    click.echo(f"removed {count(len(stored), 'skeleton')}")


@command.command()
@click.argument("url")
@click.argument("database")
@_progress_option
@storage_option
def index(url: str, database: str, **options: Any) -> None:
    """Copy the spatial index into DATABASE, for 'ls --box --index'.

    DATABASE is a file of SQLite or a URL of SQLAlchemy; an index there is replaced.

    \b
    precomputed skeleton index gs://bucket/layer index.db
    precomputed skeleton index layer postgresql+pg8000://user@host/name
    """
    shown = sys.stderr.isatty() if options["progress"] is None else options["progress"]
    _open(url, options["storage_options"]).save_index(database, progress=shown)


@command.command()
@click.argument("source")
@click.argument("target")
@click.option(
    "--sharding",
    type=click.Choice(["auto", "none"]),
    help="Of a new folder of skeletons: few large files, or one for each. Default: none.",
)
@click.option("--spatial-index", is_flag=True, help="Write an index for 'ls --box'.")
@click.option("--replace", is_flag=True, help="Remove the skeletons of all other ids.")
@click.option("--overwrite", is_flag=True, help="Replace SWC files that exist.")
@_scale_option
@_break_option
@_progress_option
@storage_option
def convert(source: str, target: str, **options: Any) -> None:
    """Make skeletons at TARGET of the SWC files in the folder SOURCE, or the reverse.

    SWC files are named after segment ids: 720575940.swc. TARGET is then the folder of
    skeletons, best within the folder of a layer. If SOURCE holds no SWC files, it is a
    layer or a folder of skeletons, and TARGET a local folder for SWC files.
    """
    if not _holds_swc(Path(source)):
        _check_unused(options, "sharding", "spatial_index", "replace")
        skeletons = _open_source(source, options["storage_options"])
        _write_files(skeletons, skeletons.ids(), Path(target), options)
        return
    _check_unused(options, "overwrite", "break_cycles")
    _store_files(Path(source), target, options)


def _store_files(folder: Path, target: str, options: dict[str, Any]) -> None:
    total = sum(1 for path in folder.iterdir() if path.suffix.lower() == ".swc")
    with _bar("reading and storing", total, options) as advance:
        skeletons = SwcFolder(folder, scale=_scale(options["scale"]), when_read=lambda: advance(1))
        is_new = _is_new(target, options["storage_options"])
        written = write_skeletons(
            target,
            skeletons,
            sharding="auto" if options["sharding"] == "auto" else None,
            attributes=_SWC_ATTRIBUTES if is_new else None,
            spatial_index=True if options["spatial_index"] else None,
            mode="replace" if options["replace"] else "put",
            storage_options=options["storage_options"] or None,
        )
    click.echo(f"{count(len(skeletons), 'skeleton')} stored at {written.storage.url}")


def _is_new(url: str, storage_options: dict[str, Any]) -> bool:
    try:
        open_skeletons(url, storage_options=storage_options or None)
    except VolumeNotFoundError:
        return True
    return False


def _write_files(
    source: SkeletonSource, ids: Iterable[int], folder: Path, options: dict[str, Any]
) -> None:
    total = len(ids) if isinstance(ids, list) else None
    done = 0
    with _bar("writing", total, options) as advance:
        for group in _groups(ids):
            files = {segment_id: folder / f"{segment_id}.swc" for segment_id in group}
            there = [path for path in files.values() if path.exists()]
            if there and not options["overwrite"]:
                raise FileExistsError(f"{there[0]} exists; replace it with --overwrite")
            for segment_id, skeleton in _fetch(source, group).items():
                text = _swc(segment_id, skeleton, options)
                folder.mkdir(parents=True, exist_ok=True)
                write_swc_file(files[segment_id], text)
                advance(1)
                done += 1
    click.echo(f"{count(done, 'file')} written to {folder}")


def _fetch(source: SkeletonSource, ids: list[int]) -> dict[int, Skeleton]:
    found = source.get(ids, missing="omit")
    if absent := [segment_id for segment_id in ids if segment_id not in found]:
        shown = ", ".join(map(str, absent[:5])) + (", …" if len(absent) > 5 else "")
        raise click.ClickException(f"{source.storage.url}: no skeleton of {shown}")
    return found


def _swc(segment_id: int, skeleton: Skeleton, options: dict[str, Any]) -> str:
    try:
        return skeleton.to_swc(
            scale=_scale(options["scale"]), break_cycles=options["break_cycles"]
        )
    except ValueError as error:
        raise ValueError(f"skeleton {segment_id}: {error} (--break-cycles)") from error


def _scale(numbers: tuple[float, ...]) -> float | tuple[float, ...]:
    return numbers[0] if len(numbers) == 1 else numbers


def _open(url: str, storage_options: dict[str, Any]) -> SkeletonSource:
    """The skeletons of a folder, or those that a layer links."""
    given = storage_options or None
    try:
        return open_skeletons(url, storage_options=given)
    except MetadataError as error:
        try:
            volume = open_volume(url, storage_options=given)
        except MetadataError:
            raise error from None
        return volume.skeletons


def _open_source(url: str, storage_options: dict[str, Any]) -> SkeletonSource:
    try:
        return _open(url, storage_options)
    except VolumeNotFoundError as error:
        raise VolumeNotFoundError(
            f"{url}: there are neither files *.swc nor an info file of skeletons or of a layer"
        ) from error


def _holds_swc(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() == ".swc" for path in folder.iterdir())


def _check_unused(options: dict[str, Any], *names: str) -> None:
    for name in names:
        if options[name]:
            shown = name.replace("_", "-")
            raise click.UsageError(f"--{shown} says nothing in this direction; leave it out")


def _groups(ids: Iterable[int]) -> Iterator[list[int]]:
    remaining = iter(ids)
    while group := list(itertools.islice(remaining, _AT_ONCE)):
        yield group


def _bar(what: str, total: int | None, options: dict[str, Any]) -> Any:
    shown = sys.stderr.isatty() if options["progress"] is None else options["progress"]
    return progress_bar(what, total=total, enabled=shown, unit="skeletons")
