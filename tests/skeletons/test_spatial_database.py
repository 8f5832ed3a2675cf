"""A spatial index in a database: the answers of its files and of CloudVolume."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import sys
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import precomputed_store as ps
from precomputed_store.cli import main
from precomputed_store.skeleton import Skeleton
from precomputed_store.spatial_database import SpatialDatabase
from precomputed_store.storage.database import Database
from tests.skeletons.test_spatial_index import (
    RESOLUTIONS,
    boxes,
    cells,
    cloudvolume_index,
    make_layer,
    small_skeletons,
)

pytest.importorskip("sqlalchemy")

EVERYTHING = [[-np.inf] * 3, [np.inf] * 3]
NEAR = [[-50, 0, 0], [50, 200, 50]]


def make_source(folder: Path, resolution: Any = (8, 8, 40)) -> ps.SkeletonSource:
    layer = make_layer(folder, resolution)
    return ps.write_skeletons(
        layer / "skeletons", small_skeletons(resolution), spatial_index=cells(resolution)
    )


@pytest.fixture(scope="module")
def shared_source(tmp_path_factory: pytest.TempPathFactory) -> ps.SkeletonSource:
    """Not to be changed."""
    return make_source(tmp_path_factory.mktemp("shared") / "layer")


def cloudvolume_with(layer: Path, database: Path) -> Any:
    cloudvolume = pytest.importorskip("cloudvolume")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = cloudvolume.CloudVolume(
            f"file://{layer}", progress=False, spatial_index_db=f"sqlite://{database}"
        )
        return volume.skeleton.spatial_index


@RESOLUTIONS
@pytest.mark.parity
def test_a_database_answers_as_the_files_and_cloudvolume_do(
    tmp_path: Path, resolution: Any
) -> None:
    source = make_source(tmp_path / "layer", resolution)
    database = tmp_path / "index.db"
    source.save_index(database)
    theirs = cloudvolume_index(tmp_path / "layer")
    from cloudvolume import Bbox

    for box in boxes(resolution, count=12):
        found = source.query_ids(box, index=database)
        assert found == source.query_ids(box)
        assert set(found) == {int(i) for i in theirs.query(Bbox(*box, dtype=float))}
    everything = source.query(EVERYTHING, index=database)
    assert list(everything) == sorted(source.ids())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.db", "layer"]


@pytest.mark.parity
def test_cloudvolume_reads_a_database_of_ours(tmp_path: Path) -> None:
    source = make_source(tmp_path / "layer")
    source.save_index(tmp_path / "index.db")
    files = cloudvolume_index(tmp_path / "layer")
    theirs = cloudvolume_with(tmp_path / "layer", tmp_path / "index.db")
    some = [1, 5, 44]
    assert {k: sorted(v) for k, v in theirs.file_locations_per_label(some).items()} == {
        k: sorted(v) for k, v in files.file_locations_per_label_json(some).items()
    }
    everything = theirs.query(theirs.physical_bounds)
    assert isinstance(everything, np.ndarray)  # what it makes of a database, not of files
    assert everything.tolist() == sorted(files.query(files.physical_bounds))


@pytest.mark.parity
def test_a_database_of_cloudvolume_answers_for_all_of_space(tmp_path: Path) -> None:
    source = make_source(tmp_path / "layer")
    database = tmp_path / "theirs.db"
    cloudvolume_index(tmp_path / "layer").to_sqlite(str(database), progress=False)
    for box in boxes((8, 8, 40), count=5):
        assert source.query_ids(box, index=database) == source.query_ids(box)
    for path in (tmp_path / "layer" / "skeletons").glob("*.spatial"):
        path.unlink()
    assert source.query_ids(EVERYTHING, index=database) == sorted(source.ids())
    with pytest.raises(ps.ObjectError, match="is missing"):
        source.query_ids(NEAR, index=database)


@pytest.mark.parity
def test_databases_of_ours_and_of_cloudvolume_replace_each_other(tmp_path: Path) -> None:
    source = make_source(tmp_path / "layer")
    database = tmp_path / "index.db"
    theirs = cloudvolume_index(tmp_path / "layer")
    theirs.to_sqlite(str(database), progress=False)
    source.save_index(database)
    assert SpatialDatabase.at(database).query(NEAR) == source.query_ids(NEAR)
    # It leaves our third table behind.
    theirs.to_sqlite(str(database), progress=False)
    assert SpatialDatabase.at(database).query(NEAR) is None
    assert SpatialDatabase.at(database).query(EVERYTHING) == sorted(source.ids())


def test_ids_beyond_the_signed_numbers_of_databases_are_found(tmp_path: Path) -> None:
    folder = make_layer(tmp_path / "layer") / "skeletons"
    ids = [1, 2**63 - 1, 2**63, 2**64 - 1]
    data = {i: Skeleton([(0, 100, 0)]) for i in ids}
    source = ps.write_skeletons(folder, data, spatial_index=True)
    source.save_index(tmp_path / "index.db")
    assert source.query_ids(NEAR, index=tmp_path / "index.db") == ids
    assert source.query_ids(EVERYTHING, index=tmp_path / "index.db") == ids


def test_the_index_of_a_folder_away_from_its_layer_is_saved_too(tmp_path: Path) -> None:
    make_source(tmp_path / "layer")
    alone = (tmp_path / "layer" / "skeletons").rename(tmp_path / "alone")
    source = ps.open_skeletons(alone)
    source.save_index(tmp_path / "index.db")
    for box in boxes((8, 8, 40), count=10):
        assert source.query_ids(box, index=tmp_path / "index.db") == source.query_ids(box)


def test_an_index_is_read_from_any_storage(tmp_path: Path, shared_source: Any) -> None:
    url = f"memory://{tmp_path.name}"
    layer = ps.to_precomputed(
        np.ones((64, 64, 64), np.uint64), url, dims="xyz", resolution=(8, 8, 40)
    )
    assert layer is not None
    data = {1: Skeleton([(10, 10, 10)]), 2: Skeleton([(500, 500, 2000)])}
    source = ps.write_skeletons(f"{url}/skeletons", data, spatial_index=cells((8, 8, 40)))
    source.save_index(tmp_path / "index.db", progress=True)
    assert list(source.query([[0] * 3, [100] * 3], index=str(tmp_path / "index.db"))) == [1]


def test_a_database_is_saved_anew_after_a_change(tmp_path: Path) -> None:
    source = make_source(tmp_path / "layer")
    database = tmp_path / "index.db"
    source.save_index(database)
    ps.write_skeletons(source.storage.url, {99: Skeleton([(0, 100, 0)])})
    assert 99 not in source.query_ids(NEAR, index=database)
    source.save_index(database)
    assert source.query_ids(NEAR, index=database) == source.query_ids(NEAR)
    assert 99 in source.query_ids(NEAR, index=database)


def test_a_failure_leaves_the_database_that_there_was(tmp_path: Path) -> None:
    source = make_source(tmp_path / "layer")
    database = tmp_path / "index.db"
    source.save_index(database)
    before = database.read_bytes()
    name = sorted((tmp_path / "layer" / "skeletons").glob("*.spatial"))[-1]
    name.write_text('{"1": [0, 0, 0, 1, 1]}')
    with pytest.raises(ps.ObjectError, match=rf"{name.name}: .*6 corners"):
        source.save_index(database)
    name.unlink()
    with pytest.raises(ps.ObjectError, match=rf"{name.name}: .*is missing"):
        source.save_index(database)
    assert database.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.db", "layer"]


def test_files_are_read_a_few_at_a_time(shared_source: ps.SkeletonSource) -> None:
    batches = list(shared_source.spatial_index.read(at_once=20))
    files = [each for batch in batches for each in batch]
    assert len(files) == 48
    rows = [sum(len(each.boxes) for each in batch) for batch in batches[1:]]
    assert len(rows) > 3
    assert max(rows) < 60 < sum(len(each.boxes) for each in files)
    grid = shared_source.spatial_index.grid
    assert grid is not None
    assert [(each.name, each.cell) for each in files] == [(grid.name(c), c) for c in grid.cells()]


@pytest.mark.parametrize("name", ["a b.db", "100%25?x=1#y.db", "é'\"; DROP TABLE x.db"])
def test_paths_may_hold_any_characters(
    tmp_path: Path, shared_source: ps.SkeletonSource, name: str
) -> None:
    shared_source.save_index(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert shared_source.query_ids(NEAR, index=tmp_path / name) == shared_source.query_ids(NEAR)


def test_a_path_and_the_url_of_it_are_the_same_database(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    assert Database.at(f"sqlite:///{path}") == Database.at(path) == Database.at(str(path))
    assert pickle.loads(pickle.dumps(Database.at(path))) == Database.at(path)


def test_a_link_stays_a_link(tmp_path: Path, shared_source: ps.SkeletonSource) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "index.db")
    shared_source.save_index(tmp_path / "link.db")
    assert (tmp_path / "link.db").is_symlink()
    assert SpatialDatabase.at(tmp_path / "index.db").query(EVERYTHING)


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE precious (x)")


@pytest.mark.parametrize(
    "make", [other_database, lambda path: path.write_text("precious" * 100)], ids=["sql", "text"]
)
def test_what_is_no_index_is_not_replaced(
    tmp_path: Path, shared_source: ps.SkeletonSource, make: Callable[[Path], Any]
) -> None:
    path = tmp_path / "precious.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"precious\.db: .*choose another"):
        shared_source.save_index(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["precious.db"]


def test_a_database_that_somebody_writes_is_left_alone(
    tmp_path: Path, shared_source: ps.SkeletonSource
) -> None:
    (tmp_path / "index.db-journal").write_bytes(b"what SQLite would apply to a new file")
    with pytest.raises(ps.StorageError, match=r"index\.db-journal: somebody writes"):
        shared_source.save_index(tmp_path / "index.db")
    assert not (tmp_path / "index.db").exists()


def edited(*statements: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return edit


def scrambled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)


RECURSION = (
    "CREATE VIEW file_lookup AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT i AS label, i AS fid, 0 AS x0, 0 AS y0, 0 AS z0, 1 AS x1, 1 AS y1, 1 AS z1 FROM n"
)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "expected tables"),
        (lambda path: path.write_bytes(b"no database" * 1000), "not a database"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "malformed|damaged|tables"),
        (scrambled, "malformed|not a database"),
        (edited("DROP TABLE index_files"), "expected tables"),
        (edited("DROP TABLE file_lookup", RECURSION), "expected tables"),
        (edited("ALTER TABLE file_lookup RENAME COLUMN label TO tag"), "no column label"),
        (edited("UPDATE file_lookup SET label = 'x' || label"), "other things than numbers"),
        (edited("UPDATE file_lookup SET label = x'00' WHERE label = 1"), "other things"),
        (edited("UPDATE file_lookup SET x0 = 'far'"), "other things than numbers"),
        (edited("UPDATE file_lookup SET z1 = x'0102'"), "other things than numbers"),
        (edited("UPDATE index_files SET x = 'three'"), "index_files has 0 of"),
        (edited("DELETE FROM index_files"), "index_files has 0 of"),
        (edited("UPDATE spatial_grid SET start_x = 'zero'"), "spatial_grid is damaged"),
        (edited("UPDATE spatial_grid SET size_y = 0"), "spatial_grid is damaged"),
        (edited("UPDATE spatial_grid SET size_y = 1e-300"), "spatial_grid is damaged"),
        (edited("INSERT INTO spatial_grid SELECT * FROM spatial_grid"), "spatial_grid is damaged"),
        (edited("DROP TABLE spatial_grid"), "spatial_grid has no column size_x"),
        (
            edited("ALTER TABLE spatial_grid RENAME stop_z TO a"),
            "spatial_grid has no column stop_z",
        ),
        (edited("DROP INDEX index_files_cell", "ALTER TABLE index_files DROP y"), "no column y"),
    ],
)
def test_a_damaged_database_is_an_error_that_names_it(
    tmp_path: Path, shared_source: ps.SkeletonSource, damage: Callable[[Path], Any], message: str
) -> None:
    path = tmp_path / "index.db"
    shared_source.save_index(path)
    damage(path)
    with pytest.raises(ps.ObjectError, match=rf"index\.db: .*({message})"):
        shared_source.query_ids([[-160, 80, 0], [640, 800, 2000]], index=path)


def test_values_without_measure_do_not_fill_memory(
    tmp_path: Path, shared_source: ps.SkeletonSource
) -> None:
    path = tmp_path / "index.db"
    shared_source.save_index(path)
    edited(
        "DROP TABLE file_lookup",
        "CREATE TABLE file_lookup (fid, x0, y0, z0, x1, y1, z1, "
        "label GENERATED ALWAYS AS (hex(zeroblob(20000000))))",
        "INSERT INTO file_lookup VALUES (1, 0, 0, 0, 1, 1, 1)",
    )(path)
    with pytest.raises(ps.PrecomputedError, match=r"index\.db: .*too big"):
        shared_source.query_ids(EVERYTHING, index=path)


def test_a_database_that_is_not_there_is_not_made_by_a_query(
    tmp_path: Path, shared_source: ps.SkeletonSource
) -> None:
    with pytest.raises(ps.VolumeNotFoundError, match=r"none\.db: there is no such file"):
        shared_source.query_ids(NEAR, index=tmp_path / "none.db")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ps.StorageError, match=r"nowhere/index\.db"):
        shared_source.save_index(tmp_path / "nowhere" / "index.db")


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_query_needs_no_right_to_write(tmp_path: Path, shared_source: ps.SkeletonSource) -> None:
    path = tmp_path / "index.db"
    shared_source.save_index(path)
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        found = shared_source.query_ids(NEAR, index=path)
    finally:
        tmp_path.chmod(0o755)
    assert found == shared_source.query_ids(NEAR)


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("", ValueError, "expected a path or a URL"),
        (b"index.db", ValueError, "expected a path or a URL"),
        ("sqlite://", ValueError, "expected the path of a file"),
        ("sqlite:///:memory:", ValueError, "expected the path of a file"),
        ("postgresql://user:secret@host:port/x", ValueError, "a URL of SQLAlchemy"),
        ("postgres://user:secret@host/x", ps.UnsupportedError, r"postgresql\+pg8000"),
        ("nosuch+driver://user:secret@host/x", ps.UnsupportedError, "unknown"),
        ("oracle://user:secret@host/x", ps.UnsupportedError, "expected one of sqlite"),
        ("mysql+mysqldb://user:secret@host/x", ps.UnsupportedError, "install the driver"),
        ("postgresql+pg8000://user:secret@127.0.0.1:1/x", ps.StorageError, "127.0.0.1"),
    ],
)
def test_a_wrong_address_is_told_without_its_password(
    shared_source: ps.SkeletonSource, address: Any, error: type[Exception], message: str
) -> None:
    for call in (
        lambda: shared_source.save_index(address),
        lambda: shared_source.query_ids(NEAR, index=address),
    ):
        with pytest.raises(error, match=message) as caught:
            call()
        assert "secret" not in str(caught.value)


def test_neither_text_nor_repr_of_a_database_holds_the_password() -> None:
    database = SpatialDatabase.at("postgresql+pg8000://user:secret@host/x")
    assert "secret" not in repr(database) + str(database.database)
    assert "***" in repr(database)


def test_without_sqlalchemy_the_extra_is_named(
    shared_source: ps.SkeletonSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ps.UnsupportedError, match=r"precomputed-store\[database\]"):
        shared_source.save_index(tmp_path / "index.db")


def test_a_source_without_an_index_says_so(tmp_path: Path) -> None:
    source = ps.write_skeletons(tmp_path / "alone", {1: Skeleton([(0, 100, 0)])})
    with pytest.raises(ValueError, match="names no spatial index"):
        source.save_index(tmp_path / "index.db")
    assert not (tmp_path / "index.db").exists()


def test_meshes_have_the_same_index(tmp_path: Path) -> None:
    pytest.importorskip("DracoPy")
    layer = make_layer(tmp_path / "layer")
    corners = np.array([[0, 0, 0], [40, 0, 0], [0, 40, 0], [0, 0, 40]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.uint32)
    near = ps.Mesh(vertices=corners + np.float32([0, 100, 0]), faces=faces)
    far = ps.Mesh(vertices=corners + np.float32([500, 700, 1900]), faces=faces)
    ps.write_meshes(layer / "mesh", {1: near, 2: far}, lods=1)
    info = json.loads((layer / "mesh" / "info").read_text())
    # As Igneous leaves it: its files and this member, beside meshes of either kind.
    info["spatial_index"] = {"resolution": [8, 8, 40], "chunk_size": [256, 256, 640]}
    (layer / "mesh" / "info").write_text(json.dumps(info))
    source = ps.open_meshes(layer)
    grid = source.spatial_index.grid
    assert grid is not None
    found: dict[Any, Any] = {}
    for one, mesh in ((1, near), (2, far)):
        for cell, box in grid.boxes(mesh.vertices, mesh.faces).items():
            found.setdefault(cell, {})[one] = box
    source.spatial_index.write(found)
    source.save_index(tmp_path / "index.db")
    for index in (None, tmp_path / "index.db"):
        assert source.query_ids([[0, 0, 0], [100, 200, 100]], index=index) == [1]
        assert list(source.query([[500, 690, 1800], [600, 700, 1950]], index=index)) == []
        assert list(source.query([[500, 690, 1800], [600, 701, 1950]], index=index)) == [2]
    run = partial(CliRunner().invoke, main, catch_exceptions=False)
    assert run(["mesh", "index", str(layer), str(tmp_path / "b.db")]).output == ""
    asked = ["mesh", "ls", str(layer), "--box", "0,0,0,100,200,100"]
    assert run(asked).output == run([*asked, "--index", str(tmp_path / "b.db")]).output == "1\n"


@pytest.mark.parametrize("member", [5, {"chunk_size": [0, 1, 1]}])
def test_a_mesh_is_read_beside_a_broken_member_of_its_index(tmp_path: Path, member: Any) -> None:
    mesh = ps.Mesh(vertices=np.eye(3, dtype=np.float32), faces=np.array([[0, 1, 2]], np.uint32))
    source = ps.write_meshes(tmp_path / "mesh", {1: mesh}, kind="legacy")
    assert source.info.spatial_index is None
    document = {**source.info.to_json(), "spatial_index": member}
    (tmp_path / "mesh" / "info").write_text(json.dumps(document))
    source = ps.open_meshes(tmp_path / "mesh")
    assert len(source[1].faces) == 1
    with pytest.raises(ps.MetadataError, match="spatial_index"):
        source.query_ids(NEAR)
