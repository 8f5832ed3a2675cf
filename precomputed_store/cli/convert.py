"""``precomputed convert``: a volume in another format → a layer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

import precomputed_store as ps
from precomputed_store.cli.options import Numbers, key_value_option, root_option, storage_option
from precomputed_store.cli.pyramid import (
    method_option,
    pyramid_option,
    read_sharding,
    sharding_option,
)
from precomputed_store.cli.scheduler import scheduler, scheduler_options
from precomputed_store.cli.text import by, console, count, size
from precomputed_store.errors import PrecomputedWarning
from precomputed_store.metadata import DATA_TYPES

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import Console

    from precomputed_store.volume import Volume
    from precomputed_store.writing.planned import WritePlan

__all__ = ["command"]


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.argument("destination")
@click.option(
    "--axes",
    metavar="LETTERS",
    help="Which axis of the file is which, as in zyx or xyzc (c: channel). Default: what the "
    "file says; else zyx, or czyx for four axes.",
)
@click.option("--format", help="Format of SOURCE, where its suffix does not say it.")
@click.option("--layer-type", type=click.Choice(["image", "segmentation"]))
@click.option(
    "--resolution",
    type=Numbers("X,Y,Z"),
    help="Size of a voxel in nanometres. Required if the file does not say it.",
)
@click.option(
    "--voxel-offset",
    type=Numbers("X,Y,Z", whole=True),
    help="Absolute coordinates of the first voxel.",
)
@click.option(
    "--dtype",
    metavar="TYPE",
    help="Convert voxels to this type, such as uint32. A value that would change is an error.",
)
@click.option(
    "--rescale",
    type=Numbers("LOW,HIGH"),
    help="Values that become the least and the greatest of --dtype (uint8 unless given); those "
    "beyond are clipped.",
)
@click.option(
    "--encoding",
    metavar="NAME",
    help="raw, jpeg, png, compressed_segmentation, … Default: compressed_segmentation for labels "
    "of 32 and 64 bits, else raw.",
)
@key_value_option(
    "--encoding-option", "encoding_options", help="Parameter of it, such as jpeg_quality=90"
)
@click.option(
    "--chunk-size",
    "--target-chunk-size",
    "chunk_size",
    type=Numbers("X,Y,Z", whole=True, alone=True),
    help="Voxels of a chunk; one number for all three. Default: 64.",
)
@pyramid_option(default=None)
@method_option
@sharding_option(default=None)
@click.option("--overwrite", is_flag=True, help="Replace a layer at DESTINATION, all of it.")
@click.option("--resume", is_flag=True, help="Go on with a conversion that was interrupted.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@scheduler_options
@click.option("--progress/--no-progress", default=None, help="Default: on a terminal.")
@storage_option
@root_option
@key_value_option(
    "--source-option", "source_options", help="The same for a SOURCE that is a zarr or layer URL"
)
def command(sources: tuple[str, ...], destination: str, **options: Any) -> None:
    """Convert SOURCE into a Precomputed layer at DESTINATION.

    SOURCE is a TIFF, NIfTI (.nii, .nii.gz), HDF5, .npy, .npz, zarr or OME-Zarr volume;
    a folder, a pattern or a list of TIFF, PNG or JPEG slices (slice2 comes before
    slice10); or a Precomputed layer. FILE#NAME says which array of a file:
    file.h5#/volumes/raw, image.zarr#0. Nothing is loaded as a whole.

    \b
    precomputed convert slices/ gs://bucket/em --resolution 4,4,40 --encoding jpeg
    precomputed convert labels.tif out/ --resolution 798,798,2000 \\
        --layer-type segmentation
    """
    with _in_words_of_options(), _notes_on_stderr():
        array = ps.open_source(
            sources if len(sources) > 1 else sources[0],
            axes=options["axes"],
            format=options["format"],
            resolution=options["resolution"],
            voxel_offset=options["voxel_offset"],
            dtype=options["dtype"],
            rescale=options["rescale"],
            storage_options=options["source_options"],
        )
        _check_type(array, options)
        out = console()
        _say_source(array, out)
        if options["dry_run"]:
            out.print(str(_plan(array, destination, options)), soft_wrap=True)
            return
        with scheduler(options["scheduler"], options["workers"]):
            written = _write(array, destination, options)
    _say_layer(written, out)


def _plan(array: xr.DataArray, destination: str, options: dict[str, Any]) -> WritePlan:
    return ps.plan(
        array,
        destination,
        layer_type=options["layer_type"],
        encoding=options["encoding"],
        encoding_options=options["encoding_options"] or None,
        chunk_size=_chunk_size(options["chunk_size"], array),
        sharding=read_sharding(options["sharding"]),
        pyramid=options["pyramid"],
        mode="w" if options["overwrite"] else "w-",
        storage_options=options["storage_options"] or None,
        root=options["root"],
    )


def _write(array: xr.DataArray, destination: str, options: dict[str, Any]) -> Volume:
    written = ps.to_precomputed(
        array,
        destination,
        layer_type=options["layer_type"],
        encoding=options["encoding"],
        encoding_options=options["encoding_options"] or None,
        chunk_size=_chunk_size(options["chunk_size"], array),
        sharding=read_sharding(options["sharding"]),
        pyramid=options["pyramid"],
        method=options["method"],
        mode="w" if options["overwrite"] else "w-",
        resume=options["resume"],
        progress=options["progress"],
        storage_options=options["storage_options"] or None,
        root=options["root"],
    )
    return cast("Volume", written)


def _chunk_size(given: tuple[int, ...] | None, array: xr.DataArray) -> Any:
    """One number is for every axis that is as long."""
    if given is None or len(given) == 3:
        return given
    return tuple(min(given[0], array.sizes[name]) for name in "xyz")


def _check_type(array: xr.DataArray, options: dict[str, Any]) -> None:
    """Ask for a data type that other programs read, where the file has none of them."""
    if array.dtype.name in DATA_TYPES or options["dtype"] is not None:
        return
    advice = "--dtype float32" if array.dtype.kind == "f" else "--dtype uint64 for labels"
    raise click.UsageError(
        f"{array.attrs['source']} holds {array.dtype}, which Neuroglancer cannot read: add "
        f"{advice} (every value is checked), or --rescale LOW,HIGH to make it uint8"
    )


@contextmanager
def _notes_on_stderr() -> Iterator[None]:
    """Warnings of this package as lines for people."""
    show = warnings.showwarning

    def told(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, PrecomputedWarning):
            click.echo(f"Note: {message}", err=True)
        else:
            show(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.simplefilter("always", PrecomputedWarning)
        warnings.showwarning = told
        yield


_OPTIONS = {
    "pass resolution=(x, y, z) in nanometres": "add --resolution X,Y,Z in nanometres",
    "pass layer_type='image' or layer_type='segmentation'": "add --layer-type image or "
    "--layer-type segmentation",
    "mode='w' replaces it; mode='r+' or region= writes into it": "--overwrite replaces it",
    "resume=True goes on with it, mode='w' replaces what it left": "--resume goes on with it, "
    "--overwrite replaces what it left",
    "mode='w' removes them": "--overwrite removes them",
    "or pass allow_misread=True to write it for other readers": "such as raw",
    "for example axes='zyx' or axes='czyx'": "for example --axes zyx or --axes czyx",
    "or say which, format=": "or say which, --format",
    "; the volume's data_type is": "; --dtype or --rescale converts to that, the voxels are",
}
"""Advice for Python → advice for the command line."""


@contextmanager
def _in_words_of_options() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        text = str(error)
        for python, option in _OPTIONS.items():
            text = text.replace(python, option)
        if text == str(error):
            raise
        raise ValueError(text) from error


def _say_source(array: xr.DataArray, out: Console) -> None:
    said = array.attrs
    lengths = ", ".join(f"{name} {length}" for name, length in array.sizes.items())
    became = "" if said["source_dtype"] == array.dtype.name else f" → {array.dtype}"
    out.print(
        f"{said['source']} ({said['source_format']}): {lengths}, {said['source_dtype']}{became}, "
        f"{size(array.nbytes)}",
        soft_wrap=True,
    )


def _say_layer(volume: Volume, out: Console) -> None:
    scale = volume.scale
    chunks = count(math.prod(scale.grid.shape), "chunk")
    coarser = len(volume.info.scales) - 1
    more = f", and {count(coarser, 'coarser scale')}" if coarser else ""
    out.print(
        f"{volume.layer.storage.url}: {volume.layer_type}, {by(scale.size)} voxels (x, y, z) of "
        f"{by(scale.resolution)} nm, {scale.encoding}, {chunks}{more}",
        soft_wrap=True,
    )
