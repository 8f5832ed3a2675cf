"""The `info` document of a folder of meshes.

Specification: meshes.md, "Multi-resolution mesh info JSON file format" and "Legacy
single-resolution mesh format".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from precomputed_store.metadata.document import Document, load_document
from precomputed_store.metadata.rules import ABSENT, Report
from precomputed_store.metadata.sharding import ShardingSpec, read_sharding
from precomputed_store.metadata.spatial_index import SpatialIndexSpec, read_spatial_index

__all__ = ["IDENTITY", "MeshInfo", "MeshKind"]

MeshKind: TypeAlias = Literal["legacy", "multilod"]

IDENTITY: Final = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""The transform that changes nothing."""

_TYPES: Final[dict[str, MeshKind]] = {
    "neuroglancer_legacy_mesh": "legacy",
    "neuroglancer_multilod_draco": "multilod",
}
_NUMBERS: Final = ("vertex_quantization_bits", "transform", "lod_scale_multiplier")
_MEMBERS: Final = ("@type", *_NUMBERS, "sharding", "segment_properties")
_QUANTIZATIONS: Final = (10, 16)
# Levels of the document around its members.
_DEPTH: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshInfo:
    """How the meshes of a folder are stored.

    Attributes
    ----------
    kind : "legacy" or "multilod"
        Single-resolution fragments, or several levels of detail compressed with Draco. The
        members up to `sharding` are of the second kind only.
    vertex_quantization_bits : 10 or 16
        Bits of a vertex coordinate within a fragment.
    transform : 12 floats
        Rows of the 3×4 matrix that takes stored coordinates to nanometres.
    lod_scale_multiplier : float
        What the `lod_scales` of every manifest are multiplied by.
    sharding : ShardingSpec or None
        How meshes are spread over shards; None: files of their own.
    segment_properties : str or None
        Name of a subfolder of segment properties.
    extra : mapping
        Unknown members, kept and written back.

    Raises
    ------
    MetadataError
        A member is out of its range; lists every one.

    Examples
    --------
    >>> MeshInfo(kind="multilod", vertex_quantization_bits=12)
    Traceback (most recent call last):
        ...
    precomputed_store.errors.MetadataError: mesh info: vertex_quantization_bits: expected 10 or 16, got 12
    """  # noqa: E501

    kind: MeshKind
    vertex_quantization_bits: int = 16
    transform: tuple[float, ...] = IDENTITY
    lod_scale_multiplier: float = 1.0
    sharding: ShardingSpec | None = None
    segment_properties: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        report = Report()
        if self.kind not in _TYPES.values():
            report.wrong("kind", self.kind, '"legacy" or "multilod"')
        values = _read_numbers({name: getattr(self, name) for name in _NUMBERS}, report)
        if self.kind == "legacy" and self.sharding is not None:
            report.problem("sharding", "legacy meshes cannot be sharded")
        values["extra"] = report.extra(self.extra, known=_MEMBERS, depth=_DEPTH)
        report.raise_problems(source="mesh info")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def matrix(self) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """`transform` as an array of 3 rows and 4 columns."""
        return np.asarray(self.transform, np.float64).reshape(3, 4)

    @property
    def spatial_index(self) -> SpatialIndexSpec | None:
        """How the space of the spatial index is divided, if there is one.

        Raises
        ------
        MetadataError
            Meshes can be read all the same.
        """
        member = self.extra.get("spatial_index")
        if member is None:
            return None
        report = Report()
        spec = read_spatial_index(member, report)
        report.raise_problems(source="mesh info")
        return spec

    @classmethod
    def from_json(cls, document: Document, *, source: str = "mesh info") -> MeshInfo:
        """Read the `info` of a folder of meshes.

        Parameters
        ----------
        document : mapping, str or bytes
        source : str
            Where it comes from, for the messages.

        Raises
        ------
        MetadataError
            It breaks the specification; lists every problem.
        """
        report = Report()
        fields = _read_document(load_document(document, source=source), report)
        report.raise_problems(source=source)
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """The document as plain JSON, without members that say nothing."""
        names = {kind: name for name, kind in _TYPES.items()}
        members: dict[str, Any] = {"@type": names[self.kind]}
        if self.kind == "multilod":
            members |= {name: getattr(self, name) for name in _NUMBERS}
            members["transform"] = list(self.transform)
            if self.sharding is not None:
                members["sharding"] = self.sharding.to_json()
        if self.segment_properties is not None:
            members["segment_properties"] = self.segment_properties
        return {**members, **deepcopy(dict(self.extra))}

    def to_bytes(self) -> bytes:
        """The document as text, for writing."""
        return json.dumps(self.to_json(), indent=2, allow_nan=False).encode() + b"\n"


def _read_document(members: Mapping[str, Any], report: Report) -> dict[str, Any]:
    kind = _TYPES.get(str(members.get("@type")))
    if kind is None:
        expected = " or ".join(f'"{name}"' for name in _TYPES)
        report.wrong("@type", members.get("@type", ABSENT), expected)
        return {}
    known: set[str] = {"@type", "segment_properties"}
    values: dict[str, Any] = {"kind": kind}
    if report.present(members, "segment_properties"):
        values["segment_properties"] = report.path(
            members["segment_properties"], "segment_properties"
        )
    if kind == "multilod":
        known.update(_MEMBERS)
        values |= _read_numbers({name: members.get(name, ABSENT) for name in _NUMBERS}, report)
        if report.present(members, "sharding"):
            inner = report.at("sharding")
            values["sharding"] = read_sharding(members["sharding"], inner)
            report.include(inner)
    # A legacy document may hold members of the other kind; they mean nothing there.
    values["extra"] = {
        name: value
        for name, value in members.items()
        if name not in known and not (kind == "legacy" and name in _MEMBERS)
    }
    return values


def _read_numbers(members: Mapping[str, Any], report: Report) -> dict[str, Any]:
    bits = members["vertex_quantization_bits"]
    if isinstance(bits, bool) or bits not in _QUANTIZATIONS:
        report.wrong("vertex_quantization_bits", bits, "10 or 16")
    multiplier = _number(members["lod_scale_multiplier"])
    if multiplier is None or multiplier <= 0:
        report.wrong(
            "lod_scale_multiplier", members["lod_scale_multiplier"], "a positive finite number"
        )
    transform = members["transform"]
    listed = list(transform) if isinstance(transform, list | tuple | np.ndarray) else []
    numbers = [_number(item) for item in np.ravel(np.asarray(listed, object))]
    if len(numbers) != 12 or None in numbers:
        report.wrong("transform", transform, "12 finite numbers")
    return {
        "vertex_quantization_bits": bits if report.problems else int(bits),
        "transform": tuple(numbers),
        "lod_scale_multiplier": multiplier,
    }


def _number(value: object) -> float | None:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
