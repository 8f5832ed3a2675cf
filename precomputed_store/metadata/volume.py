"""The `info` document of a multiscale volume.

Specification: volume.md, "info JSON file specification".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from precomputed_store.errors import CompatibilityWarning, Problem, list_problems, warn_caller
from precomputed_store.metadata.compatibility import (
    DATA_TYPES,
    OTHER_DATA_TYPES,
    volume_notes,
)
from precomputed_store.metadata.document import Document, load_document
from precomputed_store.metadata.encoding import codec_problems
from precomputed_store.metadata.rules import ABSENT, Report
from precomputed_store.metadata.scale import DamagedScale, Scale, read_scale
from precomputed_store.metadata.selector import ScaleSelector, find_scale

__all__ = ["VolumeInfo", "redirect_target"]

TYPE = "neuroglancer_multiscale_volume"
_OTHER_TYPES = {
    "neuroglancer_legacy_mesh": "meshes",
    "neuroglancer_multilod_draco": "multi-resolution meshes",
    "neuroglancer_skeletons": "skeletons",
    "neuroglancer_annotations_v1": "annotations",
    "neuroglancer_segment_properties": "segment properties",
}
_LINKS = ("mesh", "skeletons", "segment_properties")
_MEMBERS = ("@type", "type", "data_type", "num_channels", "scales", *_LINKS)
# Levels of the document around its members.
_DEPTH = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeInfo:
    """The metadata of a volume: one `info` document.

    Attributes
    ----------
    layer_type : "image" or "segmentation"
        ``type`` in the document.
    data_type : str
        Name of a numpy data type.
    scales : tuple of Scale or DamagedScale
        In the order of the document, finest first.
    num_channels : int
        Channels of each voxel.
    mesh, skeletons, segment_properties : str or None
        Folders relative to that of `info`.
    extra : mapping
        Unknown members, kept and written back.
    warnings : tuple of Problem
        Where other programs refuse or misread this volume, or the specification
        discourages what it does.

    Raises
    ------
    MetadataError
        The document breaks the specification; lists everything that does.

    Examples
    --------
    >>> info = VolumeInfo.from_json('''{"type": "image", "data_type": "uint8", "num_channels": 1,
    ...   "scales": [{"key": "8_8_8", "size": [100, 100, 50], "resolution": [8, 8, 8],
    ...               "chunk_sizes": [[64, 64, 64]], "encoding": "raw"}]}''')
    >>> info.scales[info.scale_index((8, 8, 8))].size
    (100, 100, 50)
    """

    layer_type: Literal["image", "segmentation"]
    data_type: str
    scales: tuple[Scale | DamagedScale, ...]
    num_channels: int = 1
    mesh: str | None = None
    skeletons: str | None = None
    segment_properties: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)
    warnings: tuple[Problem, ...] = field(default=(), init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        report = Report()
        plain = {"type": self.layer_type, "data_type": self.data_type}
        values = _read({**plain, "num_channels": self.num_channels, **self.links}, report)
        values["scales"] = tuple(self.scales)
        for index, scale in enumerate(values["scales"]):
            if not isinstance(scale, Scale | DamagedScale):
                kind = type(scale).__name__
                raise TypeError(f"scales[{index}]: expected a Scale, got {kind}")
            report.problems += _misfits(scale, index, values)
        if all(isinstance(scale, DamagedScale) for scale in values["scales"]):
            report.problem("scales", "expected at least one scale that can be used")
        values["extra"] = report.extra(self.extra, known=_MEMBERS, depth=_DEPTH)
        report.raise_problems(source="info")
        for name, value in values.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "warnings", tuple(volume_notes(self)))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type of decoded voxels, in the machine's byte order."""
        return np.dtype(self.data_type)

    @property
    def usable_scales(self) -> tuple[tuple[int, Scale], ...]:
        """Index and scale of each entry of `scales` that is not damaged."""
        pairs = enumerate(self.scales)
        return tuple((index, scale) for index, scale in pairs if isinstance(scale, Scale))

    @property
    def links(self) -> dict[str, str]:
        """Those of `mesh`, `skeletons` and `segment_properties` that are given."""
        pairs = ((name, getattr(self, name)) for name in _LINKS)
        return {name: link for name, link in pairs if link is not None}

    def scale_index(self, selector: ScaleSelector) -> int:
        """Index in `scales` of the scale that is meant.

        Parameters
        ----------
        selector : int, str or (float, float, float)
            An index (from the end if negative), a key, or a resolution ``(x, y, z)`` in
            nanometres, to one part in a million. Of several scales that it fits the
            first is taken.

        Returns
        -------
        int
            Never negative; the scale is usable.

        Raises
        ------
        IndexError, ValueError
            There is no such scale: the message lists those that there are.
        MetadataError
            The scale is there, but damaged or of an unknown encoding.
        TypeError
            The selector is none of these.
        """
        return find_scale(self.scales, selector)

    @classmethod
    def from_json(cls, document: Document, *, source: str = "info") -> VolumeInfo:
        """Read an `info` document.

        A scale that cannot be used becomes a `DamagedScale` in its place.

        Parameters
        ----------
        document : mapping, str or bytes
            The JSON text, or the object that it stands for.
        source : str
            Where it comes from, for the messages.

        Raises
        ------
        MetadataError
            It breaks the specification, or no scale can be used; lists every problem.

        Warns
        -----
        CompatibilityWarning
            Once, with everything that `warnings` holds.
        """
        report = Report()
        fields = _read_document(load_document(document, source=source), report)
        report.raise_problems(source=source)
        info = cls(**fields)
        object.__setattr__(info, "warnings", (*report.notes, *info.warnings))
        if info.warnings:
            warn_caller(list_problems(info.warnings, source=source), CompatibilityWarning)
        return info

    def to_json(self) -> dict[str, Any]:
        """The `info` document as plain JSON: no nulls, names in lower case."""
        return {
            "@type": TYPE,
            "type": self.layer_type,
            "data_type": self.data_type,
            "num_channels": self.num_channels,
            "scales": [scale.to_json() for scale in self.scales],
            **self.links,
            **deepcopy(dict(self.extra)),
        }

    def to_bytes(self) -> bytes:
        """The `info` document as text, for writing: readable, the same for equal infos."""
        text = json.dumps(self.to_json(), indent=2, allow_nan=False)
        # Text members cannot match: JSON escapes their line breaks.
        return _NUMBERS.sub(_on_one_line, text).encode() + b"\n"


_NUMBERS = re.compile(r"\[\n([-+\d.eE,\s]+)\]")


def _on_one_line(numbers: re.Match[str]) -> str:
    return "[" + " ".join(numbers[1].split()) + "]"


def redirect_target(document: Document, *, source: str = "info") -> str | None:
    """Where a document says that the layer really is, or None if it is here.

    To be asked before the document is read as anything else.

    Raises
    ------
    MetadataError
        It is not a JSON object, or its ``redirect`` is not text.
    """
    target = load_document(document, source=source).get("redirect")
    if target is not None and not isinstance(target, str):
        report = Report()
        report.wrong("redirect", target, "the URL of another layer")
        report.raise_problems(source=source)
    return target or None


def _read_document(members: Mapping[str, Any], report: Report) -> dict[str, Any]:
    kind = members.get("@type", TYPE)
    if isinstance(kind, str) and kind in _OTHER_TYPES:
        report.problem("@type", f'expected "{TYPE}"; this is a folder of {_OTHER_TYPES[kind]}')
        return {}
    if kind != TYPE:
        report.wrong("@type", kind, f'"{TYPE}"')
    absent = {name for name in (*_LINKS, "redirect") if not report.present(members, name)}
    values = _read(members, report)
    values["scales"] = _read_scales(members.get("scales", ABSENT), values, report)
    known = absent.union(_MEMBERS)
    values["extra"] = {name: value for name, value in members.items() if name not in known}
    return values


def _read(members: Mapping[str, Any], report: Report) -> dict[str, Any]:
    raw = {name: members.get(name, ABSENT) for name in _MEMBERS}
    values: dict[str, Any] = {
        "layer_type": report.choice(raw["type"], "type", ("image", "segmentation")),
        "data_type": report.choice(
            raw["data_type"], "data_type", (*DATA_TYPES, *OTHER_DATA_TYPES)
        ),
        "num_channels": report.integer(
            raw["num_channels"], "num_channels", minimum=1, maximum=2**31 - 1
        ),
    }
    for name in _LINKS:
        link = values[name] = members.get(name)
        if link is not None and not isinstance(link, str):
            report.wrong(name, link, "the name of a folder")
    return values


def _read_scales(
    value: object, values: Mapping[str, Any], report: Report
) -> tuple[Scale | DamagedScale, ...]:
    scales: list[Scale | DamagedScale] = []
    for index, entry in enumerate(report.entries(value, "scales", "scale")):
        inner = report.at(f"scales[{index}]")
        scale = read_scale(entry, inner)
        if misfits := _misfits(scale, index, values):
            scale = DamagedScale(key=scale.key, problems=misfits, json=entry)
        elif isinstance(scale, Scale):
            report.notes += inner.notes
        scales.append(scale)
    damaged = [scale for scale in scales if isinstance(scale, DamagedScale)]
    if report.problems or len(damaged) == len(scales):
        report.problems += [problem for scale in damaged for problem in scale.problems]
    return tuple(scales)


def _misfits(
    scale: Scale | DamagedScale, index: int, values: Mapping[str, Any]
) -> tuple[Problem, ...]:
    """Why a scale that is sound in itself cannot belong to this volume."""
    data_type, num_channels = values["data_type"], values["num_channels"]
    if isinstance(scale, DamagedScale) or data_type is None or num_channels is None:
        return ()
    found = codec_problems(scale.codec, data_type=data_type, num_channels=num_channels)
    return tuple(Problem(f"scales[{index}].{where}", message) for where, message in found)
