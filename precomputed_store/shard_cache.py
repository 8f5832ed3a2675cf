"""Minishard indices that this process has read, with the version of the shard that each is of."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from cachetools import LRUCache

from precomputed_store.forks import restart_in_children
from precomputed_store.metadata import ShardingSpec
from precomputed_store.sharding import MinishardIndex, parse_minishard_index
from precomputed_store.storage import Storage

__all__ = ["EMPTY_INDEX", "KnownIndex", "clear_index_cache", "forget_shard", "known_indices"]

INDEX_CACHE_BYTES = 64 << 20
EMPTY_INDEX = parse_minishard_index(
    b"",
    ShardingSpec(hash="identity", preshift_bits=0, minishard_bits=0, shard_bits=0),
)
"""Of a minishard that holds nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownIndex:
    """A minishard index as it was read.

    Attributes
    ----------
    index : MinishardIndex
    version : hashable
        Of the shard then. Bytes of a shard of another version are not where it says.
    read_at : float
        When, on the monotonic clock, in seconds.
    """

    index: MinishardIndex
    version: Hashable
    read_at: float = field(default_factory=time.monotonic)

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.read_at


class _IndexCache:
    """By (storage, shard's key, minishard), least recently used out first."""

    def __init__(self) -> None:
        restart_in_children(self)

    def restart(self) -> None:
        """Know nothing, and wait for nobody."""
        self._lock = threading.Lock()
        self._cache: LRUCache[Any, KnownIndex] = LRUCache(
            INDEX_CACHE_BYTES, getsizeof=lambda known: known.index.nbytes + 512
        )

    def get(self, storage: Storage, key: str, minishard: int) -> KnownIndex | None:
        with self._lock:
            return self._cache.get((storage, key, minishard))

    def put(self, storage: Storage, key: str, minishard: int, known: KnownIndex) -> None:
        if known.index.nbytes + 512 <= self._cache.maxsize:
            with self._lock:
                self._cache[storage, key, minishard] = known

    def clear(self) -> None:
        with self._lock:
            self._cache.clear()

    def forget(self, storage: Storage, key: str) -> None:
        with self._lock:
            for item in [item for item in self._cache if item[:2] == (storage, key)]:
                del self._cache[item]


known_indices = _IndexCache()


def clear_index_cache() -> None:
    """Forget every cached shard index."""
    known_indices.clear()


def forget_shard(storage: Storage, key: str) -> None:
    """Forget the cached indices of one shard."""
    known_indices.forget(storage, key)
