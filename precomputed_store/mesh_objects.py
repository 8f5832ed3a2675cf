"""Storing and removing the objects that meshes are made of, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from precomputed_store.codecs.base import Buffer
from precomputed_store.concurrency import bounded, num_cores, run_threaded
from precomputed_store.mesh import legacy
from precomputed_store.storage import Storage, run_sync

__all__ = ["Put", "delete_all", "put_all"]

_BINARY = "application/octet-stream"


class Put(NamedTuple):
    """An object to be stored."""

    key: str
    data: Buffer
    content_type: str = _BINARY


def put_all(storage: Storage, puts: Sequence[Put]) -> None:
    """Store objects: those of one mesh stand next to each other, its manifest last."""
    for manifests in (False, True):
        chosen = [put for put in puts if _is_manifest(put.key) == manifests]
        if storage.threaded:
            run_threaded(partial(_put, storage), chosen, workers=num_cores())
        elif chosen:
            run_sync(_put_all_async(storage, chosen))


def _is_manifest(key: str) -> bool:
    return key.endswith(".index") or legacy.segment_of(key) is not None


def _put(storage: Storage, put: Put) -> None:
    storage.put(put.key, put.data, content_type=put.content_type, cache_control="no-cache")


async def _put_all_async(storage: Storage, puts: Sequence[Put]) -> None:
    async def one(put: Put) -> None:
        await storage.put_async(
            put.key, put.data, content_type=put.content_type, cache_control="no-cache"
        )

    await bounded(storage.concurrency)(puts, one)


def delete_all(storage: Storage, keys: Sequence[str]) -> None:
    """Remove objects; some may be absent."""
    if storage.threaded:
        run_threaded(storage.delete, keys, workers=num_cores())
    elif keys:
        run_sync(_delete_all_async(storage, keys))


async def _delete_all_async(storage: Storage, keys: Sequence[str]) -> None:
    await bounded(storage.concurrency)(keys, storage.delete_async)
