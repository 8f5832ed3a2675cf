"""Sixty damaged, hostile or unusual documents: each is read correctly or refused by name.

CloudVolume or TensorStore crash on some of them, and take others without a word.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from info_builders import DELETE, changed, info_json, locations, read, scale_json, sharding_json

SCALE = ("scales", 0)
LABELS = info_json(
    scale_json(encoding="compressed_segmentation", compressed_segmentation_block_size=[8, 8, 8])
)
SHARDED = info_json(scale_json(sharding=sharding_json()))
NAME = "compressed_segmentation_block_size"
BLOCK_SIZE = (*SCALE, NAME)
TEXT = json.dumps(info_json())


def without(*path: str | int) -> Any:
    return changed(info_json(), path, DELETE)


def scale_with(**changes: Any) -> Any:
    return info_json(scale_json(**changes))


def sharded(**changes: Any) -> Any:
    return info_json(scale_json(sharding=sharding_json(**changes)))


REFUSED: dict[str, tuple[Any, str]] = {
    "empty": ("", ""),
    "truncated": (TEXT[: len(TEXT) // 2], ""),
    "not text": (bytes(range(256)), ""),
    "null": ("null", ""),
    "array": ("[]", ""),
    "150,000 levels": ("[" * 150_000 + "]" * 150_000, ""),
    "150,000 levels below": (TEXT[:-1] + ', "x": ' + "[" * 150_000 + "]" * 150_000 + "}", ""),
    "17 MiB": (TEXT + " " * (17 << 20), ""),
    "NaN resolution": (TEXT.replace("[8, 8, 8]", "[8, NaN, 8]"), "scales[0].resolution[1]"),
    "infinite resolution": (TEXT.replace("[8, 8, 8]", "[8, 8, 1e999]"), "scales[0].resolution[2]"),
    "size given twice": (TEXT.replace('"size"', '"size": [1, 1, 1], "size"'), "scales[0]"),
    "type given twice": (TEXT.replace('"type"', '"type": "image", "type"'), ""),
    "no type": (without("type"), "type"),
    "no data type": (without("data_type"), "data_type"),
    "no channels": (without("num_channels"), "num_channels"),
    "no scales": (without("scales"), "scales"),
    "empty scales": (info_json(scales=[]), "scales"),
    "null scales": (info_json(scales=None), "scales"),
    "scales as object": (info_json(scales={"0": scale_json()}), "scales"),
    "null scale": (info_json(None), "scales[0]"),
    "no size": (without(*SCALE, "size"), "scales[0].size"),
    "no key": (without(*SCALE, "key"), "scales[0].key"),
    "no encoding": (without(*SCALE, "encoding"), "scales[0].encoding"),
    "no resolution": (without(*SCALE, "resolution"), "scales[0].resolution"),
    "no chunk sizes": (without(*SCALE, "chunk_sizes"), "scales[0].chunk_sizes"),
    "flat chunk sizes": (scale_with(chunk_sizes=[64, 64, 64]), "scales[0].chunk_sizes"),
    "empty chunk sizes": (scale_with(chunk_sizes=[]), "scales[0].chunk_sizes"),
    "negative chunk size": (scale_with(chunk_sizes=[[8, -8, 8]]), "scales[0].chunk_sizes[0][1]"),
    "zero chunk size": (scale_with(chunk_sizes=[[64, 64, 0]]), "scales[0].chunk_sizes[0][2]"),
    "size of two": (scale_with(size=[100, 100]), "scales[0].size"),
    "size as text": (scale_with(size=["100", 100, 100]), "scales[0].size[0]"),
    "negative size": (scale_with(size=[-100, 100, 100]), "scales[0].size[0]"),
    "zero size": (scale_with(size=[100, 0, 100]), "scales[0].size[1]"),
    "size beyond 64 bits": (scale_with(size=[100, 100, 2**64]), "scales[0].size[2]"),
    "fractional offset": (scale_with(voxel_offset=[0.5, 0, 0]), "scales[0].voxel_offset[0]"),
    "offset overflows": (scale_with(voxel_offset=[2**62 - 2, 0, 0]), "scales[0].voxel_offset[0]"),
    "zero resolution": (scale_with(resolution=[8, 8, 0]), "scales[0].resolution[2]"),
    "negative resolution": (scale_with(resolution=[-8, 8, 8]), "scales[0].resolution[0]"),
    "channels as text": (info_json(num_channels="1"), "num_channels"),
    "zero channels": (info_json(num_channels=0), "num_channels"),
    "unknown data type": (info_json(data_type="uint128"), "data_type"),
    "unknown encoding": (scale_with(encoding="webp"), "scales[0].encoding"),
    "wrong @type": (info_json(**{"@type": "neuroglancer_skeletons"}), "@type"),
    "unknown @type": (info_json(**{"@type": "zarr"}), "@type"),
    "block size 0": (changed(LABELS, BLOCK_SIZE, [0, 8, 8]), f"scales[0].{NAME}"),
    "block size 2**31": (changed(LABELS, BLOCK_SIZE, [2**31] * 3), f"scales[0].{NAME}"),
    "no block size": (changed(LABELS, BLOCK_SIZE, DELETE), f"scales[0].{NAME}"),
    "absolute key": (scale_with(key="/etc"), "scales[0].key"),
    "URL as key": (scale_with(key="file:///etc"), "scales[0].key"),
    "NUL in key": (scale_with(key="8_8_8\0"), "scales[0].key"),
    "unknown hash": (sharded(hash="sha1"), "scales[0].sharding.hash"),
    "too many shard bits": (sharded(shard_bits=63), "scales[0].sharding.shard_bits"),
    "too many minishard bits": (sharded(minishard_bits=60), "scales[0].sharding.minishard_bits"),
    "unknown shard format": (
        changed(SHARDED, (*SCALE, "sharding", "@type"), "neuroglancer_uint64_sharded_v2"),
        "scales[0].sharding.@type",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_place_of_the_fault(name: str) -> None:
    document, location = REFUSED[name]
    first = locations(document)[0]
    assert first.startswith(location) if location else first == ""


ACCEPTED: dict[str, tuple[Any, Any]] = {
    "byte order mark": (b"\xef\xbb\xbf" + TEXT.encode(), info_json()),
    "upper-case data type": (info_json(data_type="UINT32"), info_json()),
    "key above the folder": (scale_with(key="../secret"), scale_with(key="../secret")),
    "extents of 2**40": (scale_with(size=[2**40] * 3), scale_with(size=[2**40] * 3)),
    "a billion channels": (info_json(num_channels=10**9), info_json(num_channels=10**9)),
    "null links": (info_json(mesh=None, skeletons=None), info_json()),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_and_written_as_it_should_be(name: str) -> None:
    document, written = ACCEPTED[name]
    assert read(document).to_json() == written


def test_there_are_sixty_of_them() -> None:
    assert len(REFUSED) + len(ACCEPTED) == 60
