"""Skeletons made from others: joined, cut, moved, rid of duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from precomputed_store.skeleton.affine import scaled_radius, to_physical
from precomputed_store.skeleton.graph import component_labels, distinct_edges

if TYPE_CHECKING:
    from precomputed_store.skeleton.skeleton import Skeleton

__all__ = ["components", "consolidate", "crop", "merge", "transform"]


def crop(skeleton: Skeleton, lower: ArrayLike, upper: ArrayLike) -> Skeleton:
    """The vertices in a box, and the edges that lie in it whole."""
    low, high = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    if low.shape != (3,) or high.shape != (3,):
        raise ValueError(f"expected corners of shape (3,) in nm, got {low.shape} and {high.shape}")
    inside = (skeleton.vertices >= low) & (skeleton.vertices <= high)
    return _keep(skeleton, np.all(inside, axis=1))


def consolidate(skeleton: Skeleton, *, keep_isolated: bool) -> Skeleton:
    """Without duplicate vertices, duplicate edges and loops."""
    if len(skeleton.vertices) < 2:
        return replace(skeleton, edges=skeleton.edges[:0])
    # Not np.unique(axis=0), which takes several times as long.
    order = np.lexsort(skeleton.vertices.T[::-1])
    places = skeleton.vertices[order]
    new = np.append(True, (places[1:] != places[:-1]).any(axis=1))
    inverse = np.empty_like(order)
    inverse[order] = np.cumsum(new) - 1
    first = order[new]
    edges = distinct_edges(inverse[skeleton.edges], len(first))
    joined = _select(skeleton, first, edges)
    if keep_isolated:
        return joined
    return _keep(joined, np.isin(np.arange(len(first)), edges))


def merge(skeletons: Sequence[Skeleton]) -> Skeleton:
    """All side by side in one: nothing is joined."""
    names = list(skeletons[0].attributes)
    for index, skeleton in enumerate(skeletons):
        if set(skeleton.attributes) != set(names):
            raise ValueError(
                f"skeletons[{index}]: expected the attributes {names} of the first one, "
                f"got {list(skeleton.attributes)}"
            )
    starts = np.cumsum([0, *(len(skeleton.vertices) for skeleton in skeletons)])
    edges = [s.edges + start for s, start in zip(skeletons, starts[:-1], strict=True)]
    return replace(
        skeletons[0],
        vertices=np.concatenate([skeleton.vertices for skeleton in skeletons]),
        edges=np.concatenate(edges),
        attributes={
            name: np.concatenate([each.attributes[name] for each in skeletons]) for name in names
        },
    )


def components(skeleton: Skeleton) -> list[Skeleton]:
    """Each connected part as a skeleton of its own."""
    labels = component_labels(skeleton)
    order = np.argsort(labels, kind="stable")
    roots, starts = np.unique(labels[order], return_index=True)
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    # Edges in the order of their component, so that each one's are next to each other.
    edge_labels = labels[skeleton.edges[:, 0]]
    edge_order = np.argsort(edge_labels, kind="stable")
    edges = position[skeleton.edges[edge_order]]
    edge_starts = np.searchsorted(edge_labels[edge_order], roots)
    vertices = np.split(order, starts[1:])
    groups = np.split(edges, edge_starts[1:])
    return [
        _select(skeleton, chosen, group - start)
        for chosen, group, start in zip(vertices, groups, starts, strict=False)
        if len(chosen)
    ]


def transform(skeleton: Skeleton, matrix: ArrayLike) -> Skeleton:
    """Positions by a 3 x 4 matrix, radii by the scale in it."""
    given = np.asarray(matrix, dtype=np.float64)
    if given.shape != (3, 4) or not np.isfinite(given).all():
        raise ValueError(f"matrix: expected finite numbers of shape (3, 4), got {given.shape}")
    affine = to_physical(tuple(given.ravel().tolist()))
    if affine is None:
        return skeleton
    attributes = dict(skeleton.attributes)
    radius = attributes.get("radius")
    if radius is not None and radius.dtype.kind != "f":
        attributes["radius"] = radius.astype(np.float32)
    return replace(
        skeleton,
        vertices=affine.apply(skeleton.vertices),
        attributes=scaled_radius(attributes, affine.scale),
    )


def _keep(skeleton: Skeleton, kept: NDArray[np.bool_]) -> Skeleton:
    number = np.cumsum(kept) - 1
    edges = skeleton.edges[kept[skeleton.edges].all(axis=1)]
    return _select(skeleton, np.flatnonzero(kept), number[edges])


def _select(skeleton: Skeleton, chosen: NDArray[np.intp], edges: NDArray[np.integer]) -> Skeleton:
    return replace(
        skeleton,
        vertices=skeleton.vertices[chosen],
        edges=edges.astype(np.uint32),
        attributes={name: values[chosen] for name, values in skeleton.attributes.items()},
    )
