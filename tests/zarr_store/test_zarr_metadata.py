"""A layer's metadata as documents of a Zarr hierarchy; the keys of its chunks."""

from __future__ import annotations

import json
from typing import Any

import pytest

import precomputed_store as ps
from precomputed_store.zarr_metadata import ChunkKey, ZarrHierarchy
from tests.oracles import make_info


def two_scales(**changes: Any) -> dict[str, Any]:
    info = make_info(
        size=(100, 60, 41), chunk_size=(64, 32, 16), voxel_offset=(5, -3, 0), resolution=(4, 4, 40)
    )
    coarse = {
        **info["scales"][0],
        "key": "8_8_40",
        "size": [51, 31, 41],
        "voxel_offset": [2, -2, 0],
        "resolution": [8, 8, 40],
    }
    info["scales"].append({**coarse, **changes})
    return info


def hierarchy(info: dict[str, Any], **options: Any) -> ZarrHierarchy:
    return ZarrHierarchy(info=ps.VolumeInfo.from_json(info), name="em", **options)


def document(of: ZarrHierarchy, key: str) -> Any:
    return json.loads(of.documents[key])


def test_an_array_document_describes_the_scale_in_reverse_order() -> None:
    found = document(hierarchy(two_scales()), "0/zarr.json")
    assert found["shape"] == [1, 41, 60, 100]
    assert found["chunk_grid"]["configuration"]["chunk_shape"] == [1, 16, 32, 64]
    assert found["dimension_names"] == ["channel", "z", "y", "x"]
    assert found["data_type"] == "uint8"
    assert found["fill_value"] == 0
    assert found["attributes"] == {
        "long_name": "image",
        "layer_type": "image",
        "scale": "4_4_40",
        "resolution": [4, 4, 40],
        "resolution_unit": "nm",
        "voxel_offset": [5, -3, 0],
        "size": [100, 60, 41],
    }
    (codec,) = found["codecs"]
    assert codec == {
        "name": "precomputed",
        "configuration": {
            "encoding": "raw",
            "size": [100, 60, 41],
            "chunk_size": [64, 32, 16],
            "voxel_offset": [5, -3, 0],
        },
    }


def test_parameters_of_the_encoding_are_in_the_codec() -> None:
    info = make_info(size=(9, 9, 9), dtype="uint64", encoding="compressed_segmentation")
    (codec,) = document(hierarchy(info), "0/zarr.json")["codecs"]
    assert codec["configuration"]["compressed_segmentation_block_size"] == [8, 8, 8]


def test_the_group_is_an_ome_multiscale_image_with_voxel_centres() -> None:
    (multiscale,) = document(hierarchy(two_scales()), "zarr.json")["attributes"]["ome"][
        "multiscales"
    ]
    nanometres = {"type": "space", "unit": "nanometer"}
    assert multiscale == {
        "name": "em",
        "axes": [
            {"name": "channel", "type": "channel"},
            {"name": "z", **nanometres},
            {"name": "y", **nanometres},
            {"name": "x", **nanometres},
        ],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1, 40, 4, 4]},
                    # (0 + ½) · 40, (−3 + ½) · 4, (5 + ½) · 4
                    {"type": "translation", "translation": [0, 20, -10, 22]},
                ],
            },
            {
                "path": "1",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1, 40, 8, 8]},
                    {"type": "translation", "translation": [0, 20, -12, 20]},
                ],
            },
        ],
    }


def test_a_damaged_scale_has_no_node_and_does_not_shift_the_others() -> None:
    info = two_scales()
    info["scales"].insert(1, {**info["scales"][0], "key": "x", "encoding": "from_the_future"})
    found = hierarchy(info)
    assert list(found.documents) == ["zarr.json", "0/zarr.json", "2/zarr.json"]
    datasets = document(found, "zarr.json")["attributes"]["ome"]["multiscales"][0]["datasets"]
    assert [dataset["path"] for dataset in datasets] == ["0", "2"]


def test_one_scale_alone_keeps_its_name() -> None:
    found = hierarchy(two_scales(), only=1)
    assert list(found.documents) == ["zarr.json", "1/zarr.json"]
    assert found.chunk("0/c/0/0/0/0") is None


def test_decoded_arrays_need_no_codec_of_ours() -> None:
    found = document(hierarchy(two_scales(), decoded=True), "0/zarr.json")
    assert found["codecs"] == [{"name": "bytes", "configuration": {"endian": "little"}}]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("0/c/0/0/0/0", ChunkKey(0, (0, 0, 0))),
        ("0/c/0/2/1/0", ChunkKey(0, (0, 1, 2))),
        ("1/c/0/2/0/0", ChunkKey(1, (0, 0, 2))),
        ("1/c/0/0/1/0", None),  # 31 voxels along y are one chunk
        ("2/c/0/0/0/0", None),  # no such scale
        ("0/c/1/0/0/0", None),  # all channels are in chunk 0
        ("0/c/0/0/0/2", None),
        ("0/c/0/0/0/00", None),
        ("0/c/0/0/0/-1", None),
        ("0/c/0/0/0", None),
        ("c/0/0/0/0", None),
        ("0/c.0.0.0.0", None),
        ("zarr.json", None),
    ],
)
def test_chunk_keys(key: str, expected: ChunkKey | None) -> None:
    assert hierarchy(two_scales()).chunk(key) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", ("zarr.json", "0", "1")),
        ("0", ("zarr.json", "c")),
        ("0/c", ("0",)),
        ("0/c/0", ()),
        ("0/c/0/2/1", ()),
        ("0/c/0/3", None),
        ("0/c/0/2/1/0", None),
        ("0/zarr.json", None),
        ("2", None),
    ],
)
def test_folders(path: str, expected: tuple[str, ...] | None) -> None:
    assert hierarchy(two_scales()).folders(path) == expected
