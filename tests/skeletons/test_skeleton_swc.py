"""SWC in and out, with osteoid as the oracle."""

from __future__ import annotations

import contextlib

import numpy as np
import osteoid
import pytest
from skeletons.random_trees import random_forest

from precomputed_store.errors import FormatError
from precomputed_store.skeleton import Skeleton, as_skeleton

# Columns in a row of spaces, a tab, a comment behind a node, CRLF, no newline at the end.
CORNERS = """# a comment
 # another

7 3 1.5  0 0 0.5 9\r
9\t1\t1 0 0 2.0 0   # the soma
8 3 2.5 0 0 NA 7
20 1 5 5 5 1e-1 -1 an extra column
21.0 0 5 5 6 1 20.0"""


def test_ids_parents_and_comments_of_every_kind_are_read() -> None:
    skeleton = Skeleton.from_swc(CORNERS)
    assert skeleton.vertices[:, 0].tolist() == [1.5, 1, 2.5, 5, 5]
    assert skeleton.edges.tolist() == [[0, 1], [2, 0], [4, 3]]
    assert skeleton.attributes["radius"].tolist() == pytest.approx([0.5, 2, -1, 0.1, 1])
    kinds = skeleton.attributes["vertex_types"]
    assert (kinds.dtype, kinds.tolist()) == (np.uint8, [3, 1, 3, 1, 0])
    assert len(skeleton.components()) == 2
    for nothing in ("", "# only a comment\n\n"):
        assert Skeleton.from_swc(nothing).empty


def test_parent_0_is_a_node_where_there_is_one() -> None:
    skeleton = Skeleton.from_swc("0 1 0 0 0 1 -1\n1 0 1 0 0 1 0\n")
    assert skeleton.edges.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0 0 0 1", "line 1: expected id, type, x, y, z, radius and parent, got 6"),
        ("\n1 0 0 x 0 1 -1", "line 2: could not convert"),
        ("1.5 0 0 0 0 1 -1", "line 1: expected an integer, got '1.5'"),
        ("a 0 0 0 0 1 -1", "line 1: invalid literal"),
        ("1 0 0 0 0 1 -1\n1 0 0 0 0 1 -1", "line 2: id 1 is that of line 1"),
        ("-1 0 0 0 0 1 -1", "line 1: expected an id of at least 0, got -1"),
        ("1 0 0 0 0 1 5", "line 1: there is no node 5"),
        ("1 0 0 0 0 1 -7", "line 1: there is no node -7"),
        ("1 0 0 0 0 1 1", "line 1: node 1 is among its own ancestors"),
        ("1 0 0 0 0 1 2\n2 0 0 0 0 1 3\n3 0 0 0 0 1 2", "line 2: node 2 is among its own"),
        ("1 0 1e300 0 0 1 -1", "do not fit float32"),
        ("1 0 nan 0 0 1 -1", "do not fit float32"),
        ("1 0 0 0 0 inf -1", "do not fit float32"),
        (f"1 {10**12} 0 0 0 1 -1", "a type does not fit"),
    ],
)
def test_bad_lines_are_named(text: str, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        Skeleton.from_swc(text)
    assert message in str(caught.value)


def test_garbage_is_an_error_or_a_skeleton() -> None:
    rng = np.random.default_rng(0)
    letters = np.array(list("0123456789.-+e# \n\tnaif_"))
    for _ in range(2000):
        text = "".join(rng.choice(letters, size=rng.integers(0, 60)))
        with contextlib.suppress(FormatError):
            Skeleton.from_swc(f"1 0 0 0 0 1 -1\n{text}")


def test_units_are_converted_both_ways() -> None:
    text = "1 0 1 2 3 0.5 -1\n2 0 1 2 4 -1 1\n"
    microns = Skeleton.from_swc(text, scale=1000)
    assert microns.vertices.tolist() == [[1000, 2000, 3000], [1000, 2000, 4000]]
    assert microns.attributes["radius"].tolist() == [500, -1]
    assert Skeleton.from_swc(microns.to_swc(scale=1000), scale=1000) == microns
    voxels = Skeleton.from_swc(text, scale=(4, 4, 32))
    assert voxels.vertices.tolist() == [[4, 8, 96], [4, 8, 128]]
    assert voxels.attributes["radius"].tolist() == [4, -1]
    for wrong in (0, -1, np.inf, (1, 2), "nm"):
        with pytest.raises(ValueError):
            Skeleton.from_swc(text, scale=wrong)  # type: ignore[arg-type]


def test_what_is_written_is_read_again_by_osteoid_and_by_us() -> None:
    rng = np.random.default_rng(1)
    for _ in range(500):
        ours, theirs = random_forest(rng)
        text = ours.to_swc()
        assert Skeleton.from_swc(text).equivalent(ours)
        body = text.partition("\n")[2]
        assert as_skeleton(osteoid.Skeleton.from_swc(body)).equivalent(ours)
        # osteoid writes six decimals; positions are whole here.
        found, expected = Skeleton.from_swc(theirs.to_swc()), ours
        radius = found.attributes["radius"]
        assert np.allclose(np.sort(radius), np.sort(expected.attributes["radius"]), atol=1e-6)
        plain = (Skeleton(s.vertices, s.edges) for s in (found, expected))
        assert next(plain).equivalent(next(plain))


def test_every_float_is_read_as_it_was_written() -> None:
    rng = np.random.default_rng(2)
    bits = rng.integers(0, 2**32, size=(3000, 4), dtype=np.uint32).view(np.float32)
    values = bits[np.isfinite(bits).all(axis=1)]
    skeleton = Skeleton(values[:, :3], attributes={"radius": abs(values[:, 3])})
    read = Skeleton.from_swc(skeleton.to_swc())
    assert np.array_equal(read.vertices, skeleton.vertices)
    assert np.array_equal(read.attributes["radius"], skeleton.attributes["radius"])


def test_parents_come_first_and_lone_vertices_are_roots() -> None:
    vertices = [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (9, 9, 9)]
    skeleton = Skeleton(vertices, [(0, 3), (3, 1), (3, 2), (0, 3)])
    rows = [line.split() for line in skeleton.to_swc().splitlines() if not line.startswith("#")]
    assert [(row[0], row[2], row[5], row[6]) for row in rows] == [
        ("1", "0.0", "-1.0", "-1"),
        ("2", "3.0", "-1.0", "1"),
        ("3", "1.0", "-1.0", "2"),
        ("4", "2.0", "-1.0", "2"),
        ("5", "9.0", "-1.0", "-1"),
    ]


def test_cycles_are_broken_only_if_asked() -> None:
    triangle = Skeleton([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1), (1, 2), (2, 0)])
    with pytest.raises(ValueError, match="1 edges that close cycles"):
        triangle.to_swc()
    broken = Skeleton.from_swc(triangle.to_swc(break_cycles=True))
    assert (len(broken.vertices), len(broken.edges)) == (3, 2)


def test_a_long_path_takes_no_deep_stack() -> None:
    count = 20_000
    edges = np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)
    line = Skeleton(np.arange(3 * count).reshape(-1, 3), edges, {"radius": np.ones(count)})
    read = Skeleton.from_swc(line.to_swc())
    assert np.array_equal(read.vertices, line.vertices)
    assert [len(path) for path in read.paths()] == [count]
    assert len(read.downsample(count).vertices) == 2
