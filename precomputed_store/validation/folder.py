"""What lies in the folder of a scale, and what does not belong there."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from precomputed_store.errors import StorageError, UnsupportedError
from precomputed_store.grid import XYZ, ChunkGrid
from precomputed_store.layer import Layer
from precomputed_store.metadata import Scale, ShardingSpec
from precomputed_store.sharding import shard_name
from precomputed_store.storage.listing import StoredObject, list_objects
from precomputed_store.validation.report import UnknownObject

__all__ = ["ScaleFolder", "listing"]

_SHARD = re.compile(r"([0-9a-f]+)\.shard")
_NO_LISTING = (401, 403)


def listing(layer: Layer, scale: Scale) -> Iterator[StoredObject] | None:
    """Entries of a scale's folder, or None where the storage does not list them."""
    entries = list_objects(layer.storage, scale.key)
    try:
        first = next(entries, None)
    except UnsupportedError:
        return None
    except StorageError as error:
        # Many public buckets may be read, but not listed.
        if error.status in _NO_LISTING:
            return None
        raise
    return iter(()) if first is None else itertools.chain([first], entries)


@dataclass(slots=True, kw_only=True)
class ScaleFolder:
    """Sorts the entries of a scale's folder into what belongs there and what does not.

    Parameters
    ----------
    layer : Layer
    scale : Scale
    unknown : list of UnknownObject
        Grows while the entries are gone through.
    """

    layer: Layer
    scale: Scale
    unknown: list[UnknownObject] = field(default_factory=list)

    def chunks(self, entries: Iterator[StoredObject]) -> Iterator[tuple[XYZ, StoredObject]]:
        """The chunks among the entries, each once."""
        grid, others, folders = self.scale.grid, self._other_grids(), self._other_names()
        for entry in entries:
            name = self._readable(entry)
            if name is None:
                continue
            cell = grid.cell_of_name(name)
            if cell is not None:
                yield cell, entry
            elif name not in folders and not any(other.cell_of_name(name) for other in others):
                self.unknown.append(UnknownObject(entry.name, "not a chunk of this scale's grid"))

    def shards(
        self, entries: Iterator[StoredObject], sharding: ShardingSpec
    ) -> dict[str, StoredObject]:
        """The shards among the entries, by name."""
        shards, folders = {}, self._other_names()
        for entry in entries:
            name = self._readable(entry)
            if name is None:
                continue
            match = _SHARD.fullmatch(name)
            number = int(match[1], 16) if match else -1
            if 0 <= number < 1 << sharding.shard_bits and name == shard_name(sharding, number):
                shards[name] = entry
            elif name not in folders:
                self.unknown.append(UnknownObject(entry.name, "not a shard of this scale"))
        return shards

    def _readable(self, entry: StoredObject) -> str | None:
        """The name that reads an entry; one that nothing reads is noted."""
        if entry.key is None:
            what = "a copy that is not read, because of another with the same name"
            if entry.is_temporary:
                what = "a temporary file: its writer is at work, or was killed"
            self.unknown.append(UnknownObject(entry.name, what))
        return entry.key

    def _other_grids(self) -> list[ChunkGrid]:
        """Grids whose chunks share the folder: further chunk sizes, scales of the same key."""
        grids = [
            replace(scale.grid, chunk_size=chunk_size)
            for _, scale in self.layer.info.usable_scales
            if scale.key == self.scale.key
            for chunk_size in scale.chunk_sizes
        ]
        return [grid for grid in grids if grid != self.scale.grid]

    def _other_names(self) -> set[str]:
        """Folders within this one that belong to other parts of the layer."""
        info, inside = self.layer.info, f"{self.scale.key}/"
        paths = [*info.links.values(), *(scale.key or "" for scale in info.scales)]
        return {
            path.removeprefix(inside).split("/")[0] for path in paths if path.startswith(inside)
        }
