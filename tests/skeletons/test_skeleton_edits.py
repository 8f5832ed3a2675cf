"""Skeletons made from others, with osteoid as the oracle."""

from __future__ import annotations

import numpy as np
import osteoid
import pytest
from skeletons.random_trees import random_forest

from precomputed_store.skeleton import Skeleton, as_skeleton


def placed_edges(skeleton: Skeleton) -> set[frozenset[tuple[float, ...]]]:
    return {frozenset(map(tuple, ends.tolist())) for ends in skeleton.vertices[skeleton.edges]}


def test_edits_are_those_of_osteoid() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        count = int(rng.integers(2, 40))
        vertices = rng.integers(0, 4, size=(count, 3)).astype(np.float32)
        edges = rng.integers(0, count, size=(rng.integers(1, 40), 2)).astype(np.uint32)
        theirs = osteoid.Skeleton(vertices, edges)
        ours = as_skeleton(theirs)
        for found, expected in (
            (ours.consolidate(), theirs.consolidate()),
            (
                ours.merge(ours).consolidate(),
                osteoid.Skeleton.simple_merge([theirs, theirs]).consolidate(),
            ),
        ):
            assert placed_edges(found) == placed_edges(as_skeleton(expected))
            assert sorted(found.vertices.tolist()) == sorted(expected.vertices.tolist())


def test_downsampling_is_that_of_osteoid() -> None:
    rng = np.random.default_rng(1)
    for _ in range(2000):
        ours, theirs = random_forest(rng)
        factor = int(rng.integers(1, 7))
        found, expected = ours.downsample(factor), as_skeleton(theirs.downsample(factor))
        # osteoid gives attributes of one component a second axis.
        columns = {name: values.reshape(-1) for name, values in expected.attributes.items()}
        assert found.equivalent(Skeleton(expected.vertices, expected.edges, columns))


def test_smoothing_is_that_of_osteoid() -> None:
    rng = np.random.default_rng(2)
    for _ in range(2000):
        ours, theirs = random_forest(rng)
        window = int(rng.integers(1, 9))
        found = ours.smooth(window)
        smoothed = theirs.average_smoothing(window, check_boundary=False)
        # Smoothed vertices can meet; osteoid joins those.
        if len(smoothed.vertices) != len(ours.vertices):
            continue
        assert np.array_equal(found.edges, ours.edges)
        assert found.attributes.keys() == ours.attributes.keys()
        expected = as_skeleton(smoothed)
        order, others = (np.argsort(s.attributes["radius"].reshape(-1)) for s in (found, expected))
        assert np.allclose(found.vertices[order], expected.vertices[others], atol=1e-3)


def test_smoothing_can_be_kept_inside_the_radius() -> None:
    corner = [(0, 0, 0), (10, 0, 0), (10, 10, 0), (20, 10, 0)]
    edges = [(0, 1), (1, 2), (2, 3)]
    wide = Skeleton(corner, edges, {"radius": [0, 20, 20, 0]})
    assert wide.smooth(3, stay_inside=True) == wide.smooth(3)
    narrow = Skeleton(corner, edges, {"radius": [0, 20, 0.5, 0]})
    with pytest.raises(ValueError, match="first vertex 2 by"):
        narrow.smooth(3, stay_inside=True)
    with pytest.raises(ValueError, match="attribute radius"):
        Skeleton(corner, edges).smooth(3, stay_inside=True)


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True])
def test_factors_and_windows_are_counts(wrong: int) -> None:
    line = Skeleton([(0, 0, 0), (1, 0, 0)], [(0, 1)])
    with pytest.raises(ValueError, match="factor: expected an integer of at least 1"):
        line.downsample(wrong)
    with pytest.raises(ValueError, match="window: expected an integer of at least 1"):
        line.smooth(wrong)


def test_lone_vertices_stay_unless_they_are_asked_to_go() -> None:
    lone = Skeleton([(1, 2, 3)], attributes={"radius": [5.0]})
    # osteoid keeps a single vertex when it consolidates, too, but not its radius.
    theirs = osteoid.Skeleton(np.array([[1, 2, 3]], np.float32), space="physical").consolidate()
    assert theirs.vertices.tolist() == lone.consolidate().vertices.tolist()
    for same in (lone.consolidate(), lone.downsample(3), lone.smooth(3), *lone.components()):
        assert same == lone
    assert lone.paths() == lone.sections() == []
    two = lone.merge(Skeleton([(0, 0, 0)], attributes={"radius": [6.0]}))
    assert two.consolidate().empty
    assert two.consolidate(keep_isolated=True).vertices.tolist() == [[0, 0, 0], [1, 2, 3]]
    assert two.downsample(2) == two


def test_nothing_is_made_of_nothing() -> None:
    nothing = Skeleton([])
    assert nothing.empty
    assert nothing.cable_length() == 0
    for same in (
        nothing.consolidate(),
        nothing.crop((0, 0, 0), (1, 1, 1)),
        nothing.merge(nothing),
        nothing.downsample(2),
        nothing.smooth(2),
        nothing.transform([[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]]),
    ):
        assert same == nothing


def test_a_crop_keeps_attributes_and_edges_in_the_box() -> None:
    line = Skeleton([(0, 0, 0), (1, 0, 0), (2, 0, 0)], [(0, 1), (1, 2)], {"radius": [1, 2, 3]})
    part = line.crop((1, 0, 0), (2, 0, 0))
    assert part.vertices.tolist() == [[1, 0, 0], [2, 0, 0]]
    assert part.edges.tolist() == [[0, 1]]
    assert part.attributes["radius"].tolist() == [2, 3]


def test_crops_have_the_edges_that_osteoid_keeps() -> None:
    rng = np.random.default_rng(3)
    for _ in range(500):
        ours, theirs = random_forest(rng)
        low, high = np.sort(rng.integers(0, 60, size=(2, 3)), axis=0)
        box = osteoid.lib.Bbox(low, high)
        found, expected = ours.crop(low, high), theirs.crop(box)
        assert placed_edges(found) == placed_edges(as_skeleton(expected))


def test_radii_grow_with_the_skeleton() -> None:
    line = Skeleton([(0, 0, 0), (1, 0, 0)], [(0, 1)], {"radius": [3.0, -1.0]})
    moved = line.transform([[0, -2, 0, 10], [2, 0, 0, 0], [0, 0, 2, 0]])
    assert moved.vertices.tolist() == [[10, 0, 0], [10, 2, 0]]
    assert moved.attributes["radius"].tolist() == pytest.approx([6, -1])
    whole = Skeleton([(0, 0, 0)], attributes={"radius": np.array([3])})
    half = whole.transform(np.eye(3, 4) / 2)
    assert half.attributes["radius"].tolist() == pytest.approx([1.5])
    for wrong in (np.eye(3), np.full((3, 4), np.nan)):
        with pytest.raises(ValueError, match="shape \\(3, 4\\)"):
            line.transform(wrong)


def test_skeletons_with_other_attributes_are_not_merged() -> None:
    with pytest.raises(ValueError, match="skeletons\\[1\\]"):
        Skeleton([(0, 0, 0)]).merge(Skeleton([(0, 0, 0)], attributes={"a": [1]}))
