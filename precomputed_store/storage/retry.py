"""Retries, in one place for every kind of remote storage.

A transport raises `TransientError` for what another try may cure; everything else it
raises is final. The first try costs nothing extra; tenacity enters after a failure.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar

from precomputed_store.errors import StorageError

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = [
    "DEFAULT_RETRY",
    "TRANSIENT_STATUSES",
    "RetryPolicy",
    "TransientError",
    "retry_after",
    "retry_async",
    "retry_sync",
]

T = TypeVar("T")

TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses that another try may cure."""

_log = logging.getLogger("precomputed_store.storage")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How hard to try before a request to a remote storage has failed.

    Waits grow exponentially and are random (full jitter), so that many workers do not
    come back at the same moment. A server's ``Retry-After`` is respected.

    Attributes
    ----------
    attempts : int
        Tries of one request, the first included.
    deadline_s : float
        Seconds after which no new try begins.
    first_wait_s, longest_wait_s : float
        Bounds of the wait before the second try and before any, in seconds.
    stall_s : float
        Seconds without a byte after which a try has failed. Slow bodies that keep
        coming are not cut off.
    connect_s : float
        Seconds that a connection may take to be established.
    unreachable_attempts : int
        Tries where the host's name is unknown or nobody listens: rarely cured by waiting.
    """

    attempts: int = 25
    deadline_s: float = 55.0
    first_wait_s: float = 0.2
    longest_wait_s: float = 5.0
    stall_s: float = 30.0
    connect_s: float = 10.0
    unreachable_attempts: int = 4


DEFAULT_RETRY = RetryPolicy()


class TransientError(Exception):
    """A try failed in a way that another one may not."""

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        wait_s: float = 0.0,
        unreachable: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.wait_s = wait_s
        self.unreachable = unreachable


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a ``Retry-After`` header asks for; 0 without one or where it is a date."""
    value = headers.get("Retry-After") or headers.get("retry-after") or ""
    return float(value) if value.isdecimal() else 0.0


async def retry_async(
    attempt: Callable[[float], Awaitable[T]], *, policy: RetryPolicy, url: str
) -> T:
    """Await ``attempt(stall_s)`` until it succeeds or `policy` says enough.

    Raises
    ------
    StorageError
        With the history of the tries, if the last one failed too.
    """
    tries = _Tries(policy, url)
    try:
        return await attempt(policy.stall_s)
    except TransientError as error:
        tries.failures.append(error)
    from tenacity import AsyncRetrying

    async def again() -> T:
        return await attempt(tries.stall_s())

    try:
        return await AsyncRetrying(**tries.options())(tries.after_first_async(again))
    except TransientError as error:
        raise tries.exhausted() from error


def retry_sync(attempt: Callable[[], T], *, policy: RetryPolicy, url: str) -> T:
    """As `retry_async`, for a function that blocks."""
    tries = _Tries(policy, url)
    try:
        return attempt()
    except TransientError as error:
        tries.failures.append(error)
    from tenacity import Retrying

    try:
        return Retrying(**tries.options())(tries.after_first(attempt))
    except TransientError as error:
        raise tries.exhausted() from error


class _Tries:
    """The tries of one request so far."""

    def __init__(self, policy: RetryPolicy, url: str) -> None:
        self.policy = policy
        self.url = url
        self.failures: list[TransientError] = []
        self.started = time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def stall_s(self) -> float:
        """What is left of the deadline bounds the patience of late tries."""
        return max(1.0, min(self.policy.stall_s, self.policy.deadline_s - self.elapsed()))

    def options(self) -> dict[str, Any]:
        from tenacity import retry_if_exception_type, wait_random_exponential

        backoff = wait_random_exponential(
            multiplier=self.policy.first_wait_s, max=self.policy.longest_wait_s
        )

        def wait(state: RetryCallState) -> float:
            return max(backoff(state), self.failures[-1].wait_s)

        return {
            "retry": retry_if_exception_type(TransientError),
            "wait": wait,
            "stop": self._stop,
            "before_sleep": self._report,
            "reraise": True,
        }

    def after_first(self, attempt: Callable[[], T]) -> Callable[[], T]:
        """`attempt` as tenacity may call it, beginning with the failure already known."""
        first: list[TransientError] = list(self.failures)

        def call() -> T:
            if first:
                raise first.pop()
            try:
                return attempt()
            except TransientError as error:
                self.failures.append(error)
                raise

        return call

    def after_first_async(self, attempt: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        first: list[TransientError] = list(self.failures)

        async def call() -> T:
            if first:
                raise first.pop()
            try:
                return await attempt()
            except TransientError as error:
                self.failures.append(error)
                raise

        return call

    def _stop(self, state: RetryCallState) -> bool:
        in_vain = sum(1 for _ in takewhile(lambda tried: tried.unreachable, self.failures[::-1]))
        if len(self.failures) >= self.policy.attempts:
            return True
        if in_vain >= self.policy.unreachable_attempts:
            return True
        return self.elapsed() + state.upcoming_sleep > self.policy.deadline_s

    def _report(self, state: RetryCallState) -> None:
        _log.info(
            "%s: %s; try %d in %.1f s",
            self.url,
            self.failures[-1].reason,
            len(self.failures) + 1,
            state.upcoming_sleep,
        )

    def exhausted(self) -> StorageError:
        count = len(self.failures)
        last = self.failures[-1]
        reasons = Counter(failure.reason for failure in self.failures)
        history = ", ".join(f"{reason} ({times}×)" for reason, times in reasons.items())
        tries = "1 try" if count == 1 else f"{count} tries"
        return StorageError(
            f"{self.url}: gave up after {tries} in {self.elapsed():.1f} s: {history}",
            status=last.status,
        )
