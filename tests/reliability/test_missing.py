"""Missing is what a storage says is absent, and nothing else, on every transport."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import RemotePlace
from servers.web import WebServer

import precomputed_store as ps
from precomputed_store.engine import ChunkedArray, full_selection
from precomputed_store.storage import RetryPolicy
from tests.oracles import make_info

NAME = "8_8_8/0-8_0-8_0-8"
CHUNK = bytes(range(256)) * 2
HASTY = RetryPolicy(
    attempts=4, first_wait_s=0.001, longest_wait_s=0.01, deadline_s=10, stall_s=0.5
)
INFO = json.dumps(make_info(size=(8, 8, 8), chunk_size=(8, 8, 8))).encode()

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore::precomputed_store.MissingDataWarning"),
]


def opened(place: RemotePlace, **options: Any) -> ChunkedArray:
    place.add("info", INFO)
    layer = ps.open_layer(place.url, storage_options=place.storage_options, **options)
    storage = dataclasses.replace(layer.storage, retry=HASTY)
    return dataclasses.replace(layer, storage=storage).array()


def read(array: ChunkedArray) -> np.ndarray:
    return array.read(full_selection(array.shape))


def test_an_object_that_is_absent_is_zeros_or_an_error_as_asked(place: RemotePlace) -> None:
    assert not read(opened(place)).any()
    with pytest.raises(ps.MissingChunkError):
        read(opened(place, missing="raise"))
    place.add(NAME, CHUNK)
    assert read(opened(place)).tobytes() == CHUNK


@pytest.mark.parametrize(
    "fault",
    ["400", "401", "403", "410", "418", "429", "500", "503", "refuse", "reset", "short", "html"],
)
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "absent"])
def test_whatever_else_a_server_says_is_an_error(
    place: RemotePlace, fault: str, stored: bool
) -> None:
    array = opened(place)
    if stored:
        place.add(NAME, CHUNK)
    place.server.pick_fault = lambda request: fault
    with pytest.raises((ps.StorageError, ps.ChunkError)) as caught:
        read(array)
    assert not isinstance(caught.value, ps.MissingChunkError)
    assert (NAME if stored else place.url) in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_can_be_declared_to_mean_missing(place: RemotePlace, status: int) -> None:
    array = opened(place, missing_statuses=(404, status))
    faults = place.server.pick_fault
    place.server.pick_fault = lambda request: (
        str(status) if NAME.partition("/")[2] in request.path else faults(request)
    )
    assert not read(array).any()


def test_failures_cannot_be_declared_to_mean_missing() -> None:
    for status in (200, 302, 500, 503):
        with pytest.raises(ValueError, match="expected HTTP statuses from 400 to 499"):
            ps.open_layer("gs://bucket/layer", missing_statuses=(404, status))


@pytest.mark.parametrize(
    "data",
    [b"", CHUNK[:-1], CHUNK + b"x", b"<!DOCTYPE html><title>Please log in</title>"],
    ids=["no bytes", "short", "long", "a web page"],
)
def test_an_object_that_is_no_chunk_is_an_error(place: RemotePlace, data: bytes) -> None:
    array = opened(place)
    place.add(NAME, data)
    with pytest.raises(ps.ChunkError, match="8_8_8/0-8_0-8_0-8"):
        read(array)


def test_a_server_that_ignores_ranges_gives_the_right_bytes_or_an_error(
    web_server: WebServer, tmp_path: Path
) -> None:
    sharding = {"hash": "identity", "preshift_bits": 0, "minishard_bits": 0, "shard_bits": 0}
    info = make_info(size=(64, 64, 64), chunk_size=(32, 32, 32), sharding=sharding)
    data = np.random.default_rng(0).integers(1, 255, (64, 64, 64), dtype=np.uint8)
    ps.create(tmp_path, info)
    ps.open_volume(tmp_path, mode="r+")[...] = data
    for name in ("info", "8_8_8/0.shard"):
        web_server.add(f"/layer/{name}", (tmp_path / name).read_bytes())
    web_server.ranges = False
    np.testing.assert_array_equal(ps.open_volume(f"{web_server.url}/layer")[...][..., 0], data)
