"""Meshes that Igneous has made are read as CloudVolume reads them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cloudvolume import CloudVolume

import precomputed_store as ps

ARCHIVE = Path(__file__).parent / "igneous" / "layers.zip"
IDS = [5, 6, 2**40 + 7, 2**62 + 3]
LAYERS = ["legacy", "files-10", "files-16", "shards-10", "shards-16"]


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("igneous")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
    return folder


def as_cloudvolume_read(layers: Path, name: str) -> list[dict[str, Any]]:
    """What CloudVolume read when the layers were made; see `make.py` beside them."""
    found = [one for one in json.loads((layers / "read").read_text()) if one["layer"] == name]
    assert {one["segment_id"] for one in found} == set(IDS)
    return found


def in_order(triangles: np.ndarray) -> np.ndarray:
    rows = triangles.reshape(-1, 9)
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("name", LAYERS)
def test_every_level_is_what_cloudvolume_read_when_they_were_made(layers: Path, name: str) -> None:
    source = ps.open_meshes(layers / name)
    for one in as_cloudvolume_read(layers, name):
        mesh = source.get([one["segment_id"]], lod=one["lod"])[one["segment_id"]]
        assert len(mesh.vertices) == one["num_vertices"]
        assert len(mesh.faces) == one["num_faces"]
        np.testing.assert_allclose(mesh.vertices.astype(float).sum(axis=0), one["sums"], rtol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("name", LAYERS)
def test_every_vertex_and_triangle_is_what_cloudvolume_reads(layers: Path, name: str) -> None:
    source = ps.open_meshes(layers / name)
    theirs = CloudVolume(f"file://{layers / name}", progress=False).mesh
    for one in as_cloudvolume_read(layers, name):
        segment_id, lod = one["segment_id"], one["lod"]
        options = {"fuse": False} if name == "legacy" else {"lod": lod}
        expected = theirs.get([segment_id], **options)[segment_id]
        found = source.get([segment_id], lod=lod)[segment_id]
        if name == "legacy":
            # CloudVolume sorts fragments by name, which are read here as the manifest lists them.
            np.testing.assert_array_equal(
                in_order(found.triangles), in_order(expected.vertices[expected.faces])
            )
            continue
        np.testing.assert_array_equal(found.faces, expected.faces)
        # CloudVolume computes a part of it in single precision.
        np.testing.assert_allclose(found.vertices, expected.vertices, rtol=3e-7)


@pytest.mark.parametrize("name", LAYERS)
def test_ids_and_levels_are_told(layers: Path, name: str) -> None:
    source = ps.open_meshes(layers / name)
    assert source.ids() == IDS
    assert [one in source for one in (5, 2**62 + 3, 7)] == [True, True, False]
    if name != "legacy":
        levels = {one: source.manifest(one).num_lods for one in IDS}
        assert levels == {5: 2, 6: 3, 2**40 + 7: 2, 2**62 + 3: 1}


def test_both_ways_of_storing_hold_the_same_finest_surface(layers: Path) -> None:
    files = ps.open_meshes(layers / "files-16").get(IDS, deduplicate=True)
    shards = ps.open_meshes(layers / "shards-16").get(IDS, deduplicate=True)
    for one in IDS:
        assert files[one].area == pytest.approx(shards[one].area, rel=0.02)
        np.testing.assert_allclose(files[one].bounds, shards[one].bounds, atol=25)
