"""Changing an object in place of what was read of it, or not at all.

Read, work out what to store instead, and store that only if the object still is what was
read; else begin again. Every backend that can do this does it by itself; here is what
they share.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from precomputed_store.codecs.base import Buffer
from precomputed_store.concurrency import change_pool
from precomputed_store.errors import ConflictError, UnsupportedError
from precomputed_store.storage.base import Blob, Get, Put
from precomputed_store.storage.pieces import Rewrite

if TYPE_CHECKING:
    from precomputed_store.storage.base import AsyncBackend, ThreadedBackend

__all__ = [
    "Change",
    "Update",
    "changed",
    "no_conditions",
    "tries",
    "unguarded",
    "unguarded_async",
    "write_id",
]

Change: TypeAlias = Callable[[Blob | None], Buffer | None]
"""What to store instead of what is stored (None: nothing). May be called several times."""

_MOST_TRIES = 200
_DEADLINE_S = 300.0
_LONGEST_WAIT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A change of one object that depends on what is stored.

    Attributes
    ----------
    key : str
    change : callable
        Gets the object as it is stored, or None; gives what to store, or None.
    content_type, content_encoding, cache_control : str, optional
        Of what is stored then; see `Put`.
    guarded : bool
        Whether the change must not be made over somebody else's. False is for a single
        writer, on storages that know no conditions.
    max_bytes : int, optional
        A stored object that is longer is refused.
    rewrite : callable, optional
        The same as `change` in pieces, for storages that need not hold the object.
    """

    key: str
    change: Change
    content_type: str
    content_encoding: str | None = None
    cache_control: str | None = None
    guarded: bool = True
    max_bytes: int | None = None
    rewrite: Rewrite | None = None

    def get(self) -> Get:
        return Get(key=self.key, max_bytes=self.max_bytes)

    def put(self, data: Buffer) -> Put:
        return Put(
            key=self.key,
            data=data,
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            cache_control=self.cache_control,
        )


def tries(url: str) -> Iterator[float]:
    """Seconds to wait before each try: none, then longer and longer, at random.

    Raises
    ------
    ConflictError
        After too many: others change the object all the time.
    """
    started = time.monotonic()
    for count in range(_MOST_TRIES):
        if count and time.monotonic() - started > _DEADLINE_S:
            break
        yield random.uniform(0, min(_LONGEST_WAIT_S, 0.005 * 2**count)) if count else 0.0
    raise ConflictError(
        f"{url}: others changed it each of the {count} times that it was to be changed, in "
        f"{time.monotonic() - started:.0f} s; have each object written by one task"
    )


async def changed(request: Update, stored: Blob | None) -> Buffer | None:
    """What is to be stored instead of what is, worked out in a thread."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(change_pool(), request.change, stored)


def write_id() -> str:
    """A name for one write, by which it is known again when its answer was lost."""
    return os.urandom(12).hex()


def unguarded(backend: ThreadedBackend, request: Update, get: Get, url: str) -> None:
    """Read, change and store without a condition, if that was asked for.

    Raises
    ------
    UnsupportedError
        It was not.
    """
    if request.guarded:
        raise no_conditions(url)
    new = request.change(backend.get(get))
    if new is None:
        backend.delete(request.key)
    else:
        backend.put(request.put(new))


async def unguarded_async(backend: AsyncBackend, request: Update, get: Get, url: str) -> None:
    """As `unguarded`."""
    if request.guarded:
        raise no_conditions(url)
    new = await changed(request, await backend.get(get))
    if new is None:
        await backend.delete(request.key)
    else:
        await backend.put(request.put(new))


def no_conditions(url: str) -> UnsupportedError:
    """The error for a change that cannot be guarded."""
    return UnsupportedError(
        f"{url}: this storage cannot make a write depend on what is stored, so a change by two "
        "writers at once would lose one of them. Write whole chunks (whole shards where there "
        "are shards), or, if there is one writer only, pass "
        'unaligned="unguarded-read-modify-write"'
    )
