"""Two writers at once, each of half an object: nothing is lost, or it is refused beforehand."""

from __future__ import annotations

import multiprocessing
import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from amounts import amounts
from servers.moto import MotoServer

import precomputed_store as ps
from tests.oracles import make_info
from tests.reliability.places import remote_place

SHARDING = {"hash": "identity", "preshift_bits": 0, "minishard_bits": 1, "shard_bits": 0}
KINDS: dict[str, dict[str, Any]] = {
    "halves of a chunk": {"size": (16, 8, 8), "chunk_size": (16, 8, 8)},
    "chunks of a shard": {"size": (16, 8, 8), "chunk_size": (8, 8, 8), "sharding": SHARDING},
    "halves of a chunk of a shard": {
        "size": (32, 8, 8),
        "chunk_size": (16, 8, 8),
        "sharding": SHARDING,
    },
}

_barrier: Any = None


def _prepare(barrier: Any) -> None:
    global _barrier
    _barrier = barrier
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


def write_half(url: str, options: dict[str, Any], start: int, value: int) -> None:
    volume = ps.open_volume(url, mode="r+", unaligned="read-modify-write", storage_options=options)
    _barrier.wait(60)
    volume[start : start + 8] = np.uint8(value)


@contextmanager
def two_writers(*, processes: bool) -> Iterator[Executor]:
    if processes:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, context, _prepare, (context.Barrier(2),)) as pool:
            yield pool
    else:
        with ThreadPoolExecutor(2) as pool:
            _prepare(Barrier(2))
            yield pool


@contextmanager
def somewhere(where: str, tmp_path: Path, moto: MotoServer | None) -> Iterator[tuple[str, Any]]:
    if where == "file":
        yield str(tmp_path / "layer"), {}
    elif where == "memory":
        yield f"memory://{uuid.uuid4().hex}/layer", {}
    else:
        with remote_place(where, moto) as place:
            yield place.url, dict(place.storage_options)


# Starting two processes takes longer than the races: elsewhere than here, one kind each.
OFTEN = [
    *(("file", kind) for kind in KINDS),
    *(("memory", kind) for kind in KINDS),
    ("s3", "halves of a chunk of a shard"),
    ("gcs", "halves of a chunk of a shard"),
]
RARELY = [(where, kind) for where in ("s3", "gcs") for kind in [*KINDS][:2]]


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("count", amounts(5, 100))
@pytest.mark.parametrize(
    ("where", "kind"), [*OFTEN, *(pytest.param(*each, marks=pytest.mark.long) for each in RARELY)]
)
def test_two_writers_lose_nothing_of_each_other(
    where: str,
    kind: str,
    count: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    """Two processes; two threads where only this process sees the storage."""
    moto = request.getfixturevalue("s3_server") if where == "s3" else None
    lost = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        somewhere(where, tmp_path, moto) as (url, options),
        two_writers(processes=where != "memory") as pool,
    ):
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        ps.create(url, make_info(**KINDS[kind]), storage_options=options)
        volume = ps.open_volume(url, mode="r+", storage_options=options)
        volume[...] = np.uint8(255)
        for turn in range(count):
            value = turn % 200 + 1
            writes = [pool.submit(write_half, url, options, at, value) for at in (0, 8)]
            for write in writes:
                write.result(timeout=120)
            read = volume[...]
            lost += bool((read[:16] != value).any() or (read[16:] != 255).any())
    record_property("figure", f"{where}, two writers of {kind}, {count} races: {lost} lost")
    assert lost == 0


@pytest.mark.parametrize("kind", KINDS)
def test_where_that_cannot_be_kept_it_is_refused_and_nothing_is_written(
    tmp_path: Path, kind: str
) -> None:
    ps.create(tmp_path, make_info(**KINDS[kind]))
    ps.open_volume(tmp_path, mode="r+")[...] = np.uint8(1)
    options = {"dir": {"path": str(tmp_path)}}
    url = f"dir::file://{tmp_path}"
    volume = ps.open_volume(url, mode="r+", unaligned="read-modify-write", storage_options=options)
    with pytest.raises(ps.UnsupportedError, match='unaligned="unguarded-read-modify-write"'):
        volume[:8] = np.uint8(2)
    with pytest.raises(ValueError, match="unaligned"):
        ps.open_volume(tmp_path, mode="r+")[:4] = np.uint8(2)
    assert (ps.open_volume(tmp_path)[...] == 1).all()
