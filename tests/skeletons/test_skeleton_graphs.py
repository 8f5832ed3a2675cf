"""Measures of skeletons, and other libraries' objects, with osteoid and networkx as oracles."""

from __future__ import annotations

import networkx as nx
import numpy as np
import osteoid
import pytest

from precomputed_store.skeleton import Skeleton, as_skeleton, default_attributes
from precomputed_store.skeleton.measure import (
    branch_points,
    cable_length,
    component_labels,
    terminals,
)


def test_measures_are_those_of_osteoid_and_networkx() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        count = int(rng.integers(2, 30))
        pairs = rng.integers(0, count, size=(rng.integers(1, 40), 2))
        pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
        vertices = rng.normal(size=(count, 3)).astype(np.float32)
        theirs = osteoid.Skeleton(vertices, pairs.astype(np.uint32))
        ours = as_skeleton(theirs)
        assert cable_length(ours) == pytest.approx(theirs.cable_length(), rel=1e-5)
        assert sorted(terminals(ours)) == sorted(theirs.terminals())
        assert sorted(branch_points(ours)) == sorted(theirs.branches())
        graph = nx.Graph()
        graph.add_nodes_from(range(count))
        graph.add_edges_from(pairs.tolist())
        for component in nx.connected_components(graph):
            assert set(component_labels(ours)[list(component)]) == {min(component)}


def test_an_object_in_voxels_is_taken_to_nm() -> None:
    transform = [[4, 0, 0, 1], [0, 4, 0, 2], [0, 0, 40, 3]]
    theirs = osteoid.Skeleton([[1, 1, 1]], space="voxel", transform=transform)
    assert as_skeleton(theirs).vertices.tolist() == [[5, 6, 43]]
    theirs.space = "physical"
    assert as_skeleton(theirs).vertices.tolist() == [[1, 1, 1]]
    assert list(as_skeleton(theirs).attributes) == ["radius", "vertex_types"]
    with pytest.raises(TypeError, match="got int"):
        as_skeleton(5)


def test_small_integers_are_stored_as_floats_by_default() -> None:
    given = {"kind": np.zeros(1, np.uint8), "count": np.zeros((1, 2), np.int32)}
    found = default_attributes([Skeleton([(0, 0, 0)], attributes=given)])
    assert [(a.id, a.data_type, a.num_components) for a in found] == [
        ("kind", "float32", 1),
        ("count", "int32", 2),
    ]
