"""Key → bytes and back: the only layer that touches files and networks."""

from __future__ import annotations

from precomputed_store.storage.base import ABSENT, Blob, ByteRange, Version, Versioned
from precomputed_store.storage.bridge import run_async, run_sync
from precomputed_store.storage.conditions import UNCHANGED, Change, UpdatePolicy
from precomputed_store.storage.retry import RetryPolicy
from precomputed_store.storage.storage import Storage, open_storage

__all__ = [
    "ABSENT",
    "UNCHANGED",
    "Blob",
    "ByteRange",
    "Change",
    "RetryPolicy",
    "Storage",
    "UpdatePolicy",
    "Version",
    "Versioned",
    "open_storage",
    "run_async",
    "run_sync",
]
