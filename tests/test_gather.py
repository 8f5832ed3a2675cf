"""Chunks that are asked for one by one are fetched together, and fail apart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from precomputed_store.gather import Gatherer
from precomputed_store.grid import XYZ
from precomputed_store.storage import Blob

CELLS = [(x, 0, 0) for x in range(4)]


class Source:
    """Answers with the name of the cell; notes which cells are fetched together."""

    def __init__(self, *, bad: Sequence[XYZ] = (), missing: Sequence[XYZ] = ()) -> None:
        self.calls: list[list[XYZ]] = []
        self.bad, self.missing = bad, missing

    async def fetch_many(self, cells: Sequence[XYZ], deliver: Any, throttle: Any) -> None:
        self.calls.append(list(cells))

        async def fetch(cell: XYZ) -> None:
            await asyncio.sleep(0)
            if cell in self.bad:
                raise OSError(f"no {cell}")
            await deliver(cell, None if cell in self.missing else Blob(str(cell).encode(), None))

        await throttle(cells, fetch)


def gatherer(source: Source) -> Gatherer:
    return Gatherer(source, 2)  # type: ignore[arg-type]


async def test_what_is_asked_for_in_one_turn_is_fetched_together() -> None:
    source = Source(missing=CELLS[2:3])
    together = gatherer(source)
    blobs = await asyncio.gather(*map(together.fetch, CELLS))
    assert [blob and blob.data for blob in blobs] == [
        b"(0, 0, 0)",
        b"(1, 0, 0)",
        None,
        b"(3, 0, 0)",
    ]
    assert source.calls == [CELLS]
    await together.fetch(CELLS[0])
    assert source.calls == [CELLS, CELLS[:1]]


async def test_a_chunk_that_is_asked_for_twice_is_fetched_once() -> None:
    source = Source()
    together = gatherer(source)
    one, two = await asyncio.gather(together.fetch(CELLS[0]), together.fetch(CELLS[0]))
    assert one == two
    assert source.calls == [CELLS[:1]]


async def test_one_that_fails_does_not_fail_the_others() -> None:
    source = Source(bad=CELLS[1:2])
    together = gatherer(source)
    found = await asyncio.gather(*map(together.fetch, CELLS), return_exceptions=True)
    assert isinstance(found[1], OSError)
    assert [blob.data for blob in found if isinstance(blob, Blob)] == [
        b"(0, 0, 0)",
        b"(2, 0, 0)",
        b"(3, 0, 0)",
    ]


async def test_one_that_is_given_up_does_not_matter_to_the_others() -> None:
    source = Source()
    together = gatherer(source)
    one = asyncio.create_task(together.fetch(CELLS[0]))
    two = asyncio.create_task(together.fetch(CELLS[1]))
    await asyncio.sleep(0)
    one.cancel()
    assert (await two) == Blob(b"(1, 0, 0)", None)
    with pytest.raises(asyncio.CancelledError):
        await one


def test_event_loops_do_not_wait_for_each_other() -> None:
    source = Source()
    together = gatherer(source)
    for cell in CELLS:
        assert asyncio.run(together.fetch(cell)) == Blob(str(cell).encode(), None)
    assert source.calls == [[cell] for cell in CELLS]
