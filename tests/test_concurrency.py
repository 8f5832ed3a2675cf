"""Work that is shared out among threads."""

from __future__ import annotations

import threading

import pytest

from precomputed_store.concurrency import codec_pool, num_cores, share_out


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
