"""Skeletons made from others: joined, cut, rid of duplicates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from precomputed_store.skeleton.skeleton import Skeleton

__all__ = ["consolidate", "crop", "merge"]


def crop(skeleton: Skeleton, lower: ArrayLike, upper: ArrayLike) -> Skeleton:
    """The part of a skeleton in a box.

    Parameters
    ----------
    lower, upper : array-like of shape (3,)
        Corners x, y, z in nm; both belong to the box.

    Returns
    -------
    Skeleton
        The vertices in the box, in their order, and the edges that lie in it whole.
    """
    low, high = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    if low.shape != (3,) or high.shape != (3,):
        raise ValueError(f"expected corners of shape (3,) in nm, got {low.shape} and {high.shape}")
    inside = (skeleton.vertices >= low) & (skeleton.vertices <= high)
    return _keep(skeleton, np.all(inside, axis=1))


def consolidate(skeleton: Skeleton, *, keep_isolated: bool = False) -> Skeleton:
    """A skeleton without duplicate vertices, duplicate edges and loops.

    Parameters
    ----------
    keep_isolated : bool
        Whether to keep vertices that no edge ends at.

    Returns
    -------
    Skeleton
        Vertices in the order of x, y, z; of several at one place the first one's
        attributes are kept.
    """
    if not len(skeleton.vertices):
        return skeleton
    _, first, inverse = np.unique(
        skeleton.vertices, axis=0, return_index=True, return_inverse=True
    )
    edges = np.sort(inverse.reshape(-1)[skeleton.edges].reshape(-1, 2), axis=1)
    edges = np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0)
    attributes = {name: values[first] for name, values in skeleton.attributes.items()}
    joined = Skeleton(skeleton.vertices[first], edges.astype(np.uint32), attributes)
    if keep_isolated:
        return joined
    return _keep(joined, np.isin(np.arange(len(first)), edges))


def merge(skeletons: Sequence[Skeleton]) -> Skeleton:
    """Skeletons side by side in one: nothing is joined; see `consolidate`.

    Raises
    ------
    ValueError
        They do not have the same attributes.
    """
    if not skeletons:
        return Skeleton([])  # type: ignore[arg-type]
    names = list(skeletons[0].attributes)
    for index, skeleton in enumerate(skeletons):
        if set(skeleton.attributes) != set(names):
            raise ValueError(
                f"skeletons[{index}]: expected the attributes {names} of the first one, "
                f"got {list(skeleton.attributes)}"
            )
    starts = np.cumsum([0, *(len(skeleton.vertices) for skeleton in skeletons)])
    edges = [s.edges + start for s, start in zip(skeletons, starts[:-1], strict=True)]
    return Skeleton(
        np.concatenate([skeleton.vertices for skeleton in skeletons]),
        np.concatenate(edges).astype(np.uint32),
        {name: np.concatenate([s.attributes[name] for s in skeletons]) for name in names},
    )


def _keep(skeleton: Skeleton, kept: NDArray[np.bool_]) -> Skeleton:
    number = np.cumsum(kept) - 1
    edges = skeleton.edges[kept[skeleton.edges].all(axis=1)]
    attributes = {name: values[kept] for name, values in skeleton.attributes.items()}
    return Skeleton(skeleton.vertices[kept], number[edges].astype(np.uint32), attributes)
