"""Shard files: put together as TensorStore does, and taken apart again."""

from __future__ import annotations

import contextlib
import gzip
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from precomputed_store.errors import FormatError
from precomputed_store.metadata import ShardingSpec
from precomputed_store.shard_assembly import ShardAssembler, assemble_shard, split_shard
from precomputed_store.sharding import locate, locate_many


def spec(**members: Any) -> ShardingSpec:
    bits = {"hash": "identity", "preshift_bits": 0, "minishard_bits": 1, "shard_bits": 0}
    return ShardingSpec(**{**bits, **members})


def test_a_shard_is_laid_out_as_the_specification_says() -> None:
    built = assemble_shard(spec(), {2: b"two", 0: b"zero", 5: b"five5"})
    entries = struct.unpack_from("<4Q", built)
    assert entries == (7, 7 + 48, 55 + 5, 60 + 24)
    assert built[32:39] == b"zerotwo"
    # Chunk ids, then starts from the previous end, then sizes; all from the index's end.
    assert struct.unpack_from("<6Q", built, 32 + 7) == (0, 2, 0, 0, 4, 3)
    assert struct.unpack_from("<3Q", built, 32 + 60) == (5, 55, 5)
    assert len(built) == 32 + 84


def test_minishards_without_chunks_have_empty_entries() -> None:
    built = assemble_shard(spec(minishard_bits=3), {6: b"x"})
    entries = np.frombuffer(built, "<u8", 16).reshape(8, 2)
    assert np.flatnonzero(entries[:, 0] != entries[:, 1]).tolist() == [6]


def test_minishard_indices_are_gzipped_and_chunks_are_not() -> None:
    built = assemble_shard(spec(minishard_index_encoding="gzip"), {0: b"abc"})
    start, stop = struct.unpack_from("<2Q", built)
    assert built[32:35] == b"abc"
    assert gzip.decompress(built[32 + start : 32 + stop]) == struct.pack("<3Q", 0, 0, 3)


SPECS = st.builds(
    ShardingSpec,
    hash=st.sampled_from(["identity", "murmurhash3_x86_128"]),
    preshift_bits=st.integers(0, 4),
    minishard_bits=st.integers(0, 5),
    shard_bits=st.just(0),
    minishard_index_encoding=st.sampled_from(["raw", "gzip"]),
)


@given(sharding=SPECS, chunks=st.dictionaries(st.integers(0, 2**64 - 1), st.binary(max_size=40)))
def test_what_was_put_together_comes_apart(
    sharding: ShardingSpec, chunks: dict[int, bytes]
) -> None:
    built = assemble_shard(sharding, chunks)
    found = split_shard(built, sharding, shard=0, num_chunks=max(1, len(chunks)))
    assert {chunk_id: bytes(data) for chunk_id, data in found.items()} == chunks


def test_chunks_are_added_in_order() -> None:
    assembler = ShardAssembler(spec())
    assembler.add(1, 1, b"a")
    with pytest.raises(ValueError, match="minishard 0 after 1"):
        assembler.add(0, 0, b"b")
    with pytest.raises(ValueError, match="chunk 1 after 1"):
        assembler.add(1, 1, b"b")


GOOD = bytes(assemble_shard(spec(), {0: b"zero", 1: b"one", 2: b"two"}))


def changed(at: int, value: int) -> bytes:
    return GOOD[:at] + struct.pack("<Q", value) + GOOD[at + 8 :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD[:20], "the file is 20 bytes long, its shard index 32"),
        (GOOD[:-1], "minishard 1: its index ends at"),
        (changed(0, 2**63), "shard index entry says"),
        (changed(8, 2**40), "minishard 0: its index ends at"),
        (changed(8, 8), "multiple of 24"),
        (changed(32 + 7, 1), "minishard 0: it has chunks that belong elsewhere"),
        (changed(32 + 7 + 32, 2**40), "minishard 0: it has a chunk that ends at"),
    ],
    ids=["short", "cut", "backwards", "past the end", "odd", "stranger", "long chunk"],
)
def test_damaged_shards_are_format_errors(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        split_shard(data, spec(), shard=0, num_chunks=8)


def test_an_index_that_inflates_beyond_the_grid_is_refused() -> None:
    sharding = spec(minishard_bits=0, minishard_index_encoding="gzip")
    bomb = gzip.compress(bytes(24 << 20))
    data = struct.pack("<2Q", 0, len(bomb)) + bomb
    with pytest.raises(FormatError, match="more than the 2400 bytes"):
        split_shard(data, sharding, shard=0, num_chunks=100)


@given(data=st.binary(max_size=200), minishard_bits=st.integers(0, 3))
def test_garbage_is_a_format_error_or_a_shard(data: bytes, minishard_bits: int) -> None:
    with contextlib.suppress(FormatError):
        split_shard(data, spec(minishard_bits=minishard_bits), shard=0, num_chunks=10)


@given(
    ids=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20),
    hashing=st.sampled_from(["identity", "murmurhash3_x86_128"]),
    preshift_bits=st.integers(0, 64),
    minishard_bits=st.integers(0, 32),
    shard_bits=st.integers(0, 32),
)
def test_many_chunks_are_located_as_each_alone(
    ids: list[int], hashing: Any, preshift_bits: int, minishard_bits: int, shard_bits: int
) -> None:
    sharding = ShardingSpec(
        hash=hashing,
        preshift_bits=preshift_bits,
        minishard_bits=minishard_bits,
        shard_bits=shard_bits,
    )
    shards, minishards = locate_many(sharding, np.array(ids, np.uint64))
    alone = [locate(sharding, chunk_id) for chunk_id in ids]
    assert list(zip(shards.tolist(), minishards.tolist(), strict=True)) == alone
