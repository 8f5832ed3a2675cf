"""Any JSON and any damage gives a volume or a MetadataError, and what is read is written back."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from info_builders import info_json, paths, read, scale_json, sharding_json

from precomputed_store.codecs import ENCODINGS, codec_class
from precomputed_store.errors import MetadataError
from precomputed_store.metadata import DATA_TYPES, OTHER_DATA_TYPES, DamagedScale, VolumeInfo

PARAMETERS = sorted(
    {name for encoding in ENCODINGS for name in codec_class(encoding).parameter_names()}  # type: ignore[union-attr]
)
NAMES = st.sampled_from(
    [
        "@type", "type", "data_type", "num_channels", "scales", "mesh", "skeletons", "redirect",
        "key", "size", "resolution", "voxel_offset", "chunk_sizes", "encoding", "sharding",
        "hidden", "hash", "preshift_bits", "minishard_bits", "shard_bits", "data_encoding",
        *PARAMETERS,
    ]
)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 70)
    | st.sampled_from([2**31, 2**53, 2**62, 2**63, 2**64, 10**400])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["raw", "RAW", "gzip", "image", "uint8", "uint64", "float64", "identity"])
    | st.sampled_from([*ENCODINGS])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES | st.text(max_size=4), VALUES, max_size=8)

FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

EXAMPLES = [
    info_json(scale_json(sharding=sharding_json(), hidden=True), mesh="mesh", extra=[1]),
    info_json(
        scale_json(
            encoding="compressed_segmentation", compressed_segmentation_block_size=[8, 8, 8]
        ),
        scale_json(key="16_16_16", resolution=[16, 16, 16], chunk_sizes=[[64] * 3, [512, 512, 1]]),
    ),
    info_json(
        *(scale_json(key=name, encoding=name) for name in ENCODINGS),
        type="image",
        data_type="uint8",
    ),
    info_json(
        *(scale_json(key=name, encoding=name) for name in ENCODINGS),
        type="image",
        data_type="float32",
    ),
]


@st.composite
def damaged_documents(draw: st.DrawFn) -> Any:
    """A valid document with one to three members replaced, removed or added."""
    document = copy.deepcopy(draw(st.sampled_from(EXAMPLES)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(paths(document))))
        parent: Any = document
        for step in path[:-1]:
            parent = parent[step]
        match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "replace":
                parent[path[-1]] = draw(VALUES)
            case "remove":
                del parent[path[-1]]
            case "add" if isinstance(parent, list):
                parent.insert(path[-1], draw(VALUES))
            case _:
                parent[draw(NAMES)] = draw(VALUES)
    return document


def judge(document: Any) -> VolumeInfo | None:
    """The volume, or None where it is refused: with places and words, and nothing else raised."""
    try:
        return read(document)
    except MetadataError as error:
        refusal = error
    assert refusal.problems
    assert all(problem.message for problem in refusal.problems)
    assert len(str(refusal)) < 20_000
    return None


def check_volume(info: VolumeInfo) -> None:
    assert info.usable_scales
    assert info.data_type in (*DATA_TYPES, *OTHER_DATA_TYPES)
    assert read(info.to_json()) == info
    assert read(info.to_bytes()) == info
    assert pickle.loads(pickle.dumps(info)) == info
    assert hash(read(info.to_json())) == hash(info)
    for index, scale in enumerate(info.scales):
        if isinstance(scale, DamagedScale):
            assert scale.problems
        else:
            assert info.dtype.name in scale.codec.data_types
            assert all(n >= 1 for n in scale.grid.shape)
            assert info.scale_index(index) == index
            assert info.scale_index(index - len(info.scales)) == index


@settings(FUZZ, max_examples=500)
@given(OBJECTS)
def test_any_object_is_read_or_refused(document: dict[str, Any]) -> None:
    info = judge(document)
    assert info is None or check_volume(info) is None


@settings(FUZZ, max_examples=500)
@given(VALUES)
def test_any_json_text_is_read_or_refused(value: Any) -> None:
    judge(json.dumps(value))


@settings(FUZZ, max_examples=2000)
@given(damaged_documents())
def test_any_damage_is_tolerated_or_refused(document: Any) -> None:
    info = judge(document)
    if info is not None:
        check_volume(info)
        assert unharmed(info.to_json()) == unharmed(document)


def unharmed(value: Any) -> Any:
    """A document without what we may change: nulls that mean absent, defaults, case, 64.0."""
    optional = {
        "mesh", "skeletons", "segment_properties", "redirect", "sharding", "voxel_offset",
        "hidden", *PARAMETERS,
    }  # fmt: skip
    defaults = {
        ("hidden", False), ("@type", "neuroglancer_multiscale_volume"),
        ("data_encoding", "raw"), ("minishard_index_encoding", "raw"),
    }  # fmt: skip
    if isinstance(value, dict):
        members = {name: unharmed(member) for name, member in value.items()}
        return {
            name: member
            for name, member in members.items()
            if not (member is None and name in optional)
            and not (isinstance(member, str | bool) and (name, member) in defaults)
            and not (name == "voxel_offset" and member == [0, 0, 0])
        }
    if isinstance(value, list):
        return [unharmed(member) for member in value]
    return value.lower() if isinstance(value, str) and value.isascii() else value


@settings(FUZZ, max_examples=1000)
@given(
    st.sampled_from([json.dumps(example).encode() for example in EXAMPLES]),
    st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=3)), min_size=1, max_size=4),
)
def test_any_damage_to_the_bytes_is_tolerated_or_refused(
    text: bytes, splices: list[tuple[int, bytes]]
) -> None:
    for position, inserted in splices:
        at = position % len(text)
        text = text[:at] + inserted + text[at + len(inserted) % 2 :]
    info = judge(text)
    assert info is None or check_volume(info) is None


@settings(FUZZ, max_examples=500)
@given(st.binary(max_size=200) | st.text(max_size=100))
def test_any_bytes_and_any_text_are_refused(document: bytes | str) -> None:
    assert judge(document) is None


HOSTILE = [
    None, True, 0, -1, 64.0, 8.5, 2**31, 2**64, 10**400, 1e308, 5e-324, "", "8", "x" * 100_000,
    [], [1, 2, 3], [1.0, 2.0, 3.0], [True, 1, 1], [0, 1, 1], [2**70, 1, 1], [[1], 2, 3],
    [None] * 3, {}, {"a": 1}, ["a"], [1] * 100, "\ud800", [10**400] * 3,
]  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_value_of_any_parameter_is_read_or_refused(encoding: str) -> None:
    codec = codec_class(encoding)
    assert codec is not None
    for parameter, value in itertools.product(codec.parameter_names(), HOSTILE):
        scale = scale_json(encoding=encoding, **{parameter: value})
        info = judge(info_json(scale, data_type=codec.data_types[0]))
        if info is not None:
            check_volume(info)
            assert unharmed(info.to_json()["scales"]) == unharmed([scale])
