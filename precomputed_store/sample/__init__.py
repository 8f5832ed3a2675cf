"""A small real volume that comes with the package: fly brain and its segmentation.

Origin and licence: ATTRIBUTION.md in this folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

import numpy as np
import numpy.typing as npt

from precomputed_store.grid import XYZ

__all__ = ["SIZE", "VOXEL_OFFSET", "Sample", "attribution", "load"]

SIZE: XYZ = (160, 144, 30)
VOXEL_OFFSET: XYZ = (70, 40, 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An electron-microscopy image and its segmentation.

    Attributes
    ----------
    image : numpy.ndarray of uint8, shape (30, 144, 160)
        Brightness, ``(z, y, x)``.
    segmentation : numpy.ndarray of uint64, shape (30, 144, 160)
        Segment ids, ``(z, y, x)``.
    resolution : (int, int, int)
        Extent of a voxel along x, y and z, in nanometres.
    voxel_offset : (int, int, int)
        x, y and z of the first voxel in the volume that this was cut from.
    """

    image: npt.NDArray[np.uint8]
    segmentation: npt.NDArray[np.uint64]
    resolution: XYZ
    voxel_offset: XYZ


def load() -> Sample:
    """The sample as numpy arrays.

    Examples
    --------
    >>> from precomputed_store import sample
    >>> cut = sample.load()
    >>> cut.image.shape, cut.segmentation.dtype
    ((30, 144, 160), dtype('uint64'))
    """
    from precomputed_store.codecs.png import Png

    x, y, z = SIZE
    png = _file("image.png").read_bytes()
    image = Png().decode(png, shape=(1, z, y, x), dtype=np.dtype(np.uint8))
    with _file("segmentation.npz").open("rb") as file, np.load(file) as archive:
        segmentation = archive["ids"][archive["indices"]]
    return Sample(
        image=image[0],
        segmentation=segmentation,
        resolution=(10, 10, 10),
        voxel_offset=VOXEL_OFFSET,
    )


def attribution() -> str:
    """Origin and licence of the sample, as Markdown."""
    return _file("ATTRIBUTION.md").read_text(encoding="utf-8")


def _file(name: str) -> Traversable:
    return resources.files(__name__) / name
