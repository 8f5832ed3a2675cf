"""Skeletons as objects of networkx, pandas and navis, and as pictures."""

from __future__ import annotations

import re
import sys
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree

import networkx as nx
import numpy as np
import pytest
from skeletons.random_trees import random_forest

from precomputed_store.errors import UnsupportedError
from precomputed_store.skeleton import Skeleton

LINE = Skeleton(
    [(0, 0, 0), (0, 3, 4), (0, 3, 6)],
    [(1, 0), (1, 2)],
    {"radius": np.float32([1, 2, 3]), "colour": np.uint8([[1, 2], [3, 4], [5, 6]])},
)


def test_graphs_of_networkx_hold_all_and_come_back() -> None:
    graph = LINE.to_networkx()
    assert graph.nodes[1]["y"] == 3
    assert nx.shortest_path_length(graph, 0, 2, weight="length") == 7
    rng = np.random.default_rng(0)
    for skeleton in (LINE, Skeleton([]), *(random_forest(rng)[0] for _ in range(200))):
        graph = skeleton.to_networkx()
        assert nx.number_connected_components(graph) == len(skeleton.components())
        again = Skeleton.from_networkx(graph)
        if skeleton.empty:
            assert again.empty
        else:
            assert again.equivalent(skeleton)


def test_nodes_may_have_any_name_and_edges_any_direction() -> None:
    graph = nx.MultiDiGraph()
    graph.add_node("soma", x=0, y=1, z=2, radius=5.0)
    graph.add_node((1, 2), x=3, y=4, z=5, radius=6.0)
    graph.add_edge((1, 2), "soma")
    skeleton = Skeleton.from_networkx(graph)
    assert skeleton.vertices.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert skeleton.edges.tolist() == [[1, 0]]
    graph.add_node("bare", x=0, y=0, z=0)
    with pytest.raises(ValueError, match="node 'bare' has no 'radius'"):
        Skeleton.from_networkx(graph)
    with pytest.raises(ValueError, match="x would hide positions"):
        Skeleton([(0, 0, 0)], attributes={"x": [1]}).to_networkx()


def test_a_table_has_a_row_for_each_vertex() -> None:
    table = LINE.to_dataframe()
    assert list(table) == ["parent", "x", "y", "z", "radius", "colour_0", "colour_1"]
    assert table.parent.tolist() == [-1, 0, 1]
    assert table.loc[1].tolist() == [0, 0, 3, 4, 2, 3, 4]
    assert table.dtypes["colour_0"] == np.uint8
    assert len(Skeleton([]).to_dataframe()) == 0
    with pytest.raises(ValueError, match="two columns 'x'"):
        Skeleton([(0, 0, 0)], attributes={"x": [1]}).to_dataframe()
    ring = Skeleton([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1), (1, 2), (2, 0)])
    with pytest.raises(ValueError, match="break_cycles=True"):
        ring.to_dataframe()
    assert ring.to_dataframe(break_cycles=True).parent.tolist() == [-1, 0, 1]


def test_navis_gets_the_table_that_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("navis")
    module.TreeNeuron = lambda table, units: SimpleNamespace(  # type: ignore[attr-defined]
        table=table, units=units
    )
    monkeypatch.setitem(sys.modules, "navis", module)
    neuron = LINE.to_navis()
    assert neuron.units == "1 nanometer"
    assert {"node_id", "parent_id", "x", "y", "z", "radius"} <= {*neuron.table}
    assert neuron.table.parent_id.tolist() == [-1, 0, 1]


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for library, method in (("navis", LINE.to_navis), ("networkx", LINE.to_networkx)):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(UnsupportedError, match=rf"{library} is needed .* pip install"):
            method()


def svg(skeleton: Skeleton) -> ElementTree.Element:
    return ElementTree.fromstring(skeleton._repr_html_())


def test_a_picture_shows_the_two_widest_axes() -> None:
    drawn = svg(LINE)
    (path,) = (node for node in drawn.iter() if node.tag.endswith("path"))
    assert path.get("d") == "M0.0,0.0 120.0,160.0 120.0,240.0"
    assert "y 3 nm × z 6 nm" in "".join(drawn.itertext())


def test_pictures_are_bounded_and_safe() -> None:
    rng = np.random.default_rng(1)
    count = 20_000
    parents = [int(rng.integers(max(0, child - 9), child)) for child in range(1, count)]
    bush = Skeleton(rng.normal(size=(count, 3)), list(enumerate(parents, start=1)))
    cloud = Skeleton(rng.normal(size=(count, 3)))
    odd = Skeleton([(np.inf, 0, 0), (0, np.nan, 0), (0, 0, 0)], [(0, 1)])
    for skeleton in (bush, cloud, odd, Skeleton([]), Skeleton([(0, 0, 0)])):
        text = skeleton._repr_html_()
        assert len(text) < 40_000
        assert not re.search("nan|inf", text)
        ElementTree.fromstring(text)
    hostile = Skeleton([(0, 0, 0)], attributes={"<script>&": [1]})
    assert "<script>" not in hostile._repr_html_()
    ElementTree.fromstring(hostile._repr_html_())
