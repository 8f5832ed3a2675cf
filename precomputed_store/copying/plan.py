"""How each scale of a layer is copied, and why so. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from precomputed_store.codecs.base import Codec
from precomputed_store.codecs.transcoding import transcoding
from precomputed_store.grid import XYZ, Box, ChunkGrid
from precomputed_store.metadata import Scale, VolumeInfo

__all__ = [
    "CopyPlan",
    "ScaleCopy",
    "Way",
    "choose_way",
    "same_chunks",
    "source_cell",
    "with_links",
]

Way: TypeAlias = Literal["shards", "chunks", "images", "recoded", "voxels"]
"""``shards``: whole files as they are. ``chunks``: encoded chunks as they are. ``images``:
encoded chunks from jpeg to jxl or back without voxels in between. ``recoded``: each chunk
decoded and encoded again by itself. ``voxels``: blocks of voxels, cut into other chunks."""

_WHAT: dict[Way, str] = {
    "shards": "shard files as they are",
    "chunks": "encoded chunks as they are",
    "images": "encoded chunks from one image format to the other, without decoding",
    "recoded": "chunks, each decoded and encoded again by itself",
    "voxels": "voxels, decoded and encoded again block by block",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleCopy:
    """One scale and what becomes of it.

    Attributes
    ----------
    source, target : Scale
        As it is, and as it will be. Both count voxels from the same origin.
    way : {"shards", "chunks", "images", "recoded", "voxels"}
    reason : str
        Why no shorter way is possible.
    """

    source: Scale
    target: Scale
    way: Way
    reason: str

    def explain(self) -> str:
        """One line that says what is copied how."""
        bounds, key = self.target.grid.bounds, self.source.key
        name = repr(key) if self.target.key == key else f"{key!r} as {self.target.key!r}"
        return f"scale {name} {bounds}: {_WHAT[self.way]} ({self.reason})"


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyPlan:
    """What a copy is going to do.

    Attributes
    ----------
    source, destination : str
        Addresses of the layers.
    info : VolumeInfo
        Of the copy, when everything is there.
    scales : tuple of ScaleCopy
        Finest first.
    folders : tuple of (str, str)
        Folders that `info` links, copied object by object: where they are, and will be.
    """

    source: str
    destination: str
    info: VolumeInfo
    scales: tuple[ScaleCopy, ...]
    folders: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """What is copied how, a line for each scale and folder."""
        lines = [f"{self.source} → {self.destination}"]
        lines += [f"  {scale.explain()}" for scale in self.scales]
        lines += [
            f"  folder {old!r}{'' if old == new else f' as {new!r}'}: objects as they are"
            for old, new in self.folders
        ]
        return "\n".join(lines)


def choose_way(source: Scale, target: Scale, *, recompress: bool) -> tuple[Way, str]:
    """The shortest way from one scale to another, and why it is none shorter.

    Parameters
    ----------
    source, target : Scale
    recompress : bool
        Whether the compression around chunks is to be done anew.
    """
    if not same_chunks(source, target):
        return "voxels", _other_chunks(source, target)
    if source.codec != target.codec:
        change = _other_codec(source.codec, target.codec)
        if transcoding(source.codec, target.codec) is not None:
            return "images", f"{change}; chunks that came from voxels are decoded"
        return "recoded", change
    if target.sharding is None:
        return "chunks", "same encoding and chunks"
    if source.sharding != target.sharding:
        return "chunks", "same encoding and chunks, other sharding"
    if source.grid != target.grid:
        return "chunks", "same encoding and chunks, numbered differently in the region"
    if recompress:
        return "chunks", "same sharding, compression done anew"
    return "shards", "same encoding, chunks and sharding"


def same_chunks(source: Scale, target: Scale) -> bool:
    """Whether every chunk of `target` has exactly the voxels of one of `source`."""
    return all(map(_same_cuts, _axes(source.grid), _axes(target.grid)))


def source_cell(source: ChunkGrid, target: ChunkGrid, cell: XYZ) -> XYZ:
    """The cell of `source` with the voxels of a cell of `target`, see `same_chunks`."""
    x, y, z = (
        (start - o) // c
        for start, o, c in zip(
            target.cell_box(cell).start, source.voxel_offset, source.chunk_size, strict=True
        )
    )
    return x, y, z


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of a chunk grid."""

    start: int
    stop: int
    length: int
    """Of its chunks."""


def _axes(grid: ChunkGrid) -> Iterator[_Axis]:
    bounds = grid.bounds
    for start, stop, length in zip(bounds.start, bounds.stop, grid.chunk_size, strict=True):
        yield _Axis(start, stop, length)


def _same_cuts(source: _Axis, target: _Axis) -> bool:
    into = target.start - source.start
    if into < 0 or target.stop > source.stop or into % source.length:
        return False
    whole = target.stop == source.stop or not (target.stop - source.start) % source.length
    size = target.stop - target.start
    alone = size <= source.length and size <= target.length
    return whole and (alone or source.length == target.length)


def _other_chunks(source: Scale, target: Scale) -> str:
    if source.chunk_size != target.chunk_size:
        return f"chunks of {target.chunk_size} instead of {source.chunk_size} voxels"
    around = source.grid.rounded_out(target.grid.bounds)
    return f"the region cuts through chunks, whose union is {around}"


def _other_codec(source: Codec, target: Codec) -> str:
    if source.name != target.name:
        return f"{target.name} instead of {source.name}"
    return f"{target.name} with other parameters"


def with_links(info: VolumeInfo, links: Mapping[str, str]) -> VolumeInfo:
    """A document that links these folders and no others."""
    return replace(
        info,
        mesh=links.get("mesh"),
        skeletons=links.get("skeletons"),
        segment_properties=links.get("segment_properties"),
    )


def rescaled(region: Box, source: Scale, target: Scale) -> Box:
    """The voxels of one scale that hold a region of another, rounded outward.

    The region that is left within the scale's bounds.
    """
    ratios = [a / b for a, b in zip(source.resolution, target.resolution, strict=True)]
    x0, y0, z0 = (_floor(a * r) for a, r in zip(region.start, ratios, strict=True))
    x1, y1, z1 = (-_floor(-b * r) for b, r in zip(region.stop, ratios, strict=True))
    return Box((x0, y0, z0), (x1, y1, z1)).intersection(target.grid.bounds)


def _floor(value: float) -> int:
    """The next smaller whole number, or the nearest if it is one but for rounding errors."""
    nearest = round(value)
    if abs(value - nearest) <= 1e-9 * max(1.0, abs(value)):
        return nearest
    return int(value // 1)


def moved(scale: Scale, region: Box, key: str) -> Scale:
    """A scale cut down to a region."""
    return replace(
        scale,
        key=key,
        size=region.shape,
        voxel_offset=region.start,
        chunk_sizes=(scale.chunk_size,),
    )
