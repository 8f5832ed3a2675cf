"""A picture of a slice, made of numpy and our own png codec alone."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["overlay_png"]

RGB = npt.NDArray[np.uint8]

# Hues that lie far apart, whatever their number.
_GOLDEN_RATIO = 0.618034
_OPACITY = 0.4
_GAP = 12


def overlay_png(image: RGB, labels: npt.NDArray[Any], *, enlarge: int = 3) -> bytes:
    """A slice and, beside it, the same slice with its segments in colour.

    Parameters
    ----------
    image : numpy.ndarray of uint8, shape (y, x)
    labels : numpy.ndarray of int, shape (y, x)
        Segment ids; 0 is none.
    enlarge : int
        Pixels per voxel.

    Returns
    -------
    bytes
        A png file.
    """
    from precomputed_store.codecs.png import Png

    grey = np.repeat(_enlarged(image, enlarge)[..., np.newaxis], 3, axis=2)
    coloured = _coloured(grey, _enlarged(labels, enlarge))
    gap = np.full((grey.shape[0], _GAP, 3), 255, np.uint8)
    picture = np.concatenate([grey, gap, coloured], axis=1)
    # To the codec a picture is a chunk (channel, z, y, x) of one slice.
    return Png(png_level=9).encode(picture.transpose(2, 0, 1)[:, np.newaxis])


def _enlarged(plane: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    return plane.repeat(factor, axis=0).repeat(factor, axis=1)


def _coloured(grey: RGB, labels: npt.NDArray[Any]) -> RGB:
    """Segments washed with colour, their outlines in full colour."""
    ids, indices = np.unique(labels, return_inverse=True)
    colours = np.array(
        [colorsys.hsv_to_rgb(i * _GOLDEN_RATIO % 1, 0.75, 1) for i in range(len(ids))]
    )
    wash = 255 * colours[indices.reshape(labels.shape)]
    opacity = np.where(_outlines(labels), 1.0, _OPACITY) * (labels != 0)
    mixed: RGB = (grey + (wash - grey) * opacity[..., np.newaxis]).astype(np.uint8)
    return mixed


def _outlines(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbour belongs to another segment."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges
