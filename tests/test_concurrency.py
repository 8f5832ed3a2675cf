"""Which thread does what."""

from __future__ import annotations

import threading
import time

import pytest

from precomputed_store import concurrency
from precomputed_store.concurrency import run_batches


def threads_of(num_items: int, seconds: float, *, brief: bool) -> list[int]:
    """The thread that each item was worked at in."""
    threads = [0] * num_items

    def work(item: int) -> None:
        threads[item] = threading.get_ident()
        time.sleep(seconds)

    run_batches(work, range(num_items), workers=2, brief=brief)
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
        run_batches(work, range(1000), workers=2, brief=True)
    assert len(done) < 1000
