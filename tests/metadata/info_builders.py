"""Documents that the metadata tests start from, and how they are read and changed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from precomputed_store.errors import CompatibilityWarning, MetadataError
from precomputed_store.metadata import VolumeInfo

TYPE = "neuroglancer_multiscale_volume"
DELETE = Ellipsis

Path = tuple[str | int, ...]


def sharding_json(**changes: Any) -> dict[str, Any]:
    return {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": "identity",
        "preshift_bits": 1,
        "minishard_bits": 2,
        "shard_bits": 3,
        "minishard_index_encoding": "gzip",
        "data_encoding": "raw",
        **changes,
    }


def scale_json(**changes: Any) -> dict[str, Any]:
    return {
        "key": "8_8_8",
        "size": [100, 200, 300],
        "resolution": [8, 8, 8],
        "voxel_offset": [1, -2, 3],
        "chunk_sizes": [[64, 32, 16]],
        "encoding": "raw",
        **changes,
    }


def info_json(*scales: Any, **changes: Any) -> dict[str, Any]:
    return {
        "@type": TYPE,
        "type": "segmentation",
        "data_type": "uint32",
        "num_channels": 1,
        "scales": list(scales) or [scale_json()],
        **changes,
    }


def read(document: Any) -> VolumeInfo:
    """Read without the warnings that tests of other things do not ask for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompatibilityWarning)
        return VolumeInfo.from_json(document)


def locations(document: Any) -> list[str]:
    """Where the problems lie, in order."""
    with pytest.raises(MetadataError) as caught:
        read(document)
    return [problem.location for problem in caught.value.problems]


def message(document: Any) -> str:
    with pytest.raises(MetadataError) as caught:
        read(document)
    return str(caught.value)


def changed(document: Any, path: Path, value: Any) -> Any:
    """A copy of `document` with the member at `path` replaced, added or (DELETE) removed."""
    result = copy.deepcopy(document)
    parent = result
    for step in path[:-1]:
        parent = parent[step]
    if value is DELETE:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return result


def paths(value: Any, above: Path = ()) -> Iterator[Path]:
    """The path of every member of a document, containers before what they hold."""
    if above:
        yield above
    if isinstance(value, dict):
        for name, member in value.items():
            yield from paths(member, (*above, name))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from paths(member, (*above, index))
