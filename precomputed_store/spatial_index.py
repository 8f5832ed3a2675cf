"""Which ids lie in a box: the `.spatial` files of a folder of skeletons or meshes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from precomputed_store.codecs import content
from precomputed_store.codecs.base import Buffer
from precomputed_store.concurrency import bounded, run_threaded
from precomputed_store.errors import FormatError, MetadataError, ObjectError
from precomputed_store.metadata import Scale, VolumeInfo
from precomputed_store.metadata.document import MAX_BYTES
from precomputed_store.metadata.spatial_index import SpatialIndexSpec
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

__all__ = [
    "CellFile",
    "SpatialIndex",
    "checked_box",
    "default_spec",
    "grid_above",
    "layer_above",
]

T = TypeVar("T")

_MOST_BYTES = 1 << 28
_VOXELS_PER_CELL = 512
_FIRST_FILES = 8
_MOST_FILES = 512


class CellFile(NamedTuple):
    """A file of the index; the cell is None where it is not known."""

    name: str
    cell: Cell | None
    boxes: Boxes


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
        box = checked_box(box_nm)
        found = self._fetch([name for name, _ in self._files(box)])
        return sorted(
            {i for boxes in found.values() for i, each in boxes.items() if meets(each, box)}
        )

    def read(self, *, at_once: int = 100_000) -> Iterator[list[CellFile]]:
        """Every file, several at a time.

        Parameters
        ----------
        at_once : int
            Ids to hold at a time; a file may have more.

        Raises
        ------
        ObjectError
            A file of the index is damaged or missing.
        """
        files, size = self._files(), _FIRST_FILES
        while part := list(itertools.islice(files, size)):
            found = self._fetch([name for name, _ in part])
            yield [CellFile(name, cell, found[name]) for name, cell in part]
            mean = sum(map(len, found.values())) / len(part)
            size = round(min(_MOST_FILES, max(1, at_once / max(mean, 1))))

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

    def _files(self, box: ArrayLike | None = None) -> Iterator[tuple[str, Cell | None]]:
        """Names and cells of the files that may tell of a box, or all."""
        if self.grid is not None:
            yield from ((self.grid.name(cell), cell) for cell in self.grid.cells(box))
            return
        # Of cells at the border, what they hold may lie beyond.
        yield from ((name, None) for name in self.storage.list_names() if box_of_name(name))

    def _fetch(self, names: Sequence[str]) -> dict[str, Boxes]:
        found: dict[str, Boxes] = {}

        def fetch(name: str) -> None:
            found[name] = self._boxes(name, self.storage.get(name, max_bytes=_MOST_BYTES))

        async def fetch_async(name: str) -> None:
            stored = await self.storage.get_async(name, max_bytes=_MOST_BYTES)
            found[name] = self._boxes(name, stored)

        if self.storage.threaded:
            run_threaded(fetch, names, workers=self.storage.concurrency)
        else:
            self._each(names, fetch_async)
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
    if found is None:
        return None
    if spec.resolution is None:
        # Igneous names folders after the scale: skeletons_mip_2, mesh_mip_0_err_40.
        match = re.search(r"mip_([0-9]{1,3})", storage.url.rpartition("/")[2])
        index = int(match[1]) if match else 0
        scales = found[1].scales[index : index + 1]
    else:
        scales = found[1].scales
    for scale in scales:
        if isinstance(scale, Scale) and spec.resolution in (None, tuple(scale.resolution)):
            return SpatialGrid.of_scale(replace(spec, resolution=scale.resolution), scale)
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


def checked_box(box_nm: ArrayLike) -> NDArray[np.float64]:
    """A box of shape (2, 3), or a `ValueError`."""
    box = np.asarray(box_nm, dtype=np.float64)
    if box.shape != (2, 3) or not (box[0] < box[1]).all():
        raise ValueError(
            f"box is {box.tolist()}; expected [[x, y, z], [x, y, z]] in nm, the least first"
        )
    return box
