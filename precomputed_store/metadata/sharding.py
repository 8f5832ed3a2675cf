"""The sharding parameters of a scale: how chunk ids are spread over shard files.

Specification: sharded.md, "Sharding specification".
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

from precomputed_store.metadata.document import load_document
from precomputed_store.metadata.rules import ABSENT, Report

__all__ = ["ShardingSpec"]

TYPE = "neuroglancer_uint64_sharded_v1"
_HASHES = ("identity", "murmurhash3_x86_128")
_ENCODINGS = ("raw", "gzip")
_MEMBERS = (
    "@type", "hash", "preshift_bits", "minishard_bits", "shard_bits",
    "minishard_index_encoding", "data_encoding",
)  # fmt: skip
# Levels of a volume's document around the members of `sharding`.
_DEPTH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardingSpec:
    """How chunk ids are spread over shards and minishards.

    Attributes
    ----------
    hash : "identity" or "murmurhash3_x86_128"
        Hash function applied to ``chunk_id >> preshift_bits``.
    preshift_bits : int
        Low bits of the chunk id that do not take part, 0 to 64.
    minishard_bits : int
        Low bits of the hash that number the minishard, 0 to 32.
    shard_bits : int
        The next bits of the hash, which number the shard, 0 to ``64 - minishard_bits``.
    minishard_index_encoding, data_encoding : "raw" or "gzip"
        Compression of minishard indices, and of chunks.
    extra : mapping
        Unknown members, kept and written back.

    Raises
    ------
    MetadataError
        A parameter is out of its range; lists every one.

    Examples
    --------
    >>> try:
    ...     ShardingSpec(hash="identity", preshift_bits=9, minishard_bits=6, shard_bits=70)
    ... except ValueError as error:
    ...     print(error)
    sharding: shard_bits: expected an integer from 0 to 58, got 70
    """

    hash: Literal["identity", "murmurhash3_x86_128"]
    preshift_bits: int
    minishard_bits: int
    shard_bits: int
    minishard_index_encoding: Literal["raw", "gzip"] = "raw"
    data_encoding: Literal["raw", "gzip"] = "raw"
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        report = Report()
        values = _read({name: getattr(self, name) for name in _MEMBERS[1:]}, report)
        values["extra"] = report.extra(self.extra, known=_MEMBERS, depth=_DEPTH)
        report.raise_problems(source="sharding")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_json(
        cls, document: Mapping[str, Any] | str | bytes, *, source: str = "sharding"
    ) -> ShardingSpec:
        """Read a sharding specification.

        Raises
        ------
        MetadataError
            Lists everything that is wrong with it.
        """
        report = Report()
        spec = read_sharding(load_document(document, source=source), report)
        report.raise_problems(source=source)
        assert spec is not None
        return spec

    def to_json(self) -> dict[str, Any]:
        """The members in `info`; both encodings are always written."""
        members = {name: getattr(self, name) for name in _MEMBERS[1:]}
        return {"@type": TYPE, **members, **deepcopy(dict(self.extra))}


def read_sharding(members: object, report: Report) -> ShardingSpec | None:
    """The sharding specification in plain JSON, or None and problems in `report`."""
    if not isinstance(members, Mapping):
        report.wrong("", members, "an object of sharding parameters")
        return None
    kind = members.get("@type", ABSENT)
    if kind != TYPE:
        report.wrong("@type", kind, f'"{TYPE}"')
    values = _read({**_DEFAULTS, **members}, report)
    if report.problems:
        return None
    extra = {name: member for name, member in members.items() if name not in _MEMBERS}
    return ShardingSpec(**values, extra=extra)


_DEFAULTS = {"minishard_index_encoding": "raw", "data_encoding": "raw"}


def _read(members: Mapping[str, Any], report: Report) -> dict[str, Any]:
    raw = {name: members.get(name, ABSENT) for name in _MEMBERS}

    def bits(name: str, maximum: int) -> int | None:
        return report.integer(raw[name], name, minimum=0, maximum=maximum)

    def choice(name: str, choices: tuple[str, ...]) -> str | None:
        return report.choice(raw[name], name, choices)

    minishard_bits = bits("minishard_bits", 32)
    return {
        "hash": choice("hash", _HASHES),
        "preshift_bits": bits("preshift_bits", 64),
        "minishard_bits": minishard_bits,
        "shard_bits": bits("shard_bits", 64 - (minishard_bits or 0)),
        "minishard_index_encoding": choice("minishard_index_encoding", _ENCODINGS),
        "data_encoding": choice("data_encoding", _ENCODINGS),
    }
