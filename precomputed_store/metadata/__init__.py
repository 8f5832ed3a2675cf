"""The `info` document ⇄ frozen dataclasses, validated with every problem listed at once."""

from __future__ import annotations

from precomputed_store.metadata.compatibility import DATA_TYPES, OTHER_DATA_TYPES
from precomputed_store.metadata.document import Document, load_document
from precomputed_store.metadata.mesh import MeshInfo
from precomputed_store.metadata.scale import DamagedScale, Scale
from precomputed_store.metadata.selector import ScaleSelector, describe_scales
from precomputed_store.metadata.sharding import ShardingSpec
from precomputed_store.metadata.skeleton import SkeletonInfo, VertexAttribute
from precomputed_store.metadata.spatial_index import SpatialIndexSpec
from precomputed_store.metadata.volume import VolumeInfo, redirect_target

__all__ = [
    "DATA_TYPES",
    "OTHER_DATA_TYPES",
    "DamagedScale",
    "Document",
    "MeshInfo",
    "Scale",
    "ScaleSelector",
    "ShardingSpec",
    "SkeletonInfo",
    "SpatialIndexSpec",
    "VertexAttribute",
    "VolumeInfo",
    "describe_scales",
    "load_document",
    "redirect_target",
]
