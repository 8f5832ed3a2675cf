"""Workers of dask that die in the middle of a write, and clients that fork, thread and await."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from places import RemotePlace
from servers.moto import MotoServer

import precomputed_store as ps
from precomputed_store.engine import full_selection
from tests.oracles import make_info

pytestmark = pytest.mark.server

SIZE = (128, 128, 128)
SHARDINGS: dict[str, Any] = {
    "chunks": None,
    "shards": ps.ShardingSpec(
        hash="identity", preshift_bits=2, minishard_bits=1, shard_bits=9, data_encoding="gzip"
    ),
}


def write(array: Any, url: object, **options: Any) -> Any:
    return ps.to_precomputed(
        array, url, dims=("x", "y", "z"), resolution=(8, 8, 8), chunk_size=(16, 16, 16), **options
    )  # type: ignore[call-overload]


def objects(where: str, url: str, moto: MotoServer | None) -> dict[str, bytes]:
    """What is stored, without left-over temporaries."""
    if where == "file":
        root = Path(url)
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and not path.name.startswith(".precomputed-")
        }
    assert moto is not None
    client, bucket = moto.client(), url.removeprefix("s3://").partition("/")[0]
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    return {
        key.partition("/")[2]: client.get_object(Bucket=bucket, Key=key)["Body"].read()
        for key in keys
    }


@pytest.mark.long
@pytest.mark.parametrize("kind", SHARDINGS)
@pytest.mark.parametrize("where", ["file", "s3"])
def test_twenty_killed_workers_leave_no_trace_in_512_chunks(
    where: str,
    kind: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    distributed = pytest.importorskip("distributed")
    moto = request.getfixturevalue("s3_server") if where == "s3" else None
    url, calm = str(tmp_path / "layer"), str(tmp_path / "calm")
    options: dict[str, Any] = {"sharding": SHARDINGS[kind]}
    if moto is not None:
        url, calm = (f"s3://{moto.create_bucket(f'{n}-{kind}')}/layer" for n in ("kills", "calm"))
        options["storage_options"] = moto.storage_options
    voxels = np.random.default_rng(0).integers(1, 200, SIZE, dtype=np.uint32)
    write(da.from_array(voxels, chunks=16), calm, **options)
    pids = tmp_path / "pids"
    pids.mkdir()

    def slow(block: np.ndarray) -> np.ndarray:
        Path(str(pids), f"{os.getpid()}").touch()
        time.sleep(0.15)
        return block

    source = da.from_array(voxels, chunks=16).map_blocks(
        slow, dtype=voxels.dtype, meta=np.empty((0, 0, 0), voxels.dtype)
    )
    dice, killed = random.Random(0), set[str]()
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 100}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        future = client.compute(write(source, url, compute=False, **options), retries=100)
        deadline = time.monotonic() + 500
        seen_at = time.monotonic()
        while not future.done() and time.monotonic() < deadline:
            for path in pids.iterdir():
                if path.name not in killed and len(killed) < 20:
                    time.sleep(dice.uniform(0.05, 0.6))
                    killed.add(path.name)
                    os.kill(int(path.name), signal.SIGKILL)
                    seen_at = time.monotonic()
            if len(client.scheduler_info()["workers"]) == 2:
                seen_at = time.monotonic()
            elif time.monotonic() - seen_at > 20:
                # A nanny gives up on workers that die while they start.
                cluster.scale(len(cluster.worker_spec) + 1)
                seen_at = time.monotonic()
            time.sleep(0.05)
        volume = future.result(timeout=60)
    found, expected = objects(where, url, moto), objects(where, calm, moto)
    differing = sum(found.get(name) != data for name, data in expected.items())
    record_property(
        "figure",
        f"{where}, {kind}: {len(killed)} workers killed over 512 chunks: {differing} of "
        f"{len(expected)} objects differ from the undisturbed write",
    )
    assert len(killed) == 20
    assert found == expected
    assert volume.scale.size == SIZE


DATA = np.random.default_rng(1).integers(1, 255, (4, 4, 4), dtype=np.uint8)


@pytest.fixture
def layer(place: RemotePlace) -> Any:
    import json

    info = make_info(size=(32, 32, 32), chunk_size=(8, 8, 8))
    place.add("info", json.dumps(info).encode())
    for x, y, z in np.ndindex(4, 4, 4):
        name = "_".join(f"{8 * n}-{8 * n + 8}" for n in (x, y, z))
        place.add(f"8_8_8/{name}", bytes([DATA[x, y, z]]) * 512)
    return ps.open_layer(place.url, storage_options=place.storage_options)


def is_right(layer: Any) -> bool:
    array = layer.array()
    read = array.read(full_selection(array.shape))[0].T
    return bool((read[::8, ::8, ::8] == DATA).all() and (read[7::8, 7::8, 7::8] == DATA).all())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_children_read_while_their_parent_does(layer: Any) -> None:
    """While other threads of the parent are in the middle of reading."""
    assert is_right(layer)
    stop, wrong = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            wrong.extend([] if is_right(layer) else [1])

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(0 if is_right(layer) else 1)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    stop.set()
    for thread in threads:
        thread.join(60)
    assert codes == [0] * 4
    assert not wrong


def test_threads_and_event_loops_read_at_once(layer: Any) -> None:
    array = layer.array()

    def in_a_loop_of_its_own(_: int) -> bool:
        async def read() -> bool:
            parts = await asyncio.gather(
                *(array.read_async(full_selection(array.shape)) for _ in range(3))
            )
            return all((part[0].T[::8, ::8, ::8] == DATA).all() for part in parts)

        return asyncio.run(read())

    with ThreadPoolExecutor(8) as pool:
        loops = [pool.submit(in_a_loop_of_its_own, n) for n in range(4)]
        plain = [pool.submit(is_right, layer) for _ in range(8)]
        assert all(future.result(timeout=60) for future in [*loops, *plain])


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_schedulers_of_dask_read_at_once(place: RemotePlace, layer: Any, scheduler: str) -> None:
    assert layer is not None
    if scheduler == "processes" and sys.platform == "win32":
        pytest.skip("spawned from a test")
    read = ps.open_dask(place.url, chunks={}, storage_options=place.storage_options)
    with dask.config.set(scheduler=scheduler, num_workers=2):
        voxels = read.compute()
    assert (voxels[0].T[::8, ::8, ::8] == DATA).all()
