"""Surfaces of labels: closed, manifold, apart, and as large as the voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.measure import marching_cubes

from precomputed_store.mesh import Mesh
from precomputed_store.mesh._cases import cases
from precomputed_store.mesh.extract import extract_surfaces
from tests.meshes.mesh_builders import ball


def edges_of(faces: np.ndarray) -> np.ndarray:
    return np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)


@pytest.mark.parametrize("num_labels", [2, 3, 30])
@pytest.mark.parametrize("dtype", ["uint8", "uint64"])
def test_every_edge_of_a_surface_has_two_triangles(num_labels: int, dtype: str) -> None:
    """In noise, where every case of eight voxels occurs."""
    noise = np.random.default_rng(1).integers(0, num_labels, (17, 18, 19)).astype(dtype)
    if dtype == "uint64":
        noise[noise == 1] = 2**64 - 1
    found = list(extract_surfaces(np.pad(noise, 1)))
    assert [surface.label for surface in found] == [n for n in np.unique(noise) if n]
    for surface in found:
        mesh = Mesh(vertices=surface.vertices, faces=surface.faces)
        assert mesh.is_closed
        assert (np.unique(edges_of(mesh.faces), axis=0, return_counts=True)[1] == 2).all()
        assert len(np.unique(mesh.vertices, axis=0)) == len(mesh.vertices)
        assert mesh.volume > 0


def test_no_case_of_eight_voxels_is_left_out() -> None:
    assert (cases().counts[1:255] > 0).all()
    assert cases().counts[[0, 255]].tolist() == [0, 0]


def test_a_single_voxel_is_an_octahedron() -> None:
    block = np.zeros((3, 3, 3), np.uint16)
    block[1, 1, 1] = 9
    (surface,) = extract_surfaces(block)
    mesh = Mesh(vertices=surface.vertices, faces=surface.faces)
    np.testing.assert_array_equal(mesh.bounds, [[0.5] * 3, [1.5] * 3])
    assert mesh.volume == pytest.approx(1 / 6)


def test_voxels_that_touch_at_an_edge_or_corner_are_apart() -> None:
    for other in ((2, 2, 1), (2, 2, 2)):
        block = np.zeros((4, 4, 4), np.uint8)
        block[1, 1, 1] = block[other] = 1
        (surface,) = extract_surfaces(block)
        assert len(surface.faces) == 16
        assert len(surface.vertices) == 12


def test_blocks_that_share_a_layer_of_voxels_fit_together() -> None:
    labels = np.random.default_rng(2).integers(0, 4, (12, 9, 9)).astype(np.uint8)
    labels = np.pad(labels, 1)
    whole = {one.label: one for one in extract_surfaces(labels)}
    first = {one.label: one for one in extract_surfaces(labels[:7])}
    second = {one.label: one for one in extract_surfaces(labels[6:])}
    for label, surface in whole.items():
        parts = [
            Mesh(vertices=first[label].vertices, faces=first[label].faces),
            Mesh(vertices=second[label].vertices + np.array([6, 0, 0]), faces=second[label].faces),
        ]
        joined = Mesh.concatenate(*parts).deduplicate()
        assert joined.is_closed
        assert len(joined.vertices) == len(surface.vertices)
        assert len(joined.faces) == len(surface.faces)


def test_volume_and_area_are_those_of_a_ball_and_of_skimages_surface() -> None:
    voxels = ball(20)
    (surface,) = extract_surfaces(voxels.astype(np.uint8))
    mesh = Mesh(vertices=surface.vertices, faces=surface.faces)
    vertices, faces, _, _ = marching_cubes(voxels.astype(np.float32), 0.5)
    peer = Mesh(vertices=vertices, faces=faces)
    assert mesh.volume == pytest.approx(abs(peer.volume), rel=1e-4)
    assert mesh.area == pytest.approx(peer.area, rel=0.01)
    assert {tuple(v) for v in mesh.vertices.tolist()} == {tuple(v) for v in vertices.tolist()}
    assert mesh.volume == pytest.approx(voxels.sum(), rel=0.02)
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 20**3, rel=0.02)


def test_a_block_without_labels_has_no_surfaces() -> None:
    assert list(extract_surfaces(np.zeros((4, 4, 4), np.uint64))) == []
    assert list(extract_surfaces(np.full((4, 4, 4), 3, np.uint64))) == []
    assert list(extract_surfaces(np.zeros((1, 1, 1), np.uint64))) == []
