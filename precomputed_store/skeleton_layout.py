"""How the skeletons of a folder are stored: what a caller wishes, against what is there."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from precomputed_store.metadata import ShardingSpec
from precomputed_store.metadata.skeleton import (
    IDENTITY,
    SkeletonInfo,
    SpatialIndexSpec,
    VertexAttribute,
)
from precomputed_store.shard_shape import ShardTarget, choose_id_sharding
from precomputed_store.skeleton import as_skeleton, default_attributes
from precomputed_store.spatial_index import default_spec
from precomputed_store.storage import Storage

__all__ = ["Layout", "Skeletons"]

Skeletons: TypeAlias = Mapping[int, Any] | Iterable[tuple[int, Any]]

_OF_NONE = (VertexAttribute("radius"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a caller wishes of a folder of skeletons; None leaves it open.

    Raises
    ------
    ValueError
        `sharding` is none.
    """

    sharding: Literal["auto"] | ShardingSpec | None = None
    attributes: Sequence[VertexAttribute] | None = None
    transform: Sequence[float] | None = None
    spatial_index: bool | SpatialIndexSpec | None = None

    def __post_init__(self) -> None:
        wanted = self.sharding
        if wanted is not None and wanted != "auto" and not isinstance(wanted, ShardingSpec):
            raise ValueError(f"sharding is {wanted!r}; expected 'auto', a ShardingSpec or None")

    def check(self, info: SkeletonInfo, *, url: str) -> None:
        """Refuse to add to a folder that stores skeletons in another way.

        Raises
        ------
        ValueError
            Names every member of `info` that is another.
        """
        wished = SkeletonInfo(
            transform=info.transform if self.transform is None else tuple(self.transform),
            vertex_attributes=(
                info.vertex_attributes if self.attributes is None else tuple(self.attributes)
            ),
            sharding=self.sharding if isinstance(self.sharding, ShardingSpec) else info.sharding,
        )
        if self.spatial_index is None or (self.spatial_index is True and info.spatial_index):
            wished = replace(wished, spatial_index=info.spatial_index)
        elif isinstance(self.spatial_index, SpatialIndexSpec):
            wished = replace(wished, spatial_index=self.spatial_index)
        problems = [
            f"{member} is {_shown(getattr(info, name))}, not {_shown(getattr(wished, name))}"
            for name, member in (
                ("sharding", "sharding"),
                ("vertex_attributes", "attributes"),
                ("transform", "transform"),
                ("spatial_index", "spatial_index"),
            )
            if getattr(info, name) != getattr(wished, name)
        ]
        if self.spatial_index is True and info.spatial_index is None:
            problems.append("spatial_index is none, and a new one would lack the skeletons there")
        if problems:
            raise ValueError(
                f"{url} exists, and stores skeletons in another way: {'; '.join(problems)}. "
                "Leave these out to add to it, or write to another folder"
            )

    def make(self, skeletons: Skeletons, storage: Storage) -> tuple[SkeletonInfo, Skeletons]:
        """The `info` of a new folder, and the skeletons to write to it.

        Raises
        ------
        ValueError
            Skeletons disagree on attributes; "auto" sharding for an iterable; a spatial index
            of a folder that lies in no layer.
        """
        if self.sharding == "auto" and not isinstance(skeletons, Mapping):
            raise ValueError(
                "sharding='auto' needs a mapping, to know how many skeletons there are; give a "
                "ShardingSpec for an iterable"
            )
        attributes, index = self.attributes, self.spatial_index
        if attributes is None:
            attributes, skeletons = _attributes(skeletons)
        info = SkeletonInfo(
            transform=IDENTITY if self.transform is None else tuple(self.transform),
            vertex_attributes=tuple(attributes),
            spatial_index=default_spec(storage) if index is True else index or None,
        )
        if isinstance(self.sharding, ShardingSpec):
            return replace(info, sharding=self.sharding), skeletons
        if self.sharding == "auto" and isinstance(skeletons, Mapping):
            info = replace(info, sharding=_auto(skeletons, info))
        return info, skeletons


def _attributes(skeletons: Skeletons) -> tuple[tuple[VertexAttribute, ...], Skeletons]:
    if isinstance(skeletons, Mapping):
        given = default_attributes(as_skeleton(each) for each in skeletons.values())
        return given if skeletons else _OF_NONE, skeletons
    remaining = iter(skeletons)
    first = list(itertools.islice(remaining, 1))
    given = default_attributes(as_skeleton(each) for _, each in first)
    return given if first else _OF_NONE, itertools.chain(first, remaining)


def _auto(skeletons: Mapping[int, Any], info: SkeletonInfo) -> ShardingSpec:
    per_vertex = 12 + sum(a.dtype.itemsize * a.num_components for a in info.vertex_attributes)
    each = (as_skeleton(value) for value in skeletons.values())
    num_bytes = sum(8 + per_vertex * len(s.vertices) + 8 * len(s.edges) for s in each)
    return choose_id_sharding(
        num_objects=len(skeletons), num_bytes=num_bytes, target=ShardTarget()
    )


def _shown(value: object) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], VertexAttribute):
        return ", ".join(f"{a.id} ({a.data_type} x {a.num_components})" for a in value)
    if isinstance(value, ShardingSpec):
        return str(value.to_json())
    if isinstance(value, SpatialIndexSpec):
        return f"of cells of {value.chunk_size} nm"
    return "none" if value in (None, ()) else str(value)
