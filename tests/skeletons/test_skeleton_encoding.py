"""The stored bytes of skeletons, with osteoid (CloudVolume's) as the oracle."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import osteoid
import pytest

from precomputed_store.errors import FormatError
from precomputed_store.metadata import SkeletonInfo, VertexAttribute
from precomputed_store.metadata.skeleton import ATTRIBUTE_TYPES
from precomputed_store.skeleton import Skeleton, decode_skeleton, encode_skeleton

DEFAULTS = (VertexAttribute("radius"), VertexAttribute("vertex_types", "uint8"))
SCALED = (4, 0, 0, 10, 0, 4, 0, 20, 0, 0, 4, 30)


def random_info(rng: np.random.Generator) -> SkeletonInfo:
    custom = [
        VertexAttribute(f"a{i}", str(rng.choice(ATTRIBUTE_TYPES)), int(rng.integers(1, 4)))
        for i in range(rng.integers(0, 4))
    ]
    return SkeletonInfo(vertex_attributes=(*DEFAULTS, *custom))


def random_skeleton(rng: np.random.Generator, info: SkeletonInfo) -> Skeleton:
    count = int(rng.integers(1, 30))
    vertices = rng.normal(size=(count, 3)).astype(np.float32) * 1000
    edges = rng.integers(0, count, size=(rng.integers(0, 40), 2))
    attributes = {}
    for attribute in info.vertex_attributes:
        k = attribute.num_components
        shape = (count,) if k == 1 else (count, k)
        attributes[attribute.id] = rng.integers(0, 100, size=shape).astype(attribute.data_type)
    return Skeleton(vertices, edges, attributes)


@pytest.mark.parametrize("seed", range(100))
def test_osteoid_reads_and_writes_the_same_bytes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    info = random_info(rng)
    skeleton = random_skeleton(rng, info)
    data = encode_skeleton(skeleton, info=info)
    entries = [attribute.to_json() for attribute in info.vertex_attributes]
    theirs = osteoid.Skeleton.from_precomputed(data, segid=1, vertex_attributes=entries)
    np.testing.assert_array_equal(theirs.vertices, skeleton.vertices)
    np.testing.assert_array_equal(theirs.edges, skeleton.edges)
    for name, values in skeleton.attributes.items():
        np.testing.assert_array_equal(getattr(theirs, name).reshape(values.shape), values)
    assert theirs.to_precomputed() == data
    assert decode_skeleton(theirs.to_precomputed(), info=info, segment_id=1) == skeleton


def test_positions_and_radii_are_stored_in_the_space_before_the_transform() -> None:
    info = SkeletonInfo(transform=SCALED, vertex_attributes=DEFAULTS)
    skeleton = Skeleton([(14, 28, 42), (10, 20, 30)], [(0, 1)], {"radius": [8.0, -1.0]})
    data = encode_skeleton(skeleton, info=info)
    stored = osteoid.Skeleton.from_precomputed(data)
    assert stored.vertices.tolist() == [[1, 2, 3], [0, 0, 0]]
    assert stored.radius.tolist() == [2, -1]
    assert stored.vertex_types.tolist() == [0, 0]
    read = decode_skeleton(data, info=info, segment_id=1)
    assert read.vertices.tolist() == skeleton.vertices.tolist()
    assert read.attributes["radius"].tolist() == [8, -1]


def test_a_matrix_without_inverse_stores_nothing() -> None:
    with pytest.raises(ValueError, match="no inverse"):
        encode_skeleton(Skeleton([(0, 0, 0)]), info=SkeletonInfo(transform=(0.0,) * 12))


def test_attributes_that_info_does_not_name_are_an_error_that_says_so() -> None:
    data = osteoid.Skeleton([[0, 0, 0], [1, 1, 1]], [[0, 1]]).to_precomputed()
    with pytest.raises(FormatError, match=r"10 bytes for attributes.*none.* take 0"):
        decode_skeleton(data, info=SkeletonInfo(), segment_id=5)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"weight": [1.0]}, "weight not in vertex_attributes"),
        ({"vertex_types": [256]}, "256 does not fit uint8"),
        ({"vertex_types": [0.5]}, "0.5 does not fit uint8"),
        ({"radius": [1e300]}, "does not fit float32"),
        ({"radius": [[1.0, 2.0]]}, "expected 1 components"),
    ],
)
def test_attributes_that_do_not_fit_info_are_not_written(
    attributes: dict[str, list[float]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encode_skeleton(
            Skeleton([(0, 0, 0)], attributes=attributes),  # type: ignore[arg-type]
            info=SkeletonInfo(vertex_attributes=DEFAULTS),
        )


def test_damaged_bytes_are_an_error_or_a_skeleton_and_take_little_memory() -> None:
    rng = np.random.default_rng(0)
    info = SkeletonInfo(transform=SCALED, vertex_attributes=DEFAULTS)
    outcomes = {"error": 0, "skeleton": 0}
    tracemalloc.start()
    for _ in range(2000):
        data = bytearray(encode_skeleton(random_skeleton(rng, info), info=info))
        for position in rng.integers(0, len(data), size=rng.integers(0, 4)):
            data[position] = rng.integers(256)
        if rng.random() < 0.3:
            data = data[: rng.integers(0, len(data))]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        try:
            read = decode_skeleton(data, info=info, segment_id=1)
            outcomes["skeleton"] += 1
            assert read.edges.max(initial=0) < max(len(read.vertices), 1)
        except FormatError:
            outcomes["error"] += 1
        assert tracemalloc.get_traced_memory()[1] - before < 20 * len(data) + 20_000
    tracemalloc.stop()
    assert min(outcomes.values()) > 200


def test_a_skeleton_cannot_be_changed_even_through_what_it_was_made_of() -> None:
    given = np.zeros((2, 3), dtype=np.float32)
    skeleton = Skeleton(given, [(0, 1)], {"radius": [1.0, 2.0]})
    given[0] = 9
    assert skeleton.vertices.tolist() == [[0, 0, 0], [0, 0, 0]]
    for copy in (skeleton, pickle.loads(pickle.dumps(skeleton))):
        assert copy == skeleton
        for array in (copy.vertices, copy.edges, copy.attributes["radius"]):
            assert not array.flags.writeable


@pytest.mark.parametrize(
    ("vertices", "edges", "message"),
    [
        ([(0, 0)], [], r"expected shape \(n, 3\)"),
        ([(0, 0, 0)], [(0, 1)], "names vertex 1"),
        ([(0, 0, 0)], [(-1, 0)], "names vertex -1"),
        ([(0, 0, 0)], [(0, 0, 0)], r"expected shape \(m, 2\)"),
    ],
)
def test_wrong_arrays_are_refused(
    vertices: list[tuple[int, ...]], edges: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Skeleton(vertices, edges)  # type: ignore[arg-type]
