"""What can be said of a skeleton as a graph: lengths, components, ends."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from precomputed_store.skeleton.skeleton import Skeleton

__all__ = ["branch_points", "cable_length", "component_labels", "terminals"]


def cable_length(skeleton: Skeleton) -> float:
    """Sum of the lengths of all edges, in nm."""
    ends = skeleton.vertices.astype(np.float64)[skeleton.edges]
    return float(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).sum())


def terminals(skeleton: Skeleton) -> NDArray[np.intp]:
    """Indices of the vertices that one edge ends at."""
    return np.flatnonzero(_degrees(skeleton) == 1)


def branch_points(skeleton: Skeleton) -> NDArray[np.intp]:
    """Indices of the vertices that three or more edges end at."""
    return np.flatnonzero(_degrees(skeleton) >= 3)


def component_labels(skeleton: Skeleton) -> NDArray[np.intp]:
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


def _degrees(skeleton: Skeleton) -> NDArray[Any]:
    return np.bincount(skeleton.edges.ravel(), minlength=len(skeleton.vertices))
