"""The `info` document of a folder of skeletons.

Specification: skeletons.md, "Skeleton info JSON file format". The spatial index is an
extension of Igneous and CloudVolume.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from precomputed_store.metadata.document import Document, load_document
from precomputed_store.metadata.rules import ABSENT, MAX_ENTRIES, Report
from precomputed_store.metadata.sharding import ShardingSpec, read_sharding
from precomputed_store.metadata.spatial_index import SpatialIndexSpec, read_spatial_index

__all__ = ["ATTRIBUTE_TYPES", "IDENTITY", "SkeletonInfo", "SpatialIndexSpec", "VertexAttribute"]

TYPE = "neuroglancer_skeletons"
ATTRIBUTE_TYPES = ("float32", "int8", "uint8", "int16", "uint16", "int32", "uint32")
IDENTITY = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""The transform that leaves positions as they are."""
_OPTIONAL = ("transform", "vertex_attributes", "sharding", "segment_properties", "spatial_index")
_MEMBERS = ("@type", *_OPTIONAL)


@dataclass(frozen=True, slots=True)
class VertexAttribute:
    """A quantity that each vertex of each skeleton has.

    Attributes
    ----------
    id : str
        Its name, unique and not empty.
    data_type : str
        One of `ATTRIBUTE_TYPES`.
    num_components : int
        Numbers per vertex, at least 1.

    Raises
    ------
    MetadataError
        A member breaks the specification; lists every one that does.
    """

    id: str
    data_type: str = "float32"
    num_components: int = 1

    def __post_init__(self) -> None:
        report = Report()
        values = _attribute_values(self.to_json(), report)
        report.raise_problems(source="vertex attribute")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type as stored: little-endian."""
        return np.dtype(self.data_type).newbyteorder("<")

    def to_json(self) -> dict[str, Any]:
        """The entry in ``vertex_attributes``."""
        return {
            "id": self.id,
            "data_type": self.data_type,
            "num_components": self.num_components,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SkeletonInfo:
    """The metadata of a folder of skeletons: one `info` document.

    Attributes
    ----------
    transform : tuple of 12 float
        Rows of the 3 x 4 matrix that takes stored positions to nm.
    vertex_attributes : tuple of VertexAttribute
        In the order of the stored bytes.
    sharding : ShardingSpec or None
        None if each skeleton is an object of its own.
    segment_properties : str or None
        Folder relative to that of `info`.
    spatial_index : SpatialIndexSpec or None
        None if there is no spatial index.
    extra : mapping
        Unknown members, kept and written back.

    Raises
    ------
    MetadataError
        The document breaks the specification; lists everything that does.
    """

    transform: tuple[float, ...] = IDENTITY
    vertex_attributes: tuple[VertexAttribute, ...] = ()
    sharding: ShardingSpec | None = None
    segment_properties: str | None = None
    spatial_index: SpatialIndexSpec | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        report = Report()
        transform = _transform(self.transform, report)
        attributes = tuple(self.vertex_attributes)
        for index, attribute in enumerate(attributes):
            if not isinstance(attribute, VertexAttribute):
                kind = type(attribute).__name__
                message = f"vertex_attributes[{index}]: expected a VertexAttribute, got {kind}"
                raise TypeError(message)
        _check_unique(attributes, report)
        link = self.segment_properties
        if link is not None and not isinstance(link, str):
            report.wrong("segment_properties", link, "the name of a folder")
        extra = report.extra(self.extra, known=_MEMBERS, depth=0)
        report.raise_problems(source="info")
        object.__setattr__(self, "transform", transform)
        object.__setattr__(self, "vertex_attributes", attributes)
        object.__setattr__(self, "extra", extra)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """`transform` as an array of shape (3, 4)."""
        return np.array(self.transform, dtype=np.float64).reshape(3, 4)

    @classmethod
    def from_json(cls, document: Document, *, source: str = "info") -> SkeletonInfo:
        """Read an `info` document.

        Parameters
        ----------
        document : mapping, str or bytes
            The JSON text, or the object that it stands for.
        source : str
            Where it comes from, for the messages.

        Raises
        ------
        MetadataError
            It breaks the specification; lists every problem.
        """
        report = Report()
        members = load_document(document, source=source)
        kind = members.get("@type", ABSENT)
        if kind != TYPE:
            report.wrong("@type", kind, f'"{TYPE}"')
        given = {name: members[name] for name in _OPTIONAL if report.present(members, name)}
        values = {name: _READERS[name](value, report) for name, value in given.items()}
        values["extra"] = {name: members[name] for name in members if name not in _MEMBERS}
        report.raise_problems(source=source)
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """The `info` document as plain JSON, without nulls."""
        members: dict[str, Any] = {
            "@type": TYPE,
            "transform": list(self.transform),
            "vertex_attributes": [attribute.to_json() for attribute in self.vertex_attributes],
        }
        if self.sharding is not None:
            members["sharding"] = self.sharding.to_json()
        if self.segment_properties is not None:
            members["segment_properties"] = self.segment_properties
        if self.spatial_index is not None:
            members["spatial_index"] = self.spatial_index.to_json()
        return {**members, **deepcopy(dict(self.extra))}

    def to_bytes(self) -> bytes:
        """The `info` document as text, for writing: the same for equal infos."""
        return json.dumps(self.to_json(), indent=2, allow_nan=False).encode() + b"\n"


def _transform(value: object, report: Report) -> tuple[float, ...] | None:
    items = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    if isinstance(items, list | tuple) and len(items) == 12 and all(map(_is_finite, items)):
        return tuple(map(float, items))
    report.wrong("transform", items, "12 finite numbers, the rows of a 3 x 4 matrix")
    return None


def _is_finite(item: object) -> bool:
    if isinstance(item, bool) or not isinstance(item, int | float | np.number):
        return False
    try:
        return math.isfinite(item)
    except OverflowError:
        return False


def _attributes(value: object, report: Report) -> tuple[VertexAttribute, ...]:
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        report.wrong("vertex_attributes", value, f"a list of at most {MAX_ENTRIES} attributes")
        return ()
    attributes = []
    for index, entry in enumerate(value):
        inner = report.at(f"vertex_attributes[{index}]")
        if isinstance(entry, Mapping):
            values = _attribute_values(entry, inner)
            if not inner.problems:
                attributes.append(VertexAttribute(**values))
        else:
            inner.wrong("", entry, "an object with id, data_type and num_components")
        report.include(inner)
    return tuple(attributes)


def _attribute_values(members: Mapping[str, Any], report: Report) -> dict[str, Any]:
    name = members.get("id", ABSENT)
    if not isinstance(name, str) or not name:
        report.wrong("id", name, "a name")
    components = members.get("num_components", ABSENT)
    return {
        "id": name,
        "data_type": report.choice(members.get("data_type", ABSENT), "data_type", ATTRIBUTE_TYPES),
        "num_components": report.integer(
            components, "num_components", minimum=1, maximum=2**31 - 1
        ),
    }


def _check_unique(attributes: tuple[VertexAttribute, ...], report: Report) -> None:
    seen: set[str] = set()
    for index, attribute in enumerate(attributes):
        if attribute.id in seen:
            report.problem(f"vertex_attributes[{index}].id", f"{attribute.id!r} is given twice")
        seen.add(attribute.id)


def _sharding(value: object, report: Report) -> ShardingSpec | None:
    inner = report.at("sharding")
    spec = read_sharding(value, inner)
    report.include(inner)
    return spec


_READERS: dict[str, Any] = {
    "transform": _transform,
    "vertex_attributes": _attributes,
    "sharding": _sharding,
    # Checked with the rest of the object.
    "segment_properties": lambda value, report: value,
    "spatial_index": read_spatial_index,
}
