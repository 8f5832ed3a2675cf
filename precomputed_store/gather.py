"""Chunks that are asked for one by one, fetched together.

zarr asks for every chunk by itself. In shards, chunks that are fetched together share
look-ups and requests; so what is asked for within one turn of an event loop is collected.
"""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from precomputed_store.chunk_source import ChunkSource
from precomputed_store.concurrency import bounded
from precomputed_store.grid import XYZ
from precomputed_store.storage import Blob

__all__ = ["Gatherer"]

_Waiting: TypeAlias = dict[XYZ, list["asyncio.Future[Blob | None]"]]


class Gatherer:
    """Fetches from one source, for any number of event loops.

    Parameters
    ----------
    source : ChunkSource
    concurrency : int
        How many requests may be under way at once for one turn's chunks.
    """

    def __init__(self, source: ChunkSource, concurrency: int) -> None:
        self._source = source
        self._throttle = bounded(concurrency)
        self._waiting: dict[asyncio.AbstractEventLoop, _Waiting] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def fetch(self, cell: XYZ) -> Blob | None:
        """What is stored for `cell`, or None if nothing is."""
        loop = asyncio.get_running_loop()
        if loop not in self._waiting:
            self._waiting[loop] = {}
            loop.call_soon(self._start, loop)
        future: asyncio.Future[Blob | None] = loop.create_future()
        self._waiting[loop].setdefault(cell, []).append(future)
        return await future

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self._fetch_together(self._waiting.pop(loop)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fetch_together(self, waiting: _Waiting) -> None:
        try:
            await self._fetch(list(waiting), waiting)
        except Exception:
            # Which of them is at fault is not known: the others are not to suffer.
            await asyncio.gather(*(self._fetch_alone(cell, waiting) for cell in list(waiting)))

    async def _fetch_alone(self, cell: XYZ, waiting: _Waiting) -> None:
        try:
            await self._fetch([cell], waiting)
        except Exception as error:
            for future in waiting.pop(cell, ()):
                if not future.done():
                    future.set_exception(error)

    async def _fetch(self, cells: list[XYZ], waiting: _Waiting) -> None:
        async def deliver(cell: XYZ, blob: Blob | None) -> None:
            for future in waiting.pop(cell, ()):
                if not future.done():
                    future.set_result(blob)

        await self._source.fetch_many(cells, deliver, self._throttle)
