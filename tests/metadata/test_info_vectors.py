"""Accepted and refused documents from TensorStore's tests, and where we decide otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from info_builders import read

from precomputed_store.codecs import codec_class
from precomputed_store.errors import MetadataError
from precomputed_store.metadata import OTHER_DATA_TYPES, Scale

FOREIGN = ("png_level", "jpeg_quality", "compressed_segmentation_block_size")


def difference(info: dict[str, Any]) -> str | None:
    """Why we accept what TensorStore refuses, or None where we agree with it."""
    (scale,) = info["scales"] or [{}]
    codec = codec_class(scale.get("encoding", ""))
    if codec is None:
        return None
    if info["data_type"] in OTHER_DATA_TYPES and info["data_type"] in codec.data_types:
        return "CloudVolume writes this data type: a warning"
    if any(name in scale and name not in codec.parameter_names() for name in FOREIGN):
        return "a parameter of another encoding does no harm: a warning"
    return None


def test_every_vector_is_judged_as_tensorstore_judges_it_but_for_listed_differences(
    vectors: dict[str, Any],
) -> None:
    differences = []
    for case in vectors["metadata_info_json"]:
        reason = None if case["accept"] else difference(case["info"])
        if reason is not None:
            differences.append((case["info"]["scales"][0]["encoding"], reason))
        if case["accept"] or reason is not None:
            scale = read(case["info"]).scales[0]
            assert isinstance(scale, Scale), case
        else:
            with pytest.raises(MetadataError):
                read(case["info"])
    assert sorted(differences) == [
        ("jpeg", "a parameter of another encoding does no harm: a warning"),
        ("raw", "CloudVolume writes this data type: a warning"),
        ("raw", "a parameter of another encoding does no harm: a warning"),
        ("raw", "a parameter of another encoding does no harm: a warning"),
    ]


def test_every_difference_is_a_warning(vectors: dict[str, Any]) -> None:
    for case in vectors["metadata_info_json"]:
        if not case["accept"] and difference(case["info"]) is not None:
            assert any(
                note.location == "data_type" or note.message.startswith("belongs to ")
                for note in read(case["info"]).warnings
            )


def test_accepted_vectors_are_written_back(vectors: dict[str, Any]) -> None:
    for case in vectors["metadata_info_json"]:
        if not case["accept"]:
            continue
        info = case["info"]
        scales = [{"voxel_offset": [0, 0, 0], **scale} for scale in info["scales"]]
        written = read(info).to_json()
        assert written == {"@type": written["@type"], **info, "scales": scales}
