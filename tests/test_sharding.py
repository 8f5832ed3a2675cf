"""Placement and indices of shards against TensorStore's expectations."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from precomputed_store.codecs import content
from precomputed_store.errors import FormatError
from precomputed_store.metadata import ShardingSpec
from precomputed_store.sharding import (
    ByteRange,
    coalesce,
    locate,
    murmurhash3_x86_128,
    parse_minishard_index,
    parse_shard_index_entry,
    shard_index_bytes,
    shard_name,
)

SPEC = ShardingSpec(hash="identity", preshift_bits=0, minishard_bits=1, shard_bits=1)


def number(value: int | str) -> int:
    return value if isinstance(value, int) else int(value, 0)


def test_murmurhash_equals_the_reference(vectors: dict[str, Any]) -> None:
    cases = [
        case
        for case in vectors["murmurhash3_x86_128_of_uint64"]["cases"]
        if case["seed_each_h"] == 0
    ]
    assert len(cases) > 2
    for case in cases:
        assert murmurhash3_x86_128(number(case["input_uint64"])) == number(case["hash_low64"])


def test_chunks_go_to_the_shards_that_tensorstore_puts_them_in(vectors: dict[str, Any]) -> None:
    for case in vectors["chunk_placement_identity"]:
        spec = ShardingSpec.from_json(case["sharding"])
        location = locate(spec, number(case["chunk_id"]))
        assert location.minishard == case["minishard"]
        assert shard_name(spec, location.shard) == case["shard_file"]


def test_shard_names_are_padded_hexadecimal(vectors: dict[str, Any]) -> None:
    for case in vectors["shard_file_name"]["cases"]:
        spec = ShardingSpec(
            hash="identity", preshift_bits=0, minishard_bits=0, shard_bits=case["shard_bits"]
        )
        assert shard_name(spec, case["shard"]) == case["name"]


def test_minishard_indices_decode_to_absolute_ranges(vectors: dict[str, Any]) -> None:
    base = shard_index_bytes(SPEC)
    for case in vectors["minishard_index_encoding"]:
        index = parse_minishard_index(bytes.fromhex(case["bytes"]), SPEC)
        assert len(index.chunk_ids) == len(case["entries"])
        for entry in case["entries"]:
            place = ByteRange(base + number(entry["start"]), base + number(entry["end"]))
            assert index.find(number(entry["chunk_id"])) == place
        assert index.find(12345) is None


def test_bad_minishard_indices_are_format_errors(vectors: dict[str, Any]) -> None:
    for case in vectors["minishard_index_decode_errors"]:
        data = bytes.fromhex(case["bytes"])
        with pytest.raises(FormatError):  # noqa: PT012
            if case["encoding"] == "gzip":
                data = content.undo(data, "gzip", limit=1 << 20)
            parse_minishard_index(data, SPEC)


def test_shard_index_entries_are_relative_to_the_index_end(vectors: dict[str, Any]) -> None:
    for case in vectors["shard_index_encoding"]:
        data = bytes.fromhex(case["bytes"])
        base = shard_index_bytes(SPEC)
        for at, (start, stop) in enumerate(case["entries"]):
            entry = parse_shard_index_entry(data[16 * at : 16 * at + 16], SPEC)
            assert entry == ByteRange(base + start, base + stop)


@pytest.mark.parametrize("entry", [(5, 4), (0, 2**63), (2**64 - 1, 1), (2**63, 2**63 + 1)])
def test_impossible_shard_index_entries_are_format_errors(entry: tuple[int, int]) -> None:
    with pytest.raises(FormatError):
        parse_shard_index_entry(struct.pack("<QQ", *entry), SPEC)


def test_an_empty_shard_index_entry_means_no_chunks() -> None:
    assert parse_shard_index_entry(struct.pack("<QQ", 7, 7), SPEC) is None


@pytest.mark.parametrize(
    ("ids", "gaps", "sizes"),
    [
        ([1, 0], [0, 0], [4, 4]),
        ([1], [2**63], [1]),
        ([1, 1], [0, 0], [5, 2**64 - 3]),
        ([1], [5], [2**64 - 1]),
    ],
    ids=["a chunk id twice", "past any file", "a size that wraps", "an end before its start"],
)
def test_hostile_minishard_indices_are_format_errors(
    ids: list[int], gaps: list[int], sizes: list[int]
) -> None:
    with pytest.raises(FormatError):
        parse_minishard_index(np.array([ids, gaps, sizes], dtype="<u8").tobytes(), SPEC)


def test_unsorted_chunk_ids_are_found() -> None:
    deltas = np.array([[9, 2**64 - 5], [0, 0], [3, 4]], dtype="<u8")
    index = parse_minishard_index(deltas.tobytes(), SPEC)
    base = shard_index_bytes(SPEC)
    assert index.find(9) == ByteRange(base, base + 3)
    assert index.find(4) == ByteRange(base + 3, base + 7)


def test_close_ranges_become_one_request() -> None:
    ranges = [ByteRange(0, 10), ByteRange(100, 110), ByteRange(14, 20)]
    assert coalesce(ranges, max_gap=4, max_bytes=1000) == [
        (ByteRange(0, 20), [ByteRange(0, 10), ByteRange(14, 20)]),
        (ByteRange(100, 110), [ByteRange(100, 110)]),
    ]


def test_a_request_does_not_grow_past_its_limit() -> None:
    ranges = [ByteRange(0, 10), ByteRange(10, 20), ByteRange(20, 30)]
    requests = [whole for whole, _ in coalesce(ranges, max_gap=0, max_bytes=20)]
    assert requests == [ByteRange(0, 20), ByteRange(20, 30)]
