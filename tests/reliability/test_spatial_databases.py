"""Spatial indices in PostgreSQL and MariaDB, real ones: on request only (``-m long``)."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.databases import mariadb, postgresql

import precomputed_store as ps
from precomputed_store.skeleton import Skeleton
from precomputed_store.spatial_database import SpatialDatabase
from precomputed_store.spatial_index import SpatialIndex
from tests.skeletons.test_spatial_index import boxes, cells, make_layer, small_skeletons

pytestmark = [pytest.mark.long, pytest.mark.server]

EVERYTHING = [[-np.inf] * 3, [np.inf] * 3]
TABLES = {"file_lookup", "index_files", "spatial_grid"}
RESOLUTION = (4.5, 4.5, 40.25)


@pytest.fixture(scope="module")
def postgresql_at() -> Iterator[str]:
    pytest.importorskip("pg8000")
    with postgresql() as at:
        yield at


@pytest.fixture(scope="module")
def mariadb_at() -> Iterator[str]:
    pytest.importorskip("pymysql")
    with mariadb() as at:
        yield at


@pytest.fixture(params=["postgresql+pg8000", "mariadb+pymysql", "mysql+pymysql"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    driver: str = request.param
    if driver.startswith("postgresql"):
        url = f"{driver}://test@{request.getfixturevalue('postgresql_at')}/postgres"
    else:
        url = f"{driver}://test@{request.getfixturevalue('mariadb_at')}/test"
    drop_tables(url)
    yield url
    drop_tables(url)


def run_sql(url: str, *statements: str) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def table_names(url: str) -> set[str]:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    return set(sqlalchemy.inspect(engine).get_table_names())


def drop_tables(url: str) -> None:
    # CloudVolume's refer to each other.
    order = sorted(table_names(url), key=lambda name: name.startswith("index_files"))
    run_sql(url, *(f"DROP TABLE {name}" for name in order))


@pytest.fixture
def source(tmp_path: Path) -> ps.SkeletonSource:
    layer = make_layer(tmp_path / "layer", RESOLUTION)
    ids = [1, 2**63 - 1, 2**63, 2**64 - 1]
    data = small_skeletons(RESOLUTION) | {i: Skeleton([(0, 100, 0)]) for i in ids}
    return ps.write_skeletons(layer / "skeletons", data, spatial_index=cells(RESOLUTION))


def test_a_server_answers_as_the_files_do(url: str, source: ps.SkeletonSource) -> None:
    source.save_index(url)
    for box in boxes(RESOLUTION):
        assert source.query_ids(box, index=url) == source.query_ids(box)
    assert source.query_ids(EVERYTHING, index=url) == sorted(source.ids())
    assert max(source.ids()) == 2**64 - 1
    assert table_names(url) == TABLES


def test_an_index_of_several_batches_is_saved(url: str, tmp_path: Path) -> None:
    layer = make_layer(tmp_path / "layer", RESOLUTION)
    source = ps.write_skeletons(layer / "skeletons", {}, spatial_index=cells(RESOLUTION))
    grid = source.spatial_index.grid
    assert grid is not None
    rng = np.random.default_rng(1)
    found = {}
    for cell in grid.cells():
        low = np.array(grid.start) + np.array(cell) * grid.spec.chunk_size
        corners = np.sort(low + rng.uniform(0, 140, (5000, 2, 3)), axis=1).reshape(-1, 6)
        labels = rng.choice(2**62, 5000, replace=False)
        found[cell] = dict(zip(labels.tolist(), map(tuple, corners.tolist()), strict=True))
    source.spatial_index.write(found)
    source.save_index(url)
    for box in boxes(RESOLUTION, count=4):
        assert source.query_ids(box, index=url) == source.query_ids(box)
    assert len(source.query_ids(EVERYTHING, index=url)) == 48 * 5000


def test_readers_have_the_old_index_until_the_new_one_is_complete(
    url: str, source: ps.SkeletonSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.save_index(url)
    old = source.query_ids(EVERYTHING, index=url)
    ps.write_skeletons(source.storage.url, {777: Skeleton([(0, 100, 0)])})
    read: Callable[..., Any] = SpatialIndex.read
    meanwhile = []

    def read_and_ask(self: SpatialIndex) -> Iterator[Any]:
        for batch in read(self):
            meanwhile.append(SpatialDatabase.at(url).query(EVERYTHING))
            yield batch

    monkeypatch.setattr(SpatialIndex, "read", read_and_ask)
    source.save_index(url)
    assert meanwhile
    assert all(each == old for each in meanwhile)
    assert source.query_ids(EVERYTHING, index=url) == sorted([*old, 777])
    assert table_names(url) == TABLES


def test_a_failure_leaves_the_index_that_there_was(url: str, source: ps.SkeletonSource) -> None:
    source.save_index(url)
    before = source.query_ids(EVERYTHING, index=url)
    name = list(source.spatial_index.storage.list_names())
    last = sorted(each for each in name if each.endswith(".spatial"))[-1]
    source.storage.put(last, b"{", content_type="application/json")
    with pytest.raises(ps.ObjectError, match="not JSON"):
        source.save_index(url)
    assert source.query_ids(EVERYTHING, index=url) == before
    assert table_names(url) == TABLES


def test_a_killed_program_leaves_postgresql_as_it_was(
    postgresql_at: str, source: ps.SkeletonSource
) -> None:
    url = f"postgresql+pg8000://test@{postgresql_at}/postgres"
    drop_tables(url)
    source.save_index(url)
    before = source.query_ids(EVERYTHING, index=url)
    program = f"""
        import os, signal
        import precomputed_store as ps
        from precomputed_store.spatial_index import SpatialIndex
        read = SpatialIndex.read
        def then_die(self):
            yield from read(self)
            os.kill(os.getpid(), signal.SIGKILL)
        SpatialIndex.read = then_die
        ps.open_skeletons({source.storage.url!r}).save_index({url!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=120)
    assert done.returncode == -9
    assert source.query_ids(EVERYTHING, index=url) == before
    assert table_names(url) == TABLES


def test_tables_of_others_are_not_replaced(url: str, source: ps.SkeletonSource) -> None:
    run_sql(url, "CREATE TABLE file_lookup (path VARCHAR(9))", "CREATE TABLE index_files (x INT)")
    with pytest.raises(ValueError, match="choose another database"):
        source.save_index(url)
    with pytest.raises(ps.ObjectError, match="no spatial index"):
        source.query_ids(EVERYTHING, index=url)
    assert table_names(url) == {"file_lookup", "index_files"}


def test_a_damaged_or_empty_database_is_told(url: str, source: ps.SkeletonSource) -> None:
    with pytest.raises(ps.ObjectError, match="expected tables"):
        source.query_ids(EVERYTHING, index=url)
    source.save_index(url)
    run_sql(url, "DELETE FROM index_files WHERE x = 0")
    with pytest.raises(ps.ObjectError, match=r"index_files has \d+ of 48 cells"):
        source.query_ids([[-1000] * 3, [1e5] * 3], index=url)
    run_sql(url, "ALTER TABLE spatial_grid DROP COLUMN stop_z")
    with pytest.raises(ps.ObjectError, match="no column stop_z"):
        source.query_ids([[-1000] * 3, [1e5] * 3], index=url)


def test_what_a_server_refuses_is_a_storage_error(url: str, source: ps.SkeletonSource) -> None:
    nowhere = f"{url.rpartition('/')[0]}/nosuchdatabase"
    with pytest.raises(ps.StorageError, match="nosuchdatabase"):
        source.query_ids(EVERYTHING, index=nowhere)
    with pytest.raises(ps.StorageError, match="nosuchdatabase"):
        source.save_index(nowhere)


@pytest.mark.parity
def test_cloudvolume_and_we_read_each_others_postgresql(
    postgresql_at: str, tmp_path: Path
) -> None:
    pytest.importorskip("psycopg2")
    cloudvolume = pytest.importorskip("cloudvolume")
    layer = make_layer(tmp_path / "layer")
    data = small_skeletons((8, 8, 40))
    source = ps.write_skeletons(layer / "skeletons", data, spatial_index=cells((8, 8, 40)))
    theirs_at = f"postgres://test:none@{postgresql_at}/postgres"
    ours_at = f"postgresql+pg8000://test@{postgresql_at}/postgres"
    drop_tables(ours_at)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = cloudvolume.CloudVolume(
            f"file://{layer}", progress=False, spatial_index_db=theirs_at
        )
        theirs = volume.skeleton.spatial_index
    theirs.to_sql(theirs_at, progress=False)
    assert source.query_ids(EVERYTHING, index=ours_at) == sorted(data)
    source.save_index(ours_at)
    assert sorted(theirs.query(theirs.physical_bounds).tolist()) == sorted(data)
    names, expected = (
        theirs.file_locations_per_label([3]),
        theirs.file_locations_per_label_json([3]),
    )
    assert sorted(names[3]) == sorted(expected[3])
