"""Read, change, write back, and again if another writer came between: `Storage.update`."""

from __future__ import annotations

import asyncio
import enum
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypedDict

from precomputed_store.codecs.base import Buffer
from precomputed_store.concurrency import codec_pool
from precomputed_store.errors import ConflictError, UnsupportedError
from precomputed_store.storage.base import Blob, no_conditions

if TYPE_CHECKING:
    from precomputed_store.storage.storage import Storage

__all__ = [
    "DEFAULT_UPDATE",
    "UNCHANGED",
    "Change",
    "Unchanged",
    "Unconditional",
    "Update",
    "UpdatePolicy",
    "update",
    "update_async",
]


_SPREAD = 16
_LONGEST_WAIT_S = 2.0


class Unchanged(enum.Enum):
    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED
"""What a `Change` returns to leave the object as it is."""

Change: TypeAlias = Callable[[Blob | None], Buffer | Literal[Unchanged.UNCHANGED] | None]
"""What is stored (None: nothing) → the bytes to store in its place, None to delete, UNCHANGED."""

Unconditional: TypeAlias = Literal["raise", "allow"]
"""Whether to update where the storage has no conditions, and so cannot tell of conflicts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePolicy:
    """How often to begin again before an update has failed.

    Of several writers at once, one gets through each time. Waits are random, and grow with
    the time that a try takes, so that writers spread out.

    Attributes
    ----------
    attempts : int
        Tries, the first included.
    deadline_s : float
        Seconds after which no new try begins.
    """

    attempts: int = 200
    deadline_s: float = 120.0


DEFAULT_UPDATE = UpdatePolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One update: which object, how it is changed, how it is stored."""

    key: str
    change: Change
    content_type: str
    content_encoding: str | None
    cache_control: str | None
    max_bytes: int | None
    policy: UpdatePolicy
    unconditional: Unconditional

    def __post_init__(self) -> None:
        if self.unconditional not in ("raise", "allow"):
            raise ValueError(
                f"unconditional is {self.unconditional!r}; expected 'raise' or 'allow'"
            )


def update(storage: Storage, request: Update) -> None:
    """See `Storage.update`."""
    tries = _Tries(storage, request)
    while True:
        if tries.conditional:
            blob, version = storage.get_versioned(request.key, max_bytes=request.max_bytes)
        else:
            blob, version = storage.get(request.key, max_bytes=request.max_bytes), None
        new = request.change(blob)
        if new is UNCHANGED:
            return
        try:
            if new is not None:
                storage.put(request.key, new, expected=version, **tries.headers)
            elif blob is not None:
                storage.delete(request.key, expected=version)
            return
        except ConflictError as error:
            wait_s = tries.wait_after(error)
        except UnsupportedError as error:
            wait_s = tries.without_conditions(error)
        time.sleep(wait_s)


async def update_async(storage: Storage, request: Update) -> None:
    """As `update`; `change` runs on a thread of the pool for codecs."""
    loop = asyncio.get_running_loop()
    tries = _Tries(storage, request)
    while True:
        if tries.conditional:
            found = await storage.get_versioned_async(request.key, max_bytes=request.max_bytes)
            blob, version = found
        else:
            blob = await storage.get_async(request.key, max_bytes=request.max_bytes)
            version = None
        new = await loop.run_in_executor(codec_pool(), request.change, blob)
        if new is UNCHANGED:
            return
        try:
            if new is not None:
                await storage.put_async(request.key, new, expected=version, **tries.headers)
            elif blob is not None:
                await storage.delete_async(request.key, expected=version)
            return
        except ConflictError as error:
            wait_s = tries.wait_after(error)
        except UnsupportedError as error:
            wait_s = tries.without_conditions(error)
        await asyncio.sleep(wait_s)


class _Headers(TypedDict):
    content_type: str
    content_encoding: str | None
    cache_control: str | None


class _Tries:
    """The tries of one update so far."""

    def __init__(self, storage: Storage, request: Update) -> None:
        self.conditional = storage.has_conditions
        if not self.conditional and request.unconditional == "raise":
            raise no_conditions(storage.url)
        self.headers: _Headers = {
            "content_type": request.content_type,
            "content_encoding": request.content_encoding,
            "cache_control": request.cache_control,
        }
        self._url = f"{storage.url}/{request.key}"
        self._request = request
        self._count = 0
        self._started = time.monotonic()

    def wait_after(self, conflict: ConflictError) -> float:
        """Seconds to wait before beginning again.

        Raises
        ------
        ConflictError
            It was the last try.
        """
        self._count += 1
        policy, elapsed = self._request.policy, time.monotonic() - self._started
        if self._count >= policy.attempts or elapsed >= policy.deadline_s:
            tries = "1 try" if self._count == 1 else f"{self._count} tries"
            raise ConflictError(
                f"{self._url}: gave up after {tries} in {elapsed:.1f} s: each time another "
                "writer had changed it meanwhile. Let fewer writers change the same object at "
                "once, or allow more with UpdatePolicy"
            ) from conflict
        per_try = elapsed / self._count
        return min(random.uniform(0, per_try * min(self._count, _SPREAD)), _LONGEST_WAIT_S)

    def without_conditions(self, error: UnsupportedError) -> float:
        """Go on without conditions where the server turned out to have none, if that may be."""
        if not self.conditional or self._request.unconditional == "raise":
            raise error
        self.conditional = False
        return 0.0
