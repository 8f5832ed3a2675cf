"""Between threads, any event loop, and fsspec's loop, which alone runs remote I/O.

Also what a process has open: file systems are kept per process, by protocol and
options, and forgotten by a forked child.
"""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import sys
import threading
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["generation", "run_async", "run_sync", "shared"]

T = TypeVar("T")

_lock = threading.RLock()
_generation = 0
_shared: dict[Hashable, Any] = {}
# What a child has inherited stays referenced, as nobody there can close it properly.
_inherited: list[dict[Hashable, Any]] = []
_loop: asyncio.AbstractEventLoop | None = None


def generation() -> int:
    """A number that changes in a forked child: what was opened before is not to be used."""
    return _generation


def _after_fork() -> None:
    global _lock, _generation, _shared, _loop
    _lock = threading.RLock()
    _inherited.append(_shared)
    _shared = {}
    _generation += 1
    if _loop is not None:
        _cut_off(_loop)
        _loop = None


def _cut_off(loop: asyncio.AbstractEventLoop) -> None:
    """Make an inherited event loop harmless: its sockets and its epoll are the parent's too.

    Finalizers close them at the exit of the child. That would deregister the parent's
    sockets from the common epoll, after which it hears nothing more, and say goodbye on
    its TLS connections.
    """
    if isinstance(loop, asyncio.BaseEventLoop):
        # Its thread is gone; otherwise whoever closes a connection would wait for it.
        loop._thread_id = None  # type: ignore[attr-defined]
    selector = getattr(loop, "_selector", None)
    if not isinstance(selector, selectors.BaseSelector) or selector.get_map() is None:
        return
    descriptors = {key.fd for key in selector.get_map().values()}
    # Transports of closed sockets linger there, under numbers that others have by now.
    for descriptor, transport in list(getattr(loop, "_transports", {}).items()):
        socket = transport.get_extra_info("socket")
        if socket is not None and socket.fileno() == descriptor:
            descriptors.add(descriptor)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)
    if sys.platform == "linux" and isinstance(selector, selectors.EpollSelector):
        with select.epoll() as own:
            os.dup2(own.fileno(), selector.fileno(), inheritable=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def shared(key: Hashable, create: Callable[[], T]) -> T:
    """The object of this process under `key`, created on first use."""
    found = _shared.get(key)
    if found is None:
        with _lock:
            found = _shared.get(key)
            if found is None:
                found = _shared[key] = create()
    result: T = found
    return result


def _submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    global _loop
    from fsspec.asyn import get_loop  # type: ignore[import-untyped]

    _loop = get_loop()
    return asyncio.run_coroutine_threadsafe(coroutine, _loop)


def _on_io_loop() -> bool:
    from fsspec.asyn import get_loop

    try:
        return asyncio.get_running_loop() is get_loop()
    except RuntimeError:
        return False


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on fsspec's loop, from any thread but the loop's own, and wait."""
    if _on_io_loop():
        coroutine.close()
        raise RuntimeError(
            "a blocking call from within fsspec's event loop would wait for itself; "
            "await the asynchronous method instead"
        )
    future = _submit(coroutine)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine that runs on fsspec's loop, from any event loop."""
    if _on_io_loop():
        return await coroutine
    return await asyncio.wrap_future(_submit(coroutine))
