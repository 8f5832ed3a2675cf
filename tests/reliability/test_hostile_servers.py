"""Answers that no decent server gives: each the exact chunk or a clear error, in little memory."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Iterator

import numpy as np
import pytest
from peaks import forget_peak, peak_bytes
from servers.raw import Answer, RawServer, answer

import precomputed_store as ps
from precomputed_store.engine import full_selection
from precomputed_store.storage import RetryPolicy
from tests.oracles import make_info

pytestmark = pytest.mark.server

CHUNK = bytes(range(256)) * 2
THRICE = gzip.compress(gzip.compress(gzip.compress(CHUNK)))
HASTY = RetryPolicy(
    attempts=3, first_wait_s=0.001, longest_wait_s=0.01, deadline_s=10, stall_s=0.5
)
SHARDING = {"hash": "identity", "preshift_bits": 3, "minishard_bits": 0, "shard_bits": 0}
PART = "206 Partial Content"
HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"


def info(key: str = "8_8_8", sharding: dict[str, object] | None = None) -> bytes:
    document = make_info(size=(8, 8, 8), chunk_size=(8, 8, 8), sharding=sharding)
    document["scales"][0]["key"] = key
    return answer(json.dumps(document).encode())


def read(server: RawServer) -> bytes:
    layer = ps.open_layer(server.url)
    storage = dataclasses.replace(layer.storage, retry=HASTY)
    array = dataclasses.replace(layer, storage=storage).array()
    return array.read(full_selection(array.shape)).tobytes()


def head(*headers: str, body: bytes = CHUNK) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode() + body


def redirect(*headers: str) -> bytes:
    return answer(b"", *headers, status="302 Found")


def endless_headers() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    for number in range(200_000):
        yield b"X-%d: %s\r\n" % (number, b"a" * 1000)


def provisional() -> Iterator[bytes]:
    yield b"HTTP/1.1 102 Processing\r\n\r\n" * 20_000
    yield answer(CHUNK)


CHUNKED = ("Transfer-Encoding: chunked", "Connection: close")
CHUNKS: dict[str, Answer] = {
    "a negative length": head("Content-Length: -5"),
    "a length beyond 64 bits": head(f"Content-Length: {2**70}"),
    "two lengths": head("Content-Length: 512", "Content-Length: 100", "Connection: close"),
    "a bad chunked body": head(*CHUNKED, body=b"ZZ\r\nabc"),
    "a chunked body of 2**64": head(*CHUNKED, body=b"ffffffffffffffff\r\nabc"),
    "an unknown encoding": answer(CHUNK, "Content-Encoding: rot13"),
    "deflate that is none": answer(CHUNK, "Content-Encoding: deflate"),
    "no content": b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n",
    "choices": answer(HTML, status="300 Multiple Choices"),
    "gone": answer(b"", status="410 Gone"),
    "a part unasked": answer(CHUNK[:100], "Content-Range: bytes 0-99/512", status=PART),
    "a redirect to a file": redirect("Location: file:///etc/passwd"),
    "a redirect to another port": redirect("Location: http://127.0.0.1:1/x"),
    "a redirect with a password": redirect("Location: http://u:p@127.0.0.1/layer"),
    "a redirect to garbage": redirect("Location: http://[::::/"),
    "a redirect to nowhere": redirect(),
    "a web page": answer(HTML, "Content-Type: text/html"),
    "nothing": answer(b""),
    "another protocol": b"SSH-2.0-OpenSSH_9\r\n",
    "endless headers": endless_headers,
}


@pytest.mark.parametrize("name", CHUNKS)
def test_no_chunk_is_made_of_what_is_none(name: str) -> None:
    forget_peak()
    before = peak_bytes()
    with (
        RawServer({"info": info(), "8_8_8/0-8_0-8_0-8": CHUNKS[name]}) as server,
        pytest.raises(ps.PrecomputedError, match=r"8_8_8/0-8_0-8_0-8|content encoding 'rot13'"),
    ):
        read(server)
    assert peak_bytes() - before < 64 << 20


@pytest.mark.parametrize(
    "chunk",
    [answer(CHUNK), answer(THRICE, "Content-Encoding: gzip, gzip, gzip"), provisional],
    ids=["plain", "encoded three times", "after 20,000 others"],
)
def test_a_chunk_is_read_however_it_comes(chunk: Answer) -> None:
    with RawServer({"info": info(), "8_8_8/0-8_0-8_0-8": chunk}) as server:
        assert read(server) == CHUNK


SHARDS = {
    "another range": answer(bytes(16), "Content-Range: bytes 100-115/512", status=PART),
    "a longer range": answer(bytes(600), "Content-Range: bytes 0-15/600", status=PART),
    "several ranges": answer(
        b"--x\r\nContent-Range: bytes 0-15/512\r\n\r\n" + bytes(16) + b"\r\n--x--",
        "Content-Type: multipart/byteranges; boundary=x",
        status=PART,
    ),
    "a compressed range": answer(
        gzip.compress(bytes(16)),
        "Content-Encoding: gzip",
        "Content-Range: bytes 0-15/512",
        status=PART,
    ),
    "no such range": answer(b"", "Content-Range: bytes */0", status="416 Range Not Satisfiable"),
    "a web page": answer(HTML * 10),
    "nothing": answer(b""),
}


@pytest.mark.parametrize("name", SHARDS)
def test_no_shard_is_made_of_what_is_none(name: str) -> None:
    with (
        RawServer({"info": info(sharding=SHARDING), "8_8_8/0.shard": SHARDS[name]}) as server,
        pytest.raises(ps.PrecomputedError, match=r"0\.shard"),
    ):
        read(server)


@pytest.mark.parametrize(
    "document",
    [
        answer(HTML, "Content-Type: text/html"),
        answer(json.dumps({"redirect": "file:///etc"}).encode()),
        answer(np.random.default_rng(0).bytes(1000)),
    ],
    ids=["a web page", "a redirect to a disk", "noise"],
)
def test_no_layer_is_made_of_what_is_none(document: bytes) -> None:
    with RawServer({"info": document}) as server, pytest.raises(ps.PrecomputedError, match="info"):
        read(server)


def test_a_key_that_looks_like_a_query_is_asked_for_as_a_path() -> None:
    with RawServer({"info": info("a?b#c")}) as server:
        with pytest.raises(ps.MissingChunkError):
            ps.open_volume(server.url, missing="raise")[...]
        assert server.asked[-1] == "a%3Fb%23c/0-8_0-8_0-8"
