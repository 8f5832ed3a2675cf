"""Reading shards that others exchange for new ones: the old or the new state, never a mixture."""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.faulty import Reply, Request
from servers.web import WebServer

import precomputed_store as ps
from precomputed_store import shard_batch, shard_reader
from precomputed_store.shard_cache import clear_index_cache, known_indices
from tests.oracles import make_info, tensorstore_write

SIZE = (32, 16, 16)
SHARDING = {"hash": "identity", "preshift_bits": 1, "minishard_bits": 1, "shard_bits": 0}


class Site:
    """A layer that TensorStore writes, which tells this package nothing."""

    def __init__(
        self, folder: Path, server: WebServer | None, *, has_versions: bool = True
    ) -> None:
        self.folder, self.server, self.has_versions = folder, server, has_versions

    def write(self, data: np.ndarray) -> None:
        info = make_info(size=SIZE, chunk_size=(8, 8, 8), sharding=SHARDING)
        (self.folder / "8_8_8" / "0.shard").unlink(missing_ok=True)
        tensorstore_write(self.folder, info, data[..., None])
        self.publish()

    def publish(self) -> None:
        if self.server is not None:
            for name in ("info", "8_8_8/0.shard"):
                data = (self.folder / name).read_bytes()
                tag = {"ETag": f'"{hashlib.md5(data).hexdigest()}"'} if self.has_versions else {}
                self.server.add(f"/layer/{name}", data, **tag)

    def open(self) -> Any:
        clear_index_cache()
        return ps.open_volume(self.folder if self.server is None else f"{self.server.url}/layer")


@pytest.fixture(params=["file", pytest.param("http", marks=pytest.mark.server)])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    remote = request.param == "http"
    return Site(tmp_path, request.getfixturevalue("web_server") if remote else None)


def filled(value: int) -> np.ndarray:
    return np.full(SIZE, value, np.uint8)


def test_a_shard_that_was_exchanged_is_looked_up_anew(site: Site) -> None:
    small, large = filled(1), np.random.default_rng(0).integers(1, 255, SIZE, dtype=np.uint8)
    small[8:] = 0
    site.write(small)
    volume = site.open()
    np.testing.assert_array_equal(volume[...][..., 0], small)
    site.write(large)
    np.testing.assert_array_equal(volume[0:8, 0:8, 0:8][..., 0], large[:8, :8, :8])
    np.testing.assert_array_equal(volume[...][..., 0], large)
    site.write(small)
    np.testing.assert_array_equal(volume[...][..., 0], small)


def test_a_chunk_that_was_missing_is_found_when_it_comes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_reader, "TRUSTED_S", 0.0)
    small, large = filled(1), filled(2)
    small[24:] = 0
    site.write(small)
    volume = site.open()
    assert (volume[0:32, 0:8, 0:8][24:] == 0).all()
    site.write(large)
    assert (volume[24:32, 0:8, 0:8] == 2).all()


@pytest.mark.server
def test_an_index_is_not_trusted_for_ever_where_shards_have_no_versions(
    tmp_path: Path, web_server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, web_server, has_versions=False)
    small, large = filled(1), np.random.default_rng(0).integers(1, 255, SIZE, dtype=np.uint8)
    small[24:] = 0
    site.write(small)
    volume = site.open()
    np.testing.assert_array_equal(volume[...][..., 0], small)
    site.write(large)
    monkeypatch.setattr(shard_reader, "TRUSTED_S", 0.0)
    np.testing.assert_array_equal(volume[...][..., 0], large)
    np.testing.assert_array_equal(volume[24:32, 0:8, 0:8][..., 0], large[24:, :8, :8])


def test_a_chunk_that_is_gone_is_missing(site: Site) -> None:
    site.write(filled(1))
    volume = site.open()
    assert (volume[...] == 1).all()
    few = filled(0)
    few[:8] = 3
    site.write(few)
    np.testing.assert_array_equal(volume[...][..., 0], few)


def test_a_shard_cut_short_is_an_error_and_not_looked_up_for_ever(site: Site) -> None:
    data = np.random.default_rng(0).integers(1, 255, SIZE, dtype=np.uint8)
    site.write(data)
    volume = site.open()
    assert volume[...].any()
    path = site.folder / "8_8_8" / "0.shard"
    path.write_bytes(path.read_bytes()[:600])
    site.publish()
    with pytest.raises(OSError, match=r"0\.shard"):
        volume[...]


def test_readers_see_whole_states_while_a_writer_goes_on(tmp_path: Path) -> None:
    """Chunks of random sizes come and go, and each read is of one state of its chunk."""
    ps.create(
        tmp_path,
        make_info(
            size=SIZE, chunk_size=(8, 8, 8),
            sharding={**SHARDING, "data_encoding": "gzip", "minishard_index_encoding": "gzip"},
        ),
    )  # fmt: skip
    writer = ps.open_volume(tmp_path, mode="r+", unaligned="read-modify-write")
    writer[...] = 1
    wrong: list[Any] = []
    stop = threading.Event()

    def read() -> None:
        reader = ps.open_volume(tmp_path)
        while not stop.is_set():
            try:
                chunk = reader[8:16, 0:8, 0:8]
                if not ((chunk == 1).all() or (chunk == 2).all()):
                    wrong.append(chunk)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    rng = np.random.default_rng(1)
    for turn in range(150):
        noise = rng.integers(1, 255, (8, 8, 8), dtype=np.uint8)
        writer[0:8, 0:8, 0:8] = noise if turn % 2 else np.uint8(7)
        writer[8:16, 0:8, 0:8] = np.uint8(1 + turn % 2)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_an_index_is_looked_up_reads_on(tmp_path: Path) -> None:
    site = Site(tmp_path, None)
    site.write(filled(7))
    volume = site.open()
    with known_indices._lock:
        child = os.fork()
        if not child:
            signal.alarm(10)
            os._exit(0 if np.all(volume[...] == 7) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def random_site(web_server: WebServer, tmp_path: Path) -> tuple[Site, np.ndarray]:
    site = Site(tmp_path, web_server)
    data = np.random.default_rng(0).integers(1, 255, SIZE, dtype=np.uint8)
    site.write(data)
    return site, data


def asked(server: WebServer) -> list[str | None]:
    """The range of each request, and None for a request of a whole object."""
    return [request.headers.get("range") for request in server.requests]


@pytest.mark.server
def test_minishards_of_a_shard_are_looked_up_together(
    random_site: tuple[Site, np.ndarray], web_server: WebServer
) -> None:
    site, data = random_site
    volume = site.open()
    web_server.requests.clear()
    np.testing.assert_array_equal(volume[:8][..., 0], data[:8])
    ranges = asked(web_server)
    assert ranges[0] == "bytes=0-31"  # the entries of both minishards
    assert len(ranges) == 3, ranges


@pytest.mark.server
def test_a_shard_that_is_wanted_whole_is_one_request(
    random_site: tuple[Site, np.ndarray], web_server: WebServer
) -> None:
    site, data = random_site
    volume = site.open()
    for _ in range(2):
        web_server.requests.clear()
        np.testing.assert_array_equal(volume[...][..., 0], data)
        assert asked(web_server) == [None]
    # And its indices are known since.
    web_server.requests.clear()
    np.testing.assert_array_equal(volume[:8, :8, :8][..., 0], data[:8, :8, :8])
    assert len(asked(web_server)) == 1
    assert asked(web_server) != [None]


@pytest.mark.server
def test_a_shard_that_is_too_long_for_one_request_is_asked_for_so_once(
    random_site: tuple[Site, np.ndarray], web_server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, data = random_site
    monkeypatch.setattr(shard_batch, "MAX_REQUEST_BYTES", 1000)
    monkeypatch.setattr(shard_batch, "_large", set())
    for tries in (1, 0):
        volume = site.open()
        web_server.requests.clear()
        np.testing.assert_array_equal(volume[...][..., 0], data)
        assert asked(web_server).count(None) == tries
        assert len(asked(web_server)) > 3


@pytest.mark.server
def test_a_whole_shard_that_the_server_compresses_is_read_in_ranges(
    random_site: tuple[Site, np.ndarray], web_server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, data = random_site
    respond = web_server.respond

    def compressing(request: Request) -> Reply:
        reply = respond(request)
        if reply.status == 200 and request.path.endswith(".shard"):
            headers = {**reply.headers, "Content-Encoding": "gzip"}
            return Reply(status=200, headers=headers, body=gzip.compress(reply.body))
        return reply

    monkeypatch.setattr(web_server, "respond", compressing)
    np.testing.assert_array_equal(site.open()[...][..., 0], data)


@pytest.mark.server
def test_a_whole_shard_that_ends_early_is_an_error(
    random_site: tuple[Site, np.ndarray], web_server: WebServer
) -> None:
    site, _ = random_site
    shard = site.folder / "8_8_8" / "0.shard"
    for length in (0, 7, 40, shard.stat().st_size - 1):
        web_server.add("/layer/8_8_8/0.shard", shard.read_bytes()[:length])
        volume = site.open()
        with pytest.raises(ps.PrecomputedError, match=r"0\.shard"):
            volume[...]


@pytest.mark.server
@pytest.mark.filterwarnings("ignore::precomputed_store.MissingDataWarning")
def test_a_whole_shard_that_is_not_there_is_missing(
    random_site: tuple[Site, np.ndarray], web_server: WebServer
) -> None:
    site, _ = random_site
    site.open()
    del web_server.pages["/layer/8_8_8/0.shard"]
    assert not site.open()[...].any()
