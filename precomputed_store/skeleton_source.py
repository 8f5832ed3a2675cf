"""`open_skeletons`: the skeletons of a folder, by segment id."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import ArrayLike

from precomputed_store.codecs import content
from precomputed_store.errors import FormatError, ObjectError, VolumeNotFoundError
from precomputed_store.indexed_source import IndexedSource
from precomputed_store.keyed_reader import KeyedReader
from precomputed_store.metadata.document import MAX_BYTES
from precomputed_store.metadata.skeleton import SkeletonInfo
from precomputed_store.skeleton import Skeleton, decode_skeleton
from precomputed_store.storage import Blob, Storage, open_storage

__all__ = ["SkeletonSource", "open_skeletons", "parse_skeleton_info", "skeletons_in"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkeletonSource(IndexedSource):
    """Skeletons by segment id: ``source[720575940]``.

    Attributes
    ----------
    storage : Storage
        The folder that holds `info`.
    info : SkeletonInfo
    """

    storage: Storage
    info: SkeletonInfo

    def __getitem__(self, segment_id: int) -> Skeleton:
        return self.get([segment_id])[segment_id]

    def __contains__(self, segment_id: int) -> bool:
        return next(iter(self.reader.contains([segment_id]).values()))

    def __iter__(self) -> Iterator[int]:
        return self.ids()

    def ids(self) -> Iterator[int]:
        """Segment ids that have a skeleton, in no promised order.

        Raises
        ------
        UnsupportedError
            The storage cannot list, and there are no shards, or too many to try each.
        """
        return self.reader.ids()

    def get(
        self, segment_ids: Iterable[int], *, missing: Literal["raise", "omit"] = "raise"
    ) -> dict[int, Skeleton]:
        """Many skeletons, fetched at once.

        Parameters
        ----------
        segment_ids : iterable of int
        missing : {"raise", "omit"}
            What an id without a skeleton is: an error, or left out of what is returned.

        Returns
        -------
        dict of int to Skeleton
            In the order of `segment_ids`; positions in nm.

        Raises
        ------
        KeyError
            An id has no skeleton.
        ObjectError
            What is stored is damaged, or disagrees with `info`.
        """
        if missing not in ("raise", "omit"):
            raise ValueError(f"missing is {missing!r}; expected 'raise' or 'omit'")
        found = self.reader.fetch(segment_ids)
        absent = [segment_id for segment_id, data in found.items() if data is None]
        if absent and missing == "raise":
            shown = ", ".join(map(str, absent[:5]))
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            raise KeyError(f"{self.storage.url}: no skeleton of {shown}{more}")
        return {i: self._decode(i, data) for i, data in found.items() if data is not None}

    def query(
        self, box_nm: ArrayLike, *, index: str | os.PathLike[str] | None = None
    ) -> dict[int, Skeleton]:
        """The whole skeletons that a box meets; see `query_ids`.

        Indices may name segments too small for a skeleton; those are left out.
        """
        return self.get(self.query_ids(box_nm, index=index), missing="omit")

    @property
    def reader(self) -> KeyedReader:
        """The stored bytes."""
        return KeyedReader(storage=self.storage, sharding=self.info.sharding, noun="skeleton")

    def _decode(self, segment_id: int, data: bytes) -> Skeleton:
        try:
            return decode_skeleton(data, info=self.info, segment_id=segment_id)
        except FormatError as error:
            key = self.reader.key(segment_id)
            raise ObjectError(f"{self.storage.url}/{key}: {error}", key=key) from error


def open_skeletons(
    url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> SkeletonSource:
    """Open a folder of skeletons: one request for its `info`.

    Parameters
    ----------
    url : str or path
        Of the folder of skeletons, as `open_layer` takes it.
    storage_options : mapping, optional
        Passed to fsspec.

    Raises
    ------
    VolumeNotFoundError
        There is no `info` at this address.
    MetadataError
        `info` is not that of skeletons, or breaks the specification.
    StorageError
    """
    return skeletons_in(open_storage(url, storage_options=storage_options))


def skeletons_in(storage: Storage) -> SkeletonSource:
    """As `open_skeletons`, in a storage that is open."""
    blob = storage.get("info", max_bytes=MAX_BYTES)
    if blob is None:
        raise VolumeNotFoundError(f"{storage.url}: there is no info file of skeletons")
    return SkeletonSource(storage=storage, info=parse_skeleton_info(blob, storage))


def parse_skeleton_info(blob: Blob, storage: Storage) -> SkeletonInfo:
    """The metadata that is stored in a folder of skeletons."""
    data = blob.data
    if blob.content_encoding is not None:
        data = content.undo(data, blob.content_encoding, limit=MAX_BYTES)
    return SkeletonInfo.from_json(bytes(data), source=f"{storage.url}/info")
