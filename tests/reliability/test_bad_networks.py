"""Reads and writes through servers that fail: none fails, none is wrong, with default options."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable

import pytest
from amounts import amounts
from places import RemotePlace
from servers.faulty import Request

from precomputed_store.errors import StorageError
from precomputed_store.storage import Storage, open_storage

pytestmark = pytest.mark.server

FAULTS: dict[str, tuple[float, list[str]]] = {
    "20 % 429, 500, 503": (0.2, ["429", "500", "503"]),
    "40 % 429, 500, 503": (0.4, ["429", "500", "503"]),
    "20 % resets in the body": (0.2, ["reset"]),
    "40 % of everything": (0.4, ["429", "500", "502", "503", "504", "reset", "short", "refuse"]),
}


# The mildest of them is for the long run only.
NAMES = [
    pytest.param(name, marks=pytest.mark.long if number == 0 else ())
    for number, name in enumerate(FAULTS)
]


def unreliable(share: float, faults: list[str], seen: Counter[str]) -> Callable[[Request], str]:
    dice = random.Random(5)

    def pick(request: Request) -> str:
        fault = dice.choice(faults) if dice.random() < share else "ok"
        seen[fault] += 1
        return fault

    return pick


def content(number: int) -> bytes:
    return random.Random(number).randbytes(4000)


def opened(place: RemotePlace) -> Storage:
    return open_storage(place.url, storage_options=place.storage_options)


async def many(calls: list[Callable[[], object]], at_once: int = 64) -> list[object]:
    gate = asyncio.Semaphore(at_once)

    async def one(call: Callable[[], object]) -> object:
        async with gate:
            return await call()  # type: ignore[misc]

    return await asyncio.gather(*map(one, calls))


@pytest.mark.slow
@pytest.mark.parametrize("count", amounts(120, 5000))
@pytest.mark.parametrize("name", NAMES)
def test_every_read_comes_back_right(
    place: RemotePlace, name: str, count: int, record_property: Callable[[str, object], None]
) -> None:
    keys = [f"8_8_8/{number}" for number in range(min(count, 200))]
    for number, key in enumerate(keys):
        place.add(key, content(number))
    storage = opened(place)
    seen: Counter[str] = Counter()
    place.server.pick_fault = unreliable(*FAULTS[name], seen)
    started = time.monotonic()

    def reading(number: int) -> Callable[[], object]:
        # Every other one is a range, as shards are read.
        part = (100, 3000) if number % 2 else None
        return lambda: storage.get_async(keys[number % len(keys)], part)

    blobs = asyncio.run(many([reading(number) for number in range(count)]))
    wrong = 0
    for number, blob in enumerate(blobs):
        expected = content(number % len(keys))
        wrong += bytes(blob.data) != (expected[100:3000] if number % 2 else expected)  # type: ignore[attr-defined]
    seconds = time.monotonic() - started
    failed = sum(seen.values()) - seen["ok"]
    record_property(
        "figure",
        f"{place.kind}, {name}: {count} reads, 0 failed, {wrong} wrong; {failed} of "
        f"{sum(seen.values())} requests failed; {seconds:.0f} s",
    )
    assert wrong == 0
    assert failed > 0.1 * count


@pytest.mark.slow
@pytest.mark.parametrize("count", amounts(40, 1000))
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["s3", "gcs"], indirect=True)
def test_every_write_arrives(
    place: RemotePlace, name: str, count: int, record_property: Callable[[str, object], None]
) -> None:
    """Answers are lost as well: a write may be carried out twice, and is the same then."""
    storage = opened(place)
    seen: Counter[str] = Counter()
    place.server.pick_fault = unreliable(*FAULTS[name], seen)
    calls: list[Callable[[], object]] = [
        lambda number=number: storage.put_async(  # type: ignore[misc]
            f"8_8_8/{number}", content(number), content_type="application/octet-stream"
        )
        for number in range(count)
    ]
    asyncio.run(many(calls))
    wrong = sum(place.look(f"8_8_8/{number}") != content(number) for number in range(count))
    failed = sum(seen.values()) - seen["ok"]
    record_property(
        "figure",
        f"{place.kind}, {name}: {count} writes, 0 failed, {wrong} wrong; {failed} of "
        f"{sum(seen.values())} requests failed",
    )
    assert wrong == 0
    assert failed > 0.1 * count


@pytest.mark.long
@pytest.mark.parametrize("status", [500, 503])
def test_a_permanent_failure_ends_within_a_minute_and_tells_its_history(
    place: RemotePlace, status: int, record_property: Callable[[str, object], None]
) -> None:
    place.server.pick_fault = lambda request: str(status)
    started = time.monotonic()
    with pytest.raises(StorageError, match=rf"gave up after \d+ tries.*{status}") as caught:
        opened(place).get("info")
    seconds = time.monotonic() - started
    record_property("figure", f"{place.kind}, always {status}: {seconds:.0f} s: {caught.value}")
    assert seconds < 60


@pytest.mark.long
def test_a_body_that_stalls_is_asked_for_again_after_half_a_minute(
    place: RemotePlace, record_property: Callable[[str, object], None]
) -> None:
    place.add("info", content(0))
    storage = opened(place)
    place.server.faults.append("stall")
    started = time.monotonic()
    blob = storage.get("info")
    seconds = time.monotonic() - started
    record_property("figure", f"{place.kind}, a stalled body: right after {seconds:.0f} s")
    assert blob is not None
    assert bytes(blob.data) == content(0)
    assert 29 < seconds < 40
