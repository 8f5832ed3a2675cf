"""The sharding parameters, by the rules of sharded.md."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
from info_builders import DELETE, changed, sharding_json

from precomputed_store.errors import MetadataError, Problem
from precomputed_store.metadata import ShardingSpec


def problems(**changes: Any) -> list[str]:
    document = sharding_json()
    for name, value in changes.items():
        document = changed(document, ("@type" if name == "type" else name,), value)
    with pytest.raises(MetadataError) as caught:
        ShardingSpec.from_json(document)
    return [str(problem) for problem in caught.value.problems]


def test_accepted_vectors(vectors: dict[str, Any]) -> None:
    for case in vectors["sharding_spec_json"]["accept"]:
        written = ShardingSpec.from_json(case["json"]).to_json()
        defaults = {"minishard_index_encoding": "raw", "data_encoding": "raw"}
        assert written == {**defaults, **case["json"]}


def test_rejected_vectors(vectors: dict[str, Any]) -> None:
    for case in vectors["sharding_spec_json"]["reject"]:
        with pytest.raises(MetadataError):
            ShardingSpec.from_json(case["json"])


@pytest.mark.parametrize("name", ["minishard_index_encoding", "data_encoding"])
def test_encodings_default_to_raw_and_are_written(name: str) -> None:
    spec = ShardingSpec.from_json(changed(sharding_json(**{name: "gzip"}), (name,), DELETE))
    assert getattr(spec, name) == "raw"
    assert spec.to_json()[name] == "raw"


def test_names_are_read_in_any_case_and_written_in_lower_case() -> None:
    document = sharding_json(hash="MurmurHash3_x86_128", data_encoding="GZIP")
    written = ShardingSpec.from_json(document).to_json()
    assert written == sharding_json(hash="murmurhash3_x86_128", data_encoding="gzip")


@pytest.mark.parametrize(
    ("bits", "fine"),
    [
        ((0, 0, 0), True),
        ((64, 32, 32), True),
        ((64, 0, 64), True),
        ((65, 0, 0), False),
        ((0, 33, 0), False),
        ((0, 32, 33), False),
        ((0, 1, 64), False),
        ((-1, 0, 0), False),
        ((0, -1, 0), False),
        ((0, 0, -1), False),
    ],
)
def test_ranges_of_the_bits(bits: tuple[int, int, int], fine: bool) -> None:
    names = ("preshift_bits", "minishard_bits", "shard_bits")
    document = sharding_json(**dict(zip(names, bits, strict=True)))
    if fine:
        assert ShardingSpec.from_json(document).to_json() == document
    else:
        with pytest.raises(MetadataError, match="expected an integer from 0 to"):
            ShardingSpec.from_json(document)


def test_every_problem_is_listed_with_its_place() -> None:
    found = problems(type="v2", hash="md5", preshift_bits=65, shard_bits="3", data_encoding=None)
    assert sorted(found) == [
        '@type: expected "neuroglancer_uint64_sharded_v1", got "v2"',
        'data_encoding: expected "raw" or "gzip", got null',
        'hash: expected "identity" or "murmurhash3_x86_128", got "md5"',
        "preshift_bits: expected an integer from 0 to 64, got 65",
        'shard_bits: expected an integer from 0 to 62, got "3"',
    ]


@pytest.mark.parametrize("name", ["type", "hash", "preshift_bits", "minishard_bits", "shard_bits"])
def test_what_is_missing_is_named(name: str) -> None:
    (problem,) = problems(**{name: DELETE})
    assert problem.startswith(f"{'@type' if name == 'type' else name}: missing: expected ")


@pytest.mark.parametrize("document", ["[]", "3", '"neuroglancer_uint64_sharded_v1"', ""])
def test_what_is_no_object_is_refused(document: str) -> None:
    with pytest.raises(MetadataError, match=r"^sharding: "):
        ShardingSpec.from_json(document)


def test_unknown_members_are_kept() -> None:
    spec = ShardingSpec.from_json(sharding_json(note={"by": "me"}))
    assert spec.extra == {"note": {"by": "me"}}
    assert spec.to_json() == sharding_json(note={"by": "me"})


def test_the_constructor_checks_the_same() -> None:
    with pytest.raises(MetadataError) as caught:
        ShardingSpec(
            hash="md5",  # type: ignore[arg-type]
            preshift_bits=1,
            minishard_bits=40,
            shard_bits=True,
            extra={"hash": 1},
        )
    assert caught.value.source == "sharding"
    assert {problem.location for problem in caught.value.problems} == {
        "hash",
        "minishard_bits",
        "shard_bits",
        "extra",
    }
    assert Problem("hash", 'expected "identity" or "murmurhash3_x86_128", got "md5"') in (
        caught.value.problems
    )


def test_a_spec_is_a_value() -> None:
    spec = ShardingSpec.from_json(sharding_json(note=1))
    assert (
        pickle.loads(pickle.dumps(spec))
        == spec
        == ShardingSpec.from_json(json.dumps(sharding_json(note=1)))
    )
    assert hash(spec) == hash(replace(spec, extra={}))
    assert replace(spec, shard_bits=4).shard_bits == 4
    with pytest.raises(
        MetadataError, match="shard_bits: expected an integer from 0 to 62, got 63"
    ):
        replace(spec, shard_bits=63)
