"""Chunks of a shard that are stored one by one, put into it together.

zarr stores every chunk by itself, and each would cost reading and writing its whole shard.
So what comes while a shard is being written waits, and goes into it the next time.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from precomputed_store.forks import restart_in_children
from precomputed_store.grid import XYZ
from precomputed_store.shard_writer import ShardWriter
from precomputed_store.sharding import locate

__all__ = ["ShardQueue"]


@dataclass(eq=False)
class _Batch:
    """What goes into a shard together, and what those who brought it wait for."""

    chunks: dict[int, bytes | None] = field(default_factory=dict)
    done: Future[None] = field(default_factory=Future)


class ShardQueue:
    """Stores chunks of one scale, for any number of threads.

    Parameters
    ----------
    writer : ShardWriter
    """

    def __init__(self, writer: ShardWriter) -> None:
        self._writer = writer
        restart_in_children(self)

    def restart(self) -> None:
        """Begin with nothing waiting. What was stored in a parent, the parent writes."""
        self._lock = threading.Lock()
        self._waiting: dict[int, _Batch] = {}
        self._written: set[int] = set()

    def store(self, cell: XYZ, data: bytes | None) -> None:
        """Store an encoded chunk, or remove it; returns when that is done."""
        chunk_id = self._writer.grid.chunk_id(cell)
        shard = locate(self._writer.spec, chunk_id).shard
        with self._lock:
            batch = self._waiting.setdefault(shard, _Batch())
            batch.chunks[chunk_id] = data
            leads = shard not in self._written
            if leads:
                self._written.add(shard)
        if leads:
            self._write_all(shard)
        batch.done.result()

    def _write_all(self, shard: int) -> None:
        """Write what waits for a shard until nothing does."""
        while True:
            with self._lock:
                batch = self._waiting.pop(shard, None)
                if batch is None:
                    self._written.discard(shard)
                    return
            try:
                self._writer.store_chunks(shard, batch.chunks, whole=False)
            except BaseException as error:
                batch.done.set_exception(error)
            else:
                batch.done.set_result(None)
