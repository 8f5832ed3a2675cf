"""The member `spatial_index` of the `info` of skeletons and of meshes.

Not in the specification: an extension of Igneous and CloudVolume.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from precomputed_store.metadata.rules import ABSENT, Report

__all__ = ["SpatialIndexSpec", "read_spatial_index"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialIndexSpec:
    """How the space of the spatial index is divided.

    Attributes
    ----------
    resolution : (float, float, float) or None
        Size of a voxel of the segmentation in nm, along x, y, z. None in older files: that
        of the scale that the objects were made from.
    chunk_size : (float, float, float)
        Size of a cell of the index in nm, along x, y, z.

    Raises
    ------
    MetadataError
        A length is not a positive finite number.
    """

    resolution: tuple[float, float, float] | None
    chunk_size: tuple[float, float, float]

    def __post_init__(self) -> None:
        report = Report()
        for name in ("resolution", "chunk_size"):
            if name == "chunk_size" or self.resolution is not None:
                object.__setattr__(self, name, report.lengths(getattr(self, name), name))
        report.raise_problems(source="spatial_index")

    def to_json(self) -> dict[str, Any]:
        """The member ``spatial_index``."""
        members = {"chunk_size": list(self.chunk_size)}
        if self.resolution is None:
            return members
        return {"resolution": list(self.resolution), **members}


def read_spatial_index(value: object, report: Report) -> SpatialIndexSpec | None:
    """The member as it stands in a document; None if there are problems."""
    inner = report.at("spatial_index")
    spec = None
    if isinstance(value, Mapping):
        resolution = value.get("resolution")
        if resolution is not None:
            resolution = inner.lengths(resolution, "resolution")
        chunk_size = inner.lengths(value.get("chunk_size", ABSENT), "chunk_size")
        if chunk_size is not None and not inner.problems:
            spec = SpatialIndexSpec(resolution=resolution, chunk_size=chunk_size)
    else:
        inner.wrong("", value, "an object with resolution and chunk_size")
    report.include(inner)
    return spec
