"""Folders of meshes that other programs have written."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from cloudvolume import CloudVolume

import precomputed_store as ps
from precomputed_store.errors import ObjectError
from precomputed_store.mesh import Mesh
from tests.meshes.mesh_builders import layer_folder, sphere
from tests.servers.web import WebServer


def peer(folder: Path) -> CloudVolume:
    return CloudVolume(f"file://{folder}", progress=False, cache=False)


@pytest.fixture
def legacy_layer(tmp_path: Path) -> Path:
    """Two segments, one of two fragments, gzipped, as CloudVolume writes them."""
    folder = layer_folder(tmp_path / "layer", mesh="mesh_mip_0")
    (folder / "mesh_mip_0").mkdir()
    for name, mesh in (
        ("5:0:a", sphere(4)),
        ("5:0:b", sphere(6, shift=5000.5)),
        ("18446744073709551615:x", sphere(shift=-9000)),
    ):
        data = (
            struct.pack("<I", len(mesh.vertices)) + mesh.vertices.tobytes() + mesh.faces.tobytes()
        )
        (folder / "mesh_mip_0" / name).write_bytes(data)
    (folder / "mesh_mip_0" / "5:0").write_text('{"fragments": ["5:0:a", "5:0:b"]}')
    (folder / "mesh_mip_0" / f"{2**64 - 1}:0").write_text(
        '{"fragments": ["18446744073709551615:x"]}'
    )
    return folder


@pytest.mark.parity
def test_legacy_meshes_are_what_cloudvolume_reads(legacy_layer: Path) -> None:
    source = ps.open_meshes(legacy_layer)
    assert source.ids() == [5, 2**64 - 1] == list(source)
    theirs = peer(legacy_layer).mesh.get([5, 2**64 - 1], fuse=False)
    for segment_id, ours in source.get([5, 2**64 - 1]).items():
        np.testing.assert_array_equal(ours.vertices, theirs[segment_id].vertices)
        np.testing.assert_array_equal(ours.faces, theirs[segment_id].faces)
    fused = source.get([5, 2**64 - 1], fuse=True, deduplicate=True)
    merged = peer(legacy_layer).mesh.get([5, 2**64 - 1], fuse=True, remove_duplicate_vertices=True)
    assert len(fused.faces) == len(merged.faces)
    assert len(fused.vertices) == len(merged.vertices)


@pytest.mark.parity
def test_a_legacy_mesh_that_cloudvolume_has_put_is_read(tmp_path: Path) -> None:
    folder = layer_folder(tmp_path / "layer", mesh="mesh")
    from cloudvolume.mesh import Mesh as PeerMesh

    mesh = sphere()
    theirs = peer(folder)
    theirs.mesh.put(PeerMesh(mesh.vertices, mesh.faces, None, segid=7))
    (written,) = {path.name.removesuffix(".gz") for path in (folder / "mesh").iterdir()} - {
        path.name.removesuffix(".gz")
        for path in (folder / "mesh").iterdir()
        if path.name.startswith("7:0:")
    }
    assert written == "7:0"
    assert ps.open_meshes(folder)[7] == mesh


def test_a_missing_segment_is_an_error_or_left_out(legacy_layer: Path) -> None:
    source = ps.open_meshes(legacy_layer)
    assert 5 in source
    assert 6 not in source
    assert "5" not in source
    with pytest.raises(KeyError, match="no mesh of segments 6, 7"):
        source.get([5, 6, 7])
    assert list(source.get([6, 5], missing="omit")) == [5]
    with pytest.raises(KeyError):
        source[6]
    with pytest.raises(IndexError, match="one level of detail"):
        source.get([5], lod=1)
    with pytest.raises(ValueError, match="expected an integer from 0"):
        source.get([-1])
    with pytest.raises(ValueError, match="lower and an upper corner"):
        source.get([5], box=((0, 0, 0), (1, 1)))


def test_a_box_and_a_pickle(legacy_layer: Path) -> None:
    source = pickle.loads(pickle.dumps(ps.open_meshes(legacy_layer)))
    whole = source[5]
    box = (whole.bounds[0], whole.bounds.mean(axis=0))
    assert source.get([5], box=box)[5] == whole.crop(box)


def test_damaged_legacy_meshes_name_the_object(legacy_layer: Path) -> None:
    folder = legacy_layer / "mesh_mip_0"
    source = ps.open_meshes(legacy_layer)
    (folder / "5:0:b").write_bytes(b"\xff" * 40)
    with pytest.raises(ObjectError, match="5:0:b: mesh fragment is 40 bytes"):
        source[5]
    (folder / "5:0:b").unlink()
    with pytest.raises(ObjectError, match="5:0:b: no such fragment"):
        source[5]
    (folder / "5:0").write_text('{"fragments": 7}')
    with pytest.raises(ps.MetadataError, match="5:0: fragments: expected a list"):
        source[5]
    (folder / "5:0").write_text('{"fragments": ["../../../../etc/passwd"]}')
    with pytest.raises(ps.MetadataError, match="leaves"):
        source[5]


def test_what_is_no_folder_of_meshes_says_so(tmp_path: Path) -> None:
    with pytest.raises(ps.VolumeNotFoundError, match="there is nothing here"):
        ps.open_meshes(tmp_path / "nothing")
    layer = layer_folder(tmp_path / "layer")
    with pytest.raises(ps.VolumeNotFoundError, match="links no meshes"):
        ps.open_meshes(layer)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "info").write_text('{"@type": "neuroglancer_skeletons"}')
    with pytest.raises(ps.MetadataError, match="@type"):
        ps.open_meshes(tmp_path / "other")


def peers_layer(folder: Path, *, bits: int, transform: list[float]) -> tuple[Path, list[Mesh]]:
    """A multi-resolution mesh put together with CloudVolume's own manifest and DracoPy."""
    import DracoPy
    from cloudvolume.datasource.precomputed.mesh import multilod

    layer = layer_folder(folder, mesh="m")
    (layer / "m").mkdir()
    info = {
        "@type": "neuroglancer_multilod_draco",
        "vertex_quantization_bits": bits,
        "transform": transform,
        "lod_scale_multiplier": 1.0,
    }
    (layer / "m" / "info").write_text(json.dumps(info))
    rng = np.random.default_rng(9)
    faces = sphere(5).faces
    points = rng.integers(0, 2**bits, (6, len(sphere(5).vertices), 3)).astype(np.uint32)
    streams = [DracoPy.encode(cloud, faces, preserve_order=True) for cloud in points]
    streams[2] = b""
    sizes = list(map(len, streams))
    manifest = multilod.MultiLevelPrecomputedMeshManifest(
        segment_id=3,
        chunk_shape=[33.3, 44.4, 55.5],
        grid_origin=[1000.25, -2000.5, 3e6],
        num_lods=2,
        lod_scales=[1, 2],
        vertex_offsets=[[0.1, 0.2, 0.3], [-4, 5, 6]],
        num_fragments_per_lod=[4, 2],
        fragment_positions=[[[0, 0, 0], [1, 0, 0], [0, 1, 0], [3, 0, 1]], [[0, 0, 0], [1, 0, 0]]],
        fragment_offsets=sizes,
    )
    (layer / "m" / "3.index").write_bytes(manifest.to_binary())
    (layer / "m" / "3").write_bytes(b"".join(streams))
    return layer, []


@pytest.mark.parity
@pytest.mark.parametrize("bits", [10, 16])
@pytest.mark.parametrize(
    "transform", [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0], [2, 0.5, 0, 7, 0, 3, 0, -8, 0, 0, 4, 9e5]]
)
def test_multi_resolution_meshes_are_what_cloudvolume_reads(
    bits: int, transform: list[float], tmp_path: Path
) -> None:
    layer, _ = peers_layer(tmp_path / "layer", bits=bits, transform=transform)
    source = ps.open_meshes(layer)
    assert source.ids() == [3]
    assert 3 in source
    assert 4 not in source
    theirs = peer(layer).mesh
    for lod in (0, 1):
        expected = theirs.get([3], lod=lod)[3]
        found = source.get([3], lod=lod)[3]
        np.testing.assert_array_equal(found.faces, expected.faces)
        # CloudVolume computes a part of it in single precision.
        np.testing.assert_allclose(found.vertices, expected.vertices, rtol=3e-7)
    assert source.get([3], lod=-1)[3] == source.get([3], lod=1)[3]
    with pytest.raises(IndexError, match="2 levels of detail"):
        source.get([3], lod=2)


def test_damaged_multi_resolution_meshes_name_the_object(tmp_path: Path) -> None:
    layer, _ = peers_layer(tmp_path / "layer", bits=16, transform=[1, 0, 0, 0] * 2 + [0, 0, 1, 0])
    source, folder = ps.open_meshes(layer), layer / "m"
    data = (folder / "3").read_bytes()
    (folder / "3").write_bytes(b"XXXXX" + data[5:])
    with pytest.raises(ObjectError, match="m/3: fragment 0 of lod 0: no Draco stream"):
        source[3]
    (folder / "3").write_bytes(data[:50])
    with pytest.raises(ps.StorageError, match="m/3"):
        source[3]
    (folder / "3").unlink()
    with pytest.raises(ObjectError, match=r"m/3: .*no such object"):
        source[3]
    (folder / "3.index").write_bytes(b"short")
    with pytest.raises(ObjectError, match=r"3\.index: manifest is 5 bytes"):
        source[3]


@pytest.mark.server
def test_meshes_are_read_over_http(legacy_layer: Path, web_server: WebServer) -> None:
    for path in (legacy_layer / "mesh_mip_0").iterdir():
        web_server.add(f"/m/{path.name}", path.read_bytes())
    source = ps.open_meshes(f"{web_server.url}/m")
    local = ps.open_meshes(legacy_layer)
    assert source.get([5, 2**64 - 1, 6], missing="omit") == local.get([5, 2**64 - 1])
    with pytest.raises(ps.UnsupportedError):
        source.ids()


@pytest.mark.server
@pytest.mark.parametrize("sharding", [None, "auto"])
def test_multi_resolution_meshes_are_read_over_http(
    sharding: Literal["auto"] | None, tmp_path: Path, web_server: WebServer
) -> None:
    meshes = {number: sphere(number) for number in range(3, 9)}
    local = ps.write_meshes(tmp_path / "m", meshes, lods=2, sharding=sharding)
    for path in (tmp_path / "m").iterdir():
        web_server.add(f"/m/{path.name}", path.read_bytes())
    source = ps.open_meshes(f"{web_server.url}/m")
    assert source.get(meshes, lod=1) == local.get(meshes, lod=1)
    assert 3 in source
    assert 2 not in source


@pytest.mark.server
def test_small_meshes_and_coarse_levels_cost_one_request_each(
    tmp_path: Path, web_server: WebServer
) -> None:
    meshes = {number: sphere(number) for number in (3, 4, 44)}
    spec = ps.ShardingSpec(hash="identity", preshift_bits=0, minishard_bits=0, shard_bits=0)
    local = ps.write_meshes(tmp_path / "m", meshes, lods=3, sharding=spec)
    data = (tmp_path / "m" / "0.shard").read_bytes()
    web_server.add("/m/info", (tmp_path / "m" / "info").read_bytes())
    web_server.add("/m/0.shard", data)
    source = ps.open_meshes(f"{web_server.url}/m")
    index = f"bytes={len(data) - 3 * 24}-{len(data) - 1}"
    finest = int(local.manifest(44).fragment_starts(0)[-1])
    assert finest > 100_000

    def requests_of(ids: list[int], lod: int) -> int:
        before = len(web_server.requests)
        assert source.get(ids, lod=lod) == local.get(ids, lod=lod)
        ranges = [one.headers["range"] for one in web_server.requests[before:]]
        # Apart from what it takes to know where they are.
        return len([each for each in ranges if each not in ("bytes=0-15", index)])

    assert requests_of([3], 0) == 1
    assert requests_of([3, 4], 0) == 2
    assert requests_of([44], 2) == 1
    assert requests_of([44], -1) == 1
    assert requests_of([44], 0) == 2


def test_fragments_without_manifests_are_found_by_their_names(legacy_layer: Path) -> None:
    expected = ps.open_meshes(legacy_layer).get([5, 2**64 - 1])
    for manifest in (legacy_layer / "mesh_mip_0").glob("*:0"):
        manifest.unlink()
    (legacy_layer / "mesh_mip_0" / "provenance").write_text("{}")
    assert ps.open_meshes(legacy_layer).ids() == []
    source = ps.open_meshes(legacy_layer, manifests=False)
    assert source.ids() == [5, 2**64 - 1]
    assert source.get([5, 6, 2**64 - 1], missing="omit") == expected


def test_a_shard_that_is_exchanged_meanwhile_is_read_anew(tmp_path: Path) -> None:
    spec = ps.ShardingSpec(hash="identity", preshift_bits=0, minishard_bits=0, shard_bits=0)
    source = ps.write_meshes(tmp_path / "a", {1: sphere(3), 2: sphere(4)}, sharding=spec)
    other = ps.write_meshes(tmp_path / "b", {1: sphere(7), 2: sphere(8)}, sharding=spec)
    assert source[2] == source[2]
    expected = other.get([1, 2])
    # Behind the back of this process, which knows the old shard's index.
    (tmp_path / "b" / "0.shard").replace(tmp_path / "a" / "0.shard")
    assert source.get([1, 2]) == expected


def test_a_manifest_in_a_shard_that_claims_more_than_lies_before_it(tmp_path: Path) -> None:
    spec = ps.ShardingSpec(hash="identity", preshift_bits=0, minishard_bits=0, shard_bits=0)
    source = ps.write_meshes(tmp_path / "a", {1: sphere(3)}, sharding=spec, lods=1)
    shard = bytearray((tmp_path / "a" / "0.shard").read_bytes())
    manifest = source.manifest(1).to_bytes()
    # The size of its only fragment ends the manifest.
    at = shard.index(manifest) + len(manifest) - 4
    shard[at : at + 4] = (2**31).to_bytes(4, "little")
    (tmp_path / "a" / "0.shard").write_bytes(shard)
    with pytest.raises(ObjectError, match=r"0\.shard: 2147483648 bytes of fragments of segment 1"):
        source[1]
