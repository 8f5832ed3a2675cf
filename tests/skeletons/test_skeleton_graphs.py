"""What is said of skeletons, and other libraries' objects; osteoid and networkx as oracles."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import networkx as nx
import numpy as np
import osteoid
import pytest
from skeletons.random_trees import random_forest

from precomputed_store.skeleton import Skeleton, as_skeleton, default_attributes

TREES = 2000


def first_place(skeleton: Skeleton) -> list[float]:
    first: list[float] = min(skeleton.vertices.tolist())
    return first


def test_measures_are_those_of_osteoid_and_networkx() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        count = int(rng.integers(2, 30))
        pairs = rng.integers(0, count, size=(rng.integers(1, 40), 2))
        pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
        vertices = rng.normal(size=(count, 3)).astype(np.float32)
        theirs = osteoid.Skeleton(vertices, pairs.astype(np.uint32))
        ours = as_skeleton(theirs)
        assert ours.cable_length() == pytest.approx(theirs.cable_length(), rel=1e-5)
        assert sorted(ours.terminals()) == sorted(theirs.terminals())
        assert sorted(ours.branches()) == sorted(theirs.branches())
        graph = nx.Graph()
        graph.add_nodes_from(range(count))
        graph.add_edges_from(pairs.tolist())
        labels = ours.component_labels()
        for component in nx.connected_components(graph):
            assert set(labels[list(component)]) == {min(component)}


def test_components_are_those_of_osteoid_and_lone_vertices() -> None:
    rng = np.random.default_rng(1)
    for _ in range(TREES):
        ours, theirs = random_forest(rng)
        found = ours.components()
        firsts = [ours.vertices.tolist().index(part.vertices[0].tolist()) for part in found]
        assert firsts == sorted(firsts)
        expected = [as_skeleton(part) for part in theirs.components()]
        found, expected = (sorted(parts, key=first_place) for parts in (found, expected))
        for part, same in zip(found, expected, strict=True):
            assert part.equivalent(same)
    lone = Skeleton([(1, 1, 1), (2, 2, 2), (3, 3, 3)], [(0, 2)], {"radius": [1, 2, 3]})
    parts = lone.components()
    assert [part.vertices.tolist() for part in parts] == [[[1, 1, 1], [3, 3, 3]], [[2, 2, 2]]]
    assert [part.attributes["radius"].tolist() for part in parts] == [[1, 3], [2]]
    assert Skeleton([]).components() == []


def test_paths_are_those_of_osteoid() -> None:
    rng = np.random.default_rng(2)
    for _ in range(TREES):
        ours, theirs = random_forest(rng)
        found = [ours.vertices[path].tolist() for path in ours.paths()]
        expected = [path.tolist() for path in theirs.paths()]
        assert sorted(found) == sorted(expected)


def test_sections_are_those_of_osteoid() -> None:
    rng = np.random.default_rng(3)
    for _ in range(TREES):
        ours, theirs = random_forest(rng)
        found = [ours.vertices[path].tolist() for path in ours.sections()]
        expected = [path.tolist() for path in theirs.interjoint_paths()]
        assert sorted(found) == sorted(expected)


def test_every_edge_of_any_graph_is_in_one_section() -> None:
    rng = np.random.default_rng(4)
    for _ in range(1000):
        count = int(rng.integers(1, 12))
        pairs = rng.integers(0, count, size=(rng.integers(0, 14), 2))
        ours = Skeleton(rng.normal(size=(count, 3)), pairs)
        walked = Counter(
            frozenset(step)
            for path in ours.sections()
            for step in zip(path[:-1].tolist(), path[1:].tolist(), strict=True)
        )
        assert walked == Counter({frozenset(pair) for pair in pairs.tolist() if len({*pair}) > 1})
        degrees = Counter(vertex for pair in walked for vertex in pair)
        assert all(degrees[v] == 2 for path in ours.sections() for v in path[1:-1].tolist())


def test_a_ring_is_one_section_and_stays_a_ring() -> None:
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    vertices = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    ring = Skeleton(vertices, [(i, (i + 1) % 30) for i in range(30)])
    (path,) = ring.sections()
    assert path[0] == path[-1] == 0
    assert sorted(path[:-1]) == list(range(30))
    for factor in (2, 7, 1000):
        few = ring.downsample(factor)
        assert len(few.vertices) == len(few.edges) >= 3
        assert len(few.components()) == 1
        assert not len(few.terminals())


def test_equivalence_is_of_everything_but_the_numbering() -> None:
    rng = np.random.default_rng(5)
    for _ in range(500):
        ours, _ = random_forest(rng)
        order = rng.permutation(len(ours.vertices))
        number = np.argsort(order)
        other = Skeleton(
            ours.vertices[order],
            rng.permuted(rng.permutation(number[ours.edges]), axis=1),
            {name: values[order] for name, values in ours.attributes.items()},
        )
        assert ours.equivalent(other)
        moved = np.array(other.vertices)
        moved[0, 0] += 1
        assert not ours.equivalent(Skeleton(moved, other.edges, other.attributes))
        radius = np.array(other.attributes["radius"])
        radius[-1] += 1
        changed = {**other.attributes, "radius": radius}
        assert not ours.equivalent(Skeleton(other.vertices, other.edges, changed))


def test_equivalence_looks_at_edges_where_vertices_are_alike() -> None:
    places = [(0, 0, 0)] * 6
    hexagon = Skeleton(places, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0)])
    triangles = Skeleton(places, [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)])
    turned = Skeleton(places, [(0, 2), (2, 4), (4, 1), (1, 3), (3, 5), (5, 0)])
    assert hexagon.equivalent(turned)
    assert not hexagon.equivalent(triangles)
    nan = Skeleton([(np.nan, 0, -0.0)], attributes={"a": [np.nan]})
    assert nan.equivalent(Skeleton([(np.nan, 0, 0.0)], attributes={"a": [np.nan]}))
    assert Skeleton([]).equivalent(Skeleton([]))
    assert not Skeleton([]).equivalent(nan)


def test_an_object_in_voxels_is_taken_to_nm() -> None:
    transform = [[4, 0, 0, 1], [0, 4, 0, 2], [0, 0, 40, 3]]
    theirs = osteoid.Skeleton([[1, 1, 1]], radii=[7], space="voxel", transform=transform)
    ours = as_skeleton(theirs)
    physical = theirs.physical_space()
    assert ours.vertices.tolist() == physical.vertices.tolist() == [[5, 6, 43]]
    assert ours.attributes["radius"].tolist() == physical.radius.tolist() == [7]
    theirs.space = "physical"
    assert as_skeleton(theirs).vertices.tolist() == [[1, 1, 1]]
    assert list(as_skeleton(theirs).attributes) == ["radius", "vertex_types"]
    with pytest.raises(TypeError, match="got int"):
        as_skeleton(5)
    navis = SimpleNamespace(vertices=[[0, 0, 0]], edges=[], nodes="a table")
    with pytest.raises(TypeError, match=r"name nodes by id"):
        as_skeleton(navis)


def test_small_integers_are_stored_as_floats_by_default() -> None:
    given = {"kind": np.zeros(1, np.uint8), "count": np.zeros((1, 2), np.int32)}
    found = default_attributes([Skeleton([(0, 0, 0)], attributes=given)])
    assert [(a.id, a.data_type, a.num_components) for a in found] == [
        ("kind", "float32", 1),
        ("count", "int32", 2),
    ]
