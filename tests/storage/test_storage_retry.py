"""Retries: how often, how long, and what is said in the end."""

from __future__ import annotations

import time

import pytest

from precomputed_store.errors import StorageError
from precomputed_store.storage import RetryPolicy
from precomputed_store.storage.retry import (
    TransientError,
    retry_after,
    retry_async,
    retry_sync,
)

QUICK = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002)


class Flaky:
    """Fails with the given errors, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.stalls: list[float] = []

    def sync(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def coroutine(self, stall_s: float) -> str:
        self.stalls.append(stall_s)
        return self.sync()


def busy() -> TransientError:
    return TransientError("503 Service Unavailable", status=503)


async def test_a_passing_failure_is_retried() -> None:
    flaky = Flaky(busy(), TransientError("reset"), busy())
    assert await retry_async(flaky.coroutine, policy=QUICK, url="u") == "done"
    assert flaky.calls == 4


def test_blocking_calls_are_retried_alike() -> None:
    flaky = Flaky(busy(), busy())
    assert retry_sync(flaky.sync, policy=QUICK, url="u") == "done"
    assert flaky.calls == 3


async def test_another_failure_is_final() -> None:
    flaky = Flaky(busy(), StorageError("no permission", status=403))
    with pytest.raises(StorageError, match=r"^no permission$"):
        await retry_async(flaky.coroutine, policy=QUICK, url="u")
    assert flaky.calls == 2


async def test_the_last_error_tells_the_whole_history() -> None:
    policy = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002, attempts=4)
    flaky = Flaky(busy(), TransientError("reset"), *[busy() for _ in range(9)])
    with pytest.raises(StorageError) as caught:
        await retry_async(flaky.coroutine, policy=policy, url="gs://b/info")
    assert flaky.calls == 4
    assert caught.value.status == 503
    message = str(caught.value)
    assert message.startswith("gs://b/info: gave up after 4 tries in 0.")
    assert "503 Service Unavailable (3×), reset (1×)" in message


def test_blocking_calls_end_alike() -> None:
    policy = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002, attempts=3)
    flaky = Flaky(*[busy() for _ in range(9)])
    with pytest.raises(StorageError, match="gave up after 3 tries"):
        retry_sync(flaky.sync, policy=policy, url="u")


async def test_no_try_begins_after_the_deadline() -> None:
    policy = RetryPolicy(first_wait_s=0.05, longest_wait_s=0.05, deadline_s=0.3)
    flaky = Flaky(*[busy() for _ in range(1000)])
    started = time.monotonic()
    with pytest.raises(StorageError, match="gave up"):
        await retry_async(flaky.coroutine, policy=policy, url="u")
    assert time.monotonic() - started < 0.5
    assert flaky.calls > 3


async def test_late_tries_have_less_patience() -> None:
    policy = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002, deadline_s=4, stall_s=3.99)
    flaky = Flaky(*[busy() for _ in range(20)])
    await retry_async(flaky.coroutine, policy=policy, url="u")
    assert flaky.stalls[0] == 3.99
    assert flaky.stalls[-1] < 3.99


async def test_the_server_may_ask_to_wait() -> None:
    flaky = Flaky(TransientError("429", wait_s=0.2))
    started = time.monotonic()
    await retry_async(flaky.coroutine, policy=QUICK, url="u")
    assert time.monotonic() - started >= 0.2


async def test_a_wait_beyond_the_deadline_is_not_waited_for() -> None:
    flaky = Flaky(TransientError("429", wait_s=3600))
    started = time.monotonic()
    with pytest.raises(StorageError, match="gave up after 1 try"):
        await retry_async(flaky.coroutine, policy=QUICK, url="u")
    assert time.monotonic() - started < 1


async def test_an_unreachable_host_is_given_up_soon() -> None:
    def nobody() -> TransientError:
        return TransientError("no connection", unreachable=True)

    flaky = Flaky(*[busy() for _ in range(6)], *[nobody() for _ in range(9)])
    with pytest.raises(StorageError, match=r"gave up after 10 tries"):
        await retry_async(flaky.coroutine, policy=QUICK, url="u")
    flaky = Flaky(*[error() for _ in range(5) for error in (nobody, nobody, nobody, busy)])
    assert await retry_async(flaky.coroutine, policy=QUICK, url="u") == "done"


@pytest.mark.parametrize(
    ("value", "expected"), [("3", 3.0), ("", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0)]
)
def test_retry_after_is_read_in_seconds(value: str, expected: float) -> None:
    assert retry_after({"Retry-After": value}) == retry_after({"retry-after": value}) == expected
    assert retry_after({}) == 0.0


def test_the_defaults_end_within_a_minute_and_outlast_bad_networks() -> None:
    policy = RetryPolicy()
    assert policy.deadline_s < 60
    # 40 % refusals and 20 % resets, 5,000 reads
    assert 5000 * (1 - 0.6 * 0.8) ** policy.attempts < 0.001
