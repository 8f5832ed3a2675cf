"""What TIFF files say of themselves: voxel sizes of OME and ImageJ, and how many pages there are.

The resolution tags of other TIFF files are not believed: most say 72 dots per inch.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from precomputed_store.importing.physical import in_nanometres, is_length

if TYPE_CHECKING:
    from tifffile import TiffFile

__all__ = ["check_whole", "voxel_size"]

_DEFAULT_OME_UNIT = "µm"
# Tags hold pixels per unit as the quotient of two integers: six digits of them are meant.
_TAG_DIGITS = 6


def check_whole(file: TiffFile) -> None:
    """Refuse a file that was cut: tifffile takes the pages that are left for all.

    Specification: TIFF 6.0, "Image File Directory": the last one is followed by 0.

    Raises
    ------
    ValueError
        There should be more pages.
    """
    pages, tiff, data = file.pages, file.tiff, file.filehandle
    last = pages[len(pages) - 1]
    data.seek(last.offset)
    (tags,) = struct.unpack(tiff.tagnoformat, data.read(tiff.tagnosize))
    data.seek(last.offset + tiff.tagnosize + tags * tiff.tagsize)
    following = data.read(tiff.offsetsize)
    if following.strip(b"\0"):
        raise ValueError(f"the file was cut: nothing can be read behind page {len(pages) - 1}")
    said = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
    found = sum(_num_planes(series.axes, series.shape) for series in file.series)
    if found < said:
        raise ValueError(f"the file was cut: it has {found} of {said} images")


def _num_planes(axes: str, shape: tuple[int, ...]) -> int:
    return math.prod(n for axis, n in zip(axes, shape, strict=True) if axis not in "YXS")


def voxel_size(file: TiffFile, series: int, axes: str) -> tuple[float | None, ...]:
    """Nanometres along each of the axes; None where the file does not say."""
    if file.is_ome and file.ome_metadata is not None:
        found = _ome(file.ome_metadata, series)
    elif file.is_imagej and file.imagej_metadata is not None:
        found = _imagej(file, file.imagej_metadata)
    else:
        found = {}
    return tuple(found.get(axis) for axis in axes)


def _ome(text: str, series: int) -> dict[str, float | None]:
    """`PhysicalSizeX` and so on of the image. Specification: OME-XML, "Pixels"."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return {}
    every = [element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"]
    if series >= len(every):
        return {}
    said = every[series].attrib
    return {
        axis.lower(): in_nanometres(
            _number(said.get(f"PhysicalSize{axis}")),
            said.get(f"PhysicalSize{axis}Unit", _DEFAULT_OME_UNIT),
        )
        for axis in "XYZ"
    }


def _imagej(file: TiffFile, said: dict[str, Any]) -> dict[str, float | None]:
    """Resolution tags in pixels per `unit`, and `spacing` between slices in that unit."""
    # ImageJ writes its micro sign escaped.
    unit = str(said.get("unit", "")).replace("\\u00B5", "µ")
    found = {"z": in_nanometres(said.get("spacing"), unit)}
    for axis, name in (("x", "XResolution"), ("y", "YResolution")):
        tag = file.pages.first.tags.get(name)
        pixels, units = (0, 1) if tag is None else tag.value
        length = units / pixels if is_length(pixels) else None
        found[axis] = in_nanometres(length, unit, digits=_TAG_DIGITS)
    return found


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
