"""Key → bytes and back: the only layer that touches files and networks."""

from __future__ import annotations

from precomputed_store.storage.base import Blob, ByteRange, Get, ObjectTooLargeError
from precomputed_store.storage.bridge import run_async, run_sync
from precomputed_store.storage.retry import RetryPolicy
from precomputed_store.storage.storage import Storage, open_storage
from precomputed_store.storage.update import Update

__all__ = [
    "Blob",
    "ByteRange",
    "Get",
    "ObjectTooLargeError",
    "RetryPolicy",
    "Storage",
    "Update",
    "open_storage",
    "run_async",
    "run_sync",
]
