"""Whether two skeletons are the same but for the numbering of their vertices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from precomputed_store.skeleton.extras import optional

if TYPE_CHECKING:
    from precomputed_store.skeleton.skeleton import Skeleton

__all__ = ["equivalent"]


def equivalent(one: Skeleton, other: Skeleton) -> bool:
    """Same vertices with the same attributes, joined by the same edges, in any order."""
    shapes = [
        (len(s.vertices), len(s.edges), {k: (v.dtype, v.shape) for k, v in s.attributes.items()})
        for s in (one, other)
    ]
    if shapes[0] != shapes[1]:
        return False
    count = len(one.vertices)
    if not count:
        return True
    rows = np.concatenate([_rows(one, list(one.attributes)), _rows(other, list(one.attributes))])
    unique, labels = np.unique(rows, return_inverse=True)
    mine, others = labels[:count], labels[count:]
    if not np.array_equal(np.sort(mine), np.sort(others)):
        return False
    if not np.array_equal(_edges(one, mine), _edges(other, others)):
        return False
    return len(unique) == count or _isomorphic((one, mine), (other, others))


def _rows(skeleton: Skeleton, names: list[str]) -> NDArray[np.void]:
    """All that is known of each vertex as bytes; -0 as 0, and every NaN alike."""
    columns = [skeleton.vertices, *(skeleton.attributes[name] for name in names)]
    parts = []
    for values in columns:
        table = values.reshape(len(values), -1)
        if table.dtype.kind == "f":
            table = np.where(np.isnan(table), np.array(np.nan, table.dtype), table + 0)
        parts.append(np.ascontiguousarray(table).view(np.uint8).reshape(len(table), -1))
    joined = np.ascontiguousarray(np.concatenate(parts, axis=1))
    return joined.view(np.dtype((np.void, joined.shape[1]))).reshape(-1)


def _edges(skeleton: Skeleton, labels: NDArray[np.intp]) -> NDArray[np.intp]:
    edges = np.sort(labels[skeleton.edges], axis=1)
    return edges[np.lexsort(edges.T)]


def _isomorphic(*numbered: tuple[Skeleton, NDArray[np.intp]]) -> bool:
    """Where vertices are alike, the edges at them must tell whether the two are the same."""
    networkx = optional("networkx", "to compare skeletons with duplicate vertices")
    graphs = []
    for skeleton, labels in numbered:
        graph = networkx.Graph()
        graph.add_nodes_from((i, {"label": label}) for i, label in enumerate(labels.tolist()))
        graph.add_edges_from(skeleton.edges.tolist())
        graphs.append(graph)
    return bool(networkx.vf2pp_is_isomorphic(*graphs, node_label="label"))
