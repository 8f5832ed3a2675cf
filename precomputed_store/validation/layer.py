"""The check of a layer as a whole."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from precomputed_store.chunk_source import FileSource
from precomputed_store.engine import ChunkedArray
from precomputed_store.errors import CompatibilityWarning, MetadataError, Problem
from precomputed_store.grid import XYZ, ChunkGrid
from precomputed_store.layer import Layer, ScaleSelector, open_layer
from precomputed_store.metadata import DamagedScale
from precomputed_store.progress import progress_bar
from precomputed_store.shard_source import ShardSource
from precomputed_store.storage.listing import StoredObject
from precomputed_store.validation.chunks import (
    Decoding,
    IndexLookup,
    Presence,
    Tally,
    count_listed,
)
from precomputed_store.validation.folder import ScaleFolder, listing
from precomputed_store.validation.report import ChunkProblem, Report, ScaleReport

__all__ = ["validate"]


def validate(
    url: str | os.PathLike[str],
    *,
    chunks: bool = False,
    decode: bool = False,
    sample: int | None = None,
    scale: ScaleSelector | None = None,
    storage_options: Mapping[str, Any] | None = None,
    missing_statuses: Iterable[int] = (404,),
    max_redirects: int = 10,
    root: str | os.PathLike[str] | None = None,
    cross_origin: bool = False,
    progress: bool = False,
) -> Report:
    """Check a layer: its metadata, and its chunks on request.

    Parameters
    ----------
    url : str or path
        As in `open_layer`.
    chunks : bool
        Also look which chunks are stored, and whether their sizes are possible where the
        storage tells them; list what else lies in the folders. No chunk is read.
    decode : bool
        Also read and decode every chunk.
    sample : int, optional
        Only so many chunks of each scale, picked at random; implies `decode`.
    scale : int, str or (float, float, float), optional
        Only the chunks of one scale: index, key or resolution in nanometres.
    storage_options, missing_statuses, max_redirects, root, cross_origin
        As in `open_layer`.
    progress : bool
        Show progress bars.

    Returns
    -------
    Report

    Raises
    ------
    VolumeNotFoundError
        There is no `info` at this address.
    StorageError
        The storage refused or failed.
    UnsupportedError
        The library that decodes the chunks is not installed.
    ValueError, IndexError
        There is no such scale.

    Examples
    --------
    >>> from precomputed_store.validation import validate
    >>> report = validate("gs://bucket/em", sample=100)  # doctest: +SKIP
    >>> report.ok, report.scales[0].num_missing  # doctest: +SKIP
    (True, 3)
    """
    if sample is not None and sample < 1:
        raise ValueError(f"sample is {sample}; expected 1 or more")
    with_chunks = chunks or decode or sample is not None
    if scale is not None and not with_chunks:
        raise ValueError("scale= says whose chunks to check: pass chunks=, decode= or sample= too")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CompatibilityWarning)
            layer = open_layer(
                url,
                storage_options=storage_options,
                missing_statuses=missing_statuses,
                max_redirects=max_redirects,
                root=root,
                cross_origin=cross_origin,
            )
    except MetadataError as error:
        return Report(url=os.fspath(url), problems=error.problems, warnings=())
    reports: list[ScaleReport] = []
    if with_chunks:
        check = _ScaleCheck(
            layer=layer, decode=decode or sample is not None, sample=sample, progress=progress
        )
        reports = [check.run(index) for index in _scales(layer, scale)]
    return Report(
        url=layer.storage.url,
        problems=_problems(layer),
        warnings=layer.info.warnings,
        scales=tuple(reports),
    )


def _problems(layer: Layer) -> tuple[Problem, ...]:
    damaged = (scale for scale in layer.info.scales if isinstance(scale, DamagedScale))
    return tuple(problem for scale in damaged for problem in scale.problems)


def _scales(layer: Layer, selector: ScaleSelector | None) -> list[int]:
    if selector is not None:
        return [layer.info.scale_index(selector)]
    return [index for index, _ in layer.info.usable_scales]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ScaleCheck:
    """How to check the chunks of one scale after the other."""

    layer: Layer
    decode: bool
    sample: int | None
    progress: bool

    def run(self, index: int) -> ScaleReport:
        array = self.layer.array(index)
        scale, total = array.scale, array.grid.num_cells
        num_checked = total if self.sample is None else min(self.sample, total)
        folder = ScaleFolder(layer=self.layer, scale=scale)
        verb = "decoding" if self.decode else "looking for"
        with progress_bar(
            f"{verb} {scale.key}", total=num_checked, enabled=self.progress
        ) as advance:
            tally = Tally(array=array, advance=advance)
            self._check(tally, folder)
            # A listing says nothing of what is missing.
            advance(num_checked - tally.num_told)
        return ScaleReport(
            index=index,
            key=scale.key,
            num_chunks=total,
            num_checked=num_checked,
            decoded=self.decode,
            num_present=tally.num_present,
            num_bytes=tally.num_bytes if tally.sizes_known else None,
            corrupt=tuple(sorted(tally.corrupt, key=_place)),
            unknown=tuple(sorted(folder.unknown)),
        )

    def _check(self, tally: Tally, folder: ScaleFolder) -> None:
        array = tally.array
        if self.sample is not None:
            Decoding(tally=tally).run(_random_cells(array.grid, self.sample))
            return
        entries = listing(self.layer, array.scale)
        if isinstance(array.source, ShardSource):
            self._check_shards(tally, folder, array.source, entries)
        elif entries is None or _is_nested(array):
            probe = Decoding if self.decode else Presence
            probe(tally=tally).run(array.grid.cells())
        else:
            self._check_listed(tally, folder, entries)

    def _check_listed(
        self, tally: Tally, folder: ScaleFolder, entries: Iterator[StoredObject]
    ) -> None:
        found = folder.chunks(entries)
        if self.decode:
            Decoding(tally=tally).run(cell for cell, _ in found)
        else:
            count_listed(tally, found)

    def _check_shards(
        self,
        tally: Tally,
        folder: ScaleFolder,
        source: ShardSource,
        entries: Iterator[StoredObject] | None,
    ) -> None:
        shards = None if entries is None else folder.shards(entries, source.sharding)
        if self.decode:
            Decoding(tally=tally).run(tally.array.grid.cells())
        else:
            IndexLookup(tally=tally, source=source, shards=shards).run(tally.array.grid.cells())


def _place(problem: ChunkProblem) -> tuple[str, XYZ]:
    return problem.key, problem.box.start


def _is_nested(array: ChunkedArray) -> bool:
    """Whether chunks lie in ``x/y/z`` folders, which a listing of one folder does not show."""
    source, first = array.source, (0, 0, 0)
    return isinstance(source, FileSource) and source.write_key(first) != source.key(first)


def _random_cells(grid: ChunkGrid, number: int) -> list[XYZ]:
    """So many different cells, or all of them if there are not more."""
    if number >= grid.num_cells:
        return list(grid.cells())
    picked: set[int] = set()
    while len(picked) < number:
        picked.add(random.randrange(grid.num_cells))
    return [_cell(grid, place) for place in sorted(picked)]


def _cell(grid: ChunkGrid, place: int) -> XYZ:
    """The cell at a place in the order of `ChunkGrid.cells`."""
    place, x = divmod(place, grid.shape[0])
    z, y = divmod(place, grid.shape[1])
    return x, y, z
