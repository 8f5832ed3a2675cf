"""The record of a write that is under way: what it takes to go on with it, and with no other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from precomputed_store.errors import StorageError
from precomputed_store.metadata import VolumeInfo
from precomputed_store.storage import Storage
from precomputed_store.writer import WriteOptions

__all__ = ["RECORD_KEY", "WriteRecord", "end_record", "recorded_scales"]

RECORD_KEY = "write-in-progress.json"
_FORMAT = "precomputed-store write in progress"
_LARGEST_RECORD = 16 << 20


@dataclass(frozen=True, kw_only=True)
class WriteRecord:
    """The parameters of a job that decide what it writes.

    Attributes
    ----------
    info : VolumeInfo
        With every scale that will be there in the end.
    scales : tuple of str
        Keys of those that the job writes.
    method : str
        How coarser scales are made.
    options : WriteOptions
    """

    info: VolumeInfo
    scales: tuple[str, ...]
    method: str
    options: WriteOptions

    def to_json(self) -> dict[str, Any]:
        members: dict[str, Any] = {
            "@type": _FORMAT,
            "info": self.info.to_json(),
            "scales": list(self.scales),
            "method": self.method,
            "compress": self.options.compress,
            "compress_level": self.options.compress_level,
            "write_empty_chunks": self.options.write_empty_chunks,
        }
        plain: dict[str, Any] = json.loads(json.dumps(members))
        return plain

    def begin(self, storage: Storage) -> None:
        """Leave the record beside the layer."""
        text = json.dumps(self.to_json(), indent=2)
        storage.put(
            RECORD_KEY, text.encode(), content_type="application/json", cache_control="no-cache"
        )

    def is_under_way(self, storage: Storage) -> bool:
        """Whether this job was begun and not ended.

        Raises
        ------
        ValueError
            Another job was: says in what they differ.
        """
        found = _read(storage)
        if found is None:
            return False
        own = self.to_json()
        different = sorted(
            name for name in own.keys() | found.keys() if own.get(name) != found.get(name)
        )
        if different:
            raise ValueError(
                f"{storage.url}/{RECORD_KEY} is of another job: its {', '.join(different)} "
                "differ(s) from what is asked for now. Call with the same arguments to resume "
                "that one, or replace the layer: mode='w' without resume=True"
            )
        return True


def recorded_scales(storage: Storage) -> tuple[str, ...]:
    """Keys of the scales that a job which has not ended writes; none if there is no such job."""
    found = _read(storage)
    keys = [] if found is None else found.get("scales")
    return tuple(key for key in keys if isinstance(key, str)) if isinstance(keys, list) else ()


def end_record(storage: Storage) -> None:
    """Remove the record: the job is done."""
    storage.delete(RECORD_KEY)


def _read(storage: Storage) -> dict[str, Any] | None:
    blob = storage.get(RECORD_KEY, max_bytes=_LARGEST_RECORD)
    if blob is None:
        return None
    try:
        found = json.loads(bytes(blob.data))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("@type") != _FORMAT:
        raise StorageError(
            f"{storage.url}/{RECORD_KEY} is not the record of a write; move it away first"
        )
    return found
