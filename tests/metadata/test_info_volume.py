"""The members of the volume itself, what is written, and what other programs refuse."""

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from info_builders import (
    TYPE,
    info_json,
    locations,
    message,
    read,
    scale_json,
    sharding_json,
)

from precomputed_store.codecs.raw import Raw
from precomputed_store.errors import CompatibilityWarning, MetadataError, Problem
from precomputed_store.metadata import (
    DATA_TYPES,
    OTHER_DATA_TYPES,
    DamagedScale,
    Scale,
    VolumeInfo,
)


def without(*names: str) -> dict[str, Any]:
    return {key: value for key, value in info_json().items() if key not in names}


def notes(document: Any) -> list[str]:
    return [str(note) for note in read(document).warnings]


def test_a_volume_has_the_members_of_its_json() -> None:
    info = read(info_json(mesh="mesh", skeletons="../skeletons", app={"by": "me"}))
    assert info == VolumeInfo(
        layer_type="segmentation",
        data_type="uint32",
        num_channels=1,
        scales=(Scale.from_json(scale_json()),),
        mesh="mesh",
        skeletons="../skeletons",
        extra={"app": {"by": "me"}},
    )
    assert info.dtype == np.dtype("uint32")
    assert info.links == {"mesh": "mesh", "skeletons": "../skeletons"}
    assert info.segment_properties is None


def test_a_sound_document_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        info = VolumeInfo.from_json(info_json(scale_json(sharding=sharding_json()), mesh="mesh"))
    assert info.warnings == ()


@pytest.mark.parametrize("data_type", [*DATA_TYPES, *OTHER_DATA_TYPES])
def test_data_types_are_those_of_numpy(data_type: str) -> None:
    assert read(info_json(data_type=data_type)).dtype == np.dtype(data_type)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("type", "mesh", 'expected "image" or "segmentation", got "mesh"'),
        ("type", None, 'expected "image" or "segmentation", got null'),
        ("data_type", "complex64", 'expected one of "uint8", "int8", '),
        ("data_type", "<u4", ', got "<u4"'),
        ("data_type", 3, ", got 3"),
        ("num_channels", 0, "expected an integer >= 1, got 0"),
        ("num_channels", "1", 'expected an integer >= 1, got "1"'),
        ("num_channels", 1.5, "expected an integer >= 1, got 1.5"),
        ("num_channels", True, "expected an integer >= 1, got true"),
        ("num_channels", 2**31, "expected an integer <= 2147483647, got 2147483648"),
        ("scales", [], "expected a list of at least one scale, got []"),
        ("scales", {}, "expected a list of at least one scale, got an empty object"),
        ("scales", "8_8_8", 'expected a list of at least one scale, got "8_8_8"'),
        ("scales", [{}] * 4097, "expected at most 4096 entries, got 4097"),
        ("mesh", 5, "expected the name of a folder, got 5"),
        ("skeletons", ["a"], 'expected the name of a folder, got ["a"]'),
        ("segment_properties", {}, "expected the name of a folder, got an empty object"),
        ("@type", None, f'expected "{TYPE}", got null'),
        ("@type", "zarr", f'expected "{TYPE}", got "zarr"'),
        ("@type", TYPE.upper(), f'expected "{TYPE}", got "NEURO'),
    ],
    ids=lambda value: str(value)[:30],
)
def test_one_fault_is_one_problem_that_says_where_and_what(
    name: str, value: Any, what: str
) -> None:
    text = message(info_json(**{name: value}))
    assert text.startswith(f"info: {name}: ")
    assert what in text


@pytest.mark.parametrize("name", ["type", "data_type", "num_channels", "scales"])
def test_what_is_missing_is_named(name: str) -> None:
    assert message(without(name)).startswith(f"info: {name}: missing: expected ")


def test_problems_of_the_volume_and_of_its_scales_are_listed_together() -> None:
    document = info_json(scale_json(size=[0, 1, 1]), type="x", data_type="y", num_channels=-1)
    assert locations(document) == ["type", "data_type", "num_channels", "scales[0].size[0]"]


def test_the_type_is_optional() -> None:
    assert read(without("@type")) == read(info_json())


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("neuroglancer_legacy_mesh", "meshes"),
        ("neuroglancer_multilod_draco", "multi-resolution meshes"),
        ("neuroglancer_skeletons", "skeletons"),
        ("neuroglancer_annotations_v1", "annotations"),
        ("neuroglancer_segment_properties", "segment properties"),
    ],
)
def test_another_kind_of_folder_is_called_by_its_name(kind: str, name: str) -> None:
    assert message({"@type": kind, "transform": []}) == (
        f'info: @type: expected "{TYPE}"; this is a folder of {name}'
    )


@pytest.mark.parametrize("name", ["mesh", "skeletons", "segment_properties", "redirect"])
def test_links_may_be_null_and_are_then_left_out(name: str) -> None:
    info = read(info_json(**{name: None}))
    assert info == read(info_json())
    assert name not in info.to_json()


class TestWarnings:
    def test_are_given_once_and_all_together(self) -> None:
        document = info_json(
            scale_json(png_level=3), type="SEGMENTATION", data_type="float64", mesh=None
        )
        with pytest.warns(CompatibilityWarning) as caught:
            info = VolumeInfo.from_json(document, source="/data/info")
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert str(caught[0].message) == "/data/info:" + "".join(
            f"\n  - {note}" for note in info.warnings
        )
        assert {note.location for note in info.warnings} == {
            "mesh", "type", "data_type", "scales[0].png_level",
        }  # fmt: skip

    def test_alone_stand_on_one_line(self) -> None:
        with pytest.warns(CompatibilityWarning, match=r"^info: num_channels: 3: Neuroglancer"):
            VolumeInfo.from_json(info_json(num_channels=3))

    @pytest.mark.parametrize("data_type", OTHER_DATA_TYPES)
    def test_of_data_types_beyond_the_specification(self, data_type: str) -> None:
        assert notes(info_json(data_type=data_type)) == [
            f"data_type: Neuroglancer and TensorStore cannot read {data_type}"
        ]

    def test_of_float_labels(self) -> None:
        assert notes(info_json(data_type="float32")) == [
            "data_type: float32 is meant for images, not for a segmentation"
        ]
        assert notes(info_json(data_type="float32", type="image")) == []

    def test_of_several_channels_of_labels(self) -> None:
        assert notes(info_json(num_channels=2)) == [
            "num_channels: 2: Neuroglancer shows segmentations of 1 channel only"
        ]
        assert notes(info_json(num_channels=2, type="image")) == []

    def test_of_names_that_are_not_lower_case(self) -> None:
        scale = scale_json(encoding="RAW", sharding=sharding_json(hash="Identity"))
        assert notes(info_json(scale, data_type="UInt32")) == [
            'data_type: "UInt32": other readers expect lower case',
            'scales[0].sharding.hash: "Identity": other readers expect lower case',
            'scales[0].encoding: "RAW": other readers expect lower case',
        ]

    def test_of_integers_written_as_floats(self) -> None:
        document = info_json(scale_json(chunk_sizes=[[64.0, 32, 16]]), num_channels=1.0)
        assert notes(document) == [
            "num_channels: 1.0 is not written as an integer",
            "scales[0].chunk_sizes[0][0]: 64.0 is not written as an integer",
        ]
        assert b"64.0" not in read(document).to_bytes()

    def test_of_nulls(self) -> None:
        document = info_json(scale_json(sharding=None), mesh=None)
        assert [note.split(":")[0] for note in notes(document)] == ["mesh", "scales[0].sharding"]

    def test_of_parameters_of_another_encoding(self) -> None:
        scale = scale_json(compressed_segmentation_block_size=[8, 8, 8], something_else=1)
        assert notes(info_json(scale)) == [
            "scales[0].compressed_segmentation_block_size: belongs to compressed_segmentation: "
            "TensorStore refuses it on raw"
        ]
        assert read(info_json(scale)).to_json()["scales"] == [scale]

    def test_of_links_on_an_image(self) -> None:
        (note,) = notes(info_json(type="image", mesh="mesh"))
        assert note.startswith("mesh: is meant for a segmentation")

    @pytest.mark.parametrize("link", ["", "/mesh", "gs://bucket/mesh", "a\\b"])
    def test_of_links_that_lead_nowhere(self, link: str) -> None:
        (note,) = notes(info_json(skeletons=link))
        assert note.startswith("skeletons: expected a relative path; ")
        assert read(info_json(skeletons=link)).to_json()["skeletons"] == link

    def test_of_a_scale_that_is_finer_than_the_one_before(self) -> None:
        scales = [
            scale_json(key=str(i), resolution=resolution)
            for i, resolution in enumerate([[8, 8, 40], [16, 16, 40], [32, 32, 39.5]])
        ]
        assert notes(info_json(*scales)) == [
            "scales[2].resolution: (32, 32, 39.5) is finer than (16, 16, 40) of scales[1]: "
            "Neuroglancer expects the finest scale first"
        ]

    def test_of_scales_that_share_a_folder_but_differ(self) -> None:
        scales = [
            scale_json(key="a"),
            scale_json(key="b"),
            scale_json(key="a", size=[50, 100, 150]),
        ]
        (note,) = notes(info_json(*scales))
        assert note.startswith("scales[2].key: scales[0] has the same key but differs")
        assert notes(info_json(scale_json(), scale_json(resolution=[16, 16, 16]))) == []

    def test_of_coordinates_that_32_bit_floats_cannot_hold(self) -> None:
        assert notes(info_json(scale_json(voxel_offset=[16777217, 0, -16777216]))) == [
            "scales[0].voxel_offset[0]: Neuroglancer counts in 32-bit floats "
            "and takes 16777217 for 16777216"
        ]
        assert notes(info_json(scale_json(size=[2**40, 2**24, 2**24 + 2]))) == []

    def test_do_not_speak_of_damaged_scales(self) -> None:
        assert notes(info_json(scale_json(), {"key": None, "hidden": None, "size": [1.0]})) == []

    def test_are_there_for_volumes_built_by_hand(self) -> None:
        info = VolumeInfo(
            layer_type="segmentation",
            data_type="int64",
            num_channels=2,
            scales=(Scale.from_json(scale_json()),),
        )
        assert [note.location for note in info.warnings] == ["data_type", "num_channels"]

    def test_follow_a_replacement(self) -> None:
        info = read(info_json(num_channels=2, data_type="UINT8"))
        assert [note.location for note in info.warnings] == ["data_type", "num_channels"]
        assert replace(info, num_channels=1).warnings == ()


class TestWriting:
    def test_what_is_complete_comes_back_as_it_was(self) -> None:
        document = info_json(
            scale_json(sharding=sharding_json(), hidden=True, unknown={"a": [None, 1.5]}),
            {"damaged": None},
            mesh="mesh",
            skeletons="skeletons",
            segment_properties="properties",
            unknown=[{}, None],
        )
        assert read(document).to_json() == document

    def test_defaults_are_written_out(self) -> None:
        document = without("@type")
        del document["scales"][0]["voxel_offset"]
        document["scales"][0]["hidden"] = False
        written = read(document).to_json()
        assert written["@type"] == TYPE
        assert written["scales"][0]["voxel_offset"] == [0, 0, 0]
        assert "hidden" not in written["scales"][0]

    def test_names_are_written_in_lower_case(self) -> None:
        document = info_json(scale_json(encoding="Raw"), type="Image", data_type="UINT8")
        assert read(document).to_json() == info_json(type="image", data_type="uint8")

    def test_members_stand_in_a_fixed_order(self) -> None:
        document = info_json(mesh="m", extra_first=1)
        backwards = dict(reversed(document.items()))
        assert list(read(backwards).to_json()) == [
            "@type", "type", "data_type", "num_channels", "scales", "mesh", "extra_first",
        ]  # fmt: skip
        assert list(read(document).to_json()["scales"][0]) == [
            "key", "size", "resolution", "voxel_offset", "chunk_sizes", "encoding",
        ]  # fmt: skip

    def test_the_text_is_json_that_people_can_read(self) -> None:
        info = read(info_json(note="ü [\n1,\n2\n] \ud800", empty=[], one=[-1.5e-9]))
        text = info.to_bytes().decode("ascii")
        assert json.loads(text) == info.to_json()
        assert '\n      "size": [100, 200, 300],\n' in text
        assert '"one": [-1.5e-09]' in text
        assert text.endswith("}\n")

    def test_equal_volumes_have_equal_text(self) -> None:
        document = info_json(scale_json(sharding=sharding_json()))
        assert read(json.dumps(document)).to_bytes() == read(document).to_bytes()


class TestConstructor:
    SCALE = Scale.from_json(scale_json())

    def make(self, **changes: Any) -> VolumeInfo:
        fields = {"layer_type": "image", "data_type": "uint8", "scales": (self.SCALE,)}
        return VolumeInfo(**{**fields, **changes})

    def test_gives_what_from_json_gives(self) -> None:
        assert self.make() == read(info_json(type="image", data_type="uint8"))
        assert self.make(scales=[self.SCALE], num_channels=np.int64(1)) == self.make()
        assert hash(self.make(scales=[self.SCALE])) == hash(self.make())

    @pytest.mark.parametrize(
        ("change", "problems"),
        [
            ({"layer_type": "labels"}, ["type"]),
            ({"data_type": np.uint8}, ["data_type"]),
            ({"num_channels": 0, "mesh": 3}, ["num_channels", "mesh"]),
            ({"scales": ()}, ["scales"]),
            ({"scales": (DamagedScale(key=None, problems=(), json={}),)}, ["scales"]),
            ({"extra": {"type": "image"}}, ["extra"]),
            ({"extra": {"a": {1}}}, ["extra.a"]),
        ],
        ids=str,
    )
    def test_checks_what_from_json_checks(
        self, change: dict[str, Any], problems: list[str]
    ) -> None:
        with pytest.raises(MetadataError) as caught:
            self.make(**change)
        assert [problem.location for problem in caught.value.problems] == problems

    def test_refuses_an_encoding_that_cannot_hold_the_data_type(self) -> None:
        labels = Scale.from_json(
            scale_json(
                encoding="compressed_segmentation", compressed_segmentation_block_size=[8, 8, 8]
            )
        )
        with pytest.raises(MetadataError) as caught:
            self.make(scales=(self.SCALE, labels))
        assert caught.value.problems == (
            Problem(
                "scales[1].encoding",
                "compressed_segmentation holds uint32, uint64; the volume's data_type is uint8",
            ),
        )

    def test_refuses_scales_that_are_still_json(self) -> None:
        with pytest.raises(TypeError, match=r"^scales\[0\]: expected a Scale, got dict"):
            self.make(scales=(scale_json(),))

    def test_replace_checks_again(self) -> None:
        assert replace(self.make(), data_type="uint16").dtype == np.dtype("uint16")
        with pytest.raises(MetadataError, match=r'^info: type: expected "image"'):
            replace(self.make(), layer_type="mesh")


def test_a_volume_is_a_value() -> None:
    info = read(info_json(scale_json(sharding=sharding_json(x=1)), {}, note=[1], mesh="m"))
    copy = pickle.loads(pickle.dumps(info))
    assert copy == info
    assert copy.warnings == info.warnings
    assert hash(copy) == hash(info) == hash(replace(info, extra={}))
    assert Raw() in {scale.codec for _, scale in copy.usable_scales}
    with pytest.raises(AttributeError):
        info.num_channels = 2  # type: ignore[misc]
