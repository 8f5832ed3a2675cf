from __future__ import annotations

import math
import pickle
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from precomputed_store.errors import UnsupportedError
from precomputed_store.mesh import Mesh, as_mesh
from precomputed_store.mesh.simplify import levels_of_detail, simplify
from precomputed_store.mesh.smooth import smooth
from tests.meshes.mesh_builders import sphere

TETRAHEDRON = Mesh(
    vertices=[[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]],
    faces=[[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]],
)


def test_a_tetrahedron_has_the_volume_and_area_of_the_textbook() -> None:
    assert TETRAHEDRON.volume == pytest.approx(1 / 6)
    assert TETRAHEDRON.area == pytest.approx(1.5 + math.sqrt(3) / 2)
    np.testing.assert_array_equal(TETRAHEDRON.bounds, [[0, 0, 0], [1, 1, 1]])
    assert TETRAHEDRON.triangles.shape == (4, 3, 3)
    assert TETRAHEDRON.is_closed
    assert not Mesh(vertices=TETRAHEDRON.vertices, faces=TETRAHEDRON.faces[1:]).is_closed


def test_a_mesh_cannot_be_changed_and_survives_a_pickle() -> None:
    with pytest.raises(ValueError, match="read-only"):
        TETRAHEDRON.vertices[0] = 1
    assert pickle.loads(pickle.dumps(TETRAHEDRON)) == TETRAHEDRON


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        ([[0, 0]], [], r"expected \(n, 3\)"),
        ([[0, 0, 0]], [[0, 0]], r"expected \(m, 3\)"),
        ([[0, 0, 0]], [[0, 0, 1]], "names vertex 1 of 1"),
        ([[0, 0, 0]], [[0, 0, -1]], "integers from 0 on"),
        ([[0, 0, 0]], [[0.0, 0, 0]], "integers from 0 on"),
        ([[0, np.nan, 0]], [[0, 0, 0]], "finite"),
        ([[0, 1e300, 0]], [[0, 0, 0]], "finite"),
    ],
)
def test_what_is_no_mesh_is_refused(vertices: list, faces: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mesh(vertices=vertices, faces=faces)


def test_two_halves_join_into_one_closed_surface() -> None:
    whole = sphere()
    upper = whole.triangles[:, :, 2].mean(axis=1) > whole.bounds.mean()
    halves = [Mesh(vertices=whole.vertices, faces=whole.faces[part]) for part in (upper, ~upper)]
    joined = Mesh.concatenate(*halves)
    assert not joined.is_closed
    merged = joined.deduplicate()
    assert merged.is_closed
    assert len(merged.vertices) == len(whole.vertices)
    assert merged.volume == pytest.approx(whole.volume)


def test_vertices_are_merged_along_chunk_boundaries_only() -> None:
    square = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    left = Mesh(vertices=square, faces=[[0, 1, 2], [0, 2, 3]])
    right = left.transform(np.hstack([np.eye(3), [[1], [0], [0]]]))
    twice = Mesh.concatenate(left, left, right)
    assert len(twice.deduplicate().vertices) == 6
    # The planes x = 1, 4, 7 …; what is equal elsewhere stays apart.
    at_planes = twice.deduplicate(chunk_shape=(3, 100, 100), offset=(1, 50, 50))
    assert len(at_planes.vertices) == 12 - 4
    with pytest.raises(ValueError, match="three positive lengths"):
        twice.deduplicate(chunk_shape=(3, 0, 1))


def test_a_crop_keeps_the_triangles_that_lie_within() -> None:
    whole = sphere()
    low, high = whole.bounds
    box = (low, (low + high) / 2)
    part = whole.crop(box)
    inside = np.all(whole.triangles <= (low + high) / 2, axis=(1, 2)).sum()
    assert 0 < len(part.faces) == inside
    assert np.all(part.bounds[1] <= (low + high) / 2)


def test_a_mirrored_mesh_still_faces_outwards() -> None:
    mirrored = TETRAHEDRON.transform([[-2, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0]])
    assert mirrored.volume == pytest.approx(2 / 6)
    np.testing.assert_array_equal(mirrored.bounds, [[3, 0, 0], [5, 1, 1]])
    with pytest.raises(ValueError, match=r"expected \(3, 4\)"):
        TETRAHEDRON.transform(np.eye(3))


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".stl", ".glb"])
def test_a_file_holds_the_mesh(suffix: str, tmp_path: Path) -> None:
    mesh = sphere(4)
    mesh.save(tmp_path / f"a{suffix}")
    loaded = Mesh.load(tmp_path / f"a{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]
    if suffix == ".stl":
        # Which has no shared vertices.
        loaded = loaded.deduplicate()
    assert len(loaded.vertices) == len(mesh.vertices)
    np.testing.assert_allclose(loaded.bounds, mesh.bounds)
    assert loaded.volume == pytest.approx(mesh.volume, rel=1e-5)
    with pytest.raises(ValueError, match=r"\.ply"):
        mesh.save(tmp_path / "a.vtk")


def test_trimesh_sees_the_same_mesh() -> None:
    mesh = sphere(6)
    other = mesh.to_trimesh()
    assert other.is_watertight
    assert other.volume == pytest.approx(mesh.volume, rel=1e-5)
    assert other.area == pytest.approx(mesh.area, rel=1e-5)
    assert Mesh.from_trimesh(other) == mesh


def test_whatever_has_vertices_and_faces_is_a_mesh() -> None:
    vertices, faces = TETRAHEDRON.vertices, TETRAHEDRON.faces
    for value in (
        TETRAHEDRON,
        (vertices, faces),
        SimpleNamespace(vertices=vertices, faces=faces),
        SimpleNamespace(points=vertices, faces=faces),
        SimpleNamespace(vertices=vertices, triangles=faces),
    ):
        assert as_mesh(value) == TETRAHEDRON
    with pytest.raises(TypeError, match="dict is no mesh"):
        as_mesh({})


def test_a_notebook_shows_a_picture() -> None:
    page = sphere()._repr_html_()
    assert "<svg" in page
    assert page.count("<path") > 100
    assert "<svg" not in Mesh.concatenate()._repr_html_()


def test_simplification_keeps_the_surface() -> None:
    mesh = sphere(20)
    small = simplify(mesh, len(mesh.faces) // 8)
    assert len(small.faces) <= len(mesh.faces) // 7
    assert small.is_closed
    assert small.volume == pytest.approx(mesh.volume, rel=0.02)
    levels = levels_of_detail(mesh, 3, reduction=4)
    assert [len(level.faces) * 4**i // 1000 for i, level in enumerate(levels)] == [
        len(mesh.faces) // 1000
    ] * 3


def test_meshes_that_are_simplified_at_the_same_time_do_not_mix() -> None:
    meshes = [sphere(radius) for radius in range(4, 16)]
    expected = [simplify(mesh, 100) for mesh in meshes]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda mesh: simplify(mesh, 100), meshes * 5))
    finally:
        sys.setswitchinterval(before)
    assert found == expected * 5


def test_smoothing_takes_off_the_steps_and_not_the_volume() -> None:
    mesh = sphere(20, scale=1, shift=0)
    even = smooth(mesh, 10)
    radius = (3 * mesh.volume / 4 / math.pi) ** (1 / 3)
    assert even.volume == pytest.approx(mesh.volume, rel=0.01)
    assert mesh.area > 1.05 * 4 * math.pi * radius**2
    assert even.area == pytest.approx(4 * math.pi * radius**2, rel=0.03)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fast_simplification", None)
    with pytest.raises(UnsupportedError, match=r"precomputed-store\[meshes\]"):
        simplify(sphere(), 10)


def test_a_picture_shows_what_faces_the_eye_and_stays_small() -> None:
    mesh = sphere(40)
    assert len(mesh.faces) > 20_000
    picture = mesh._repr_html_()
    assert len(picture) < 100_000
    colours = [int(each, 16) for each in re.findall(r"#([0-9a-f]{2})", picture)]
    # Half of a coarser ball: the rest is turned away.
    assert 300 < len(colours) < 1600
    # Its middle, which faces the eye, is drawn last and is bright; the rim is dark.
    assert np.mean(colours[-100:]) > 210 > 190 > np.mean(colours[:100])
