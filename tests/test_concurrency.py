"""Which thread does what."""

from __future__ import annotations

import threading
import time

import pytest

from precomputed_store import concurrency
from precomputed_store.concurrency import codec_pool, num_cores, run_threaded, share_out


def threads_of(num_items: int, seconds: float, *, brief: bool) -> list[int]:
    """The thread that each item was worked at in."""
    threads = [0] * num_items

    def work(item: int) -> None:
        threads[item] = threading.get_ident()
        time.sleep(seconds)

    run_threaded(work, range(num_items), workers=2, brief=brief)
    assert all(threads)
    return threads


def test_brief_items_stay_in_the_caller_s_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "_LONG_ITEM_SECONDS", 60)
    monkeypatch.setattr(concurrency, "_LONG_WORK_SECONDS", 3600)
    assert set(threads_of(40, 0, brief=True)) == {threading.get_ident()}


def test_items_that_turn_out_long_go_to_threads() -> None:
    first, *others = threads_of(40, 0.001, brief=True)
    assert first == threading.get_ident()
    assert threading.get_ident() not in others


def test_many_items_go_to_threads_though_each_is_brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "_LONG_ITEM_SECONDS", 60)
    first, *others = threads_of(40, 0.001, brief=True)
    assert first == threading.get_ident()
    assert threading.get_ident() not in others


def test_items_that_are_not_said_to_be_brief_go_to_threads() -> None:
    assert threading.get_ident() not in threads_of(40, 0, brief=False)


def test_an_error_of_a_brief_item_ends_it_all() -> None:
    done = []

    def work(item: int) -> None:
        done.append(item)
        if item == 2:
            raise ValueError("item 2")

    with pytest.raises(ValueError, match="item 2"):
        run_threaded(work, range(1000), workers=2, brief=True)
    assert len(done) < 1000


def test_every_item_is_done_once_whatever_threads_help() -> None:
    done: list[int] = []
    share_out(done.append, range(500), least=2)
    assert sorted(done) == list(range(500))
    share_out(done.append, [], least=2)
    assert len(done) == 500


@pytest.mark.skipif(num_cores() < 2, reason="takes two threads")
def test_idle_threads_help() -> None:
    # Each item waits for one that another thread does.
    barrier = threading.Barrier(2, timeout=60)
    share_out(lambda _: barrier.wait(), range(2), least=1)


def test_a_pool_whose_threads_all_share_out_work_does_not_wait_for_itself() -> None:
    done: list[int] = []

    def many(_: int) -> None:
        share_out(done.append, range(40), least=1)

    for task in [codec_pool().submit(many, each) for each in range(4 * num_cores())]:
        task.result(timeout=60)
    assert len(done) == 160 * num_cores()


def test_the_first_error_ends_it() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 3:
            raise ValueError("three")
        done.append(item)

    with pytest.raises(ValueError, match="three"):
        share_out(work, range(10_000), least=1)
    assert len(done) < 10_000
