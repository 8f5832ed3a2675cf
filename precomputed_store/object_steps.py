"""Reading what takes several requests, each depending on what came of those before.

Steps are a generator: it yields a list of requests, gets what is stored for each, and in
the end returns its result. So one description serves threads and event loops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from precomputed_store.codecs import content
from precomputed_store.codecs.base import Buffer
from precomputed_store.concurrency import bounded, codec_pool, num_cores, run_threaded
from precomputed_store.storage import Blob, ByteRange, Storage, run_sync

__all__ = ["Request", "Steps", "plain_bytes", "run_steps"]

T = TypeVar("T")
K = TypeVar("K")

# Some compression of sparse data goes far; what inflates further than this is a trap.
_MOST_INFLATED = 256
_SPARE_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"


class Request(NamedTuple):
    """An object, or a range of its bytes; longer ones than `max_bytes` are refused."""

    key: str
    byte_range: ByteRange | None = None
    max_bytes: int | None = None


Steps: TypeAlias = Generator[Sequence[Request], Sequence[Blob | None], T]


def plain_bytes(blob: Blob, *, max_bytes: int) -> Buffer:
    """What an object holds, its content encoding undone, within bounds.

    Raises
    ------
    FormatError
        It is damaged, or inflates to far more than it should.
    """
    encoding = blob.content_encoding
    if encoding is None and not blob.certain and bytes(blob.data[:2]) == _GZIP:
        encoding = "gzip"
    if encoding is None:
        return blob.data
    limit = min(max_bytes, _MOST_INFLATED * len(blob.data) + _SPARE_BYTES)
    return content.undo(blob.data, encoding, limit=limit)


def run_steps(storage: Storage, items: Sequence[K], steps: Callable[[K], Steps[T]]) -> list[T]:
    """The results of the steps of many items, as many of them at once as is of use.

    What the generators do themselves runs in threads, not in an event loop.
    """
    results: dict[int, T] = {}
    numbered = list(enumerate(items))

    def blocking(item: tuple[int, K]) -> None:
        results[item[0]] = _run(storage, steps(item[1]))

    async def over_network(item: tuple[int, K]) -> None:
        results[item[0]] = await _run_async(storage, steps(item[1]))

    if storage.threaded:
        run_threaded(blocking, numbered, workers=num_cores())
    else:
        run_sync(_all(storage, numbered, over_network))
    return [results[number] for number, _ in numbered]


def _run(storage: Storage, steps: Steps[T]) -> T:
    blobs: Sequence[Blob | None] | None = None
    while True:
        try:
            wanted = next(steps) if blobs is None else steps.send(blobs)
        except StopIteration as done:
            result: T = done.value
            return result
        blobs = [_get(storage, request) for request in wanted]


def _get(storage: Storage, request: Request) -> Blob | None:
    return storage.get(request.key, request.byte_range, max_bytes=request.max_bytes)


async def _all(
    storage: Storage, items: Sequence[K], function: Callable[[K], Awaitable[None]]
) -> None:
    await bounded(storage.concurrency)(items, function)


async def _run_async(storage: Storage, steps: Steps[T]) -> T:
    loop = asyncio.get_running_loop()
    blobs: Sequence[Blob | None] | None = None
    while True:
        wanted, results = await loop.run_in_executor(codec_pool(), _advance, steps, blobs)
        if results:
            return results[0]
        blobs = await _get_all(storage, wanted)


def _advance(
    steps: Steps[T], blobs: Sequence[Blob | None] | None
) -> tuple[Sequence[Request], list[T]]:
    """The next requests, or the result: StopIteration cannot leave a thread's future."""
    try:
        return (next(steps) if blobs is None else steps.send(blobs)), []
    except StopIteration as done:
        return [], [done.value]


async def _get_all(storage: Storage, requests: Sequence[Request]) -> list[Blob | None]:
    blobs: list[Blob | None] = [None] * len(requests)

    async def fetch(place: int) -> None:
        key, byte_range, max_bytes = requests[place]
        blobs[place] = await storage.get_async(key, byte_range, max_bytes=max_bytes)

    await _all(storage, range(len(requests)), fetch)
    return blobs
