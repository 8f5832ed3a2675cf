"""Skeletons as objects of networkx, pandas and navis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from precomputed_store.skeleton.extras import optional
from precomputed_store.skeleton.swc import rooted

if TYPE_CHECKING:
    from precomputed_store.skeleton.skeleton import Skeleton

__all__ = ["from_networkx", "to_dataframe", "to_navis", "to_networkx"]


def to_networkx(skeleton: Skeleton) -> Any:
    """A `networkx.Graph` with positions and attributes of nodes, and lengths of edges."""
    networkx = optional("networkx", "for to_networkx")
    x, y, z = skeleton.vertices.astype(np.float64).T.tolist() or ([], [], [])
    columns: dict[str, list[Any]] = {"x": x, "y": y, "z": z}
    if taken := sorted(columns.keys() & skeleton.attributes.keys()):
        raise ValueError(f"attributes: {', '.join(taken)} would hide positions; rename them")
    # Lists of numpy numbers, which keep their data type.
    columns |= {name: list(values) for name, values in skeleton.attributes.items()}
    graph = networkx.Graph()
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        graph.add_node(number, **dict(zip(columns, values, strict=True)))
    ends = skeleton.vertices.astype(np.float64)[skeleton.edges]
    lengths = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)
    for (one, other), length in zip(skeleton.edges.tolist(), lengths.tolist(), strict=True):
        graph.add_edge(one, other, length=length)
    return graph


def from_networkx(graph: Any) -> tuple[Any, Any, dict[str, NDArray[Any]]]:
    """Vertices, edges and attributes, in the order of the nodes."""
    nodes = dict(graph.nodes(data=True))
    index = {name: number for number, name in enumerate(nodes)}
    names = dict.fromkeys(name for values in nodes.values() for name in values)
    columns: dict[str, list[Any]] = {name: [] for name in ("x", "y", "z", *names)}
    for node, values in nodes.items():
        for name, column in columns.items():
            if name not in values:
                raise ValueError(f"node {node!r} has no {name!r}; expected it of every node")
            column.append(values[name])
    vertices = np.array([columns.pop(axis) for axis in ("x", "y", "z")], dtype=np.float64).T
    edges = [(index[one], index[other]) for one, other in graph.edges()]
    return vertices, edges, {name: np.array(column) for name, column in columns.items()}


def to_dataframe(skeleton: Skeleton, *, break_cycles: bool) -> Any:
    """A row for each vertex: its parent, position and attributes."""
    pandas = optional("pandas", "for to_dataframe")
    _, parent = rooted(skeleton, break_cycles=break_cycles)
    columns: dict[str, Any] = {"parent": parent}
    columns |= dict(zip("xyz", skeleton.vertices.T, strict=True))
    for name, values in skeleton.attributes.items():
        split = {name: values}
        if values.ndim == 2:
            split = {f"{name}_{number}": column for number, column in enumerate(values.T)}
        for column_name, column in split.items():
            if column_name in columns:
                raise ValueError(f"attributes: there would be two columns {column_name!r}")
            columns[column_name] = column
    return pandas.DataFrame(columns, index=pandas.RangeIndex(len(parent), name="vertex"))


def to_navis(skeleton: Skeleton, *, break_cycles: bool) -> Any:
    """A `navis.TreeNeuron` in nm."""
    navis = optional("navis", "for to_navis", install="navis")
    table = to_dataframe(skeleton, break_cycles=break_cycles)
    table = table.rename(columns={"parent": "parent_id", "vertex_types": "label"})
    table.insert(0, "node_id", table.index)
    return navis.TreeNeuron(table.reset_index(drop=True), units="1 nanometer")
