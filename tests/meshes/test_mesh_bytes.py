"""Bytes of meshes: what the specification says, and what it does not allow."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterator

import DracoPy
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from precomputed_store.errors import FormatError, MetadataError
from precomputed_store.mesh import Manifest, Mesh, draco, legacy
from precomputed_store.mesh.fragments import Fragment, assemble, decode_fragment, nodes_within
from precomputed_store.mesh.manifest import z_order
from precomputed_store.mesh.octree import OctreeOptions, encode_levels, split_at_planes
from precomputed_store.mesh.simplify import levels_of_detail
from precomputed_store.metadata import MeshInfo, ShardingSpec
from tests.meshes.mesh_builders import sphere

INFO = {
    "@type": "neuroglancer_multilod_draco",
    "vertex_quantization_bits": 10,
    "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
    "lod_scale_multiplier": 1,
}


def test_an_info_comes_back_with_what_is_unknown() -> None:
    document = {**INFO, "lod_scale_multiplier": 2.5, "segment_properties": "p", "mip": 1}
    info = MeshInfo.from_json(document)
    assert info.to_json() == document
    assert MeshInfo.from_json(info.to_bytes()) == info
    legacy_info = MeshInfo.from_json({"@type": "neuroglancer_legacy_mesh", "chunk_size": [1, 2]})
    assert legacy_info.kind == "legacy"
    assert legacy_info.to_json() == {"@type": "neuroglancer_legacy_mesh", "chunk_size": [1, 2]}
    spec = ShardingSpec(hash="identity", preshift_bits=0, minishard_bits=1, shard_bits=2)
    sharded = MeshInfo(kind="multilod", sharding=spec)
    assert MeshInfo.from_json(sharded.to_json()) == sharded


def test_every_problem_of_an_info_is_listed() -> None:
    spec = ShardingSpec(hash="identity", preshift_bits=0, minishard_bits=1, shard_bits=2)
    with pytest.raises(MetadataError) as error:
        MeshInfo.from_json(
            {
                "@type": "neuroglancer_multilod_draco",
                "vertex_quantization_bits": 12,
                "transform": [1, 2, 3],
                "lod_scale_multiplier": 0,
                "sharding": {"@type": "x"},
                "segment_properties": "/etc",
            }
        )
    found = {problem.location.split(".")[0] for problem in error.value.problems}
    assert found == {
        "vertex_quantization_bits",
        "transform",
        "lod_scale_multiplier",
        "sharding",
        "segment_properties",
    }
    with pytest.raises(MetadataError) as error:
        MeshInfo.from_json({**INFO, "vertex_quantization_bits": 12, "lod_scale_multiplier": True})
    assert [problem.location for problem in error.value.problems] == [
        "vertex_quantization_bits",
        "lod_scale_multiplier",
    ]
    with pytest.raises(MetadataError, match="cannot be sharded"):
        MeshInfo(kind="legacy", sharding=spec)
    with pytest.raises(MetadataError, match="@type"):
        MeshInfo.from_json({"@type": "neuroglancer_skeletons"})


# One lod of two nodes and one of one, written out by hand after meshes.md.
MANIFEST = b"".join(
    [
        struct.pack("<3f", 10, 20, 30),
        struct.pack("<3f", -1, -2, -3),
        struct.pack("<I", 2),
        struct.pack("<2f", 4, 8),
        struct.pack("<6f", 0, 0, 0, 0.5, 0.5, 0.5),
        struct.pack("<2I", 2, 1),
        struct.pack("<6I", 0, 1, 0, 0, 0, 1),
        struct.pack("<2I", 100, 0),
        struct.pack("<3I", 0, 0, 0),
        struct.pack("<I", 7),
    ]
)


def test_a_manifest_is_read_as_the_specification_lays_it_out() -> None:
    manifest = Manifest.from_bytes(MANIFEST)
    assert manifest.chunk_shape.tolist() == [10, 20, 30]
    assert manifest.grid_origin.tolist() == [-1, -2, -3]
    assert manifest.lod_scales.tolist() == [4, 8]
    assert manifest.fragment_positions[0].tolist() == [[0, 0, 0], [1, 0, 1]]
    assert [sizes.tolist() for sizes in manifest.fragment_sizes] == [[100, 0], [7]]
    assert manifest.fragment_starts(1).tolist() == [100, 107]
    assert manifest.data_bytes == 107
    assert manifest.node_origins(1).tolist() == [[-0.5, -1.5, -2.5]]
    assert manifest.to_bytes() == MANIFEST


@pytest.mark.parametrize("size", range(len(MANIFEST)))
def test_a_manifest_that_is_cut_off_is_refused(size: int) -> None:
    with pytest.raises(FormatError):
        Manifest.from_bytes(MANIFEST[:size])


@given(st.integers(0, len(MANIFEST) - 4), st.integers(0, 2**32 - 1))
@settings(max_examples=300)
def test_any_word_of_a_manifest_may_be_wrong(at: int, word: int) -> None:
    damaged = MANIFEST[:at] + word.to_bytes(4, "little") + MANIFEST[at + 4 :]
    try:
        manifest = Manifest.from_bytes(damaged)
    except FormatError:
        return
    assert manifest.to_bytes() == damaged


def test_nodes_are_ordered_by_their_morton_codes() -> None:
    positions = np.random.default_rng(3).integers(0, 2**21, (200, 3))
    codes = [
        sum(
            (int(value) >> bit & 1) << (3 * bit + axis)
            for bit in range(21)
            for axis, value in enumerate(row)
        )
        for row in positions
    ]
    assert [codes[i] for i in z_order(positions)] == sorted(codes)


def test_legacy_bytes_are_those_of_the_specification() -> None:
    data = struct.pack("<I9f3I", 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 2)
    mesh = legacy.decode_fragment(data)
    assert mesh.faces.tolist() == [[0, 1, 2]]
    assert mesh.vertices[1].tolist() == [1, 0, 0]
    assert legacy.encode_fragment(mesh) == data
    for size in range(len(data)):
        if size != 40:
            with pytest.raises(FormatError):
                legacy.decode_fragment(data[:size])
    with pytest.raises(FormatError, match="names vertex 9"):
        legacy.decode_fragment(data[:-4] + struct.pack("<I", 9))
    with pytest.raises(FormatError, match="4294967295"):
        legacy.decode_fragment(b"\xff" * 40)


def test_a_legacy_manifest_names_fragments_within_the_folder() -> None:
    assert legacy.parse_manifest(b'{"fragments": ["a", "../b"]}', source="7:0") == ["a", "../b"]
    for bad in (b"{}", b'{"fragments": ["/etc/passwd", 5]}', b'{"fragments": 5}', b"[]", b"\xff"):
        with pytest.raises(MetadataError, match="7:0"):
            legacy.parse_manifest(bad, source="7:0")
    assert [legacy.segment_of(name) for name in ("7:0", "07:0", "7", "7:0:0", "x:0")] == [
        7, None, None, None, None,
    ]  # fmt: skip


def streams() -> Iterator[bytes]:
    mesh = sphere(5, scale=40, shift=0)
    points = mesh.vertices.astype(np.uint32)
    for level in (0, 1, 7, 10):
        for ordered in (False, True):
            yield DracoPy.encode(
                points, mesh.faces, compression_level=level, preserve_order=ordered
            )
    yield DracoPy.encode(points, mesh.faces, create_metadata=True)
    # Positions as floats, unquantised, are decoded by Neuroglancer as well.
    yield DracoPy.encode(points.astype(np.float32), mesh.faces, quantization_bits=0)


def test_every_draco_stream_of_integers_is_decoded() -> None:
    mesh = sphere(5, scale=40, shift=0)
    for number, stream in enumerate(streams()):
        if number == 9:
            continue
        points, faces = draco.decode(stream, bits=10)
        assert len(points) == len(mesh.vertices)
        assert Mesh(vertices=points, faces=faces).volume == pytest.approx(
            Mesh(vertices=mesh.vertices.astype(np.uint32), faces=mesh.faces).volume
        )
    with pytest.raises(FormatError, match="expected 0 to 255"):
        draco.decode(next(streams()), bits=8)
    points = np.random.default_rng(0).random((4, 3)).astype(np.float32)
    quantised = DracoPy.encode(points, np.array([[0, 1, 2], [0, 2, 3]], np.uint32))
    with pytest.raises(FormatError, match="not integers"):
        draco.decode(quantised, bits=10)


def test_a_draco_stream_that_claims_too_much_is_refused_before_it_is_decoded() -> None:
    stream = bytearray(next(streams()))
    for at in range(11, 16):
        damaged = stream[:at] + b"\xff\xff\xff\xff\x0f" + stream[at:]
        with pytest.raises(FormatError):
            draco.decode(bytes(damaged), bits=16)


def plane(side: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:side, :side]
    points = np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3).astype(np.uint32)
    corner = np.arange(side * side).reshape(side, side)[:-1, :-1].ravel()
    one = np.stack([corner, corner + 1, corner + side], axis=1)
    other = np.stack([corner + 1, corner + side + 1, corner + side], axis=1)
    return points, np.concatenate([one, other]).astype(np.uint32)


def test_a_plane_that_compresses_to_next_to_nothing_is_decoded() -> None:
    points, faces = plane(300)
    stream = draco.encode(points, faces, level=7)
    assert len(stream) < len(faces) / 300
    assert len(draco.decode(stream, bits=16)[1]) == len(faces)


def test_what_would_be_refused_is_encoded_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draco, "_ALWAYS_ALLOWED", 10_000)
    points, faces = plane(100)
    with pytest.raises(FormatError, match="claims 19602 faces"):
        draco.decode(DracoPy.encode(points, faces, compression_level=7), bits=16)
    assert len(draco.decode(draco.encode(points, faces, level=7), bits=16)[1]) == len(faces)


def mutants(count: int) -> Iterator[bytes]:
    source = random.Random(4)
    whole = list(streams())
    for _ in range(count):
        data = bytearray(source.choice(whole))
        for _ in range(source.choice((1, 1, 2, 8))):
            at = source.randrange(min(len(data), 120) if source.random() < 0.5 else len(data))
            what = source.randrange(4)
            if what == 0:
                data[at] ^= 1 << source.randrange(8)
            elif what == 1:
                data[at] = source.choice((0, 1, 127, 128, 255))
            elif what == 2:
                data[at:at] = bytes(source.randrange(256) for _ in range(4))
            else:
                del data[max(1, at) :]
        yield bytes(data)


def test_damaged_draco_streams_are_refused_or_decode() -> None:
    refused = 0
    for data in mutants(3000):
        try:
            points, faces = draco.decode(data, bits=16)
        except FormatError:
            refused += 1
        else:
            assert not faces.size or faces.max() < len(points)
    assert 1000 < refused < 3000


@pytest.mark.parametrize("bits", [10, 16])
@pytest.mark.parametrize("lods", [1, 2, 4])
def test_an_octree_holds_the_surface_at_every_level(bits: int, lods: int) -> None:
    mesh = sphere(20)
    levels = levels_of_detail(mesh, lods, reduction=4)
    encoded = encode_levels(levels, OctreeOptions(bits=bits))
    manifest = Manifest.from_bytes(encoded.manifest)
    info = MeshInfo(kind="multilod", vertex_quantization_bits=bits)
    assert manifest.data_bytes == len(encoded.data)
    assert len(manifest.fragment_sizes[-1]) == 1
    for lod, level in enumerate(levels):
        pieces = fragments_of(encoded, lod, info)
        whole = Mesh.concatenate(*pieces).deduplicate()
        # Neighbouring nodes meet exactly: merged by equality, nothing is open.
        assert whole.is_closed
        step = float(manifest.node_shape(lod)[0]) / (2**bits - 1)
        assert whole.volume == pytest.approx(level.volume, abs=2 * step * level.area)
        assert np.abs(whole.bounds - level.bounds).max() <= step
        order = z_order(manifest.fragment_positions[lod])
        assert (order == np.arange(len(order))).all()


def fragments_of(encoded: tuple[bytes, bytes], lod: int, info: MeshInfo) -> list[Mesh]:
    manifest = Manifest.from_bytes(encoded[0])
    starts = manifest.fragment_starts(lod).tolist()
    pieces = []
    for node, (start, stop) in enumerate(itertools.pairwise(starts)):
        data = encoded[1][start:stop]
        parts = [decode_fragment(data, Fragment(lod, node), info)] if data else []
        pieces.append(assemble(parts, manifest, info))
    return pieces


@pytest.mark.parametrize("bits", [10, 16])
def test_no_triangle_crosses_the_middle_of_a_coarser_node(bits: int) -> None:
    """meshes.md: partitioned by a 2x2x2 grid such that no triangle crosses a boundary."""
    levels = levels_of_detail(sphere(20), 3, reduction=4)
    encoded = encode_levels(levels, OctreeOptions(bits=bits))
    manifest = Manifest.from_bytes(encoded.manifest)
    middle = 2 ** (bits - 1)
    for lod in (1, 2):
        starts = manifest.fragment_starts(lod).tolist()
        for start, stop in itertools.pairwise(starts):
            points, faces = draco.decode(encoded.data[start:stop], bits=bits)
            corners = points[faces].astype(int)
            low, high = corners.min(axis=1), corners.max(axis=1)
            assert not ((low < middle) & (high > middle)).any()


def test_every_node_has_a_parent() -> None:
    one = Mesh(vertices=[[0, 0, 0], [1, 0, 0], [0, 1, 0]], faces=[[0, 1, 2]])
    fine = Mesh.concatenate(one, one.transform([[1, 0, 0, 99], [0, 1, 0, 99], [0, 0, 1, 99]]))
    encoded = encode_levels([fine, one, one], OctreeOptions())
    manifest = Manifest.from_bytes(encoded.manifest)
    for fine_nodes, coarse_nodes in zip(
        manifest.fragment_positions, manifest.fragment_positions[1:], strict=False
    ):
        parents = {tuple(node) for node in (fine_nodes // 2).tolist()}
        assert parents <= {tuple(node) for node in coarse_nodes.tolist()}
    assert 0 in manifest.fragment_sizes[1].tolist()


def test_an_empty_mesh_is_stored_and_read() -> None:
    encoded = encode_levels([Mesh.concatenate()], OctreeOptions())
    assert Manifest.from_bytes(encoded.manifest).data_bytes == 0
    assert encoded.data == b""


def test_cut_triangles_keep_their_area_and_cross_no_plane() -> None:
    rng = np.random.default_rng(5)
    points = np.concatenate([rng.random((60, 3)) * 6, rng.integers(0, 6, (60, 3))]).astype(float)
    faces = rng.integers(0, 120, (300, 3))
    cut_points, cut = split_at_planes(points, faces)
    corners = cut_points[cut]
    assert (np.ceil(corners.max(axis=1)) - np.floor(corners.min(axis=1)) <= 1).all() or (
        corners.max(axis=1) <= np.floor(corners.min(axis=1)) + 1
    ).all()
    area = lambda p, f: np.linalg.norm(  # noqa: E731
        np.cross(p[f[:, 1]] - p[f[:, 0]], p[f[:, 2]] - p[f[:, 0]]), axis=1
    ).sum()
    assert area(cut_points, cut) == pytest.approx(area(points, faces))


def test_only_nodes_that_touch_a_box_are_chosen() -> None:
    encoded = encode_levels(levels_of_detail(sphere(20), 3, reduction=4), OctreeOptions())
    manifest = Manifest.from_bytes(encoded.manifest)
    info = MeshInfo(kind="multilod", transform=[2, 0, 0, 7, 0, 1, 0, 0, 0, 0, 1, 0])
    pieces = fragments_of(encoded, 0, info)
    low, high = Mesh.concatenate(*pieces).bounds
    box = (low, low + (high - low) / 4)
    chosen = nodes_within(manifest, 0, box, info)
    assert 0 < len(chosen) < len(pieces)
    for i, piece in enumerate(pieces):
        if len(piece.crop(box).faces):
            assert i in chosen
