"""Cells of a spatial index, and the boxes in nm that objects take up in them. Pure.

Not in the specification: files of Igneous and CloudVolume, for skeletons and meshes. Each
cell is one JSON file, named after its box in nm, that maps ids to boxes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from precomputed_store.errors import FormatError, UnsupportedError
from precomputed_store.metadata import Scale
from precomputed_store.metadata.spatial_index import SpatialIndexSpec

__all__ = ["Boxes", "Cell", "SpatialGrid", "box_of_name", "decode_cell", "encode_cell", "meets"]

Cell: TypeAlias = tuple[int, int, int]
Boxes: TypeAlias = dict[int, tuple[float, ...]]
"""Id → least x, y, z, then greatest x, y, z, in nm."""

_MOST_CELLS = 10_000_000
_NUMBER = r"(-?[0-9]{1,20}(?:\.[0-9]{1,20})?)"
_NAME = re.compile("_".join([f"{_NUMBER}-{_NUMBER}"] * 3) + r"\.spatial")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialGrid:
    """How a spatial index divides the bounds of a scale. Everything outside counts to the
    nearest cell.

    Attributes
    ----------
    spec : SpatialIndexSpec
    start, stop : (float, float, float)
        Corners of the scale in nm; the last cells are cut off there.
    """

    spec: SpatialIndexSpec
    start: tuple[float, float, float]
    stop: tuple[float, float, float]

    def __post_init__(self) -> None:
        extents = zip(self.start, self.stop, self.spec.chunk_size, strict=True)
        if not all((b - a) / c < _MOST_CELLS for a, b, c in extents):
            raise UnsupportedError(
                f"spatial_index: cells of {self.spec.chunk_size} nm do not fit bounds from "
                f"{self.start} to {self.stop} nm"
            )
        if math.prod(self.shape) > _MOST_CELLS:
            raise UnsupportedError(
                f"spatial_index: cells of {self.spec.chunk_size} nm make {math.prod(self.shape)} "
                f"files; expected at most {_MOST_CELLS}: take larger ones"
            )

    @classmethod
    def of_scale(cls, spec: SpatialIndexSpec, scale: Scale) -> SpatialGrid:
        """The grid over a scale of the layer."""
        resolution = spec.resolution or scale.resolution
        corners = zip(scale.voxel_offset, scale.size, resolution, strict=True)
        start, stop = zip(*((o * r, (o + n) * r) for o, n, r in corners), strict=True)
        return cls(spec=spec, start=start, stop=stop)

    @property
    def shape(self) -> Cell:
        """Number of cells along x, y, z."""
        extents = zip(self.start, self.stop, self.spec.chunk_size, strict=True)
        x, y, z = (max(1, math.ceil(round((b - a) / c, 6))) for a, b, c in extents)
        return x, y, z

    def name(self, cell: Cell) -> str:
        """File of a cell: ``"0-4096_0-4096_0-1800.spatial"``."""
        digits = max(map(_decimals, self.spec.resolution or (1,)))
        parts = []
        for axis, index in enumerate(cell):
            size = self.spec.chunk_size[axis]
            low = self.start[axis] + index * size
            high = min(low + size, self.stop[axis])
            parts.append(f"{_number(low, digits)}-{_number(high, digits)}")
        return "_".join(parts) + ".spatial"

    def cells(self, box: ArrayLike | None = None) -> Iterator[Cell]:
        """Cells that a box meets, or all."""
        if box is None:
            yield from itertools.product(*map(range, self.shape))
            return
        low, high = self.corner_cells(box)
        yield from itertools.product(*(range(a, b + 1) for a, b in zip(low, high, strict=True)))

    def corner_cells(self, box: ArrayLike) -> tuple[Cell, Cell]:
        """The least and the greatest cell that a box meets."""
        low, high = map(tuple, self._cells_of(np.asarray(box, dtype=np.float64)).tolist())
        return low, high

    def boxes(
        self, vertices: NDArray[np.float32], elements: NDArray[Any]
    ) -> dict[Cell, tuple[float, ...]]:
        """What an object takes up of each cell that it meets.

        Parameters
        ----------
        vertices : array (n, 3)
            In nm.
        elements : integer array (m, k)
            Vertices of each edge or face. One that leaves its cell counts, with its box, to
            all cells that the box meets.
        """
        points = np.asarray(vertices, dtype=np.float64)
        if not len(points):
            return {}
        where = self._cells_of(points)
        low, high = where[elements].min(axis=1), where[elements].max(axis=1)
        crossing = np.flatnonzero((low != high).any(axis=1)).tolist()
        found: dict[Cell, NDArray[np.float64]] = {}
        cells, inverse = np.unique(where, axis=0, return_inverse=True)
        order = np.argsort(inverse.ravel(), kind="stable")
        starts = np.searchsorted(inverse.ravel()[order], np.arange(len(cells)))
        lows = np.minimum.reduceat(points[order], starts)
        highs = np.maximum.reduceat(points[order], starts)
        for index, cell in enumerate(map(tuple, cells.tolist())):
            found[cell] = np.stack([lows[index], highs[index]])
        for element in crossing:
            corners = points[elements[element]]
            box = np.stack([corners.min(axis=0), corners.max(axis=0)])
            for cell in self.cells(box):
                part = np.clip(box, *self._limits(cell))
                known = found.get(cell, part)
                found[cell] = np.stack(
                    [np.minimum(known[0], part[0]), np.maximum(known[1], part[1])]
                )
        return {cell: tuple(box.ravel().tolist()) for cell, box in found.items()}

    def _cells_of(self, points: NDArray[np.float64]) -> NDArray[np.int64]:
        relative = (points - np.array(self.start)) / np.array(self.spec.chunk_size, np.float64)
        last = np.array(self.shape) - 1
        clipped: NDArray[np.int64] = np.clip(np.floor(relative), 0, last).astype(np.int64)
        return clipped

    def _limits(self, cell: Cell) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A cell's corners; beyond the bounds, the outer cells go on."""
        index, size = np.array(cell), np.array(self.spec.chunk_size, np.float64)
        low = np.array(self.start) + index * size
        return (
            np.where(index == 0, -np.inf, low),
            np.where(index == np.array(self.shape) - 1, np.inf, low + size),
        )


def box_of_name(name: str) -> tuple[float, ...] | None:
    """Corners of the cell that a file is named after, or None if it is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    x0, x1, y0, y1, z0, z1 = map(float, match.groups())
    return x0, y0, z0, x1, y1, z1


def meets(box: tuple[float, ...], query: NDArray[np.float64]) -> bool:
    """Whether a box of the index, corners included, meets a half-open one of shape (2, 3)."""
    low, high = query.tolist()
    return all(box[a] < high[a] and box[a + 3] >= low[a] for a in range(3))


def encode_cell(boxes: Mapping[int, tuple[float, ...]]) -> bytes:
    """The file of a cell."""
    document = {str(i): list(boxes[i]) for i in sorted(boxes)}
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def decode_cell(data: bytes) -> Boxes:
    """What the file of a cell holds.

    Raises
    ------
    FormatError
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise FormatError(f"expected an object of ids, got {type(document).__name__}")
    if _is_sound(document):
        return dict(zip(map(int, document), map(tuple, document.values()), strict=True))
    return {_id(key): _box(key, value) for key, value in document.items()}


def _is_sound(document: dict[str, Any]) -> bool:
    """Whether all is well, told faster than one by one; False if it is not known."""
    digits = "".join(document)
    values = document.values()
    if not (
        digits.isascii() and digits.isdecimal() and all(0 < len(key) < 20 for key in document)
    ):
        return False
    if not ({*map(type, values)} == {list} and {*map(len, values)} == {6}):
        return False
    corners = list(itertools.chain.from_iterable(values))
    if not {*map(type, corners)} <= {int, float}:
        return False
    with contextlib.suppress(OverflowError):
        return bool((np.abs(np.array(corners, np.float64)) < 1e300).all())
    return False


def _id(key: str) -> int:
    if not re.fullmatch("[0-9]{1,20}", key) or int(key) >= 1 << 64:
        raise FormatError(f"{key[:40]!r} is no id; expected an integer below 2**64")
    return int(key)


def _box(key: str, value: object) -> tuple[float, ...]:
    if isinstance(value, list) and len(value) == 6 and all(map(_is_number, value)):
        return tuple(value)
    raise FormatError(f"id {key}: expected the 6 corners of a box, got {str(value)[:100]}")


def _is_number(item: object) -> bool:
    return isinstance(item, int | float) and not isinstance(item, bool) and abs(item) < 1e300


def _decimals(length: float) -> int:
    return len(str(length).partition(".")[2]) if isinstance(length, float) else 0


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if digits else str(round(value))
