"""What a volume says of itself in a terminal and in a notebook."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from precomputed_store.volume import Volume

__all__ = ["as_html", "as_text", "human_bytes"]


def as_text(volume: Volume) -> str:
    rows = "\n".join(f"  {name:<12}{value}" for name, value in _rows(volume))
    return f"<precomputed_store.Volume>\n{rows}"


def as_html(volume: Volume) -> str:
    rows = "".join(
        f"<tr><th style='text-align:left'>{name}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in _rows(volume)
    )
    return f"<strong>precomputed_store.Volume</strong><table>{rows}</table>"


def _rows(volume: Volume) -> list[tuple[str, str]]:
    scale, channels = volume.scale, volume.info.num_channels
    kind = f"{volume.layer_type}, {volume.dtype}"
    return [
        ("url", volume.url),
        ("type", kind if channels == 1 else f"{kind}, {channels} channels"),
        ("scale", f"{volume.scale_index} of {len(volume.scales)} ({scale.key!r})"),
        ("bounds", f"{volume.bounds} voxels"),
        ("size", f"{' × '.join(map(str, scale.size))} voxels, {human_bytes(volume.nbytes)}"),
        ("resolution", f"{' × '.join(f'{r:g}' for r in volume.resolution)} nm"),
        ("chunks", f"{' × '.join(map(str, volume.chunk_size))} voxels, {scale.encoding}"),
        ("sharded", "no" if scale.sharding is None else "yes"),
    ]


def human_bytes(count: float) -> str:
    """A number of bytes with a binary unit.

    Examples
    --------
    >>> human_bytes(250), human_bytes(3 * 2**30)
    ('250 B', '3 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1024 or unit == "PiB":
            break
        count /= 1024
    return f"{count:.4g} {unit}"
