"""nginx and Ceph's object gateway, out of Debian's packages: on request only (``-m long``)."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request as UrlRequest, urlopen

import numpy as np
import pytest
from servers.debian import ceph_gateway, nginx
from servers.faulty import Request
from servers.moto import MotoServer
from servers.proxy import FaultyProxy

import precomputed_store as ps
from precomputed_store.storage import Storage, Update, open_storage

pytestmark = [pytest.mark.long, pytest.mark.server]

SIZE = (64, 48, 40)
SHARDING = ps.ShardingSpec(
    hash="identity",
    preshift_bits=2,
    minishard_bits=1,
    shard_bits=9,
    data_encoding="gzip",
    minishard_index_encoding="gzip",
)


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    blocks = np.random.default_rng(0).integers(1, 90, (8, 6, 5), dtype=np.uint64)
    return np.kron(blocks, np.ones((8, 8, 8), np.uint64))


def write(voxels: np.ndarray, url: object, **options: object) -> ps.Volume:
    written = ps.to_precomputed(
        voxels, url, dims=("x", "y", "z"), resolution=(8, 8, 8), chunk_size=(16, 16, 16), **options
    )  # type: ignore[call-overload]
    assert isinstance(written, ps.Volume)
    return written


class TestNginx:
    @pytest.fixture
    def served(self, tmp_path: Path) -> Path:
        (tmp_path / "served").mkdir()
        return tmp_path / "served"

    @pytest.fixture
    def url(self, tmp_path: Path, served: Path) -> Iterator[str]:
        with nginx(tmp_path, served) as url:
            yield url

    @pytest.mark.parametrize("compress", [False, "gzip"])
    def test_chunks_are_read_plain_and_compressed(
        self, url: str, served: Path, voxels: np.ndarray, compress: object
    ) -> None:
        write(voxels, served / "layer", compress=compress)
        suffixes = {path.suffix for path in (served / "layer" / "8_8_8").iterdir()}
        assert suffixes == {".gz" if compress else ""}
        np.testing.assert_array_equal(ps.open_volume(f"{url}/layer")[...][..., 0], voxels)

    def test_shards_are_read_by_ranges(self, url: str, served: Path, voxels: np.ndarray) -> None:
        write(voxels, served / "layer", sharding=SHARDING)
        np.testing.assert_array_equal(ps.open_volume(f"{url}/layer")[...][..., 0], voxels)

    def test_a_shard_that_is_compressed_as_a_whole_is_never_read_wrongly(
        self, url: str, served: Path, voxels: np.ndarray
    ) -> None:
        """nginx ignores Range then, and sends what it inflates, or all of it."""
        import gzip

        write(voxels, served / "layer", sharding=SHARDING)
        for path in (served / "layer" / "8_8_8").iterdir():
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        try:
            read = ps.open_volume(f"{url}/layer")[...][..., 0]
        except ps.StorageError as error:
            read = None
            told = str(error)
        assert "compressed" in told if read is None else np.array_equal(read, voxels)

    def test_absent_chunks_are_missing_and_forbidden_ones_are_not(
        self, url: str, served: Path, voxels: np.ndarray
    ) -> None:
        write(voxels, served / "layer")
        chunk = served / "layer" / "8_8_8" / "0-16_0-16_0-16"
        chunk.unlink()
        with pytest.warns(ps.MissingDataWarning):
            assert not ps.open_volume(f"{url}/layer")[0:16, 0:16, 0:16].any()
        chunk.mkdir()  # nginx answers 301 to the name with a slash, then 403
        with pytest.raises(ps.StorageError):
            ps.open_volume(f"{url}/layer")[0:16, 0:16, 0:16]

    def test_a_browser_may_read_it(self, url: str, served: Path, voxels: np.ndarray) -> None:
        write(voxels, served / "layer")
        asked = UrlRequest(f"{url}/layer/info", headers={"Origin": "https://example.org"})
        with urlopen(asked, timeout=10) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert json.load(answer)["type"] == "segmentation"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    with ceph_gateway(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture
def storage(gateway: MotoServer) -> Storage:
    bucket = gateway.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
    return open_storage(f"s3://{bucket}/layer", storage_options=gateway.storage_options)


class TestCeph:
    @pytest.mark.parametrize("sharding", [None, SHARDING], ids=["chunks", "shards"])
    def test_a_layer_is_written_and_read(
        self, storage: Storage, voxels: np.ndarray, sharding: object
    ) -> None:
        options = dict(storage.storage_options)
        write(voxels, storage.url, storage_options=options, sharding=sharding)
        volume = ps.open_volume(storage.url, storage_options=options, missing="raise")
        np.testing.assert_array_equal(volume[...][..., 0], voxels)
        report = ps.validate(storage.url, decode=True, storage_options=options)
        assert report.ok

    def test_ranges_and_what_is_past_the_end(self, storage: Storage) -> None:
        data = random.Random(0).randbytes(100_000)
        storage.put("a", data, content_type="application/octet-stream")
        blob = storage.get("a", (500, 70_000))
        assert blob is not None
        assert bytes(blob.data) == data[500:70_000]
        for part in ((99_999, 100_001), (100_000, 100_001)):
            with pytest.raises(ps.StorageError, match="were asked for"):
                storage.get("a", part)
        assert storage.get("b") is None

    def test_wrong_credentials_are_an_error_and_not_missing(self, storage: Storage) -> None:
        wrong = {**storage.storage_options, "secret": "not-the-secret"}
        with pytest.raises(ps.StorageError, match="403"):
            open_storage(storage.url, storage_options=wrong).get("info")

    def test_concurrent_changes_lose_nothing(
        self, storage: Storage, record_property: Callable[[str, object], None]
    ) -> None:
        changes = 0

        def add_one(blob: object) -> bytes:
            nonlocal changes
            changes += 1
            stored = 0 if blob is None else int(bytes(blob.data))  # type: ignore[attr-defined]
            return str(stored + 1).encode()

        update = Update(key="count", change=add_one, content_type="text/plain")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: storage.apply(update), range(200)))
        blob = storage.get("count")
        record_property(
            "figure", f"Ceph: 200 changes of one object by 8 threads, {changes} tries, 0 lost"
        )
        assert blob is not None
        assert bytes(blob.data) == b"200"

    def test_lost_answers_are_no_conflicts(
        self, storage: Storage, gateway: MotoServer, record_property: Callable[[str, object], None]
    ) -> None:
        calls = 0

        def add_one(blob: object) -> bytes:
            nonlocal calls
            calls += 1
            stored = 0 if blob is None else int(bytes(blob.data))  # type: ignore[attr-defined]
            return str(stored + 1).encode()

        seen: Counter[str] = Counter()

        def lose(request: Request) -> str:
            seen[request.method] += 1
            lost = request.method == "PUT" and seen["PUT"] > 4 and seen["PUT"] % 2
            return "refuse" if lost else "ok"

        with FaultyProxy(gateway.url) as proxy:
            options = {**storage.storage_options, "endpoint_url": proxy.url}
            behind = open_storage(storage.url, storage_options=options)
            proxy.pick_fault = lose
            update = Update(key="count", change=add_one, content_type="text/plain")
            for _ in range(100):
                behind.apply(update)
        blob = storage.get("count")
        record_property(
            "figure", f"Ceph: 100 changes, every other answer lost: {calls} tries, 0 lost"
        )
        assert blob is not None
        assert bytes(blob.data) == b"100"

    @pytest.mark.parametrize("sharded", [False, True], ids=["chunk", "shard"])
    def test_two_writers_of_one_object_lose_nothing(self, storage: Storage, sharded: bool) -> None:
        options = dict(storage.storage_options)
        write(
            np.ones((32, 16, 16), np.uint64), storage.url, storage_options=options,
            encoding="raw", sharding=SHARDING if sharded else None,
        )  # fmt: skip
        for turn in range(2, 12):

            def half(start: int, value: int = turn) -> None:
                volume = ps.open_volume(
                    storage.url, mode="r+", unaligned="read-modify-write", storage_options=options
                )
                volume[start : start + 8, 0:16, 0:16] = np.uint64(value)

            with ThreadPoolExecutor(2) as pool:
                list(pool.map(half, (0, 8)))
            assert (ps.open_volume(storage.url, storage_options=options)[0:16] == turn).all()
