"""Meshes made of segmentations: closed, seamless, in the right place, whatever the blocks."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from cloudvolume import CloudVolume
from peaks import IMPORT
from skimage.measure import marching_cubes

import precomputed_store as ps
from precomputed_store.grid import XYZ
from precomputed_store.mesh import Mesh
from precomputed_store.mesh.extract import Surface, extract_surfaces
from precomputed_store.meshing.blocks import block_shape_for
from precomputed_store.metadata import ShardingSpec
from tests.servers.moto import MotoServer

RESOLUTION = (4.0, 8.0, 20.0)
OFFSET = (-7, 5, 3)


def labels() -> np.ndarray:
    """Voronoi cells (x, y, z) that fill the volume up to its faces, one of them background."""
    rng = np.random.default_rng(8)
    shape = (37, 30, 26)
    seeds = rng.random((12, 3)) * shape
    places = np.stack(np.indices(shape), axis=-1)[..., None, :]
    nearest = np.linalg.norm(places - seeds, axis=-1).argmin(axis=-1)
    ids = np.array([0, 2**40 + 1, 2**64 - 1, *range(3, 12)], np.uint64)
    return ids[nearest]


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    ps.to_precomputed(
        labels(), tmp_path / "layer", dims=("x", "y", "z"), resolution=RESOLUTION,
        voxel_offset=OFFSET, layer_type="segmentation", chunk_size=(16, 16, 8),
        encoding="compressed_segmentation", pyramid=None,
    )  # fmt: skip
    return tmp_path / "layer"


@pytest.mark.parametrize("block_shape", [(64, 64, 64), (16, 16, 16), (7, 30, 11), None])
def test_meshes_do_not_depend_on_the_blocks(layer: Path, block_shape: Any) -> None:
    source = ps.make_meshes(layer, kind="legacy", block_shape=block_shape)
    assert json.loads((layer / "info").read_text())["mesh"] == "mesh"
    assert {path.name.split(":")[0] for path in (layer / "mesh").iterdir()} == {
        "info", *(str(one) for one in np.unique(labels()) if one)
    }  # fmt: skip
    surfaces = {one.label: one for one in extract_surfaces(np.pad(labels(), 1))}
    assert source.ids() == sorted(surfaces)
    for label, surface in surfaces.items():
        mesh = source[label]
        assert mesh.is_closed
        # Voxel i spans [i, i + 1): its centre lies half a voxel further; the rim is one voxel.
        expected = (surface.vertices - 0.5 + OFFSET) * RESOLUTION
        assert len(mesh.vertices) == len(expected)
        assert len(mesh.faces) == len(surface.faces)
        order = [np.lexsort(np.rint(v * 2).T) for v in (mesh.vertices, expected)]
        np.testing.assert_allclose(mesh.vertices[order[0]], expected[order[1]], atol=1e-3)


@pytest.mark.parametrize(
    ("size", "chunk_size", "expected"),
    [
        ((10**6, 10**6, 10**6), (64, 64, 64), (256, 256, 128)),
        ((10**6, 10**6, 10), (64, 64, 10), (1024, 512, 10)),
        ((10**6, 10**6, 10**6), (512, 512, 16), (512, 512, 32)),
        ((10**6, 10**6, 10**6), (4096, 4096, 16), (1024, 1024, 16)),
        ((50, 40, 30), (64, 64, 64), (64, 64, 64)),
    ],
)
def test_a_block_is_of_whole_chunks_and_bounded(size: XYZ, chunk_size: XYZ, expected: XYZ) -> None:
    assert block_shape_for(size, chunk_size) == expected


def test_volume_and_extent_agree_with_the_voxels(layer: Path) -> None:
    source = ps.make_meshes(layer, kind="legacy", block_shape=(16, 16, 16))
    voxel_nm3 = np.prod(RESOLUTION)
    for label in source.ids():
        inside = np.argwhere(labels() == label)
        mesh = source[label]
        assert mesh.volume / voxel_nm3 == pytest.approx(len(inside), rel=0.06)
        low, high = inside.min(axis=0), inside.max(axis=0) + 1
        np.testing.assert_allclose(mesh.bounds, (np.array([low, high]) + OFFSET) * RESOLUTION)


def test_surfaces_are_those_of_skimage(layer: Path) -> None:
    source = ps.make_meshes(layer, kind="legacy", ids=[5])
    vertices, faces, _, _ = marching_cubes(np.pad(labels() == 5, 1).astype(np.float32), 0.5)
    peer = Mesh(vertices=(vertices - 0.5 + OFFSET) * RESOLUTION, faces=faces)
    assert source.ids() == [5]
    np.testing.assert_allclose(source[5].bounds, peer.bounds)
    assert source[5].volume == pytest.approx(abs(peer.volume), rel=5e-3)
    assert source[5].area == pytest.approx(peer.area, rel=0.02)


@pytest.mark.parity
@pytest.mark.parametrize("sharding", [None, "auto"])
def test_cloudvolume_reads_what_is_made(layer: Path, sharding: Any) -> None:
    source = ps.make_meshes(layer, block_shape=(16, 16, 16), sharding=sharding, lods=2)
    theirs = CloudVolume(f"file://{layer}", progress=False)
    for label in source.ids():
        for lod in (0, 1):
            ours = source.get([label], lod=lod)[label]
            expected = theirs.mesh.get([label], lod=lod)[label]
            np.testing.assert_array_equal(ours.faces, expected.faces)
            np.testing.assert_allclose(ours.vertices, expected.vertices, rtol=3e-7, atol=1e-3)
        assert source.get([label], deduplicate=True)[label].is_closed


def test_tasks_of_many_shards_fill_them_all(layer: Path) -> None:
    spec = ShardingSpec(hash="identity", preshift_bits=0, minishard_bits=1, shard_bits=2)
    source = ps.make_meshes(layer, sharding=spec, block_shape=(20, 20, 20))
    assert source.ids() == [int(one) for one in np.unique(labels()) if one]
    assert len(list((layer / "mesh").glob("*.shard"))) == 4


def test_chosen_ids_and_sizes(layer: Path) -> None:
    present, counts = np.unique(labels(), return_counts=True)
    size = dict(zip(present.tolist(), counts.tolist(), strict=True))
    least = sorted(size.values())[5]
    source = ps.make_meshes(layer, min_voxels=least, block_shape=(16, 16, 16))
    assert source.ids() == sorted(one for one, n in size.items() if one and n >= least)
    chosen = ps.make_meshes(layer, folder="few", ids=[3, 4, 1234])
    assert chosen.ids() == [3, 4]
    # The layer goes on linking what it linked before.
    assert json.loads((layer / "info").read_text())["mesh"] == "mesh"


def test_smoothing_and_simplification_keep_surfaces_closed(layer: Path) -> None:
    plain = ps.make_meshes(layer, kind="legacy", ids=[3, 4])
    even = ps.make_meshes(layer, folder="b", kind="legacy", ids=[3, 4], smooth=10, simplify=4)
    for label in (3, 4):
        assert even[label].is_closed
        assert len(even[label].faces) < len(plain[label].faces) / 3
        assert even[label].area < plain[label].area
        assert even[label].volume == pytest.approx(plain[label].volume, rel=0.05)


def test_another_extractor_can_be_plugged_in(layer: Path) -> None:
    def boxes(block: np.ndarray) -> Iterator[Surface]:
        for label in np.unique(block[block > 0]).tolist():
            vertices, faces, _, _ = marching_cubes((block == label).astype(np.float32), 0.5)
            yield Surface(label, vertices, faces)

    source = ps.make_meshes(layer, kind="legacy", extractor=boxes, ids=[3])
    assert source[3].is_closed


def test_a_coarser_scale_and_another_kind_of_integers(tmp_path: Path) -> None:
    ps.to_precomputed(
        labels().astype(np.uint16), tmp_path, dims=("x", "y", "z"), resolution=RESOLUTION,
        layer_type="segmentation", pyramid=[(2, 2, 1)],
    )  # fmt: skip
    fine = ps.make_meshes(tmp_path, kind="legacy", ids=[3])[3]
    coarse = ps.make_meshes(tmp_path, kind="legacy", ids=[3], scale=1, folder="coarse")[3]
    assert coarse.volume == pytest.approx(fine.volume, rel=0.1)
    np.testing.assert_allclose(coarse.bounds, fine.bounds, atol=2 * max(RESOLUTION))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_voxels": -1}, "min_voxels"),
        ({"simplify": 0.5}, "simplify"),
        ({"block_shape": (1, 2)}, "block_shape"),
        ({"ids": [-1]}, "id -1"),
        ({"lods": 99}, "lods"),
        ({"vertex_quantization_bits": 9}, "10 or 16"),
    ],
)
def test_wrong_arguments_leave_no_trace(
    layer: Path, options: dict[str, Any], message: str
) -> None:
    before = sorted(path.name for path in layer.iterdir())
    with pytest.raises(ValueError, match=message):
        ps.make_meshes(layer, **options)
    assert sorted(path.name for path in layer.iterdir()) == before


def test_an_image_has_no_meshes(tmp_path: Path) -> None:
    ps.to_precomputed(
        np.ones((8, 8, 8), np.float32), tmp_path, dims=("x", "y", "z"), resolution=(1, 1, 1),
        pyramid=None,
    )  # fmt: skip
    with pytest.raises(ValueError, match="one channel of integers"):
        ps.make_meshes(tmp_path)


def test_a_failed_job_leaves_no_pieces_and_no_link(layer: Path) -> None:
    chunk = next(path for path in (layer / "4_8_20").iterdir())
    chunk.write_bytes(b"damaged")
    with pytest.raises(ps.ChunkError):
        ps.make_meshes(layer, block_shape=(16, 16, 16))
    assert not (layer / "mesh").exists() or not list((layer / "mesh").iterdir())
    assert "mesh" not in json.loads((layer / "info").read_text())


@pytest.mark.server
def test_meshes_are_made_in_an_object_store(s3_server: MotoServer) -> None:
    bucket = s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
    login = {"storage_options": s3_server.storage_options}
    ps.to_precomputed(
        labels(), f"s3://{bucket}/layer", dims=("x", "y", "z"), resolution=RESOLUTION,
        layer_type="segmentation", pyramid=None, **login,
    )  # fmt: skip
    source = ps.make_meshes(f"s3://{bucket}/layer", block_shape=(20, 20, 20), lods=2, **login)
    assert source.ids() == [int(one) for one in np.unique(labels()) if one]
    assert source.get([5], deduplicate=True)[5].is_closed
    listed = s3_server.client().list_objects_v2(Bucket=bucket, Prefix="layer/mesh/")["Contents"]
    assert not [each["Key"] for each in listed if ".pieces" in each["Key"]]


BOUNDED = (
    IMPORT
    + """
import dask
import precomputed_store as ps
from precomputed_store.mesh.extract import extract_surfaces

def first(labels):
    # What is loaded and taken once is no matter.
    forget()
    yield from extract_surfaces(labels)

before = []
def forget():
    if not before:
        before.append(forget_peak())

with dask.config.set(scheduler="synchronous"):
    ps.make_meshes(sys.argv[1], extractor=first, block_shape=(64, 64, 64), kind="legacy")
print(peak_bytes() - before[0])
"""
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc for peaks of memory")
def test_memory_is_that_of_a_block_however_many_there_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    taken = []
    for number in (2, 16):
        # Segments of scattered cells of 8 x 8 x 8 voxels: far more surface than neurons have.
        cells = rng.integers(1, 31, (8 * number, 8, 8), np.uint64)
        cells += np.arange(8 * number, dtype=np.uint64)[:, None, None] // 8 * 100
        volume = cells.repeat(8, 0).repeat(8, 1).repeat(8, 2)
        folder = tmp_path / str(number)
        ps.to_precomputed(
            volume, folder, dims=("x", "y", "z"), resolution=RESOLUTION,
            layer_type="segmentation", pyramid=None,
        )  # fmt: skip
        command = [sys.executable, "-c", BOUNDED, str(folder)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        taken.append(int(output))
    meshes = ps.open_meshes(tmp_path / "16").get(ps.open_meshes(tmp_path / "16").ids())
    together = sum(mesh.vertices.nbytes + mesh.faces.nbytes for mesh in meshes.values())
    assert max(taken) < 60 * 64**3 + (40 << 20) < together


@pytest.mark.slow
def test_a_cluster_of_processes_makes_the_same(layer: Path) -> None:
    from distributed import Client, LocalCluster

    here = ps.make_meshes(layer, folder="here", block_shape=(16, 16, 16), sharding="auto")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        there = ps.make_meshes(layer, folder="there", block_shape=(16, 16, 16), sharding="auto")
    assert there.get(here.ids()) == here.get(here.ids())


def test_the_same_in_one_thread(layer: Path) -> None:
    with dask.config.set(scheduler="synchronous"):
        source = ps.make_meshes(layer, ids=[3], kind="legacy", progress=True)
    assert source[3].is_closed
