"""One scale of a volume: its grid of voxels, its encoding, and where its chunks are.

Specification: volume.md, "info JSON file specification", ``scales``.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from precomputed_store.codecs import Codec
from precomputed_store.errors import MetadataError, Problem
from precomputed_store.grid import XYZ, ChunkGrid
from precomputed_store.metadata.document import load_document, show
from precomputed_store.metadata.encoding import read_codec
from precomputed_store.metadata.rules import ABSENT, Report
from precomputed_store.metadata.sharding import ShardingSpec, read_sharding

__all__ = ["DamagedScale", "Scale", "read_scale"]

# Coordinates stay where differences and sums of two of them fit in 64 bits.
# TensorStore draws the same line.
MIN_COORDINATE = -(2**62) + 2
MAX_COORDINATE = 2**62 - 1

_PLAIN_MEMBERS = ("key", "size", "resolution", "voxel_offset", "chunk_sizes", "hidden")
_MEMBERS = (*_PLAIN_MEMBERS, "encoding", "sharding")
_DEFAULTS: dict[str, Any] = {"voxel_offset": (0, 0, 0), "hidden": False}
# Levels of the document around the members of a scale.
_DEPTH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """One resolution of a volume.

    All triples are in the order x, y, z.

    Attributes
    ----------
    key : str
        Folder of the chunks, relative to that of `info`; may contain ``..``.
    size : (int, int, int)
        Extent in voxels.
    resolution : (float, float, float)
        Size of a voxel in nanometres.
    chunk_sizes : tuple of (int, int, int)
        Sizes of chunks in voxels; one copy of the data is stored for each.
    codec : Codec
        The encoding of the chunks with its parameters.
    voxel_offset : (int, int, int)
        Coordinates of the first voxel.
    sharding : ShardingSpec or None
        None where each chunk is an object of its own.
    hidden : bool
        Whether viewers should leave the scale out.
    extra : mapping
        Unknown members, kept and written back.

    Raises
    ------
    MetadataError
        A field breaks the specification; lists everything that does.

    Examples
    --------
    >>> from precomputed_store.codecs.raw import Raw
    >>> scale = Scale(
    ...     key="8_8_8", size=(100, 100, 50), resolution=(8, 8, 8),
    ...     chunk_sizes=((64, 64, 64),), codec=Raw(),
    ... )
    >>> scale.grid.shape
    (2, 2, 1)
    """

    key: str
    size: XYZ
    resolution: tuple[float, float, float]
    chunk_sizes: tuple[XYZ, ...]
    codec: Codec
    voxel_offset: XYZ = (0, 0, 0)
    sharding: ShardingSpec | None = None
    hidden: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.codec, Codec):
            raise TypeError(f"codec: expected a Codec, got {type(self.codec).__name__}")
        if not isinstance(self.sharding, ShardingSpec | None):
            kind = type(self.sharding).__name__
            raise TypeError(f"sharding: expected a ShardingSpec or None, got {kind}")
        report = Report()
        values = _read({name: getattr(self, name) for name in _PLAIN_MEMBERS}, report)
        _check_together(values, sharding=self.sharding, report=report)
        known = (*_MEMBERS, *self.codec.parameter_names())
        values["extra"] = report.extra(self.extra, known=known, depth=_DEPTH)
        report.raise_problems(source=f"scale {show(self.key)}")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def encoding(self) -> str:
        """Value of ``encoding`` in `info`, lower case."""
        return self.codec.name

    @property
    def chunk_size(self) -> XYZ:
        """The first of `chunk_sizes`, which is the one that is read and written."""
        return self.chunk_sizes[0]

    @property
    def grid(self) -> ChunkGrid:
        """The division of the scale into chunks of `chunk_size`."""
        return _grid(self.size, self.voxel_offset, self.chunk_size)

    @classmethod
    def from_json(
        cls, document: Mapping[str, Any] | str | bytes, *, source: str = "scale"
    ) -> Scale:
        """Read one entry of ``scales``.

        Raises
        ------
        MetadataError
            Lists everything that is wrong with it.
        """
        scale = read_scale(load_document(document, source=source), Report())
        if isinstance(scale, DamagedScale):
            raise MetadataError(scale.problems, source=source)
        return scale

    def to_json(self) -> dict[str, Any]:
        """The entry of ``scales``.

        `voxel_offset` is always written, because some readers require it; `sharding` and
        `hidden` only where they say something.
        """
        members: dict[str, Any] = {
            "key": self.key,
            "size": list(self.size),
            "resolution": list(self.resolution),
            "voxel_offset": list(self.voxel_offset),
            "chunk_sizes": [list(size) for size in self.chunk_sizes],
            "encoding": self.encoding,
            **self.codec.to_parameters(),
        }
        if self.sharding is not None:
            members["sharding"] = self.sharding.to_json()
        if self.hidden:
            members["hidden"] = True
        return {**members, **deepcopy(dict(self.extra))}


@lru_cache(maxsize=256)
def _grid(size: XYZ, voxel_offset: XYZ, chunk_size: XYZ) -> ChunkGrid:
    # One for each scale, not one for each use: it remembers what it worked out.
    return ChunkGrid(size=size, voxel_offset=voxel_offset, chunk_size=chunk_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedScale:
    """An entry of ``scales`` that cannot be used; it keeps its place in the list.

    Attributes
    ----------
    key : str or None
        Its key, where it has one.
    problems : tuple of Problem
        Everything that is wrong with it.
    json : object
        The entry itself, written back unchanged.
    """

    key: str | None
    problems: tuple[Problem, ...]
    json: Any = field(hash=False, repr=False)

    def to_json(self) -> Any:
        return deepcopy(self.json)


def read_scale(members: Any, report: Report) -> Scale | DamagedScale:
    """An entry of ``scales`` in plain JSON; `report` must be new and gets its notes."""
    scale = _read_scale(members, report)
    if scale is not None and not report.problems:
        return scale
    key = members.get("key") if isinstance(members, Mapping) else None
    return DamagedScale(
        key=key if isinstance(key, str) else None,
        problems=tuple(report.problems),
        json=members,
    )


def _read_scale(members: Any, report: Report) -> Scale | None:
    if not isinstance(members, Mapping):
        report.wrong("", members, "an object that describes a scale")
        return None
    optional = {name for name in (*_DEFAULTS, "sharding") if not report.present(members, name)}
    given = {name: value for name, value in members.items() if name not in optional}
    values = _read({**_DEFAULTS, **given}, report)
    sharding = None
    if "sharding" in given:
        inner = report.at("sharding")
        sharding = read_sharding(given["sharding"], inner)
        report.include(inner)
    codec = read_codec(members, report)
    _check_together(values, sharding=sharding, report=report)
    if report.problems or codec is None:
        return None
    known = {*_MEMBERS, *codec.parameter_names()}
    extra = {name: value for name, value in members.items() if name not in known}
    return Scale(**values, codec=codec, sharding=sharding, extra=extra)


def _read(members: Mapping[str, Any], report: Report) -> dict[str, Any]:
    raw = {name: members.get(name, ABSENT) for name in _PLAIN_MEMBERS}
    return {
        "key": report.path(raw["key"], "key"),
        "size": report.integers(raw["size"], "size", minimum=1, maximum=MAX_COORDINATE),
        "resolution": report.lengths(raw["resolution"], "resolution"),
        "voxel_offset": report.integers(
            raw["voxel_offset"], "voxel_offset", minimum=MIN_COORDINATE, maximum=MAX_COORDINATE
        ),
        "chunk_sizes": _read_chunk_sizes(raw["chunk_sizes"], report),
        "hidden": report.boolean(raw["hidden"], "hidden"),
    }


def _read_chunk_sizes(value: object, report: Report) -> tuple[XYZ, ...] | None:
    entries = report.entries(value, "chunk_sizes", "chunk size [x, y, z]")
    if entries and not any(isinstance(entry, list | tuple) for entry in entries):
        report.wrong("chunk_sizes", value, "a list of sizes such as [[64, 64, 64]]")
        return None
    sizes = [
        report.integers(entry, f"chunk_sizes[{i}]", minimum=1, maximum=MAX_COORDINATE)
        for i, entry in enumerate(entries)
    ]
    found = tuple(size for size in sizes if size is not None)
    return found if found and len(found) == len(sizes) else None


def _check_together(
    values: Mapping[str, Any], *, sharding: ShardingSpec | None, report: Report
) -> None:
    """The rules that bind members to each other; those found wrong alone are None."""
    size, offset, chunk_sizes = (values[n] for n in ("size", "voxel_offset", "chunk_sizes"))
    if size and offset:
        for i, stop in enumerate(a + b for a, b in zip(size, offset, strict=True)):
            if stop > MAX_COORDINATE:
                report.problem(
                    f"voxel_offset[{i}]",
                    f"voxel_offset + size is {stop}; expected at most {MAX_COORDINATE}",
                )
    if sharding is None or not chunk_sizes:
        return
    if len(chunk_sizes) > 1:
        report.problem(
            "chunk_sizes",
            f"expected exactly one, because the scale is sharded; got {len(chunk_sizes)}",
        )
    elif size:
        grid = ChunkGrid(size=size, voxel_offset=(0, 0, 0), chunk_size=chunk_sizes[0])
        if grid.num_chunk_id_bits > 64:
            report.problem(
                "sharding",
                f"chunk ids of the grid {grid.shape} have {grid.num_chunk_id_bits} bits; "
                "expected at most 64: use larger chunks",
            )
