"""What skeletons and meshes have in common: which of them lie in a box."""

from __future__ import annotations

import os
from typing import Protocol

from numpy.typing import ArrayLike

from precomputed_store.metadata.spatial_index import SpatialIndexSpec
from precomputed_store.spatial_database import SpatialDatabase
from precomputed_store.spatial_index import SpatialIndex, grid_above
from precomputed_store.storage import Storage

__all__ = ["IndexedSource"]


class _Info(Protocol):
    @property
    def spatial_index(self) -> SpatialIndexSpec | None: ...


class IndexedSource:
    """A folder of objects that may have a spatial index.

    Attributes
    ----------
    storage : Storage
    info : SkeletonInfo or MeshInfo
    """

    __slots__ = ()

    # Not a property: a dataclass would take that for the default of its field.
    storage: Storage
    info: _Info

    @property
    def spatial_index(self) -> SpatialIndex:
        """The spatial index in files.

        Raises
        ------
        ValueError
            There is none.
        """
        spec = self.info.spatial_index
        if spec is None:
            raise ValueError(f"{self.storage.url}: info names no spatial index")
        return SpatialIndex(storage=self.storage, grid=grid_above(self.storage, spec))

    def query_ids(
        self, box_nm: ArrayLike, *, index: str | os.PathLike[str] | None = None
    ) -> list[int]:
        """Ids of the segments that a box meets, by the spatial index, ascending.

        Parameters
        ----------
        box_nm : array-like (2, 3)
            Least and greatest x, y, z in nm, half-open; infinite for all of space.
        index : str or path, optional
            A database made by `save_index`: a file of SQLite or a URL of SQLAlchemy. One
            of CloudVolume answers for all of space; for a box, the files are read. Default:
            the files.

        Raises
        ------
        ValueError
            There is no spatial index, or `box_nm` is no box.
        VolumeNotFoundError
            There is no database at this path.
        ObjectError
            The index is damaged or incomplete.
        StorageError
            The database refuses.
        """
        found = None if index is None else SpatialDatabase.at(index).query(box_nm)
        return self.spatial_index.query(box_nm) if found is None else found

    def save_index(self, database: str | os.PathLike[str], *, progress: bool = False) -> None:
        """Copy the spatial index into a database, which answers for large ones faster.

        It does not follow later writes: save it anew then. An index that is there is replaced
        when the new one is complete; CloudVolume reads it too.

        Parameters
        ----------
        database : str or path
            A file of SQLite, or a URL of SQLAlchemy for one of PostgreSQL, MySQL or MariaDB
            with a driver that is installed: ``postgresql+pg8000://user@host/name``. It holds
            one index.
        progress : bool
            Show a progress bar.

        Raises
        ------
        ValueError
            There is no spatial index; or the database holds something else.
        UnsupportedError
            SQLAlchemy or the driver is not installed: ``precomputed-store[database]``.
        ObjectError
            The index is damaged or incomplete.
        StorageError
            The database refuses.
        """
        SpatialDatabase.at(database).save(self.spatial_index, progress=progress)
