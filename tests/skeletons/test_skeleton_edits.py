"""Skeletons made from others, with osteoid as the oracle."""

from __future__ import annotations

import numpy as np
import osteoid
import pytest

from precomputed_store.skeleton import Skeleton, as_skeleton
from precomputed_store.skeleton.edit import consolidate, crop, merge


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
            (consolidate(ours), theirs.consolidate()),
            (
                consolidate(merge([ours, ours])),
                osteoid.Skeleton.simple_merge([theirs, theirs]).consolidate(),
            ),
        ):
            assert placed_edges(found) == placed_edges(as_skeleton(expected))
            assert sorted(found.vertices.tolist()) == sorted(expected.vertices.tolist())


def test_a_crop_keeps_attributes_and_edges_in_the_box() -> None:
    line = Skeleton([(0, 0, 0), (1, 0, 0), (2, 0, 0)], [(0, 1), (1, 2)], {"radius": [1, 2, 3]})
    part = crop(line, (1, 0, 0), (2, 0, 0))
    assert part.vertices.tolist() == [[1, 0, 0], [2, 0, 0]]
    assert part.edges.tolist() == [[0, 1]]
    assert part.attributes["radius"].tolist() == [2, 3]


def test_skeletons_with_other_attributes_are_not_merged() -> None:
    with pytest.raises(ValueError, match="skeletons\\[1\\]"):
        merge([Skeleton([(0, 0, 0)]), Skeleton([(0, 0, 0)], attributes={"a": [1]})])
