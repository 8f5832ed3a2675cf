"""Layers on web servers, good and bad ones."""

from __future__ import annotations

import asyncio
import dataclasses
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from servers.web import WebServer

from precomputed_store.errors import StorageError
from precomputed_store.storage import Blob, RetryPolicy, Storage, open_storage

CHUNK = "8_8_8/0-64_0-64_0-64"
DATA = bytes(range(256)) * 100


@pytest.fixture
def storage(web_server: WebServer, hasty: RetryPolicy) -> Storage:
    web_server.add(f"/layer/{CHUNK}", DATA)
    web_server.add("/layer/0.shard", DATA)
    return dataclasses.replace(open_storage(f"{web_server.url}/layer"), retry=hasty)


def test_an_object_is_one_request(storage: Storage, web_server: WebServer) -> None:
    assert storage.get(CHUNK) == Blob(DATA, None, True)
    assert [(request.method, request.path) for request in web_server.requests] == [
        ("GET", f"/layer/{CHUNK}")
    ]
    assert not storage.threaded
    assert not storage.has_headers
    assert storage.concurrency == 64


def test_404_is_missing(storage: Storage) -> None:
    assert storage.get("8_8_8/nothing") is None
    assert not storage.exists("8_8_8/nothing")
    assert storage.exists(CHUNK)


def test_a_server_without_head_is_asked_with_get(storage: Storage, web_server: WebServer) -> None:
    web_server.knows_head = False
    assert storage.exists(CHUNK)
    assert not storage.exists("nothing")


@pytest.mark.parametrize("status", [401, 403])
def test_missing_permission_is_an_error_that_names_the_option(
    storage: Storage, web_server: WebServer, status: int
) -> None:
    for call in (storage.get, storage.exists):
        web_server.faults.append(str(status))
        with pytest.raises(StorageError, match=rf"missing_statuses=\(404, {status}\)") as caught:
            call(CHUNK)
        assert caught.value.status == status


def test_403_can_be_declared_missing(storage: Storage, web_server: WebServer) -> None:
    sparse = dataclasses.replace(storage, missing_statuses=(404, 403))
    web_server.faults.extend(["403", "403"])
    assert sparse.get(CHUNK) is None
    assert not sparse.exists(CHUNK)


@pytest.mark.parametrize("status", [400, 410, 418])
def test_other_statuses_are_errors(storage: Storage, web_server: WebServer, status: int) -> None:
    web_server.faults.append(str(status))
    with pytest.raises(StorageError, match=str(status)) as caught:
        storage.get(CHUNK)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "fault", ["429", "500", "502", "503", "504", "408", "refuse", "reset", "short", "stall"]
)
def test_passing_trouble_is_retried(storage: Storage, web_server: WebServer, fault: str) -> None:
    web_server.faults.extend([fault, fault])
    assert storage.get(CHUNK) == Blob(DATA, None)
    assert len(web_server.requests) == 3


def test_a_permanent_failure_ends_with_the_history(
    storage: Storage, web_server: WebServer
) -> None:
    web_server.pick_fault = lambda request: "500"
    quick = dataclasses.replace(storage.retry, attempts=7)
    with pytest.raises(StorageError, match=r"gave up after 7 tries.*500.*7×") as caught:
        dataclasses.replace(storage, retry=quick).get(CHUNK)
    assert caught.value.status == 500
    assert f"{web_server.url}/layer/{CHUNK}" in str(caught.value)


def test_a_closed_port_is_given_up_soon(hasty: RetryPolicy) -> None:
    storage = dataclasses.replace(open_storage("http://127.0.0.1:9/layer"), retry=hasty)
    with pytest.raises(StorageError, match=r"gave up after 4 tries.*no connection"):
        storage.get("info")


def test_a_login_page_is_not_a_chunk(storage: Storage, web_server: WebServer) -> None:
    web_server.faults.extend(["html", "html"])
    for byte_range in (None, (0, 16)):
        with pytest.raises(StorageError, match="web page"):
            storage.get(CHUNK, byte_range)


def test_garbage_is_an_error(storage: Storage, web_server: WebServer) -> None:
    web_server.pick_fault = lambda request: "garbage"
    with pytest.raises(StorageError, match="not a usable HTTP answer"):
        storage.get(CHUNK)


@pytest.mark.parametrize("byte_range", [None, (0, 16)])
def test_an_endless_body_is_cut_off(
    storage: Storage, web_server: WebServer, byte_range: tuple[int, int] | None
) -> None:
    web_server.faults.append("endless")
    with pytest.raises(StorageError, match=r"expected|ignores Range"):
        storage.get(CHUNK, byte_range, max_bytes=1_000_000)


def test_an_announced_size_is_refused_unread(storage: Storage) -> None:
    with pytest.raises(StorageError, match=f"{len(DATA)} bytes or more; expected at most 99"):
        storage.get(CHUNK, max_bytes=99)


@pytest.mark.parametrize(
    ("header", "encoding"),
    [("gzip", "gzip"), ("x-gzip", "gzip"), ("br", "br"), ("zstd", "zstd"), ("identity", None)],
)
def test_the_body_comes_as_sent_with_its_encoding(
    storage: Storage, web_server: WebServer, header: str, encoding: str | None
) -> None:
    web_server.add("/layer/packed", b"not really compressed", content_encoding=header)
    assert storage.get("packed") == Blob(b"not really compressed", encoding, True)


def test_what_can_be_undone_is_asked_for(storage: Storage, web_server: WebServer) -> None:
    storage.get(CHUNK)
    storage.get(CHUNK, (0, 1))
    accepted = [request.headers["accept-encoding"] for request in web_server.requests]
    assert accepted == ["gzip", "identity"]


def test_a_range_is_one_request_for_exactly_these_bytes(
    storage: Storage, web_server: WebServer
) -> None:
    assert storage.get("0.shard", (256, 260)) == Blob(bytes([0, 1, 2, 3]), None)
    assert [request.headers["range"] for request in web_server.requests] == ["bytes=256-259"]
    assert storage.get("1.shard", (0, 16)) is None


@pytest.mark.parametrize("start", [len(DATA) - 8, len(DATA), 10 * len(DATA)])
def test_a_range_past_the_end_is_an_error(storage: Storage, start: int) -> None:
    with pytest.raises(StorageError, match=f"it is {len(DATA)} bytes long"):
        storage.get("0.shard", (start, start + 16))


def test_an_ignored_range_gives_the_right_bytes(storage: Storage, web_server: WebServer) -> None:
    web_server.ranges = False
    assert storage.get("0.shard", (256, 260)) == Blob(bytes([0, 1, 2, 3]), None)
    with pytest.raises(StorageError, match=f"it is {len(DATA)} bytes long"):
        storage.get("0.shard", (0, len(DATA) + 1))


def test_an_ignored_range_of_a_large_object_is_refused(
    storage: Storage, web_server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("precomputed_store.storage.exchange._LARGEST_WHOLE", 1000)
    web_server.ranges = False
    with pytest.raises(StorageError, match="ignores Range"):
        storage.get("0.shard", (256, 260))


def test_a_range_of_compressed_bytes_is_refused(storage: Storage, web_server: WebServer) -> None:
    web_server.add("/layer/1.shard", DATA, content_encoding="gzip")
    for ranges in (True, False):
        web_server.ranges = ranges
        with pytest.raises(StorageError, match="compressed as a whole"):
            storage.get("1.shard", (0, 16))


@pytest.mark.parametrize(
    ("content_range", "body", "message"),
    [
        ("bytes 1-4/1000", b"abcd", "bytes from 1 came"),
        ("bytes 0-1/1000", b"ab", "2 bytes came; expected the 4"),
        ("bytes 0-1/2", b"ab", "it is 2 bytes long"),
        ("", b"ab", "2 bytes came; expected the 4"),
    ],
)
def test_another_range_than_asked_for_is_refused(
    storage: Storage,
    web_server: WebServer,
    content_range: str,
    body: bytes,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from servers.faulty import Reply

    reply = Reply(status=206, headers={"Content-Range": content_range}, body=body)
    monkeypatch.setattr(web_server, "respond", lambda request: reply)
    with pytest.raises(StorageError, match=message):
        storage.get("0.shard", (0, 4))


def test_a_missing_content_range_is_tolerated(
    storage: Storage, web_server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from servers.faulty import Reply

    reply = Reply(status=206, body=b"abcd")
    monkeypatch.setattr(web_server, "respond", lambda request: reply)
    assert storage.get("0.shard", (0, 4)) == Blob(b"abcd", None)
    with pytest.raises(StorageError, match=r"206.*expected 200"):
        storage.get("0.shard")


def test_redirects_are_followed_on_the_same_server(
    storage: Storage, web_server: WebServer
) -> None:
    web_server.add("/layer/here", b"", location="/layer/there")
    web_server.add("/layer/there", b"", location=CHUNK)
    assert storage.get("here") == Blob(DATA, None)


def test_a_redirect_loop_ends(storage: Storage, web_server: WebServer) -> None:
    web_server.add("/layer/loop", b"", location="/layer/loop")
    with pytest.raises(StorageError, match="more than 5 redirects"):
        storage.get("loop")
    assert len(web_server.requests) == 6


@pytest.mark.parametrize("where", ["request", "session"])
def test_another_server_is_not_followed_unless_allowed(
    storage: Storage, web_server: WebServer, where: str
) -> None:
    secret = {"headers": {"Authorization": "Bearer hunter2"}}
    options = secret if where == "request" else {"client_kwargs": secret}
    storage = dataclasses.replace(storage, storage_options=options)
    with WebServer() as other:
        assert isinstance(other, WebServer)
        other.add("/x", b"elsewhere")
        web_server.add("/layer/away", b"", location=f"{other.url}/x")
        with pytest.raises(StorageError, match="open the layer there"):
            storage.get("away")
        assert not other.requests
        trusting = dataclasses.replace(storage, cross_origin=True)
        assert trusting.get("away") == Blob(b"elsewhere", None)
        assert web_server.requests[-1].headers["authorization"] == "Bearer hunter2"
        assert "authorization" not in other.requests[0].headers


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[::"])
def test_a_redirect_to_something_else_is_refused(
    storage: Storage, web_server: WebServer, location: str
) -> None:
    web_server.add("/layer/away", b"", location=location)
    with pytest.raises(StorageError, match="redirected to"):
        dataclasses.replace(storage, cross_origin=True).get("away")


@pytest.mark.parametrize(
    ("source", "location", "target"),
    [
        ("http://h/a/b", "https://h/a/b", "https://h/a/b"),
        ("https://h/a/b", "c", "https://h/a/c"),
        ("https://h/a/b", "http://h/a/b", None),
        ("http://h:8080/a", "https://h/a", None),
        ("https://h/a", "https://other/a", None),
        ("https://h/a", "https://h:444/a", None),
    ],
)
def test_a_redirect_may_add_encryption_but_not_change_the_server(
    source: str, location: str, target: str | None
) -> None:
    from yarl import URL

    from precomputed_store.storage.exchange import Call, redirected

    call = Call(method="GET", url=URL(source), headers={})
    if target is None:
        with pytest.raises(StorageError, match="redirected to"):
            redirected(call.url, location, call)
    else:
        assert redirected(call.url, location, call) == URL(target)


def test_the_users_options_reach_the_requests(storage: Storage, web_server: WebServer) -> None:
    options = {
        "headers": {"X-Header": "a"},
        "client_kwargs": {"headers": {"Authorization": "Basic eDp5"}},
    }
    storage = dataclasses.replace(storage, storage_options=options)
    assert storage.get(CHUNK) == Blob(DATA, None)
    assert web_server.requests[-1].headers["x-header"] == "a"
    assert web_server.requests[-1].headers["authorization"] == "Basic eDp5"


def test_a_query_in_the_address_stays(web_server: WebServer, storage: Storage) -> None:
    signed = open_storage(f"{web_server.url}/layer/info?token=a%2Fb")
    assert signed.get(CHUNK) == Blob(DATA, None)
    assert web_server.requests[-1].target == f"/layer/{CHUNK}?token=a%2Fb"


@pytest.mark.parametrize("key", ["a b", "4.5_5_5", "a#b", "a?b", "a%20b", "ä", "a+b&c"])
def test_keys_are_names_not_urls(storage: Storage, web_server: WebServer, key: str) -> None:
    web_server.add(f"/layer/{key}/{key}", b"1")
    assert storage.get(f"{key}/{key}") == Blob(b"1", None)
    assert storage.child(key).get(key) == Blob(b"1", None)


def test_relative_keys_stay_on_the_server(storage: Storage, web_server: WebServer) -> None:
    web_server.add("/other/8/a", b"1")
    assert storage.get("../other/8/a") == Blob(b"1", None)


async def test_it_works_from_any_event_loop(storage: Storage) -> None:
    blobs = await asyncio.gather(*(storage.get_async(CHUNK) for _ in range(50)))
    assert blobs == [Blob(DATA, None)] * 50
    assert await storage.get_async("nothing") is None
    assert await storage.exists_async(CHUNK)
    others = await asyncio.to_thread(lambda: asyncio.run(storage.get_async(CHUNK)))
    assert others == Blob(DATA, None)
    # A blocking call blocks this loop, but not the one that does the work.
    assert storage.get(CHUNK) == Blob(DATA, None)


def test_it_works_from_many_threads(storage: Storage, web_server: WebServer) -> None:
    with ThreadPoolExecutor(16) as pool:
        blobs = list(pool.map(lambda i: storage.get(CHUNK, (i, i + 10)), range(300)))
    assert [blob and blob.data for blob in blobs] == [DATA[i : i + 10] for i in range(300)]


def test_a_blocking_call_on_the_io_loop_is_refused(storage: Storage) -> None:
    from precomputed_store.storage import run_sync

    async def wrong() -> None:
        storage.get(CHUNK)

    assert storage.get(CHUNK) is not None
    with pytest.raises(RuntimeError, match="wait for itself"):
        run_sync(wrong())


async def test_a_cancelled_read_is_cancelled(storage: Storage, web_server: WebServer) -> None:
    web_server.pick_fault = lambda request: "stall"
    patient = dataclasses.replace(storage, retry=RetryPolicy())
    reading = asyncio.create_task(patient.get_async(CHUNK))
    await asyncio.sleep(0.2)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


def _read_in_child(storage: Storage, pipe: Any) -> None:
    blob = storage.get(CHUNK)
    pipe.send(None if blob is None else len(blob.data))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_has_connections_of_its_own(storage: Storage, method: str) -> None:
    assert storage.get(CHUNK) is not None
    context = multiprocessing.get_context(method)
    pipes = [context.Pipe(duplex=False) for _ in range(3 if method == "fork" else 1)]
    children = [
        context.Process(target=_read_in_child, args=(storage, sender)) for _, sender in pipes
    ]
    for child in children:
        child.start()
    for receiver, _ in pipes:
        assert receiver.poll(30)
        assert receiver.recv() == len(DATA)
    for child in children:
        child.join(30)
    assert storage.get(CHUNK) == Blob(DATA, None)


FORKING = """
import os, sys, time
from precomputed_store.storage import open_storage
storage = open_storage(sys.argv[1])
assert storage.get("0.shard") is not None
child = os.fork()
assert storage.get("0.shard") is not None
if child:
    assert os.waitpid(child, 0)[1] == 0
    started = time.monotonic()
    assert storage.get("0.shard") is not None
    print(time.monotonic() - started)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_the_exit_of_a_child_does_not_disturb_its_parent(storage: Storage) -> None:
    shown = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, storage.url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.stderr == ""
    assert float(shown.stdout) < 5


def test_a_slow_body_that_keeps_coming_is_not_cut_off(
    storage: Storage, web_server: WebServer
) -> None:
    web_server.faults.append("drip")
    hasty = dataclasses.replace(storage.retry, stall_s=0.4, deadline_s=0.4)
    started = time.monotonic()
    assert dataclasses.replace(storage, retry=hasty).get(CHUNK) == Blob(DATA, None)
    assert time.monotonic() - started > 0.5
    assert len(web_server.requests) == 1
