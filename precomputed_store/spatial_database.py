"""A spatial index in a database: for indices of more files than one wants to read."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from precomputed_store.errors import ObjectError, PrecomputedError
from precomputed_store.progress import progress_bar
from precomputed_store.spatial_grid import Cell
from precomputed_store.spatial_index import SpatialIndex, checked_box
from precomputed_store.spatial_tables import (
    BOX,
    FILES,
    GRID,
    ROWS,
    Tables,
    current_tables,
    grid_of,
    grid_row,
    insert,
)
from precomputed_store.storage.database import Database

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

__all__ = ["SpatialDatabase"]

_FETCHED = 100_000
_OF_CLOUDVOLUME = {FILES: {"id", "filename"}, ROWS: {"label", "fid"}}


@dataclass(frozen=True, slots=True)
class SpatialDatabase:
    """A spatial index in a database of its own.

    Attributes
    ----------
    database : Database
    """

    database: Database

    @classmethod
    def at(cls, address: str | os.PathLike[str]) -> SpatialDatabase:
        """The index in the database at a path or URL; see `Database.at`."""
        return cls(Database.at(address))

    def query(self, box_nm: ArrayLike) -> list[int] | None:
        """Ids whose boxes, in some cell, meet a box, ascending: what the files say.

        Parameters
        ----------
        box_nm : array-like (2, 3)
            Least and greatest x, y, z in nm, half-open; infinite for all of space.

        Returns
        -------
        list of int or None
            None where a database that CloudVolume made cannot tell: it holds no boxes, so
            it only knows of all of space.

        Raises
        ------
        VolumeNotFoundError
            There is no such file.
        ObjectError
            It holds no spatial index, or is damaged.
        StorageError
        """
        box = checked_box(box_nm)
        with self.database.reading() as connection:
            columns = self._columns(connection)
            tables = current_tables()
            if np.isinf(box).all():
                return self._ids(connection, tables.labels())
            if not {*BOX} <= columns[ROWS]:
                return None
            for table in (tables.files, tables.grid):
                self._need(table.name, set(table.columns.keys()), columns.get(table.name, set()))
            statement = tables.labels_meeting(
                box,
                self._corner_cells(connection, tables, box),
                sqlite=self.database.path is not None,
            )
            return self._ids(connection, statement)

    def save(self, index: SpatialIndex, *, progress: bool = False) -> None:
        """Put an index into the database, in place of the one that is there.

        Readers have the old one until the new one is complete.

        Raises
        ------
        ValueError
            There is something else than an index: nothing is changed.
        ObjectError
            A file of the index is damaged or missing: nothing is changed.
        StorageError
        """
        self._check_replaceable()
        total = None if index.grid is None else math.prod(index.grid.shape)
        with (
            self.database.replacing([ROWS, FILES, GRID]) as (connection, suffix),
            progress_bar("indexing", total=total, enabled=progress, unit="cells") as advance,
        ):
            tables = Tables.named(suffix)
            tables.metadata.create_all(connection, checkfirst=False)
            if index.grid is not None:
                insert(connection, tables.grid, [grid_row(index.grid)])
            first = 1
            for batch in index.read():
                tables.add(connection, list(enumerate(batch, first)))
                first += len(batch)
                advance(len(batch))
            tables.finish(connection)

    def _check_replaceable(self) -> None:
        path = self.database.path
        if path is not None and not (os.path.exists(path) and os.path.getsize(path)):
            return
        try:
            with self.database.reading() as connection:
                if path is not None or self._names(connection):
                    self._columns(connection)
        except ObjectError as error:
            raise ValueError(f"{error}; it is not replaced: choose another database") from error

    def _names(self, connection: Connection) -> set[str]:
        """Names of our tables that there are. Views do not count."""
        from sqlalchemy import inspect

        return {FILES, ROWS, GRID} & {*inspect(connection).get_table_names()}

    def _columns(self, connection: Connection) -> dict[str, set[str]]:
        """Columns of the tables that there have to be."""
        if not _OF_CLOUDVOLUME.keys() <= (names := self._names(connection)):
            raise self._damaged(f"expected tables {FILES} and {ROWS}; this is no spatial index")
        found = {}
        # In the order in which `save` drops them, so that neither waits for the other.
        for name in (ROWS, FILES, GRID):
            if name in names:
                # As text: of statements of its own, SQLAlchemy remembers the columns.
                head = connection.exec_driver_sql(f"SELECT * FROM {name} LIMIT 0")
                found[name] = set(head.keys())
        for name, expected in _OF_CLOUDVOLUME.items():
            self._need(name, expected, found[name])
        return found

    def _need(self, table: str, expected: set[str], found: set[str]) -> None:
        if not expected <= found:
            missing = ", ".join(sorted(expected - found))
            raise self._damaged(f"{table} has no column {missing}; this is no spatial index")

    def _corner_cells(
        self, connection: Connection, tables: Tables, box: NDArray[np.float64]
    ) -> tuple[Cell, Cell] | None:
        """The cells to look into; None for all, as they were not known when it was made."""
        rows = connection.execute(tables.grid.select().limit(2)).all()
        if not rows:
            return None
        try:
            (row,) = rows
            low, high = grid_of(row).corner_cells(box)
        except (PrecomputedError, ValueError) as error:
            raise self._damaged(f"{GRID} is damaged: {error}") from error
        expected = math.prod(b - a + 1 for a, b in zip(low, high, strict=True))
        found = connection.execute(tables.count_files(low, high)).scalar()
        if found != expected:
            raise self._damaged(f"{FILES} has {found} of {expected} cells; make the index anew")
        return low, high

    def _ids(self, connection: Connection, statement: Select[Any]) -> list[int]:
        found: set[int] = set()
        # SQLAlchemy's rows take four times as long as those of the driver.
        cursor = connection.execute(statement).cursor
        while cursor is not None and (rows := cursor.fetchmany(_FETCHED)):
            labels = [label for (label,) in rows]
            if not {*map(type, labels)} <= {int}:
                raise self._damaged(f"{ROWS} holds other things than numbers; make it anew")
            found.update(labels)
        if found and min(found) < 0:
            found = {label % (1 << 64) for label in found}
        return sorted(found)

    def _damaged(self, problem: str) -> ObjectError:
        return ObjectError(f"{self.database}: {problem}", key=str(self.database))
