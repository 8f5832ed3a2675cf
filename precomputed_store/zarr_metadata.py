"""A layer as the documents of a Zarr v3 hierarchy, and the keys of its chunks. Pure, no I/O.

The root is a group that OME-Zarr readers see as a multiscale image; below it there is one
array per usable scale, named by the scale's index in `info`. Axes are
``(channel, z, y, x)``. Specifications: Zarr v3 core; OME-NGFF 0.5, "multiscales".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from precomputed_store.cached import cached_property
from precomputed_store.codecs import Codec
from precomputed_store.grid import XYZ, ChunkGrid
from precomputed_store.metadata import Scale, VolumeInfo

__all__ = ["CODEC_NAME", "DIMENSION_NAMES", "ChunkKey", "ZarrHierarchy", "codec_configuration"]

CODEC_NAME = "precomputed"
DIMENSION_NAMES = ("channel", "z", "y", "x")
DOCUMENT = "zarr.json"

_NUMBER = "(0|[1-9][0-9]*)"
_CHUNK_KEY = re.compile(f"{_NUMBER}/c/0/{_NUMBER}/{_NUMBER}/{_NUMBER}")


class ChunkKey(NamedTuple):
    """What a chunk's key in the hierarchy stands for."""

    scale_index: int
    cell: XYZ


@dataclass(frozen=True, kw_only=True)
class ZarrHierarchy:
    """The keys of the hierarchy and the documents among their values.

    Attributes
    ----------
    info : VolumeInfo
        The layer's metadata.
    name : str
        What the multiscale image is called.
    decoded : bool
        Chunks are plain little-endian voxels, padded to their full size, rather than as
        they are stored.
    only : int, optional
        Index of the one scale to show.
    """

    info: VolumeInfo
    name: str = ""
    decoded: bool = False
    only: int | None = None

    @cached_property
    def scales(self) -> dict[int, Scale]:
        """The scales shown, by index."""
        return {
            index: scale
            for index, scale in self.info.usable_scales
            if self.only is None or index == self.only
        }

    @cached_property
    def documents(self) -> dict[str, bytes]:
        """Every metadata document, by key; the root's comes first."""
        arrays = {
            str(index): array_document(self.info, scale, decoded=self.decoded)
            for index, scale in self.scales.items()
        }
        nodes = {DOCUMENT: _group_document(self.info, self.scales, arrays, name=self.name)}
        nodes |= {f"{path}/{DOCUMENT}": document for path, document in arrays.items()}
        return {key: json.dumps(node, indent=2).encode() for key, node in nodes.items()}

    @cached_property
    def _grids(self) -> dict[int, ChunkGrid]:
        return {index: scale.grid for index, scale in self.scales.items()}

    def chunk(self, key: str) -> ChunkKey | None:
        """The chunk with this key, or None if there cannot be one."""
        match = _CHUNK_KEY.fullmatch(key)
        if match is None:
            return None
        index, z, y, x = map(int, match.groups())
        grid = self._grids.get(index)
        if grid is None or not all(i < n for i, n in zip((x, y, z), grid.shape, strict=True)):
            return None
        return ChunkKey(index, (x, y, z))

    def holds_document(self, key: str, text: bytes) -> bool:
        """Whether `text` says the same as the document with this key."""
        try:
            return bool(json.loads(text) == json.loads(self.documents[key]))
        except ValueError:
            return False

    def folders(self, path: str) -> tuple[str, ...] | None:
        """Children of a folder that are there whatever is stored; None if it is no folder.

        Below ``<index>/c/0`` the children are those of the chunks that are stored: these
        folders have none of their own.
        """
        if not path:
            return (DOCUMENT, *map(str, self.scales))
        index, *rest = path.split("/")
        if index not in map(str, self.scales):
            return None
        if not rest:
            return (DOCUMENT, "c")
        if rest == ["c"]:
            return ("0",)
        depth = len(rest) - 2
        is_chunk_folder = rest[:2] == ["c", "0"] and depth <= 2
        if not is_chunk_folder:
            return None
        padding = "/0" * (3 - depth)
        return () if self.chunk(path + padding) is not None else None


def chunk_key(index: int, cell: XYZ) -> str:
    """The key of a chunk."""
    x, y, z = cell
    return f"{index}/c/0/{z}/{y}/{x}"


def codec_configuration(codec: Codec, grid: ChunkGrid) -> dict[str, Any]:
    """The configuration of the zarr codec.

    All names are those of a scale in `info`, all triples are x, y, z.
    """
    return {
        "encoding": codec.name,
        "size": list(grid.size),
        "chunk_size": list(grid.chunk_size),
        "voxel_offset": list(grid.voxel_offset),
        **codec.to_parameters(),
    }


def array_document(info: VolumeInfo, scale: Scale, *, decoded: bool) -> dict[str, Any]:
    """The ``zarr.json`` of one scale."""
    if decoded:
        codec: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    else:
        codec = {"name": CODEC_NAME, "configuration": codec_configuration(scale.codec, scale.grid)}
    fill_value = info.dtype.type(0).item()
    return {
        "shape": [info.num_channels, *reversed(scale.size)],
        "data_type": info.data_type,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [info.num_channels, *reversed(scale.chunk_size)]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_value,
        "codecs": [codec],
        "attributes": _array_attributes(info, scale),
        "dimension_names": list(DIMENSION_NAMES),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _array_attributes(info: VolumeInfo, scale: Scale) -> dict[str, Any]:
    return {
        "long_name": info.layer_type,
        "layer_type": info.layer_type,
        "scale": scale.key,
        "resolution": list(scale.resolution),
        "resolution_unit": "nm",
        "voxel_offset": list(scale.voxel_offset),
        "size": list(scale.size),
    }


def _group_document(
    info: VolumeInfo, scales: Mapping[int, Scale], arrays: Mapping[str, Any], *, name: str
) -> dict[str, Any]:
    """The ``zarr.json`` of the root; xarray expects those of the arrays in it as well."""
    return {
        "attributes": {
            "ome": {"version": "0.5", "multiscales": [_multiscale(scales, name=name)]},
            "layer_type": info.layer_type,
        },
        "zarr_format": 3,
        "node_type": "group",
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": arrays,
        },
    }


def _multiscale(scales: Mapping[int, Scale], *, name: str) -> dict[str, Any]:
    """One OME-NGFF multiscale image with the scales as its datasets."""
    datasets = [
        {"path": str(index), "coordinateTransformations": list(_transformations(scale))}
        for index, scale in scales.items()
    ]
    return {"name": name, "axes": _AXES, "datasets": datasets}


_AXES = [
    {"name": name, "type": "channel"}
    if name == "channel"
    else {"name": name, "type": "space", "unit": "nanometer"}
    for name in DIMENSION_NAMES
]


def _transformations(scale: Scale) -> Iterator[dict[str, Any]]:
    """Index → nanometres: index 0 is the centre of the first voxel.

    So the scales of a pyramid lie on each other, and numbers agree with the physical
    coordinates that the xarray engine gives.
    """
    centre = [
        (offset + 0.5) * length
        for offset, length in zip(scale.voxel_offset, scale.resolution, strict=True)
    ]
    yield {"type": "scale", "scale": [1.0, *map(float, reversed(scale.resolution))]}
    yield {"type": "translation", "translation": [0.0, *reversed(centre)]}
