"""Threads for decoding and local files, bounded fan-out for coroutines."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

__all__ = ["bounded", "change_pool", "codec_pool", "run_threaded", "share_out"]

T = TypeVar("T")

# Measured with chunks of raw voxels and of compressed_segmentation, on two processors.
_LONG_ITEM_SECONDS = 0.00025
_LONG_WORK_SECONDS = 0.015

_lock = threading.Lock()
_pools: dict[str, ThreadPoolExecutor] = {}


def num_cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def codec_pool() -> ThreadPoolExecutor:
    """The process's pool for codecs and local files: one thread per processor."""
    return _pool("precomputed")


def change_pool() -> ThreadPoolExecutor:
    """The process's pool for what works out changes of objects, and waits for codecs in it.

    Not the threads of an event loop: those may all be waiting for a change.
    """
    return _pool("precomputed-change")


def _pool(name: str) -> ThreadPoolExecutor:
    with _lock:
        if name not in _pools:
            _pools[name] = ThreadPoolExecutor(num_cores(), thread_name_prefix=name)
        return _pools[name]


def _forget_pools() -> None:
    # A forked child has the pools' objects but none of their threads.
    global _pools, _lock
    _pools, _lock = {}, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)


def run_threaded(
    function: Callable[[T], object], items: Sequence[T], *, workers: int, brief: bool = False
) -> None:
    """Call `function` on every item, on up to `workers` threads.

    The first exception is raised when nothing is under way any more; items that have not begun
    are dropped then. A single item runs in the caller's own thread.

    Parameters
    ----------
    brief : bool
        Whether items may be a matter of microseconds. Threads would cost more than they give
        then, so it is tried without them for as long as that is so.
    """
    if brief and workers > 1:
        items = items[_do_while_brief(function, items) :]
    if len(items) <= 1 or workers <= 1:
        for item in items:
            function(item)
        return
    stop = threading.Event()
    work = _turns(function, items, stop)
    workers = min(workers, len(items))
    if workers <= num_cores():
        _submit(codec_pool(), work, workers, stop)
    else:
        with ThreadPoolExecutor(workers, thread_name_prefix="precomputed-io") as pool:
            _submit(pool, work, workers, stop)


def _turns(
    function: Callable[[T], object], items: Sequence[T], stop: threading.Event
) -> Callable[[], None]:
    """What each of several threads does until all items are done, or one has failed.

    One by one: of a few long items, a batch more than another's would be a long wait.
    """
    indices = iter(range(len(items)))

    def work() -> None:
        try:
            for index in indices:
                if stop.is_set():
                    return
                function(items[index])
        except BaseException:
            stop.set()
            raise

    return work


def _do_while_brief(function: Callable[[T], object], items: Sequence[T]) -> int:
    """Call `function` on items until it takes long, or all of them would; how many are done."""
    before = time.perf_counter()
    for done, item in enumerate(items, 1):
        function(item)
        now = time.perf_counter()
        took, before = now - before, now
        if took > _LONG_ITEM_SECONDS or took * (len(items) - done) > _LONG_WORK_SECONDS:
            return done
    return len(items)


def share_out(function: Callable[[T], object], items: Sequence[T], *, least: int) -> None:
    """Call `function` on every item, here and on whatever threads for codecs have nothing to do.

    May be called from one of these threads, too: nothing is waited for but what has begun.
    The first exception is raised when nothing is under way any more.

    Parameters
    ----------
    function : callable
    items : sequence
    least : int
        For how many items it is worth to ask for another thread's help.
    """
    work = _turns(function, items, threading.Event())
    num_helpers = min(num_cores(), len(items) // least) - 1
    helpers = [codec_pool().submit(work) for _ in range(num_helpers)]
    try:
        work()
    finally:
        begun = [helper for helper in helpers if not helper.cancel()]
        wait(begun)
    for helper in begun:
        helper.result()


def _submit(
    pool: ThreadPoolExecutor, work: Callable[[], None], workers: int, stop: threading.Event
) -> None:
    futures: list[Future[None]] = [pool.submit(work) for _ in range(workers)]
    try:
        wait(futures)
    except BaseException:
        stop.set()
        raise
    finally:
        wait(futures)
    for future in futures:
        future.result()


def bounded(
    limit: int,
) -> Callable[[Sequence[T], Callable[[T], Awaitable[None]]], Awaitable[None]]:
    """A function that awaits a coroutine function over items, `limit` of them at once."""

    async def over(items: Sequence[T], function: Callable[[T], Awaitable[None]]) -> None:
        pending = iter(items)

        async def work() -> None:
            for item in pending:
                await function(item)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(limit, len(items))):
                group.create_task(work())

    async def first_error(items: Sequence[T], function: Callable[[T], Awaitable[None]]) -> None:
        try:
            await over(items, function)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    return first_error
