"""Tables of a spatial index in a database, and the statements on them.

`index_files` and `file_lookup` are CloudVolume's tables, so that it reads what is written
here, with columns of ours for cells and boxes; `spatial_grid` is ours. In a database that
CloudVolume made, our columns are missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from precomputed_store.errors import PrecomputedError
from precomputed_store.metadata.spatial_index import SpatialIndexSpec
from precomputed_store.spatial_grid import Boxes, Cell, SpatialGrid
from precomputed_store.spatial_index import CellFile

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, MetaData, Select, Table

__all__ = [
    "BOX",
    "FILES",
    "GRID",
    "ROWS",
    "Tables",
    "current_tables",
    "grid_of",
    "grid_row",
    "insert",
]

FILES, ROWS, GRID = "index_files", "file_lookup", "spatial_grid"
_CELL = ("x", "y", "z")
BOX = ("x0", "y0", "z0", "x1", "y1", "z1")
_CORNERS = tuple(f"{what}_{axis}" for what in ("start", "stop", "size") for axis in "xyz")
# Corners in an index are less than that, and not every database has infinity.
_INFINITE = 1e300
_SIGNED, _UNSIGNED = 1 << 63, 1 << 64


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of an index, under names with a common ending.

    Attributes
    ----------
    metadata : sqlalchemy.MetaData
    files, rows, grid : sqlalchemy.Table
        A row for each file; for each id in each file; for the grid, or none without one.
    """

    metadata: MetaData
    files: Table
    rows: Table
    grid: Table

    @classmethod
    def named(cls, suffix: str = "") -> Tables:
        from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, String, Table
        from sqlalchemy.dialects.mysql import BIGINT

        # CloudVolume's types: signed where there is no other.
        number = BigInteger().with_variant(BIGINT(unsigned=True), "mysql", "mariadb")
        metadata = MetaData()
        files = Table(
            FILES + suffix,
            metadata,
            Column("id", number, primary_key=True, autoincrement=False),
            Column("filename", String(100), nullable=False),
            *(Column(name, Integer) for name in _CELL),
        )
        Index(f"{FILES}_cell{suffix}", *(files.c[name] for name in _CELL))
        rows = Table(
            ROWS + suffix,
            metadata,
            # In this order, so that rows of a file lie together.
            Column("fid", number, primary_key=True, autoincrement=False),
            Column("label", number, primary_key=True, autoincrement=False),
            *(Column(name, Double, nullable=False) for name in BOX),
            sqlite_with_rowid=False,
        )
        grid = Table(
            GRID + suffix, metadata, *(Column(name, Double, nullable=False) for name in _CORNERS)
        )
        return cls(metadata, files, rows, grid)

    def add(self, connection: Connection, files: Sequence[tuple[int, CellFile]]) -> None:
        """Store some files, each with a number of its own, ascending from call to call."""
        cells = [(n, each.name, *(each.cell or (None,) * 3)) for n, each in files]
        insert(connection, self.files, cells)
        signed = not _is_mysql(connection)
        rows = (_rows(n, each.boxes, signed=signed) for n, each in files)
        insert(connection, self.rows, list(itertools.chain.from_iterable(rows)))

    def finish(self, connection: Connection) -> None:
        """What is quicker after all rows are there: the index of labels, and statistics."""
        from sqlalchemy import Index

        Index(f"{self.rows.name}_label", self.rows.c.label).create(connection)
        quoted = connection.dialect.identifier_preparer.quote
        verb = "ANALYZE TABLE" if _is_mysql(connection) else "ANALYZE"
        for table in (self.files, self.rows):
            connection.exec_driver_sql(f"{verb} {quoted(table.name)}")

    def labels(self) -> Select[Any]:
        """All labels."""
        from sqlalchemy import select

        return select(self.rows.c.label).distinct()

    def labels_meeting(
        self, box: NDArray[np.float64], cells: tuple[Cell, Cell] | None, *, sqlite: bool
    ) -> Select[Any]:
        """Labels of rows whose boxes, corners included, meet a half-open one.

        Parameters
        ----------
        box : array (2, 3)
        cells : pair of Cell, or None
            Least and greatest one to look into; None for all.
        sqlite : bool
            Its columns may hold other things than numbers: such rows give a label of None.
            And labels may come several times, as it is slow at telling them apart.
        """
        from sqlalchemy import and_, case, func, null, or_, select

        rows, files = self.rows.c, self.files.c
        low, high = np.clip(box, -_INFINITE, _INFINITE).tolist()
        meets = and_(
            *(rows[name] < high[axis] for axis, name in enumerate(BOX[:3])),
            *(rows[name] >= low[axis] for axis, name in enumerate(BOX[3:])),
        )
        label: ColumnElement[Any] = rows.label
        if sqlite:
            # The greatest is NULL if one is, and text or bytes if one is.
            kind = func.typeof(func.max(*(rows[name] for name in BOX)))
            typed = kind.in_(["real", "integer"])
            label, meets = case((typed, rows.label), else_=null()), or_(meets, ~typed)
        statement = select(label).where(meets)
        if not sqlite:
            statement = statement.distinct()
        if cells is None:
            return statement
        joined = statement.join_from(self.files, self.rows, files.id == rows.fid)
        return joined.where(self._within(*cells))

    def count_files(self, low: Cell, high: Cell) -> Select[Any]:
        """How many files there are of the cells from one to another."""
        from sqlalchemy import func, select

        return select(func.count()).select_from(self.files).where(self._within(low, high))

    def _within(self, low: Cell, high: Cell) -> ColumnElement[bool]:
        from sqlalchemy import and_

        columns = (self.files.c[name] for name in _CELL)
        return and_(*(c.between(a, b) for c, a, b in zip(columns, low, high, strict=True)))


@cache
def current_tables() -> Tables:
    """The tables of an index that is complete; statements on them are compiled once."""
    return Tables.named()


def grid_row(grid: SpatialGrid) -> tuple[float, ...]:
    """The row of `spatial_grid`."""
    return tuple(map(float, (*grid.start, *grid.stop, *grid.spec.chunk_size)))


def grid_of(row: Sequence[Any]) -> SpatialGrid:
    """The reverse of `grid_row`.

    Raises
    ------
    PrecomputedError
    """
    if not all(isinstance(item, float) and np.isfinite(item) for item in row):
        raise PrecomputedError(f"{GRID}: expected finite numbers, got {str(tuple(row))[:200]}")
    spec = SpatialIndexSpec(resolution=None, chunk_size=tuple(row[6:9]))
    return SpatialGrid(spec=spec, start=tuple(row[:3]), stop=tuple(row[3:6]))


def _rows(number: int, boxes: Boxes, *, signed: bool) -> list[tuple[Any, ...]]:
    """Rows of `file_lookup` for a file, in the order of the table."""
    if signed and max(boxes, default=0) >= _SIGNED:
        boxes = {i - _UNSIGNED if i >= _SIGNED else i: box for i, box in boxes.items()}
    return [(number, label, *map(float, boxes[label])) for label in sorted(boxes)]


def insert(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Many rows in few requests."""
    if not rows:
        return
    import sqlalchemy
    from sqlalchemy.dialects.postgresql import ARRAY

    names = [column.name for column in table.columns]
    if connection.dialect.name == "sqlite":
        # As tuples: making dictionaries takes longer than storing them.
        connection.exec_driver_sql(
            str(table.insert().compile(dialect=connection.dialect)), list(rows)
        )
    elif connection.dialect.name == "postgresql":
        # An array for each column, as text: drivers would send rows one by one, and take their
        # time for each element of a list; and each has its own way to COPY.
        arrays = [
            sqlalchemy.cast(sqlalchemy.bindparam(c.name, type_=sqlalchemy.Text), ARRAY(c.type))
            for c in table.columns
        ]
        source = sqlalchemy.func.unnest(*arrays).table_valued(*names).render_derived()
        statement = table.insert().from_select(names, sqlalchemy.select(source))
        texts = map(_array_text, zip(*rows, strict=True))
        connection.execute(statement, dict(zip(names, texts, strict=True)))
    else:
        connection.execute(table.insert(), [dict(zip(names, row, strict=True)) for row in rows])


def _array_text(values: Iterable[Any]) -> str:
    """An array in PostgreSQL's notation, of numbers, names of files, and None."""
    return "{" + ",".join("NULL" if value is None else str(value) for value in values) + "}"


def _is_mysql(connection: Connection) -> bool:
    return connection.dialect.name in ("mysql", "mariadb")
