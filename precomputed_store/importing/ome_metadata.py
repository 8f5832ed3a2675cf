"""The "multiscales" of OME-Zarr 0.4 and 0.5 → axes, voxel sizes and first voxels. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from precomputed_store.errors import FormatError
from precomputed_store.importing.attributes import axis_letter
from precomputed_store.importing.physical import first_voxels, in_nanometres

__all__ = ["OmeDataset", "ome_datasets"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OmeDataset:
    """One dataset of a multiscale image.

    Attributes
    ----------
    axes : str
    resolution : tuple of (float or None)
        Nanometres along each axis.
    voxel_offset : tuple of (int or None)
    notes : tuple of str
    """

    axes: str
    resolution: tuple[float | None, ...]
    voxel_offset: tuple[int | None, ...]
    notes: tuple[str, ...]


def ome_datasets(attributes: Mapping[str, Any], *, source: str) -> dict[str, OmeDataset]:
    """The datasets of a group by path, finest first; empty if it is no OME-Zarr image.

    Specification: OME-NGFF 0.4 and 0.5, "multiscales".

    Raises
    ------
    FormatError
        The metadata are broken.
    """
    images = attributes.get("ome", attributes).get("multiscales")
    if not images:
        return {}
    try:
        image = images[0]
        return {
            str(dataset["path"]).strip("/"): _dataset(image, dataset)
            for dataset in image["datasets"]
        }
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FormatError(f"{source}: its OME-Zarr metadata are broken: {error!r}") from error


def _dataset(image: Mapping[str, Any], dataset: Mapping[str, Any]) -> OmeDataset:
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in image["axes"]]
    letters = "".join(axis_letter(str(axis["name"])) for axis in axes)
    units = [str(axis.get("unit", "")) for axis in axes]
    scale, translation = [1.0] * len(axes), [0.0] * len(axes)
    # Those of the dataset come first, then those of the whole image.
    for step in (*_steps(dataset), *_steps(image)):
        factors, shifts = step.get("scale"), step.get("translation")
        if factors is not None:
            scale = [a * b for a, b in zip(scale, factors, strict=True)]
            translation = [a * b for a, b in zip(translation, factors, strict=True)]
        if shifts is not None:
            translation = [a + b for a, b in zip(translation, shifts, strict=True)]
    resolution = tuple(
        in_nanometres(length, unit) if letter in "xyz" else None
        for length, unit, letter in zip(scale, units, letters, strict=True)
    )
    lengths = [
        length if letter in "xyz" else None for length, letter in zip(scale, letters, strict=True)
    ]
    # Whether a place is the corner of a voxel or its centre the specification leaves open.
    voxels, notes = first_voxels(translation, lengths, letters, centres=True)
    return OmeDataset(axes=letters, resolution=resolution, voxel_offset=voxels, notes=notes)


def _steps(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from node.get("coordinateTransformations", ())
