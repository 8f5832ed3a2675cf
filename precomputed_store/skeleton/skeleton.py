"""`Skeleton`: vertices, the edges between them, and what is known of each vertex."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from precomputed_store.skeleton import compare, drawing, edit, exchange, graph, resample, swc
from precomputed_store.skeleton.arrays import (
    checked_attribute,
    checked_edges,
    checked_name,
    checked_vertices,
    no_edges,
    read_only,
    same,
)

__all__ = ["Skeleton"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Skeleton:
    """A graph in space. It cannot be changed; its arrays are read-only.

    Two skeletons are equal if their arrays are: same vertices, edges and attributes, of
    the same types and in the same order (NaN equals NaN). Skeletons have no hash.

    Attributes
    ----------
    vertices : array of float32, shape (n, 3)
        Positions x, y, z in nm.
    edges : array of uint32, shape (m, 2)
        Indices into `vertices`.
    attributes : mapping of str to array, shape (n,) or (n, k)
        Numbers of each vertex, by name. ``radius`` is in nm.

    Raises
    ------
    ValueError
        An array has a wrong shape, or an edge names a vertex that is not there.
    TypeError
        An array holds no numbers.

    Examples
    --------
    >>> Skeleton([(0, 0, 0), (0, 0, 5)], [(0, 1)], {"radius": [1.5, 2]})
    Skeleton(2 vertices, 1 edge, radius)
    """

    vertices: NDArray[np.float32]
    edges: NDArray[np.uint32] = field(default_factory=no_edges)
    attributes: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vertices = read_only(checked_vertices(self.vertices))
        count = len(vertices)
        edges = read_only(checked_edges(self.edges, count))
        attributes = {
            checked_name(name): read_only(checked_attribute(name, values, count))
            for name, values in self.attributes.items()
        }
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "attributes", MappingProxyType(attributes))

    # Neither a frozen dataclass nor numpy keeps arrays read-only through pickle.
    def __reduce__(self) -> tuple[Any, ...]:
        return Skeleton, (self.vertices, self.edges, dict(self.attributes))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Skeleton):
            return NotImplemented
        mine, others = self.attributes, other.attributes
        return (
            same(self.vertices, other.vertices)
            and same(self.edges, other.edges)
            and mine.keys() == others.keys()
            and all(same(mine[name], others[name]) for name in mine)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        n, m = len(self.vertices), len(self.edges)
        counts = f"{n} vert{'ex' if n == 1 else 'ices'}, {m} edge{'' if m == 1 else 's'}"
        return f"Skeleton({', '.join([counts, *self.attributes])})"

    def _repr_html_(self) -> str:
        return drawing.as_html(self)

    @property
    def empty(self) -> bool:
        """Whether there are no vertices."""
        return not len(self.vertices)

    def cable_length(self) -> float:
        """Sum of the lengths of all edges, in nm.

        Examples
        --------
        >>> s = Skeleton([(0, 0, 0), (0, 0, 5), (0, 0, 8), (0, 4, 8)], [(0, 1), (2, 3)])
        >>> s.cable_length(), [part.cable_length() for part in s.components()]
        (9.0, [5.0, 4.0])
        """
        ends = self.vertices.astype(np.float64)[self.edges]
        return float(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).sum())

    def terminals(self) -> NDArray[np.intp]:
        """Indices of the vertices that one edge ends at."""
        return graph.terminals(self)

    def branches(self) -> NDArray[np.intp]:
        """Indices of the vertices that three or more edges end at."""
        return graph.branches(self)

    def components(self) -> list[Skeleton]:
        """Each connected part as a skeleton of its own, a lone vertex too.

        In the order of their lowest-numbered vertices; vertices and edges keep theirs.
        """
        return edit.components(self)

    def component_labels(self) -> NDArray[np.intp]:
        """For each vertex the lowest index among those that it is connected with."""
        return graph.component_labels(self)

    def paths(self) -> list[NDArray[np.intp]]:
        """Ways from each end to the root, which is the farthest end (in edges) of its component.

        Returns
        -------
        list of arrays of indices
            ``vertices[path]`` are positions. Each ends at the root of its component, so stems
            are in many. Where there are cycles, these are shortest ways. Lone vertices are
            in none.
        """
        return graph.paths(self)

    def sections(self) -> list[NDArray[np.intp]]:
        """Unbranched stretches between ends and branch points; each edge is in one of them.

        Returns
        -------
        list of arrays of indices
            They lead away from the lowest-numbered end of their component. A ring without
            ends and branch points begins and ends at its lowest-numbered vertex.
        """
        return graph.sections(self)

    def crop(self, lower: ArrayLike, upper: ArrayLike) -> Skeleton:
        """The part in a box.

        Parameters
        ----------
        lower, upper : array-like of shape (3,)
            Corners x, y, z in nm; both belong to the box.

        Returns
        -------
        Skeleton
            The vertices in the box, in their order, and the edges that lie in it whole.
        """
        return edit.crop(self, lower, upper)

    def consolidate(self, *, keep_isolated: bool = False) -> Skeleton:
        """Without duplicate vertices, duplicate edges and loops.

        Parameters
        ----------
        keep_isolated : bool
            Whether to keep vertices that no edge ends at. The only vertex always stays.

        Returns
        -------
        Skeleton
            Vertices in the order of x, y, z; of several at one place the first one's
            attributes are kept.
        """
        return edit.consolidate(self, keep_isolated=keep_isolated)

    def merge(self, *others: Skeleton) -> Skeleton:
        """This and others side by side in one: nothing is joined; see `consolidate`.

        Raises
        ------
        ValueError
            They do not have the same attributes.
        """
        return edit.merge([self, *others])

    def transform(self, matrix: ArrayLike) -> Skeleton:
        """Moved, turned, scaled.

        Parameters
        ----------
        matrix : array-like of shape (3, 4)
            Applied to positions. ``radius`` is multiplied by the cube root of the
            determinant, unless it is negative, which means unknown.
        """
        return edit.transform(self, matrix)

    def downsample(self, factor: int) -> Skeleton:
        """Every `factor`-th vertex of each section; ends, branch points, lone vertices stay.

        Parameters
        ----------
        factor : int
            At least 1. A ring keeps at least three vertices.

        Returns
        -------
        Skeleton
            Vertices in their order, with their attributes.
        """
        return resample.downsample(self, factor)

    def smooth(self, window: int, *, stay_inside: bool = False) -> Skeleton:
        """Moving average along each section; ends and branch points stay where they are.

        It runs forwards and backwards, so that vertices do not wander along the section;
        beyond its ends the section is mirrored.

        Parameters
        ----------
        window : int
            How many vertices are averaged, at least 1.
        stay_inside : bool
            Whether a vertex that moves farther than its ``radius`` is an error.

        Raises
        ------
        ValueError
            `stay_inside` is given, and a vertex would leave its radius.
        """
        return resample.smooth(self, window, stay_inside=stay_inside)

    def equivalent(self, other: Skeleton) -> bool:
        """Whether it is the same but for the order of vertices, edges, and ends of edges.

        Positions and attributes are compared exactly. networkx is needed only where vertices
        are alike in both.
        """
        return compare.equivalent(self, other)

    @classmethod
    def from_swc(cls, text: str, *, scale: swc.Scale = 1.0) -> Skeleton:
        """A skeleton from the text of an SWC file.

        Nodes may come in any order; one whose parent is -1, or 0 where no node has this id,
        is a root, of which there may be several. What follows ``#``, and columns
        after the seventh, are not read.

        Parameters
        ----------
        text : str
            For a file, ``Path(name).read_text()``.
        scale : float or (float, float, float)
            Nanometres per unit of the file, along x, y, z: 1000 if it is in µm.

        Returns
        -------
        Skeleton
            With the attributes ``radius`` in nm (-1 where the file has NA) and
            ``vertex_types``, vertices in the order of the lines.

        Raises
        ------
        FormatError
            Names the line: a column is no number, an id is given twice, a parent is not
            there, or a node is its own ancestor.
        """
        return cls(*swc.read_swc(text, scale=scale))

    def to_swc(self, *, scale: swc.Scale = 1.0, break_cycles: bool = False) -> str:
        """The text of an SWC file.

        Each component is a tree below its lowest-numbered vertex; ids count from 1, parents
        come before children, roots have parent -1. Of the attributes only ``radius`` and
        ``vertex_types`` have a column; where they lack, it is -1 and 0.

        Parameters
        ----------
        scale : float or (float, float, float)
            Nanometres per unit of the file, as in `from_swc`.
        break_cycles : bool
            Whether to leave out edges that close a cycle, which SWC cannot hold.

        Raises
        ------
        ValueError
            There are cycles, and they may not be broken.
        """
        return swc.write_swc(self, scale=scale, break_cycles=break_cycles)

    @classmethod
    def from_networkx(cls, graph: Any) -> Skeleton:
        """A skeleton from a networkx graph.

        Parameters
        ----------
        graph : networkx.Graph
            Nodes have ``x``, ``y``, ``z`` in nm; whatever else they have is an attribute.
            Directions of edges do not matter.

        Raises
        ------
        ValueError
            A node lacks what others have.
        """
        return cls(*exchange.from_networkx(graph))

    def to_networkx(self) -> Any:
        """A `networkx.Graph`.

        Nodes have ``x``, ``y``, ``z`` in nm and the attributes; edges have ``length`` in nm.

        Raises
        ------
        UnsupportedError
            networkx is not installed.
        """
        return exchange.to_networkx(self)

    def to_dataframe(self, *, break_cycles: bool = False) -> Any:
        """A `pandas.DataFrame` with a row for each vertex.

        Columns are ``parent`` (the index of the next vertex on the way to the root, -1 for
        a root), ``x``, ``y``, ``z`` in nm, and the attributes, those of several
        components as ``name_0``, ``name_1``.

        Parameters
        ----------
        break_cycles : bool
            As in `to_swc`.
        """
        return exchange.to_dataframe(self, break_cycles=break_cycles)

    def to_navis(self, *, break_cycles: bool = False) -> Any:
        """A `navis.TreeNeuron` in nm, if navis (GPL) is installed.

        Parameters
        ----------
        break_cycles : bool
            As in `to_swc`.
        """
        return exchange.to_navis(self, break_cycles=break_cycles)
