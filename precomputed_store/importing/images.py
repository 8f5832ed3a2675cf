"""PNG and JPEG: one slice per file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from precomputed_store.codecs.base import require
from precomputed_store.errors import UnsupportedError
from precomputed_store.importing.base import (
    EXTRA,
    FoundArray,
    ImportFormat,
    ImportRequest,
    SliceHeader,
    SliceReader,
    blame_file,
)
from precomputed_store.importing.slices import open_slices

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = ["IMAGES"]

# Pillow's modes → data type and channels. Of a palette ("P") the indices are the voxels.
_MODES: dict[str, tuple[str, int]] = {
    "1": ("bool", 1),
    "L": ("uint8", 1),
    "P": ("uint8", 1),
    "I;16": ("uint16", 1),
    "LA": ("uint8", 2),
    "RGB": ("uint8", 3),
    "RGBA": ("uint8", 4),
}


def open_image(request: ImportRequest) -> FoundArray:
    return open_slices([request.path], _READER)


def read_header(path: str) -> SliceHeader:
    with _opened(path) as image:
        dtype, channels = _MODES[image.mode]
        width, height = image.size
    shape = (height, width) if channels == 1 else (height, width, channels)
    return SliceHeader(shape=shape, dtype=np.dtype(dtype), axes="yxc"[: len(shape)])


def read_slice(path: str, rows: slice) -> np.ndarray[Any, Any]:
    with _opened(path) as image, blame_file(path):
        voxels: np.ndarray[Any, Any] = np.asarray(image)
    return voxels[rows]


def _opened(path: str) -> ImageFile:
    """The image, undecoded.

    Not by `PIL.Image.open`, which takes slices of 180 million pixels for an attack.
    """
    purpose = "reading PNG and JPEG"
    png = require("PIL.PngImagePlugin", extra=EXTRA, purpose=purpose)
    jpeg = require("PIL.JpegImagePlugin", extra=EXTRA, purpose=purpose)
    kind = png.PngImageFile if path.lower().endswith(".png") else jpeg.JpegImageFile
    with blame_file(path):
        image: ImageFile = kind(path)
    # Pillow would drop the lower byte of 16-bit colours without a word.
    raw = str(image.tile[0][3]) if image.tile else ""
    if image.mode not in _MODES or (image.mode != "I;16" and "16" in raw):
        mode = image.mode
        image.close()
        raise UnsupportedError(
            f"{path}: an image of mode {mode!r}{' with 16 bits' * ('16' in raw)}; read are "
            f"{', '.join(_MODES)}. Save the slices as TIFF"
        )
    return image


_READER = SliceReader(header=read_header, read=read_slice)

IMAGES = ImportFormat(
    name="image", suffixes=(".png", ".jpg", ".jpeg"), open=open_image, slices=_READER
)
