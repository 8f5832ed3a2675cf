"""SWC: a line per vertex, ``id type x y z radius parent``.

Cannon et al. 1998, doi:10.1016/S0165-0270(98)00091-0, and what programs make of it: roots
have parent -1, some files' 0; ids come in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from precomputed_store.errors import FormatError
from precomputed_store.skeleton.graph import parents

if TYPE_CHECKING:
    from precomputed_store.skeleton.skeleton import Skeleton

__all__ = ["Scale", "read_swc", "rooted", "scale_of", "write_swc"]

Scale: TypeAlias = float | Sequence[float]
_UNKNOWN = ("NA", "N/A", "NAN")


class _Node(NamedTuple):
    line: int
    kind: int
    position: tuple[float, float, float]
    radius: float
    parent: int


def read_swc(text: str, *, scale: Scale) -> tuple[Any, Any, dict[str, NDArray[Any]]]:
    """Vertices, edges and attributes, in the order of the lines."""
    axes, length = scale_of(scale)
    nodes = _nodes(text)
    parent = _parents(nodes)
    rows = list(nodes.values())
    _refuse_cycles(parent, list(nodes), rows)
    positions = np.array([node.position for node in rows]).reshape(-1, 3)
    radius = np.array([node.radius for node in rows], dtype=np.float64)
    attributes: dict[str, NDArray[Any]] = {
        "radius": _as_float32(np.where(radius < 0, radius, radius * length)),
        "vertex_types": _kinds([node.kind for node in rows]),
    }
    children = np.flatnonzero(parent < len(rows))
    edges = np.stack([children, parent[children]], axis=1)
    return _as_float32(positions * axes), edges, attributes


def _as_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise FormatError("there are positions or radii that do not fit float32, or are no number")
    return rounded


def _nodes(text: str) -> dict[int, _Node]:
    nodes: dict[int, _Node] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        columns = line.partition("#")[0].split()
        if not columns:
            continue
        if len(columns) < 7:
            raise FormatError(
                f"line {number}: expected id, type, x, y, z, radius and parent, "
                f"got {len(columns)} columns"
            )
        try:
            name, node = _node(columns, number)
        except ValueError as error:
            raise FormatError(f"line {number}: {error}") from None
        if name in nodes:
            raise FormatError(f"line {number}: id {name} is that of line {nodes[name].line}")
        nodes[name] = node
    return nodes


def _node(columns: list[str], line: int) -> tuple[int, _Node]:
    name, kind, parent = (_integer(columns[i]) for i in (0, 1, 6))
    if name < 0:
        raise ValueError(f"expected an id of at least 0, got {name}")
    x, y, z = map(float, columns[2:5])
    radius = -1.0 if columns[5].upper() in _UNKNOWN else float(columns[5])
    return name, _Node(line, kind, (x, y, z), radius, parent)


def _integer(text: str) -> int:
    if "." not in text:
        return int(text)
    # Some programs write all columns as floats.
    whole, _, fraction = text.partition(".")
    if fraction.strip("0"):
        raise ValueError(f"expected an integer, got {text!r}")
    return int(whole)


def _parents(nodes: dict[int, _Node]) -> NDArray[np.intp]:
    """For each node its parent's index, or the number of nodes if it is a root.

    Parents -1 and, without a node of this id, 0 make a root.
    """
    index = {name: number for number, name in enumerate(nodes)}
    index.setdefault(-1, len(nodes))
    index.setdefault(0, len(nodes))
    parents = []
    for node in nodes.values():
        if node.parent not in index:
            raise FormatError(f"line {node.line}: there is no node {node.parent}, its parent")
        parents.append(index[node.parent])
    return np.array(parents, dtype=np.intp)


def _refuse_cycles(parent: NDArray[np.intp], names: list[int], rows: list[_Node]) -> None:
    """Every node leads to a root in as many steps as there are nodes."""
    count = len(rows)
    ancestor = np.append(parent, count)
    for _ in range(count.bit_length()):
        ancestor = ancestor[ancestor]
    if (ancestor < count).any():
        # Whoever is not at a root by now is in a cycle.
        first = int(ancestor.min())
        raise FormatError(
            f"line {rows[first].line}: node {names[first]} is among its own ancestors"
        )


def _kinds(kinds: list[int]) -> NDArray[Any]:
    """uint8, as CloudVolume stores them, unless a type of the user's own needs more."""
    if all(0 <= kind <= 255 for kind in kinds):
        return np.array(kinds, dtype=np.uint8)
    if not all(-(2**31) <= kind < 2**31 for kind in kinds):
        raise FormatError("a type does not fit 32 bits")
    return np.array(kinds, dtype=np.int32)


def write_swc(skeleton: Skeleton, *, scale: Scale, break_cycles: bool) -> str:
    """The text, ids from 1, every parent before its children."""
    axes, length = scale_of(scale)
    order, parent = rooted(skeleton, break_cycles=break_cycles)
    name = np.empty(len(order) + 1, dtype=np.int64)
    name[order] = np.arange(1, len(order) + 1)
    # What parent -1 leads to.
    name[-1] = -1
    radius = _column(skeleton, "radius", unknown=-1).astype(np.float64)
    radius = np.where(radius < 0, radius, radius / length)
    columns = [
        name[order],
        _column(skeleton, "vertex_types", unknown=0)[order].astype(np.int64),
        *(skeleton.vertices / axes).astype(np.float32)[order].T,
        radius.astype(np.float32)[order],
        name[parent[order]],
    ]
    # numpy's text of a float32 is the shortest that reads back as the same number.
    rows = zip(*(column.astype(str).tolist() for column in columns), strict=True)
    lines = ["# id type x y z radius parent", *map(" ".join, rows)]
    return "\n".join(lines) + "\n"


def rooted(skeleton: Skeleton, *, break_cycles: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Order and parents as by `parents`.

    Raises
    ------
    ValueError
        There are cycles, and they may not be broken.
    """
    order, parent, surplus = parents(skeleton)
    if surplus and not break_cycles:
        raise ValueError(
            f"the skeleton has {surplus} edges that close cycles, and parents can only tell of "
            "trees; break_cycles=True leaves these edges out"
        )
    return order, parent


def scale_of(scale: Scale) -> tuple[NDArray[np.float64], float]:
    """Nanometres per unit along x, y, z, and for lengths in no one direction."""
    axes = np.asarray(scale, dtype=np.float64)
    if axes.shape not in ((), (3,)) or not (np.isfinite(axes) & (axes > 0)).all():
        raise ValueError(f"scale: expected one or three positive numbers in nm, got {scale!r}")
    if axes.shape == ():
        return np.full(3, axes), float(axes)
    return axes, float(np.cbrt(np.prod(axes)))


def _column(skeleton: Skeleton, name: str, *, unknown: float) -> NDArray[Any]:
    values = skeleton.attributes.get(name)
    if values is None:
        return np.full(len(skeleton.vertices), unknown)
    if values.ndim != 1:
        raise ValueError(f"attributes[{name!r}]: expected one number for each vertex")
    return values
