"""SQL databases, through SQLAlchemy: read in one snapshot, replaced all at once.

A file of SQLite by its path, anything else by SQLAlchemy's URL, which names the driver.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from precomputed_store.errors import (
    ObjectError,
    PrecomputedError,
    StorageError,
    UnsupportedError,
    VolumeNotFoundError,
)
from precomputed_store.storage.bridge import shared

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy import URL, Connection, Engine

__all__ = ["Database"]

_KINDS = ("sqlite", "postgresql", "mysql", "mariadb")
# No value of an index is as long, but those of a hostile file may claim to be.
_MOST_BYTES_OF_A_VALUE = 1 << 20
_BESIDE = ("-journal", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Database:
    """An SQL database. A value: it holds no connection, and its text shows no password.

    Attributes
    ----------
    address : str
        Path of a file of SQLite, or URL of SQLAlchemy.
    """

    address: str = field(repr=False)

    @classmethod
    def at(cls, address: str | os.PathLike[str]) -> Database:
        """The database at what a user typed: ``index.db``, ``postgresql+pg8000://…``.

        Raises
        ------
        ValueError
            The address is no path and no URL.
        UnsupportedError
            SQLAlchemy is not installed, or the database is of another kind than SQLite,
            PostgreSQL, MySQL and MariaDB.
        """
        text = os.fspath(address)
        if not isinstance(text, str) or not text:
            raise ValueError(f"database is {address!r}; expected a path or a URL of SQLAlchemy")
        _check_installed()
        if "://" not in text:
            return cls(os.path.abspath(text))
        url = _parse(text)
        kind = url.get_backend_name()
        if kind not in _KINDS:
            raise UnsupportedError(f"{_shown(url)}: expected one of {', '.join(_KINDS)}")
        if kind != "sqlite":
            return cls(text)
        if not url.database or url.database == ":memory:" or url.query:
            raise ValueError(f"{_shown(url)}: expected the path of a file")
        return cls(os.path.abspath(url.database))

    @property
    def path(self) -> str | None:
        """The file, if it is one of SQLite."""
        return None if "://" in self.address else self.address

    def __str__(self) -> str:
        return self.path or _shown(_parse(self.address))

    __repr__ = __str__

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees the database as it is at one moment.

        Raises
        ------
        VolumeNotFoundError
            There is no such file.
        ObjectError
            The file is none of SQLite, or damaged.
        StorageError
            No connection, no permission, and whatever else the database refuses.
        """
        if self.path is not None and not os.path.exists(self.path):
            raise VolumeNotFoundError(f"{self}: there is no such file")
        with self._errors():
            engine = shared((Database, self.address), self._engine)
            with engine.connect() as connection:
                if self.path is not None:
                    connection.exec_driver_sql("BEGIN")
                yield connection

    @contextlib.contextmanager
    def replacing(self, tables: Sequence[str]) -> Iterator[tuple[Connection, str]]:
        """Tables to put into the place of those with these names: all of them, or none.

        Parameters
        ----------
        tables : sequence of str
            In the order in which old ones may be dropped.

        Yields
        ------
        Connection
        str
            What the names of the new tables have to end in until then.

        Raises
        ------
        StorageError
        """
        with self._errors():
            if self.path is not None:
                with _new_file(os.path.realpath(self.path)) as connection:
                    yield connection, ""
                return
            suffix = f"_{secrets.token_hex(4)}"
            engine = shared((Database, self.address), self._engine)
            with engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    yield connection, suffix
                    _swap(connection, tables, suffix)
                    return
                with _dropped_on_failure(connection, tables, suffix):
                    yield connection, suffix
                    _swap_at_once(connection, tables, suffix)

    def _engine(self) -> Engine:
        from sqlalchemy import NullPool, create_engine

        path = self.path
        if path is not None:
            return create_engine("sqlite://", creator=lambda: _read(path), poolclass=NullPool)
        try:
            return create_engine(
                self.address, poolclass=NullPool, isolation_level="REPEATABLE READ"
            )
        except ImportError as error:
            raise UnsupportedError(
                f"{self}: {error}; install the driver, or name one that is installed, as in "
                "postgresql+pg8000://…"
            ) from error

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        import sqlite3

        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        try:
            yield
        except PrecomputedError:
            raise
        except DBAPIError as error:
            cause = error.orig
            text = f"{self}: {_reason(cause)}"
            if isinstance(cause, sqlite3.DatabaseError) and not isinstance(
                cause, sqlite3.OperationalError
            ):
                raise ObjectError(text, key=str(self)) from error
            raise StorageError(text) from error
        except (SQLAlchemyError, OSError, sqlite3.Error) as error:
            raise StorageError(f"{self}: {error}") from error


def _check_installed() -> None:
    try:
        import sqlalchemy  # noqa: F401
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            "databases need SQLAlchemy: pip install 'precomputed-store[database]'"
        ) from error


def _parse(text: str) -> URL:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        url = make_url(text)
        url.get_dialect()
    except NoSuchModuleError as error:
        raise UnsupportedError(
            f"{text.partition('://')[0]}:// is unknown; expected for instance "
            "postgresql+pg8000:// or mysql+pymysql://"
        ) from error
    except (ArgumentError, ValueError):
        # Neither the text nor the cause: there may be a password in them.
        raise ValueError("database: expected a path, or a URL of SQLAlchemy") from None
    return url


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _reason(cause: BaseException | None) -> str:
    """What a driver says; pg8000 has it in a dictionary."""
    said: Any = cause.args[0] if cause is not None and cause.args else cause
    return str(said.get("M", said)) if isinstance(said, dict) else str(cause)


def _read(path: str) -> sqlite3.Connection:
    """A file that nobody vouches for, to be read only."""
    import sqlite3

    connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES_OF_A_VALUE)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[Connection]:
    """A database that gets its name when it is complete and on the disk."""
    import sqlite3

    from sqlalchemy import NullPool, create_engine

    for suffix in _BESIDE:
        # SQLite would apply it to the new file.
        if os.path.exists(path + suffix):
            raise StorageError(
                f"{path}{suffix}: somebody writes the database, or was killed while doing so; "
                "remove both, or take another name"
            )
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".precomputed-{name}-{secrets.token_hex(4)}.tmp")
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(temporary), poolclass=NullPool
    )
    try:
        with engine.connect() as connection:
            for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -16384"):
                connection.exec_driver_sql(f"PRAGMA {setting}")
            yield connection
            connection.commit()
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _swap(connection: Connection, tables: Sequence[str], suffix: str) -> None:
    """Within the transaction: others wait for its end, and no longer."""
    quoted = connection.dialect.identifier_preparer.quote
    for name in tables:
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {quoted(name)}")
    for name in tables:
        connection.exec_driver_sql(f"ALTER TABLE {quoted(name + suffix)} RENAME TO {quoted(name)}")


def _swap_at_once(connection: Connection, tables: Sequence[str], suffix: str) -> None:
    """MySQL ends a transaction at every change of a table, but renames several in one go."""
    from sqlalchemy import inspect

    quoted = connection.dialect.identifier_preparer.quote
    there = set(inspect(connection).get_table_names())
    old = [name for name in tables if name in there]
    moves = [f"{quoted(name)} TO {quoted(f'{name}{suffix}_old')}" for name in old]
    moves += [f"{quoted(name + suffix)} TO {quoted(name)}" for name in tables]
    connection.exec_driver_sql(f"RENAME TABLE {', '.join(moves)}")
    for name in old:
        connection.exec_driver_sql(f"DROP TABLE {quoted(f'{name}{suffix}_old')}")


@contextlib.contextmanager
def _dropped_on_failure(
    connection: Connection, tables: Sequence[str], suffix: str
) -> Iterator[None]:
    try:
        yield
    except BaseException:
        quoted = connection.dialect.identifier_preparer.quote
        for name in tables:
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {quoted(name + suffix)}")
        raise
