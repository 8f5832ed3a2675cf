"""Which ids lie in a box: the `.spatial` files of a folder of skeletons or meshes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from precomputed_store.codecs import content
from precomputed_store.codecs.base import Buffer
from precomputed_store.concurrency import bounded
from precomputed_store.errors import FormatError, MetadataError, ObjectError
from precomputed_store.metadata import Scale, VolumeInfo
from precomputed_store.metadata.document import MAX_BYTES
from precomputed_store.metadata.skeleton import SpatialIndexSpec
from precomputed_store.spatial_grid import (
    Boxes,
    Cell,
    SpatialGrid,
    box_of_name,
    decode_cell,
    encode_cell,
    meets,
)
from precomputed_store.storage import Blob, Storage, Update, run_sync

__all__ = ["SpatialIndex", "default_spec", "grid_above", "layer_above"]

T = TypeVar("T")

_MOST_BYTES = 1 << 28
_VOXELS_PER_CELL = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialIndex:
    """The spatial index of a folder.

    Parameters
    ----------
    storage : Storage
        The folder of the skeletons or meshes.
    grid : SpatialGrid, optional
        Its cells. Without, they are listed, which some storages cannot, and a cell that
        is missing is not noticed.
    """

    storage: Storage
    grid: SpatialGrid | None

    def query(self, box_nm: ArrayLike) -> list[int]:
        """Ids whose boxes, in some cell, meet a box, ascending.

        Parameters
        ----------
        box_nm : array-like (2, 3)
            Least and greatest x, y, z in nm, half-open.

        Raises
        ------
        ObjectError
            A file of the index is damaged or missing.
        """
        box = _box(box_nm)
        names = list(self._names(box))
        found = self._fetch(names)
        return sorted({i for boxes in found for i, each in boxes.items() if meets(each, box)})

    def write(self, boxes: Mapping[Cell, Boxes]) -> None:
        """Store every cell anew."""
        grid = self._need_grid()

        async def put(cell: Cell) -> None:
            await self.storage.put_async(
                grid.name(cell),
                self._packed(boxes.get(cell, {})),
                content_type="application/json",
                content_encoding=self._encoding,
                cache_control="no-cache",
            )

        self._each(list(grid.cells()), put)

    def change(self, boxes: Mapping[Cell, Boxes], *, ids: Collection[int]) -> None:
        """Take `ids` out of every cell, then add `boxes`. Reads the whole index."""
        grid = self._need_grid()
        gone = frozenset(ids)

        async def update(cell: Cell) -> None:
            name, added = grid.name(cell), boxes.get(cell, {})
            stored = await self.storage.get_async(name, max_bytes=_MOST_BYTES)
            if not added and gone.isdisjoint(self._boxes(name, stored)):
                return

            def change(stored: Blob | None) -> Buffer:
                old = self._boxes(name, stored)
                kept = {i: box for i, box in old.items() if i not in gone}
                return self._packed(kept | added)

            await self.storage.apply_async(
                Update(
                    key=name,
                    change=change,
                    content_type="application/json",
                    content_encoding=self._encoding,
                    cache_control="no-cache",
                    guarded=self.storage.can_guard,
                    max_bytes=_MOST_BYTES,
                )
            )

        self._each(list(grid.cells()), update)

    @property
    def _encoding(self) -> Any:
        return "gzip" if self.storage.has_headers else None

    def _packed(self, boxes: Boxes) -> Buffer:
        data = encode_cell(boxes)
        return content.apply(data, "gzip") if self._encoding else data

    def _need_grid(self) -> SpatialGrid:
        if self.grid is None:
            raise ValueError(f"{self.storage.url}: there is no layer that the index belongs to")
        return self.grid

    def _names(self, box: NDArray[np.float64]) -> Sequence[str]:
        if self.grid is not None:
            return [self.grid.name(cell) for cell in self.grid.cells(box)]
        # Of cells at the border, what they hold may lie beyond.
        named = {name: box_of_name(name) for name in self.storage.list_names()}
        return [name for name, cell in named.items() if cell is not None]

    def _fetch(self, names: Sequence[str]) -> list[Boxes]:
        found: list[Boxes] = []

        async def fetch(name: str) -> None:
            stored = await self.storage.get_async(name, max_bytes=_MOST_BYTES)
            found.append(self._boxes(name, stored))

        self._each(names, fetch)
        return found

    def _each(self, items: Sequence[T], function: Callable[[T], Awaitable[None]]) -> None:
        async def throttled() -> None:
            await bounded(self.storage.concurrency)(items, function)

        run_sync(throttled())

    def _boxes(self, name: str, stored: Blob | None) -> Boxes:
        try:
            if stored is None:
                raise FormatError("a cell of the spatial index is missing: write it anew")
            data = stored.data
            if stored.content_encoding is not None:
                data = content.undo(data, stored.content_encoding, limit=_MOST_BYTES)
            return decode_cell(bytes(data))
        except FormatError as error:
            raise ObjectError(f"{self.storage.url}/{name}: {error}", key=name) from error


def layer_above(storage: Storage) -> tuple[Storage, VolumeInfo] | None:
    """The layer that a folder lies in, if there is one."""
    above, _, name = storage.url.rpartition("/")
    if not name or "::" in storage.url or above.endswith(":/"):
        return None
    layer = replace(storage, url=above)
    blob = layer.get("info", max_bytes=MAX_BYTES)
    if blob is None:
        return None
    data = blob.data
    try:
        if blob.content_encoding is not None:
            data = content.undo(data, blob.content_encoding, limit=MAX_BYTES)
        return layer, VolumeInfo.from_json(bytes(data), source=f"{above}/info")
    except (MetadataError, FormatError):
        # What lies above may be the info of something else than a volume.
        return None


def grid_above(storage: Storage, spec: SpatialIndexSpec) -> SpatialGrid | None:
    """The grid of a folder's index over the layer that it lies in; None without one."""
    found = layer_above(storage)
    for scale in () if found is None else found[1].scales:
        if isinstance(scale, Scale) and tuple(scale.resolution) == tuple(spec.resolution):
            return SpatialGrid.of_scale(spec, scale)
    return None


def default_spec(storage: Storage) -> SpatialIndexSpec:
    """Cells of 512 voxels of the finest scale of the layer that a folder lies in.

    Raises
    ------
    ValueError
        It lies in none.
    """
    found = layer_above(storage)
    scales = [] if found is None else [s for s in found[1].scales if isinstance(s, Scale)]
    if not scales:
        raise ValueError(
            f"{storage.url}: a spatial index covers the bounds of a layer, and this folder lies "
            "in none; write it into the layer's folder"
        )
    x, y, z = (int(r) if float(r).is_integer() else r for r in scales[0].resolution)
    dx, dy, dz = (round(_VOXELS_PER_CELL * r, 9) for r in (x, y, z))
    return SpatialIndexSpec(resolution=(x, y, z), chunk_size=(dx, dy, dz))


def _box(box_nm: ArrayLike) -> NDArray[np.float64]:
    box = np.asarray(box_nm, dtype=np.float64)
    if box.shape != (2, 3) or not (box[0] < box[1]).all():
        raise ValueError(
            f"box is {box.tolist()}; expected [[x, y, z], [x, y, z]] in nm, the least first"
        )
    return box
