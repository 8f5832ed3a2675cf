"""The members of one scale, by the rules of volume.md."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from info_builders import (
    DELETE,
    info_json,
    locations,
    message,
    read,
    scale_json,
    sharding_json,
)

from precomputed_store.codecs.raw import Raw
from precomputed_store.errors import MetadataError
from precomputed_store.grid import ChunkGrid
from precomputed_store.metadata import DamagedScale, Scale, ShardingSpec


def only(document: dict[str, Any]) -> Scale:
    """The scale of a volume that has one."""
    (scale,) = read(info_json(document)).scales
    assert isinstance(scale, Scale)
    return scale


def test_a_scale_has_the_members_of_its_json() -> None:
    scale = only(scale_json(sharding=sharding_json(), hidden=True, note="kept"))
    assert scale == Scale(
        key="8_8_8",
        size=(100, 200, 300),
        resolution=(8, 8, 8),
        voxel_offset=(1, -2, 3),
        chunk_sizes=((64, 32, 16),),
        codec=Raw(),
        sharding=ShardingSpec.from_json(sharding_json()),
        hidden=True,
        extra={"note": "kept"},
    )
    assert scale.encoding == "raw"
    assert scale.chunk_size == (64, 32, 16)
    assert scale.grid == ChunkGrid(
        size=(100, 200, 300), voxel_offset=(1, -2, 3), chunk_size=(64, 32, 16)
    )


def test_several_chunk_sizes_are_kept_and_the_first_is_used() -> None:
    scale = only(scale_json(chunk_sizes=[[64, 64, 64], [512, 512, 1]]))
    assert scale.chunk_sizes == ((64, 64, 64), (512, 512, 1))
    assert scale.chunk_size == scale.grid.chunk_size == (64, 64, 64)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in scale_json().items() if key != name}


@pytest.mark.parametrize(
    ("name", "default"), [("voxel_offset", (0, 0, 0)), ("sharding", None), ("hidden", False)]
)
def test_optional_members_may_be_null_or_absent(name: str, default: Any) -> None:
    for document in (without(name), scale_json(**{name: None})):
        scale = only(document)
        assert getattr(scale, name) == default
        assert None not in scale.to_json().values()


def test_integers_of_the_resolution_stay_integers() -> None:
    resolution = only(scale_json(resolution=[4, 4.5, 40])).to_json()["resolution"]
    assert json.dumps(resolution) == "[4, 4.5, 40]"


@pytest.mark.parametrize(
    "resolution", [[1e-300, 1e300, 0.1], [5e-324, 1, 1], [2**60, 1, 1], [8.0, 8.0, 40.0]]
)
def test_positive_resolutions_are_accepted(resolution: list[float]) -> None:
    assert only(scale_json(resolution=resolution)).resolution == tuple(resolution)


@pytest.mark.parametrize(
    "key",
    [
        "8_8_8",
        "../other/8_8_8",
        "./a//b/",
        "..",
        ".",
        "a b",
        "ö/ü",
        "4.0_4.0_40.0",
        "8:8:8",
        "a?b#c%20",
    ],
)
def test_relative_keys_are_accepted_as_they_are(key: str) -> None:
    assert only(scale_json(key=key)).to_json()["key"] == key


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", '"" is empty'),
        ("/8_8_8", "is absolute"),
        ("//host/8_8_8", "is absolute"),
        ("gs://bucket/8_8_8", "is a URL"),
        ("simplecache::gs://bucket", "is a URL"),
        ("file:///etc", "is a URL"),
        ("C:/data", "begins with a drive letter"),
        ("c:data", "begins with a drive letter"),
        ("..\\8_8_8", "contains a backslash"),
        ("8_8_8\x00", "contains a control character"),
        ("8\n8", "contains a control character"),
        ("\x7f", "contains a control character"),
        ("\udc80", "is not valid Unicode"),
    ],
)
def test_keys_that_lead_nowhere_are_refused(key: str, reason: str) -> None:
    assert reason in message(info_json(scale_json(key=key)))
    assert locations(info_json(scale_json(key=key))) == ["scales[0].key"]


NUMBER = "expected a positive finite number"
THREE = "expected 3 integers [x, y, z]"
AT_LEAST_ONE = "expected a list of at least one chunk size [x, y, z]"


@pytest.mark.parametrize(
    ("name", "value", "where", "what"),
    [
        ("key", 8, "", "expected a relative path, got 8"),
        ("key", None, "", "expected a relative path, got null"),
        ("key", DELETE, "", "missing: expected a relative path"),
        ("size", DELETE, "", f"missing: {THREE}"),
        ("size", [1, 2], "", f"{THREE}, got [1, 2]"),
        ("size", [1, 2, 3, 4], "", f"{THREE}, got [1, 2, 3, 4]"),
        ("size", "100", "", f'{THREE}, got "100"'),
        ("size", {"x": 1}, "", f"{THREE}, got an object"),
        ("size", [1, 0, 1], "[1]", "expected an integer >= 1, got 0"),
        ("size", [1, 1, -5], "[2]", "expected an integer >= 1, got -5"),
        ("size", ["64", 1, 1], "[0]", 'expected an integer >= 1, got "64"'),
        ("size", [64.5, 1, 1], "[0]", "expected an integer >= 1, got 64.5"),
        ("size", [True, 1, 1], "[0]", "expected an integer >= 1, got true"),
        ("size", [None, 1, 1], "[0]", "expected an integer >= 1, got null"),
        ("size", [[1], 1, 1], "[0]", "expected an integer >= 1, got [1]"),
        (
            "size",
            [2**62, 1, 1],
            "[0]",
            "expected an integer <= 4611686018427387903, got 4611686018427387904",
        ),
        ("size", [2.0**53, 1, 1], "[0]", "expected an integer >= 1, got 9007199254740992.0"),
        (
            "voxel_offset",
            [0, 0, 0.5],
            "[2]",
            "expected an integer >= -4611686018427387902, got 0.5",
        ),
        (
            "voxel_offset",
            [0, 2**62 - 200, 0],
            "[1]",
            "voxel_offset + size is 4611686018427387904; expected at most 4611686018427387903",
        ),
        ("resolution", [8, 8], "", "expected 3 positive numbers [x, y, z], got [8, 8]"),
        ("resolution", [8, 0, 8], "[1]", f"{NUMBER}, got 0"),
        ("resolution", [8, -8.5, 8], "[1]", f"{NUMBER}, got -8.5"),
        ("resolution", ["8", 8, 8], "[0]", f'{NUMBER}, got "8"'),
        ("resolution", [True, 8, 8], "[0]", f"{NUMBER}, got true"),
        ("resolution", [10**400, 8, 8], "[0]", f"{NUMBER}, got an integer of 1329 bits"),
        ("chunk_sizes", [], "", f"{AT_LEAST_ONE}, got []"),
        ("chunk_sizes", DELETE, "", f"missing: {AT_LEAST_ONE}"),
        (
            "chunk_sizes",
            [64, 64, 64],
            "",
            "expected a list of sizes such as [[64, 64, 64]], got [64, 64, 64]",
        ),
        ("chunk_sizes", [[64] * 3, [1, 2, 0]], "[1][2]", "expected an integer >= 1, got 0"),
        ("chunk_sizes", [[64] * 3, 8], "[1]", f"{THREE}, got 8"),
        ("chunk_sizes", [[-64, 64, 64]], "[0][0]", "expected an integer >= 1, got -64"),
        ("chunk_sizes", [[1] * 3] * 4097, "", "expected at most 4096 entries, got 4097"),
        ("hidden", "true", "", 'expected true or false, got "true"'),
        ("hidden", 1, "", "expected true or false, got 1"),
        ("sharding", [], "", "expected an object of sharding parameters, got []"),
        (
            "sharding",
            sharding_json(hash="md5"),
            ".hash",
            'expected "identity" or "murmurhash3_x86_128", got "md5"',
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_one_fault_is_one_problem_that_says_where_and_what(
    name: str, value: Any, where: str, what: str
) -> None:
    scale = without(name) if value is DELETE else scale_json(**{name: value})
    assert message(info_json(scale)) == f"info: scales[0].{name}{where}: {what}"


def test_a_sharded_scale_has_exactly_one_chunk_size() -> None:
    scale = scale_json(sharding=sharding_json(), chunk_sizes=[[64, 64, 64], [32, 32, 32]])
    assert message(info_json(scale)) == (
        "info: scales[0].chunk_sizes: expected exactly one, because the scale is sharded; got 2"
    )


def test_an_unknown_encoding_is_named_with_those_that_are_known() -> None:
    text = message(info_json(scale_json(encoding="npz")))
    assert text.startswith("info: scales[0].encoding: expected one of ")
    assert '"raw", ' in text
    assert text.endswith(', got "npz"')


def test_letters_that_only_look_like_ascii_are_no_encoding() -> None:
    assert "K".lower() == "k"  # the Kelvin sign
    assert locations(info_json(scale_json(encoding="crac\u212ale"))) == ["scales[0].encoding"]


def test_every_problem_of_a_scale_is_listed() -> None:
    scale = {"size": [0, 1, "2"], "resolution": [0, 1, 2], "encoding": 7, "chunk_sizes": [[1]]}
    assert locations(info_json(scale)) == [
        "scales[0].key",
        "scales[0].size[0]",
        "scales[0].size[2]",
        "scales[0].resolution[0]",
        "scales[0].chunk_sizes[0]",
        "scales[0].encoding",
    ]


def test_problems_between_members_are_listed_beside_those_within() -> None:
    scale = scale_json(key="", sharding=sharding_json(), chunk_sizes=[[1, 1, 1], [2, 2, 2]])
    assert locations(info_json(scale)) == ["scales[0].key", "scales[0].chunk_sizes"]


class TestExtents:
    def test_the_largest_are_accepted(self) -> None:
        largest = [2**62 - 1] * 3
        scale = only(scale_json(size=largest, voxel_offset=[0, 0, 0], chunk_sizes=[largest]))
        assert scale.grid.shape == (1, 1, 1)
        lowest = only(scale_json(voxel_offset=[-(2**62) + 2] * 3))
        assert lowest.grid.bounds.start == (-(2**62) + 2,) * 3

    def test_of_2_to_the_40_are_accepted(self) -> None:
        assert only(scale_json(size=[2**40] * 3)).grid.num_cells == 2**34 * 2**35 * 2**36

    @pytest.mark.parametrize(("bits", "fine"), [((22, 21, 21), True), ((22, 22, 21), False)])
    def test_chunk_ids_of_a_sharded_scale_fit_in_64_bits(
        self, bits: tuple[int, int, int], fine: bool
    ) -> None:
        scale = scale_json(
            size=[2**n for n in bits], chunk_sizes=[[1, 1, 1]], sharding=sharding_json()
        )
        if fine:
            assert only(scale).grid.num_chunk_id_bits == 64
        else:
            assert message(info_json(scale)) == (
                "info: scales[0].sharding: chunk ids of the grid (4194304, 4194304, 2097152) "
                "have 65 bits; expected at most 64: use larger chunks"
            )
            assert only({**scale, "sharding": None}).grid.num_chunk_id_bits == 65


class TestDamaged:
    def test_a_damaged_scale_keeps_its_place_and_hides_no_other(self) -> None:
        broken = {"key": "16_16_16", "encoding": "npz", "anything": [1, None]}
        info = read(info_json(scale_json(), broken, scale_json(key="32_32_32")))
        assert [type(scale) for scale in info.scales] == [Scale, DamagedScale, Scale]
        assert [index for index, _ in info.usable_scales] == [0, 2]
        damaged = info.scales[1]
        assert isinstance(damaged, DamagedScale)
        assert damaged.key == "16_16_16"
        assert {problem.location for problem in damaged.problems} == {
            "scales[1].size",
            "scales[1].resolution",
            "scales[1].chunk_sizes",
            "scales[1].encoding",
        }

    @pytest.mark.parametrize(
        "entry", [None, 3, "scale", [], {}, {"key": 5}, scale_json(encoding="npz", hidden=None)]
    )
    def test_it_is_written_back_unchanged(self, entry: Any) -> None:
        info = read(info_json(scale_json(), entry))
        assert isinstance(info.scales[1], DamagedScale)
        assert info.to_json()["scales"][1] == entry

    def test_it_is_a_value(self) -> None:
        info = read(info_json(scale_json(), {"key": "x", "deep": [{}]}))
        assert pickle.loads(pickle.dumps(info.scales[1])) == info.scales[1]
        assert hash(info) == hash(pickle.loads(pickle.dumps(info)))

    def test_problems_of_all_scales_are_listed_if_none_can_be_used(self) -> None:
        document = info_json(scale_json(key=""), 5, scale_json(encoding="npz"))
        assert locations(document) == ["scales[0].key", "scales[1]", "scales[2].encoding"]

    def test_an_encoding_that_cannot_hold_the_data_type_damages_its_scale_only(self) -> None:
        labels = scale_json(
            encoding="compressed_segmentation", compressed_segmentation_block_size=[8, 8, 8]
        )
        info = read(info_json(labels, scale_json(key="raw"), data_type="uint16"))
        assert [str(problem) for problem in info.scales[0].problems] == [  # type: ignore[union-attr]
            "scales[0].encoding: compressed_segmentation holds uint32, uint64; "
            "the volume's data_type is uint16"
        ]
        assert info.to_json()["scales"][0] == labels


class TestParameters:
    def test_of_the_encoding_are_read_and_written(self) -> None:
        document = scale_json(
            encoding="compressed_segmentation", compressed_segmentation_block_size=[5, 7, 3]
        )
        scale = only(document)
        assert scale.codec.to_parameters() == {"compressed_segmentation_block_size": [5, 7, 3]}
        assert scale.extra == {}
        assert scale.to_json() == document

    @pytest.mark.parametrize("block_size", [DELETE, None], ids=["absent", "null"])
    def test_that_are_required_must_be_there(self, block_size: Any) -> None:
        document = scale_json(encoding="compressed_segmentation")
        if block_size is None:
            document["compressed_segmentation_block_size"] = None
        assert message(info_json(document)) == (
            "info: scales[0].compressed_segmentation_block_size: missing: "
            "the encoding compressed_segmentation requires it"
        )

    @pytest.mark.parametrize(
        "block_size",
        [[0, 8, 8], [8, 8], [8, 8, 8, 8], "8", 8, [-1, 8, 8], [2**31] * 3, [8.5, 8, 8]],
    )
    def test_that_are_wrong_are_problems_of_theirs(self, block_size: Any) -> None:
        document = scale_json(
            encoding="compressed_segmentation", compressed_segmentation_block_size=block_size
        )
        (location, *_) = locations(info_json(document))
        assert location.startswith("scales[0].compressed_segmentation_block_size")


class TestConstructor:
    def test_checks_what_from_json_checks(self) -> None:
        with pytest.raises(MetadataError) as caught:
            Scale(
                key="/absolute",
                size=(0, 1, 1),
                resolution=(8, 8, 0),
                chunk_sizes=((64, 64, 64), (32, 32, 32)),
                codec=Raw(),
                sharding=ShardingSpec.from_json(sharding_json()),
            )
        assert str(caught.value) == (
            'scale "/absolute":'
            '\n  - key: expected a relative path; "/absolute" is absolute'
            "\n  - size[0]: expected an integer >= 1, got 0"
            "\n  - resolution[2]: expected a positive finite number, got 0"
            "\n  - chunk_sizes: expected exactly one, because the scale is sharded; got 2"
        )

    def test_takes_lists_and_numpy_numbers(self) -> None:
        scale = Scale(
            key="8_8_8",
            size=np.array([100, 200, 300]),  # type: ignore[arg-type]
            resolution=[np.float32(8), 8, 8],  # type: ignore[arg-type]
            chunk_sizes=[[64, 32, 16]],  # type: ignore[arg-type]
            voxel_offset=[1, -2, np.int8(3)],  # type: ignore[arg-type]
            codec=Raw(),
        )
        assert scale == only(scale_json())
        assert hash(scale) == hash(only(scale_json()))
        assert type(scale.voxel_offset[2]) is int

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"codec": "raw"}, "codec: expected a Codec, got str"),
            ({"sharding": {}}, "sharding: expected a ShardingSpec or None, got dict"),
            ({"extra": [1]}, "extra: expected a mapping, got list"),
        ],
    )
    def test_refuses_other_types(self, change: dict[str, Any], words: str) -> None:
        with pytest.raises(TypeError, match=f"^{words}$"):
            replace(only(scale_json()), **change)

    @pytest.mark.parametrize("extra", [{"key": "x"}, {"encoding": "raw"}, {"sharding": None}])
    def test_extra_members_may_not_be_members_of_the_specification(
        self, extra: dict[str, Any]
    ) -> None:
        with pytest.raises(MetadataError, match=r"extra: .* is a member of its own"):
            replace(only(scale_json()), extra=extra)

    def test_extra_members_must_be_json(self) -> None:
        with pytest.raises(MetadataError, match=r"extra\.a\[0\]: expected a JSON value, got set"):
            replace(only(scale_json()), extra={"a": [set()]})

    def test_replace_checks_again(self) -> None:
        scale = only(scale_json())
        assert replace(scale, key="other").key == "other"
        with pytest.raises(MetadataError, match=r"^scale \"8_8_8\": size: expected 3 integers"):
            replace(scale, size=(1, 2))


def test_from_json_reads_a_scale_alone() -> None:
    assert Scale.from_json(scale_json()) == only(scale_json())
    assert Scale.from_json(json.dumps(scale_json()).encode()) == only(scale_json())
    with pytest.raises(MetadataError, match=r"^here:\n  - key: missing") as caught:
        Scale.from_json("{}", source="here")
    assert [problem.location for problem in caught.value.problems] == [
        "key", "size", "resolution", "chunk_sizes", "encoding",
    ]  # fmt: skip


def test_scales_that_differ_only_in_unknown_members_have_one_hash() -> None:
    plain, noted = only(scale_json()), only(scale_json(note={"a": [1]}))
    assert plain != noted
    assert hash(plain) == hash(noted)
    assert pickle.loads(pickle.dumps(noted)) == noted
