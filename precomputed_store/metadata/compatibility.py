"""What is readable here, but is refused or misread by other programs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from precomputed_store.errors import Problem
from precomputed_store.metadata.encoding import parameter_owners
from precomputed_store.metadata.rules import path_problem

if TYPE_CHECKING:
    from precomputed_store.metadata.scale import Scale
    from precomputed_store.metadata.volume import VolumeInfo

__all__ = ["DATA_TYPES", "OTHER_DATA_TYPES", "volume_notes"]

DATA_TYPES = (
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32",
)  # fmt: skip
"""Data types of the specification."""

OTHER_DATA_TYPES = ("int64", "float16", "float64", "bool")
"""Data types that CloudVolume writes beyond those of the specification."""


def volume_notes(info: VolumeInfo) -> Iterator[Problem]:
    """Every reason why another program may refuse or misread this volume."""
    if info.data_type in OTHER_DATA_TYPES:
        yield Problem("data_type", f"Neuroglancer and TensorStore cannot read {info.data_type}")
    yield from _layer_type_notes(info)
    for name, link in info.links.items():
        if message := path_problem(link):
            yield Problem(name, message)
    yield from _foreign_parameters(info)
    yield from _imprecise_coordinates(info)
    for (finer, before), (index, scale) in pairwise(info.usable_scales):
        if any(b < a for a, b in zip(before.resolution, scale.resolution, strict=True)):
            yield Problem(
                f"scales[{index}].resolution",
                f"{scale.resolution} is finer than {before.resolution} of scales[{finer}]: "
                "Neuroglancer expects the finest scale first",
            )
    yield from _shared_keys(info)


def _layer_type_notes(info: VolumeInfo) -> Iterator[Problem]:
    if info.layer_type == "segmentation":
        if info.num_channels > 1:
            message = f"{info.num_channels}: Neuroglancer shows segmentations of 1 channel only"
            yield Problem("num_channels", message)
        if info.data_type == "float32":
            yield Problem("data_type", "float32 is meant for images, not for a segmentation")
    else:
        for name in info.links:
            yield Problem(
                name, "is meant for a segmentation; other programs ignore it on an image"
            )


def _foreign_parameters(info: VolumeInfo) -> Iterator[Problem]:
    scales = [(index, scale) for index, scale in info.usable_scales if scale.extra]
    owners = parameter_owners() if scales else {}
    for index, scale in scales:
        for name in scale.extra:
            if name in owners:
                message = f"belongs to {owners[name]}: TensorStore refuses it on {scale.encoding}"
                yield Problem(f"scales[{index}].{name}", message)


def _imprecise_coordinates(info: VolumeInfo) -> Iterator[Problem]:
    for index, scale in info.usable_scales:
        for name in ("voxel_offset", "size"):
            for i, value in enumerate(getattr(scale, name)):
                rounded = int(np.float32(value))
                if rounded != value:
                    yield Problem(
                        f"scales[{index}].{name}[{i}]",
                        f"Neuroglancer counts in 32-bit floats and takes {value} for {rounded}",
                    )


def _shared_keys(info: VolumeInfo) -> Iterator[Problem]:
    first: dict[str, tuple[int, Scale]] = {}
    for index, scale in info.usable_scales:
        earlier, other = first.setdefault(scale.key, (index, scale))
        if (scale.size, scale.voxel_offset, scale.codec) != (
            other.size, other.voxel_offset, other.codec,
        ):  # fmt: skip
            yield Problem(
                f"scales[{index}].key",
                f"scales[{earlier}] has the same key but differs: their chunks share a folder",
            )
