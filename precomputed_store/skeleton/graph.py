"""Walks along edges: all of a skeleton that needs no positions, as indices of vertices."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from precomputed_store.skeleton.skeleton import Skeleton

__all__ = [
    "branches",
    "component_labels",
    "distinct_edges",
    "parents",
    "paths",
    "sections",
    "terminals",
]

Indices = NDArray[np.intp]


def terminals(skeleton: Skeleton) -> Indices:
    """The vertices that one edge ends at."""
    return np.flatnonzero(_degrees(skeleton) == 1)


def branches(skeleton: Skeleton) -> Indices:
    """The vertices that three or more edges end at."""
    return np.flatnonzero(_degrees(skeleton) >= 3)


def component_labels(skeleton: Skeleton) -> Indices:
    """For each vertex the lowest index among those that it is connected with."""
    labels = np.arange(len(skeleton.vertices))
    first, second = skeleton.edges.T.astype(np.intp)
    while True:
        one, other = labels[first], labels[second]
        if (one == other).all():
            return labels
        np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
        # Every label leads to its root, so that the next round joins roots again.
        while not (labels == (further := labels[labels])).all():
            labels = further


def paths(skeleton: Skeleton) -> list[Indices]:
    """From each end to the root of its component, the root being the farthest end.

    Ties are decided by position, so that numbering does not matter: neighbours are
    visited in the order of x, y, z. Where there are cycles, the shortest ways count.
    """
    order = np.lexsort(skeleton.vertices.T[::-1])
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    neighbours = _neighbours(rank[skeleton.edges], len(order))
    seen = [False] * len(order)
    found: list[Indices] = []
    for start in range(len(order)):
        if seen[start] or not neighbours[start]:
            continue
        root, _, _ = _by_breadth(start, neighbours)
        _, leaves, previous = _by_breadth(root, neighbours)
        for vertex in previous:
            seen[vertex] = True
        found += [order[_back(leaf, previous)] for leaf in leaves]
    return found


def _by_breadth(root: int, neighbours: list[list[int]]) -> tuple[int, list[int], dict[int, int]]:
    """The farthest leaf, all leaves as they are met, and each vertex's predecessor."""
    previous, hops, queue, leaves = {root: -1}, {root: 0}, [root], []
    for vertex in queue:
        further = [near for near in neighbours[vertex] if near not in previous]
        for near in further:
            previous[near], hops[near] = vertex, hops[vertex] + 1
        queue += further
        if not further:
            leaves.append(vertex)
    return max(leaves, key=hops.__getitem__), leaves, previous


def _back(vertex: int, previous: dict[int, int]) -> list[int]:
    path = []
    while vertex != -1:
        path.append(vertex)
        vertex = previous[vertex]
    return path


def sections(skeleton: Skeleton) -> list[Indices]:
    """The unbranched stretches between ends and branch points, each edge in one of them.

    They lead away from the lowest-numbered end of the component. A ring without ends and
    branch points is one section, which begins and ends at its lowest-numbered vertex.
    """
    neighbours = _neighbours(skeleton.edges, len(skeleton.vertices))
    # An end is preferred to a branch point, and that to a vertex of a ring.
    kinds = np.array([{1: 0, 2: 2}.get(len(near), 1) for near in neighbours], dtype=np.intp)
    walked: list[set[int]] = [set() for _ in neighbours]
    found: list[Indices] = []
    for start in np.argsort(kinds, kind="stable").tolist():
        queue = [start]
        for critical in queue:
            for near in neighbours[critical]:
                if near not in walked[critical]:
                    path = _walk(critical, near, neighbours, walked)
                    found.append(np.array(path, dtype=np.intp))
                    queue.append(path[-1])
    return found


def _walk(start: int, near: int, neighbours: list[list[int]], walked: list[set[int]]) -> list[int]:
    path = [start, near]
    while len(neighbours[near]) == 2 and near != start:
        one, other = neighbours[near]
        near = one if other == path[-2] else other
        path.append(near)
    for one, other in pairwise(path):
        walked[one].add(other)
        walked[other].add(one)
    return path


def parents(skeleton: Skeleton) -> tuple[Indices, Indices, int]:
    """Every component as a tree below its lowest-numbered vertex.

    Returns
    -------
    order : array of shape (n,)
        All vertices, parents before children, branch after branch.
    parent : array of shape (n,)
        For each vertex, by its number, its parent's number; -1 for a root.
    surplus : int
        How many edges close a cycle, and so are in no tree.
    """
    count = len(skeleton.vertices)
    neighbours = _neighbours(skeleton.edges, count)
    parent: list[int | None] = [None] * count
    order = []
    for root in range(count):
        if parent[root] is not None:
            continue
        stack = [(root, -1)]
        while stack:
            vertex, above = stack.pop()
            if parent[vertex] is None:
                parent[vertex] = above
                order.append(vertex)
                stack += [(near, vertex) for near in reversed(neighbours[vertex])]
    above_each = np.array(parent, dtype=np.intp)
    tree_edges = int((above_each >= 0).sum())
    return np.array(order, dtype=np.intp), above_each, sum(map(len, neighbours)) // 2 - tree_edges


def distinct_edges(edges: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """Each edge once, lower end first, without loops, in rising order; `count` vertices."""
    low, high = np.sort(edges.astype(np.int64), axis=1).T
    codes = np.unique((low * count + high)[low != high])
    return np.stack(np.divmod(codes, max(count, 1)), axis=1)


def _neighbours(edges: NDArray[np.integer], count: int) -> list[list[int]]:
    """For each vertex its neighbours in rising order, without duplicates and itself."""
    edges = edges[edges[:, 0] != edges[:, 1]].astype(np.int64)
    both = np.unique(np.concatenate([edges, edges[:, ::-1]]) @ np.array([count, 1]))
    far = (both % max(count, 1)).tolist()
    starts = np.searchsorted(both, np.arange(count + 1) * count).tolist()
    return [far[start:stop] for start, stop in pairwise(starts)]


def _degrees(skeleton: Skeleton) -> NDArray[np.intp]:
    return np.bincount(skeleton.edges.ravel(), minlength=len(skeleton.vertices))
