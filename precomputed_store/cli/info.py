"""``precomputed info``: the metadata of a layer, and what follows from it."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import click

from precomputed_store.cli.options import json_option, url_options
from precomputed_store.cli.text import by, console, count, print_json, problems_json, size
from precomputed_store.errors import CompatibilityWarning
from precomputed_store.layer import Layer, open_layer
from precomputed_store.metadata import DamagedScale, Scale, VolumeInfo

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["command", "describe"]


@click.command()
@url_options
@json_option
def command(
    url: str,
    storage_options: dict[str, Any],
    missing_statuses: tuple[int, ...],
    root: str | None,
    as_json: bool,
) -> None:
    """Show the metadata of the layer at URL: one request, no chunk is read.

    Scales that cannot be used are listed with everything that is wrong with them, and
    so is what other programs refuse or misread.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompatibilityWarning)
        layer = open_layer(
            url, storage_options=storage_options, missing_statuses=missing_statuses, root=root
        )
    if as_json:
        print_json(describe(layer))
    else:
        _print(layer)


def describe(layer: Layer) -> dict[str, Any]:
    """The metadata of a layer and what follows from it, as plain JSON.

    Sizes are in voxels, resolutions in nanometres, both in the order x, y, z.
    """
    info = layer.info
    return {
        "url": layer.storage.url,
        "layer_type": info.layer_type,
        "data_type": info.data_type,
        "num_channels": info.num_channels,
        **info.links,
        "warnings": problems_json(info.warnings),
        "scales": [
            {"index": index, **_describe_scale(info, scale)}
            for index, scale in enumerate(info.scales)
        ],
        "info": info.to_json(),
    }


def _describe_scale(info: VolumeInfo, scale: Scale | DamagedScale) -> dict[str, Any]:
    if isinstance(scale, DamagedScale):
        return {
            "key": scale.key,
            "usable": False,
            "problems": problems_json(scale.problems),
        }
    bounds = scale.grid.bounds
    return {
        "key": scale.key,
        "usable": True,
        "resolution_nm": list(scale.resolution),
        "size": list(scale.size),
        "voxel_offset": list(scale.voxel_offset),
        "bounds": [list(bounds.start), list(bounds.stop)],
        "chunk_size": list(scale.chunk_size),
        "chunk_sizes": [list(chunk_size) for chunk_size in scale.chunk_sizes],
        "encoding": scale.encoding,
        "encoding_parameters": scale.codec.to_parameters(),
        "sharding": None if scale.sharding is None else scale.sharding.to_json(),
        "hidden": scale.hidden,
        "grid_shape": list(scale.grid.shape),
        "num_chunks": scale.grid.num_cells,
        "num_voxels": math.prod(scale.size),
        "num_bytes": _num_bytes(info, scale),
    }


def _num_bytes(info: VolumeInfo, scale: Scale) -> int:
    return math.prod(scale.size) * info.num_channels * info.dtype.itemsize


def _print(layer: Layer) -> None:
    info, out = layer.info, console()
    out.print(layer.storage.url, style="bold", soft_wrap=True)
    channels, scales = count(info.num_channels, "channel"), count(len(info.scales), "scale")
    out.print(f"{info.layer_type}, {info.data_type}, {channels}, {scales}")
    for name, link in info.links.items():
        out.print(f"{name}: {link!r}")
    out.print(_table(info))
    for index, scale in enumerate(info.scales):
        if isinstance(scale, DamagedScale):
            out.print(f"scales[{index}] ({scale.key!r}) cannot be used:", style="red")
            for problem in scale.problems:
                out.print(f"  - {problem}", soft_wrap=True)
    if info.warnings:
        out.print("Other programs may refuse or misread this layer:", style="yellow")
        for note in info.warnings:
            out.print(f"  - {note}", soft_wrap=True)


def _table(info: VolumeInfo) -> Table:
    """One row per scale, narrow enough for 80 columns where numbers are of usual length."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True)
    for heading in ("", "key", "nm / voxel", "size (voxels)", "chunks"):
        table.add_column(heading, overflow="fold")
    table.add_column("data", justify="right")
    for index, scale in info.usable_scales:
        table.add_row(
            str(index),
            scale.key + ("\n(hidden)" if scale.hidden else ""),
            by(scale.resolution),
            f"{by(scale.size)}\nfrom {', '.join(map(str, scale.voxel_offset))}",
            "\n".join(_chunk_lines(scale)),
            size(_num_bytes(info, scale)),
        )
    return table


def _chunk_lines(scale: Scale) -> list[str]:
    sizes = " and ".join(map(by, scale.chunk_sizes))
    lines = [f"{scale.grid.num_cells:,} of {sizes}", scale.encoding]
    for name, value in scale.codec.to_parameters().items():
        text = by(value) if isinstance(value, list) else str(value)
        lines.append(f"{name.removeprefix(scale.encoding + '_')} {text}")
    sharding = scale.sharding
    if sharding is not None:
        shards, minishards = 1 << sharding.shard_bits, 1 << sharding.minishard_bits
        lines.append(f"in up to {count(shards, 'shard')} of {count(minishards, 'minishard')}")
    return lines
