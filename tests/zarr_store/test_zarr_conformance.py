"""zarr's own tests of stores, against a real volume.

The suite writes keys of its own choice, such as ``foo/zarr.json``. A layer holds chunks and
nothing else, so the tests that do so are repeated here with the keys of chunks, and the
reason stands in each.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.core.sync import _collect_aiterator, sync
from zarr.storage._utils import _normalize_byte_range_index
from zarr.testing.store import StoreTests
from zarr.testing.utils import assert_bytes_equal

import precomputed_store as ps
from tests.oracles import make_info

PROTOTYPE = default_buffer_prototype()
KEYS = [f"0/c/0/{z}/{y}/{x}" for z in range(2) for y in range(2) for x in range(3)]
DOCUMENTS = ["zarr.json", "0/zarr.json"]
VALUE = b"\x01\x02\x03\x04"


def name_of(key: str) -> str:
    """File name of a chunk of (5, 4, 4) voxels in chunks of (2, 2, 2)."""
    z, y, x = map(int, key.split("/")[3:])
    return f"{2 * x}-{min(2 * x + 2, 5)}_{2 * y}-{2 * y + 2}_{2 * z}-{2 * z + 2}"


class TestPrecomputedStore(StoreTests[ps.PrecomputedStore, cpu.Buffer]):
    store_cls = ps.PrecomputedStore
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store_kwargs(self, tmp_path: Path) -> dict[str, Any]:
        ps.create(tmp_path / "layer", make_info(size=(5, 4, 4), chunk_size=(2, 2, 2)))
        return {"url": tmp_path / "layer"}

    def path(self, store: ps.PrecomputedStore, key: str) -> Path:
        return Path(store.url.removeprefix("file://")) / "8_8_8" / name_of(key)

    async def set(self, store: ps.PrecomputedStore, key: str, value: Buffer) -> None:
        path = self.path(store, key)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(value.to_bytes())

    async def get(self, store: ps.PrecomputedStore, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(self.path(store, key).read_bytes())

    def test_store_repr(self, store: ps.PrecomputedStore) -> None:
        assert repr(store) == f"PrecomputedStore({store.url!r})"
        assert str(store) == f"precomputed::{store.url}"

    def test_store_supports_writes(self, store: ps.PrecomputedStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: ps.PrecomputedStore) -> None:
        assert store.supports_listing

    # Where the suite writes "foo", "c/0" and the like, these write chunks.

    async def test_serializable_store(self, store: ps.PrecomputedStore) -> None:
        new_store: ps.PrecomputedStore = pickle.loads(pickle.dumps(store))
        assert new_store == store
        assert new_store.read_only == store.read_only
        await new_store.set(KEYS[0], self.buffer_cls.from_bytes(VALUE))
        found = await store.get(KEYS[0], PROTOTYPE)
        assert_bytes_equal(found, VALUE)

    async def test_with_read_only_store(self, open_kwargs: dict[str, Any]) -> None:
        store = await self.store_cls.open(**open_kwargs, read_only=True)
        value = self.buffer_cls.from_bytes(VALUE)
        writer = store.with_read_only(read_only=False)
        assert not writer._is_open
        assert not writer.read_only
        await writer.set(KEYS[0], value)
        await writer.delete(KEYS[0])
        for reader in (store, writer.with_read_only(read_only=True)):
            assert reader.read_only
            with pytest.raises(ValueError, match="store was opened in read-only mode"):
                await reader.set(KEYS[0], value)
            with pytest.raises(ValueError, match="store was opened in read-only mode"):
                await reader.delete(KEYS[0])

    @pytest.mark.parametrize("key", [KEYS[0], KEYS[2], KEYS[11]])
    # Nothing, in the suite's list of values, is no chunk: an object of 0 bytes is an error.
    @pytest.mark.parametrize(
        ("data", "byte_range"),
        [
            (VALUE, None),
            (VALUE, RangeByteRequest(1, 4)),
            (VALUE, OffsetByteRequest(1)),
            (VALUE, SuffixByteRequest(1)),
            (VALUE, SuffixByteRequest(9)),
        ],
    )
    async def test_get(
        self, store: ps.PrecomputedStore, key: str, data: bytes, byte_range: ByteRequest
    ) -> None:
        value = self.buffer_cls.from_bytes(data)
        await self.set(store, key, value)
        start, stop = _normalize_byte_range_index(value, byte_range=byte_range)
        found = await store.get(key, PROTOTYPE, byte_range)
        assert_bytes_equal(found, value[start:stop])

    async def test_get_not_open(self, store_not_open: ps.PrecomputedStore) -> None:
        assert not store_not_open._is_open
        await self.set(store_not_open, KEYS[0], self.buffer_cls.from_bytes(VALUE))
        assert_bytes_equal(await store_not_open.get(KEYS[0], PROTOTYPE), VALUE)

    async def test_get_raises(self, store: ps.PrecomputedStore) -> None:
        await self.set(store, KEYS[0], self.buffer_cls.from_bytes(VALUE))
        with pytest.raises((ValueError, TypeError), match=r"Unexpected byte_range, got.*"):
            await store.get(KEYS[0], PROTOTYPE, byte_range=(0, 2))  # type: ignore[arg-type]

    async def test_get_many(self, store: ps.PrecomputedStore) -> None:
        for key in KEYS:
            await self.set(store, key, self.buffer_cls.from_bytes(key.encode()))
        wanted = [(key, PROTOTYPE, None) for key in KEYS]
        found = await _collect_aiterator(store._get_many(wanted))
        assert sorted((key, value.to_bytes()) for key, value in found) == sorted(
            (key, key.encode()) for key in KEYS
        )

    # Of raw chunks the size is not asked for: it follows from the shape.
    @pytest.mark.parametrize(("key", "size"), [(KEYS[0], 8), (KEYS[2], 4)])
    async def test_getsize(self, store: ps.PrecomputedStore, key: str, size: int) -> None:
        await self.set(store, key, self.buffer_cls.from_bytes(bytes(size)))
        assert await store.getsize(key) == size

    async def test_getsize_prefix(self, store: ps.PrecomputedStore) -> None:
        await store._set_many(
            [(key, self.buffer_cls.from_bytes(b"x" * 8)) for key in KEYS if key[-1] != "2"]
        )
        assert await store.getsize_prefix("0/c/0/1") == 4 * 8

    @pytest.mark.parametrize("key", [KEYS[0], KEYS[2], KEYS[11]])
    async def test_set(self, store: ps.PrecomputedStore, key: str) -> None:
        await store.set(key, self.buffer_cls.from_bytes(VALUE))
        assert_bytes_equal(await self.get(store, key), VALUE)

    async def test_set_not_open(self, store_not_open: ps.PrecomputedStore) -> None:
        assert not store_not_open._is_open
        await store_not_open.set(KEYS[0], self.buffer_cls.from_bytes(VALUE))
        assert_bytes_equal(await self.get(store_not_open, KEYS[0]), VALUE)

    async def test_set_many(self, store: ps.PrecomputedStore) -> None:
        await store._set_many((key, self.buffer_cls.from_bytes(key.encode())) for key in KEYS)
        for key in KEYS:
            assert (await self.get(store, key)).to_bytes() == key.encode()

    @pytest.mark.parametrize(
        "key_ranges",
        [
            [],
            [("zarr.json", RangeByteRequest(0, 2))],
            [(KEYS[0], RangeByteRequest(0, 2)), ("zarr.json", None)],
            [
                (KEYS[0], RangeByteRequest(0, 2)),
                (KEYS[1], SuffixByteRequest(2)),
                (KEYS[2], OffsetByteRequest(2)),
            ],
        ],
    )
    async def test_get_partial_values(
        self, store: ps.PrecomputedStore, key_ranges: list[tuple[str, ByteRequest]]
    ) -> None:
        for key, _ in key_ranges:
            if key in KEYS:
                await self.set(store, key, self.buffer_cls.from_bytes(key.encode()))
        found = await store.get_partial_values(
            prototype=PROTOTYPE, key_ranges=(key_range for key_range in key_ranges)
        )
        assert len(found) == len(key_ranges)
        for value, (key, byte_range) in zip(found, key_ranges, strict=True):
            expected = await store.get(key, PROTOTYPE, byte_range)
            assert value is not None
            assert value == expected

    async def test_exists(self, store: ps.PrecomputedStore) -> None:
        assert not await store.exists("foo")
        assert not await store.exists(KEYS[0])
        await store.set(KEYS[0], self.buffer_cls.from_bytes(VALUE))
        assert await store.exists(KEYS[0])
        assert await store.exists("0/zarr.json")

    async def test_delete(self, store: ps.PrecomputedStore) -> None:
        await store.set(KEYS[0], self.buffer_cls.from_bytes(VALUE))
        await store.delete(KEYS[0])
        assert not await store.exists(KEYS[0])

    # What info describes cannot be removed: arrays and groups stay, and so do their chunks.
    async def test_delete_dir(self, store: ps.PrecomputedStore) -> None:
        await store.set(KEYS[0], self.buffer_cls.from_bytes(VALUE))
        for prefix in ("", "0", "0/c"):
            with pytest.raises(ps.UnsupportedError, match="not removed or replaced"):
                await store.delete_dir(prefix)
        assert await store.exists(KEYS[0])

    async def test_clear(self, store: ps.PrecomputedStore) -> None:
        with pytest.raises(ps.UnsupportedError, match="not removed or replaced"):
            await store.clear()

    # A layer is never empty: it has metadata.
    async def test_is_empty(self, store: ps.PrecomputedStore) -> None:
        assert not await store.is_empty("")
        assert not await store.is_empty("0")
        assert await store.is_empty("0/c")
        await self.set(store, KEYS[0], self.buffer_cls.from_bytes(VALUE))
        assert not await store.is_empty("0/c")
        assert not await store.is_empty("0/c/")
        assert await store.is_empty("spam/")

    async def test_list(self, store: ps.PrecomputedStore) -> None:
        assert await _collect_aiterator(store.list()) == tuple(DOCUMENTS)
        await store._set_many((key, self.buffer_cls.from_bytes(VALUE)) for key in KEYS)
        assert sorted(await _collect_aiterator(store.list())) == sorted([*DOCUMENTS, *KEYS])

    async def test_list_prefix(self, store: ps.PrecomputedStore) -> None:
        stored = [KEYS[0], KEYS[4], KEYS[11]]
        await store._set_many((key, self.buffer_cls.from_bytes(VALUE)) for key in stored)
        for prefix in ("", "0", "0/", "0/c/", "0/c/0/0", "0/c/0/1/", KEYS[4], "1/", "x"):
            found = await _collect_aiterator(store.list_prefix(prefix))
            expected = [key for key in [*DOCUMENTS, *stored] if key.startswith(prefix)]
            assert sorted(found) == sorted(expected)

    # Repeats test_list and test_list_prefix, with arbitrary keys.
    async def test_list_empty_path(self, store: ps.PrecomputedStore) -> None:
        assert await _collect_aiterator(store.list_prefix("")) == tuple(DOCUMENTS)

    async def test_list_dir(self, store: ps.PrecomputedStore) -> None:
        stored = [KEYS[0], KEYS[4], KEYS[11]]
        await store._set_many((key, self.buffer_cls.from_bytes(VALUE)) for key in stored)
        children = {
            "": ["zarr.json", "0"],
            "0": ["zarr.json", "c"],
            "0/c": ["0"],
            "0/c/0": ["0", "1"],
            "0/c/0/0": ["0", "1"],
            "0/c/0/1/1": ["2"],
            "0/c/0/1/0": [],
            "foo": [],
        }
        for path, expected in children.items():
            for form in {path, f"{path}/" if path else ""}:
                found = await _collect_aiterator(store.list_dir(form))
                assert sorted(found) == sorted(expected)

    async def test_set_if_not_exists(self, store: ps.PrecomputedStore) -> None:
        old, new = self.buffer_cls.from_bytes(b"0000"), self.buffer_cls.from_bytes(b"1111")
        await self.set(store, KEYS[0], old)
        await store.set_if_not_exists(KEYS[0], new)
        assert await store.get(KEYS[0], PROTOTYPE) == old
        await store.set_if_not_exists(KEYS[1], new)
        assert await store.get(KEYS[1], PROTOTYPE) == new

    def test_get_sync(self, store: ps.PrecomputedStore) -> None:
        sync(self.set(store, KEYS[0], self.buffer_cls.from_bytes(VALUE)))
        assert_bytes_equal(store.get_sync(KEYS[0]), VALUE)

    def test_set_sync(self, store: ps.PrecomputedStore) -> None:
        store.set_sync(KEYS[0], self.buffer_cls.from_bytes(VALUE))
        assert_bytes_equal(sync(self.get(store, KEYS[0])), VALUE)

    def test_delete_sync(self, store: ps.PrecomputedStore) -> None:
        store.set_sync(KEYS[0], self.buffer_cls.from_bytes(VALUE))
        store.delete_sync(KEYS[0])
        assert store.get_sync(KEYS[0]) is None

    @pytest.mark.parametrize("direction", ["set_async_get_sync", "set_sync_get_async"])
    async def test_sync_async_set_get_parity(
        self, store: ps.PrecomputedStore, direction: str
    ) -> None:
        value = self.buffer_cls.from_bytes(VALUE)
        if direction == "set_async_get_sync":
            await store.set(KEYS[0], value)
            found = store.get_sync(KEYS[0])
        else:
            store.set_sync(KEYS[0], value)
            found = await store.get(KEYS[0], PROTOTYPE)
        assert_bytes_equal(found, value)

    async def test_delete_sync_visible_to_async_get(self, store: ps.PrecomputedStore) -> None:
        await store.set(KEYS[0], self.buffer_cls.from_bytes(VALUE))
        store.delete_sync(KEYS[0])
        assert await store.get(KEYS[0], PROTOTYPE) is None

    @pytest.mark.parametrize(
        "byte_range",
        [
            None,
            RangeByteRequest(1, 4),
            OffsetByteRequest(1),
            SuffixByteRequest(1),
            RangeByteRequest(10, 20),
        ],
    )
    async def test_get_sync_byte_range_parity(
        self, store: ps.PrecomputedStore, byte_range: ByteRequest | None
    ) -> None:
        await store.set(KEYS[0], self.buffer_cls.from_bytes(VALUE))
        blocking = store.get_sync(KEYS[0], byte_range=byte_range)
        assert blocking is not None
        assert_bytes_equal(await store.get(KEYS[0], PROTOTYPE, byte_range), blocking)

    # zarr 3.1 only: the suite writes "zarr.json" and reads it back.
    async def test_get_bytes(self, store: ps.PrecomputedStore) -> None:
        if hasattr(store, "_get_bytes"):
            await self.set(store, KEYS[0], self.buffer_cls.from_bytes(VALUE))
            assert await store._get_bytes(KEYS[0], prototype=PROTOTYPE) == VALUE
            with pytest.raises(FileNotFoundError):
                await store._get_bytes("nonexistent_key", prototype=PROTOTYPE)

    def test_get_bytes_sync(self, store: ps.PrecomputedStore) -> None:
        if hasattr(store, "_get_bytes_sync"):
            sync(self.set(store, KEYS[0], self.buffer_cls.from_bytes(VALUE)))
            assert store._get_bytes_sync(KEYS[0], prototype=PROTOTYPE) == VALUE

    async def test_get_json(self, store: ps.PrecomputedStore) -> None:
        if hasattr(store, "_get_json"):
            found = await store._get_json("0/zarr.json", prototype=PROTOTYPE)
            assert found["node_type"] == "array"

    def test_get_json_sync(self, store: ps.PrecomputedStore) -> None:
        if hasattr(store, "_get_json_sync"):
            found = store._get_json_sync("zarr.json", prototype=PROTOTYPE)
            assert found["node_type"] == "group"
