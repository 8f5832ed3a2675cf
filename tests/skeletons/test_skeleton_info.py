"""The `info` document of a folder of skeletons."""

from __future__ import annotations

import pytest

from precomputed_store.errors import MetadataError
from precomputed_store.metadata import SkeletonInfo, VertexAttribute

FULL = {
    "@type": "neuroglancer_skeletons",
    "transform": [4, 0, 0, 1, 0, 4, 0, 2, 0, 0, 4, 3],
    "vertex_attributes": [{"id": "radius", "data_type": "float32", "num_components": 1}],
    "sharding": {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": "identity",
        "preshift_bits": 1,
        "minishard_bits": 2,
        "shard_bits": 3,
        "minishard_index_encoding": "gzip",
        "data_encoding": "gzip",
    },
    "segment_properties": "properties",
    "spatial_index": {"resolution": [8, 8, 40], "chunk_size": [512, 512, 2560]},
    "mip": 3,
}


def test_a_document_comes_back_with_its_unknown_members() -> None:
    info = SkeletonInfo.from_json(FULL)
    assert info.to_json() == FULL
    assert SkeletonInfo.from_json(info.to_bytes()) == info
    assert info.matrix[:, 3].tolist() == [1, 2, 3]


def test_only_the_type_is_required() -> None:
    assert SkeletonInfo.from_json({"@type": "neuroglancer_skeletons"}) == SkeletonInfo()


def test_every_problem_is_listed() -> None:
    with pytest.raises(MetadataError) as caught:
        SkeletonInfo.from_json(
            {
                "@type": "neuroglancer_legacy_mesh",
                "transform": [1, 0],
                "vertex_attributes": [{"id": "", "data_type": "float64"}, 7],
                "sharding": [],
                "spatial_index": {"resolution": [8, 8, 0]},
            }
        )
    assert [problem.location for problem in caught.value.problems] == [
        "@type",
        "transform",
        "vertex_attributes[0].id",
        "vertex_attributes[0].data_type",
        "vertex_attributes[0].num_components",
        "vertex_attributes[1]",
        "sharding",
        "spatial_index.resolution[2]",
        "spatial_index.chunk_size",
    ]


@pytest.mark.parametrize("last", [float("nan"), True, "1", 10**400])
def test_a_transform_is_made_of_finite_numbers(last: object) -> None:
    with pytest.raises(MetadataError, match="12 finite numbers"):
        SkeletonInfo(transform=(*SkeletonInfo().transform[:11], last))  # type: ignore[arg-type]


def test_an_attribute_is_named_once() -> None:
    with pytest.raises(MetadataError, match="given twice"):
        SkeletonInfo(vertex_attributes=(VertexAttribute("a"), VertexAttribute("a", "int8")))
