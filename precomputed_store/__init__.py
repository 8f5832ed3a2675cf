"""Neuroglancer Precomputed volumes in xarray, zarr and dask.

The public names are loaded when they are first used, so that importing the package
costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from precomputed_store import forks as forks

__version__ = "0.1.0"

_PUBLIC = {
    "Box": "grid",
    "ChunkError": "errors",
    "CompatibilityWarning": "errors",
    "FormatError": "errors",
    "Layer": "layer",
    "Mesh": "mesh",
    "MeshInfo": "metadata",
    "MeshSource": "mesh_source",
    "MetadataError": "errors",
    "MissingChunkError": "errors",
    "MissingDataWarning": "errors",
    "ObjectError": "errors",
    "PrecomputedError": "errors",
    "PrecomputedStore": "zarr_store",
    "PrecomputedWarning": "errors",
    "Scale": "metadata",
    "ShardTarget": "shard_shape",
    "ShardingSpec": "metadata",
    "Skeleton": "skeleton",
    "SkeletonInfo": "metadata.skeleton",
    "SkeletonSource": "skeleton_source",
    "SpatialIndexSpec": "metadata",
    "StorageError": "errors",
    "UnsupportedError": "errors",
    "VertexAttribute": "metadata.skeleton",
    "Volume": "volume",
    "VolumeInfo": "metadata",
    "VolumeNotFoundError": "errors",
    "add_scale": "info_edits",
    "as_skeleton": "skeleton",
    "copy": "copying",
    "create": "layer",
    "delete": "copying",
    "delete_meshes": "mesh_writing",
    "delete_skeletons": "skeleton_writing",
    "downsample": "writing",
    "make_meshes": "meshing",
    "open_dask": "dask_io",
    "open_layer": "layer",
    "open_meshes": "mesh_source",
    "open_skeletons": "skeleton_source",
    "open_source": "importing",
    "open_volume": "volume",
    "plan": "writing",
    "remove_scale": "info_edits",
    "reset_scales": "info_edits",
    "to_precomputed": "writing",
    "update_scales": "writing",
    "validate": "validation",
    "write_meshes": "mesh_writing",
    "write_skeletons": "skeleton_writing",
}

__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from precomputed_store.copying import copy as copy, delete as delete
    from precomputed_store.dask_io import open_dask as open_dask
    from precomputed_store.errors import (
        ChunkError as ChunkError,
        CompatibilityWarning as CompatibilityWarning,
        FormatError as FormatError,
        MetadataError as MetadataError,
        MissingChunkError as MissingChunkError,
        MissingDataWarning as MissingDataWarning,
        ObjectError as ObjectError,
        PrecomputedError as PrecomputedError,
        PrecomputedWarning as PrecomputedWarning,
        StorageError as StorageError,
        UnsupportedError as UnsupportedError,
        VolumeNotFoundError as VolumeNotFoundError,
    )
    from precomputed_store.grid import Box as Box
    from precomputed_store.importing import open_source as open_source
    from precomputed_store.info_edits import (
        add_scale as add_scale,
        remove_scale as remove_scale,
        reset_scales as reset_scales,
    )
    from precomputed_store.layer import Layer as Layer, create as create, open_layer as open_layer
    from precomputed_store.mesh import Mesh as Mesh
    from precomputed_store.mesh_source import MeshSource as MeshSource, open_meshes as open_meshes
    from precomputed_store.mesh_writing import (
        delete_meshes as delete_meshes,
        write_meshes as write_meshes,
    )
    from precomputed_store.meshing import make_meshes as make_meshes
    from precomputed_store.metadata import (
        MeshInfo as MeshInfo,
        Scale as Scale,
        ShardingSpec as ShardingSpec,
        SpatialIndexSpec as SpatialIndexSpec,
        VolumeInfo as VolumeInfo,
    )
    from precomputed_store.metadata.skeleton import (
        SkeletonInfo as SkeletonInfo,
        VertexAttribute as VertexAttribute,
    )
    from precomputed_store.shard_shape import ShardTarget as ShardTarget
    from precomputed_store.skeleton import Skeleton as Skeleton, as_skeleton as as_skeleton
    from precomputed_store.skeleton_source import (
        SkeletonSource as SkeletonSource,
        open_skeletons as open_skeletons,
    )
    from precomputed_store.skeleton_writing import (
        delete_skeletons as delete_skeletons,
        write_skeletons as write_skeletons,
    )
    from precomputed_store.validation import validate as validate
    from precomputed_store.volume import Volume as Volume, open_volume as open_volume
    from precomputed_store.writing import (
        downsample as downsample,
        plan as plan,
        to_precomputed as to_precomputed,
        update_scales as update_scales,
    )
    from precomputed_store.zarr_store import PrecomputedStore as PrecomputedStore


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
