"""`delete`: what is to go, found before anything goes, and its removal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from precomputed_store.copying.removal import Removal, ShardEdit, Sizes, list_tree, stored_among
from precomputed_store.errors import UnsupportedError
from precomputed_store.grid import Box
from precomputed_store.layer import Layer, ScaleSelector, open_layer
from precomputed_store.metadata import DamagedScale, Scale
from precomputed_store.shard_shape import shard_cells
from precomputed_store.shard_writer import ShardWriter
from precomputed_store.sharding import locate
from precomputed_store.storage import Storage
from precomputed_store.write_plan import unit_grid
from precomputed_store.writing.erase import stored_objects, stored_sizes
from precomputed_store.writing.place import find_box
from precomputed_store.writing.record import RECORD_KEY

__all__ = ["delete", "plan_deletion"]

_FEW = 1000
"""Objects that are asked for one by one rather than looked for in the list of them all."""


def delete(
    url: str | os.PathLike[str],
    *,
    scale: ScaleSelector | None = None,
    region: Box | Mapping[str, slice] | None = None,
    linked: bool = False,
    dry_run: bool = False,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Removal:
    """Remove a layer, one of its scales, or the chunks of a region.

    What is to go is found first; if any of it is not clearly the layer's, nothing goes. Of
    a layer, `info` goes last, and of a scale its entry there: whatever was interrupted can
    be called again.

    Parameters
    ----------
    url : str or path
        The layer; one that redirects is refused.
    scale : int, str or (float, float, float), optional
        Which scale, as in `open_volume`. Default: the whole layer.
    region : Box or mapping of str to slice, optional
        Which voxels of the scale, in absolute coordinates: a union of whole chunks. Other
        chunks of the shards that they are in stay; so does the scale.
    linked : bool
        With the layer, also the folders that `info` links (meshes, skeletons, segment
        properties) with everything in them.
    dry_run : bool
        Say what would go; remove nothing.
    progress : bool, optional
        Show a progress bar. Default: for long removals on a terminal.
    storage_options : mapping, optional
        Passed to fsspec.
    root : str or path, optional
        A folder above the layer's (or that one) that it may not lead out of; see `open_layer`.

    Returns
    -------
    Removal
        What was removed, or would be.

    Raises
    ------
    ValueError, IndexError, TypeError
        The scale is the only one or locked, or the region does not consist of whole chunks.
    UnsupportedError
        Chunks lie where those of others may be, or the storage cannot list.
    VolumeNotFoundError, MetadataError, StorageError
        See `open_layer`.

    Examples
    --------
    >>> import numpy as np, precomputed_store as ps
    >>> _ = ps.to_precomputed(
    ...     np.ones((64, 64, 64), np.uint8), "memory://example/gone", dims="xyz",
    ...     resolution=(8, 8, 8), chunk_size=(32, 32, 32),
    ... )
    >>> print(ps.delete("memory://example/gone", scale=0, region={"x": slice(32, 64)}))
    memory://example/gone: region [32:64, 0:64, 0:64] of scale '8_8_8': 4 objects (128 KiB)
    >>> print(ps.delete("memory://example/gone", dry_run=True))
    memory://example/gone: the layer: 5 objects (128.3 KiB)
    """
    removal = plan_deletion(
        url,
        scale=scale,
        region=region,
        linked=linked,
        storage_options=storage_options,
        root=root,
    )
    if not dry_run:
        shown = sys.stderr.isatty() and removal.is_long if progress is None else progress
        removal.carry_out(progress=shown)
    return removal


def plan_deletion(
    url: str | os.PathLike[str],
    *,
    scale: ScaleSelector | None = None,
    region: Box | Mapping[str, slice] | None = None,
    linked: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Removal:
    """What `delete` would remove; touches nothing."""
    if region is not None and scale is None:
        raise ValueError("region= is of one scale: say which, scale=")
    if linked and scale is not None:
        raise ValueError("linked folders belong to the layer: linked=True goes without scale=")
    layer = open_layer(url, storage_options=storage_options, max_redirects=0, root=root)
    if scale is None:
        return _whole_layer(layer, linked=linked)
    chosen = layer.scale(scale)
    _refuse(layer, [chosen])
    if region is None:
        return _whole_scale(layer, chosen)
    return _region_of(layer, chosen, find_box(chosen, region))


def _whole_layer(layer: Layer, *, linked: bool) -> Removal:
    storage, info = layer.storage, layer.info
    _refuse(layer, info.scales)
    folders = [scale.key for scale in info.scales if scale.key is not None]
    found = {key: size for folder in folders for key, size in stored_sizes(storage, folder)}
    for link in info.links.values() if linked else ():
        if ".." in link.split("/") or not link.strip("/"):
            raise UnsupportedError(
                f"{storage.url}: the linked folder {link!r} lies outside of the layer's, where "
                "other layers may share it: remove it yourself, and call without linked=True"
            )
        found |= list_tree(storage, link.strip("/"))
    found |= stored_among(storage, ["provenance", RECORD_KEY])
    found.pop("info", None)
    found |= {"info": None, **stored_among(storage, ["info"])}
    return Removal(
        storage=storage,
        what="the layer",
        keys=tuple(found),
        num_bytes=_total(found),
        prune=("",),
    )


def _total(found: Sizes) -> int | None:
    """Bytes of all objects, if they are known of each."""
    known = [size for size in found.values() if size is not None]
    return sum(known) if len(known) == len(found) else None


def _whole_scale(layer: Layer, scale: Scale) -> Removal:
    if len(layer.info.usable_scales) == 1:
        raise ValueError(
            f"{layer.storage.url}: {scale.key!r} is the only scale that can be used; without "
            "scale= the whole layer is removed"
        )
    found = dict(stored_sizes(layer.storage, scale.key))
    return Removal(
        storage=layer.storage,
        what=f"scale {scale.key!r}",
        keys=tuple(found),
        num_bytes=_total(found),
        prune=(scale.key,),
        entry=scale.key,
    )


def _region_of(layer: Layer, scale: Scale, region: Box) -> Removal:
    grid = scale.grid
    if not grid.bounds.contains(region):
        raise IndexError(f"region {region} reaches outside scale {scale.key!r} {grid.bounds}")
    if region.is_empty or not grid.is_aligned(region):
        raise ValueError(
            f"region {region} is no union of whole chunks of {scale.chunk_size} voxels (from "
            f"voxel_offset {scale.voxel_offset}); those around it are {grid.rounded_out(region)}"
        )
    what = f"region {region} of scale {scale.key!r}"
    if scale.sharding is not None:
        return _region_of_shards(layer, scale, region, what)
    keys = (f"{scale.key}/{grid.chunk_name(cell)}" for cell in grid.cells(region))
    found = _found(layer.storage, scale, keys, num=sum(1 for _ in grid.cells(region)))
    return Removal(storage=layer.storage, what=what, keys=tuple(found), num_bytes=_total(found))


def _region_of_shards(layer: Layer, scale: Scale, region: Box, what: str) -> Removal:
    writer = ShardWriter(array=layer.array(scale.key))
    whole = {writer.key(shard): shard for shard in _whole_shards(writer, region)}
    every = {writer.key(shard): shard for shard in writer.shards_of(region)}
    found = _found(layer.storage, scale, every, num=len(every))
    edits = tuple(
        ShardEdit(writer=writer, shard=every[key], region=region)
        for key in found
        if key not in whole
    )
    going = {key: size for key, size in found.items() if key in whole}
    return Removal(
        storage=layer.storage,
        what=what,
        keys=tuple(going),
        num_bytes=_total(going),
        edits=edits,
    )


def _whole_shards(writer: ShardWriter, region: Box) -> list[int]:
    """The shards all of whose chunks lie in a region."""
    grid = writer.grid
    if shard_cells(grid, writer.spec) is None:
        return writer.shards_of(region) if region == grid.bounds else []
    units = unit_grid(writer.array.scale)
    boxes = [units.cell_box(unit) for unit in units.cells(region)]
    firsts = [next(grid.cells(box)) for box in boxes if region.contains(box)]
    return [locate(writer.spec, grid.chunk_id(first)).shard for first in firsts]


def _found(storage: Storage, scale: Scale, keys: Iterable[str], *, num: int) -> Sizes:
    """Those of some keys that are stored: asked for one by one where they are few."""
    if ".." in scale.key.split("/") or num > _FEW:
        stored = dict(stored_sizes(storage, scale.key))
        return {key: stored[key] for key in keys if key in stored}
    if scale.sharding is None:
        # Nested folders are not taken for absent chunks.
        next(stored_objects(storage, scale.key), None)
    return stored_among(storage, keys)


def _refuse(layer: Layer, scales: Iterable[Scale | DamagedScale]) -> None:
    """Refuse to remove from a locked scale, or from a folder that is another scale's too."""
    where = f"{layer.storage.url}/info"
    folders = [scale.key.strip("/") for scale in layer.info.scales if scale.key is not None]
    for scale in scales:
        if isinstance(scale, Scale) and scale.extra.get("locked"):
            raise ValueError(
                f"{where}: scale {scale.key!r} is locked: take 'locked' out of its entry first"
            )
        if scale.key is not None and folders.count(scale.key.strip("/")) > 1:
            raise UnsupportedError(
                f"{where}: several scales are in the folder {scale.key!r}, and their chunks "
                "cannot be told from each other"
            )
