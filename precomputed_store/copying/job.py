"""Carrying a copy out: checks, the empty layer, the tasks, and what remains at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from precomputed_store.cached import cached_property
from precomputed_store.codecs import content
from precomputed_store.copying.links import LinkedObject, folder_stage, list_pairs, old_objects
from precomputed_store.copying.places import refuse_alias, refuse_overlap
from precomputed_store.copying.plan import CopyPlan, ScaleCopy, with_links
from precomputed_store.copying.request import CopyRequest, make_plan
from precomputed_store.copying.stages import ScaleTask, scale_stage
from precomputed_store.engine import ChunkedArray
from precomputed_store.errors import MetadataError, VolumeNotFoundError
from precomputed_store.info_edits import edit_info, with_scales
from precomputed_store.layer import Layer, create, open_layer
from precomputed_store.metadata import Scale, VolumeInfo
from precomputed_store.storage import Storage, open_storage
from precomputed_store.writer import ChunkWriter, RegionWriter, WriteOptions, writer_for
from precomputed_store.writing.erase import Replacement, plan_replacement
from precomputed_store.writing.graph import WriteGraph
from precomputed_store.writing.layers import refuse_what_is_there
from precomputed_store.writing.record import RECORD_KEY, WriteRecord, end_record
from precomputed_store.writing.stages import Stage

__all__ = ["CopyJob", "prepare"]

_LONG_COPY = 256
"""Chunks from which on a copy shows its progress on a terminal."""

_PROVENANCE = "provenance"


@dataclass(frozen=True, kw_only=True)
class CopyFinish:
    """What remains when every object is copied. Doing it twice changes nothing."""

    storage: Storage
    info: VolumeInfo

    def __call__(self) -> Layer:
        info = edit_info(self.storage, self._complete) if self._is_left_out else self.info
        end_record(self.storage)
        return Layer(storage=self.storage, info=info)

    @property
    def _is_left_out(self) -> bool:
        return begun(self.info) != self.info

    def _complete(self, old: VolumeInfo) -> VolumeInfo:
        own = [scale for scale in self.info.scales if isinstance(scale, Scale)]
        info = with_links(with_scales(old, *own), self.info.links)
        return self.info if len(info.scales) == len(own) else info


def begun(info: VolumeInfo) -> VolumeInfo:
    """The metadata of a copy that has only begun: its finest scale, no links."""
    return with_links(replace(info, scales=info.scales[:1]), {})


@dataclass(frozen=True, kw_only=True)
class CopyJob:
    """A layer on its way to another place.

    Attributes
    ----------
    request : CopyRequest
    layer : Layer
        The source.
    storage : Storage
        The destination.
    plan : CopyPlan
    pairs : sequence of LinkedObject
        Objects of linked folders, where they are and where they go.
    replaces : Replacement or None
        What has to be removed first.
    resuming : bool
        Whether an interrupted copy is gone on with: objects that are stored are done.
    is_done : bool
        Whether nothing is left to do of what was to be resumed.
    """

    request: CopyRequest
    layer: Layer
    storage: Storage
    plan: CopyPlan
    pairs: Sequence[LinkedObject] = ()
    replaces: Replacement | None = None
    resuming: bool = False
    is_done: bool = False

    @property
    def record(self) -> WriteRecord:
        """The parameters that decide what is written."""
        return WriteRecord(
            info=self.plan.info,
            scales=tuple(scale.target.key for scale in self.plan.scales),
            method=f"copy of {self.layer.storage.url.partition('?')[0]}",
            options=self.request.options,
        )

    def begin(self) -> None:
        """Make the layer: the first thing that touches the destination.

        What was there goes first, then the record comes, then `info`.

        Raises
        ------
        ValueError
            The destination is the source by another address, or another job was begun.
        """
        storage = self.storage
        if self.resuming:
            self.record.is_under_way(storage)
        if self.replaces is not None:
            refuse_alias(self.layer.storage, storage)
            self.replaces.carry_out()
        if not self.resuming:
            self.record.begin(storage)
        if not (self.resuming and storage.exists("info")):
            create(
                storage.url,
                begun(self.plan.info),
                storage_options=storage.storage_options,
                allow_misread=True,  # the caller has been asked already
            )
        self._copy_provenance()

    def _copy_provenance(self) -> None:
        if self.resuming and self.storage.exists(_PROVENANCE):
            return
        blob = self.layer.storage.get(_PROVENANCE)
        if blob is None:
            return
        data = blob.data
        if blob.content_encoding is not None:
            data = content.undo(data, blob.content_encoding, limit=64 << 20)
        self.storage.put(
            _PROVENANCE, data, content_type="application/json", cache_control="no-cache"
        )

    @cached_property
    def graph(self) -> WriteGraph:
        """Every task."""
        stages: list[Stage] = []
        if not self.is_done:
            stages = [scale_stage(self._task(scale)) for scale in self.plan.scales]
            if self.pairs:
                stages.append(
                    folder_stage(
                        self.layer.storage, self.storage, self.pairs, resuming=self.resuming
                    )
                )
        return WriteGraph(
            stages=stages,
            finish=CopyFinish(storage=self.storage, info=self.plan.info),
            description="copying",
        )

    def run(self, *, progress: bool | None) -> Layer:
        """Copy everything."""
        shown = self._is_long() if progress is None else progress
        copied: Any = self.graph.compute(progress=shown)
        return copied  # type: ignore[no-any-return]

    def _is_long(self) -> bool:
        num_chunks = sum(scale.target.grid.num_cells for scale in self.plan.scales)
        return sys.stderr.isatty() and num_chunks + len(self.pairs) > _LONG_COPY

    def _task(self, scale: ScaleCopy) -> ScaleTask:
        return ScaleTask(
            plan=scale,
            source=self.layer.array(scale.source.key),
            target=_array(self.storage, self.plan.info, scale.target),
            options=self.request.options,
            verify=self.request.verify,
            resuming=self.resuming,
        )


def prepare(request: CopyRequest) -> CopyJob:
    """Look at source and destination, plan and check; touches nothing.

    Raises
    ------
    VolumeNotFoundError, MetadataError, StorageError
        The source cannot be opened.
    FileExistsError
        There is a layer at the destination, and ``mode="w-"``.
    ValueError, IndexError, TypeError
        The request does not fit the source, or the destination overlaps it.
    UnsupportedError
        A library is missing, or the storage cannot do what it takes.
    """
    layer = open_layer(
        request.source,
        storage_options=request.source_storage_options,
        missing_statuses=request.missing_statuses,
        root=request.source_root,
    )
    storage = open_storage(
        request.destination, storage_options=request.storage_options, root=request.root
    )
    plan = make_plan(request, layer, destination=storage.url)
    folders = [*(scale.source.key for scale in plan.scales), *(old for old, _ in plan.folders)]
    refuse_overlap(layer, folders, storage)
    for scale in plan.scales:
        _check(scale, plan.info, storage, request)
    job = _placed(CopyJob(request=request, layer=layer, storage=storage, plan=plan))
    return job if job.is_done else replace(job, pairs=list_pairs(layer.storage, plan.folders))


def _placed(job: CopyJob) -> CopyJob:
    """The job with what it finds at its destination."""
    storage, request = job.storage, job.request
    if request.resume and storage.exists(RECORD_KEY):
        return replace(job, resuming=True)
    if request.resume and _is_finished(job):
        return replace(job, is_done=True)
    keys = [scale.target.key for scale in job.plan.scales]
    folders = [new for _, new in job.plan.folders]
    if request.mode != "w":
        refuse_what_is_there(storage, keys)
        old_objects(storage, folders, linked=())
        return job
    replaces = plan_replacement(storage, keys=keys)
    old = old_objects(storage, folders, linked=_links(job)) if folders else []
    return replace(job, replaces=None if replaces is None else replaces.also(old))


def _links(job: CopyJob) -> list[str]:
    """Folders that the layer links which is at the destination."""
    try:
        found = _layer_there(job)
    except MetadataError:
        return []
    return [] if found is None else list(found.info.links.values())


def _is_finished(job: CopyJob) -> bool:
    """Whether the layer is there as the job would leave it."""
    found = _layer_there(job)
    return found is not None and found.info == job.plan.info


def _layer_there(job: CopyJob) -> Layer | None:
    storage = job.storage
    try:
        return open_layer(storage.url, storage_options=storage.storage_options, root=storage.root)
    except VolumeNotFoundError:
        return None


def _check(scale: ScaleCopy, info: VolumeInfo, storage: Storage, request: CopyRequest) -> None:
    """Refuse what would fail later, or be misread elsewhere; touches nothing."""
    codec, options = scale.target.codec, request.options
    writer = writer_for(_array(storage, info, scale.target), options)
    _check_compression(writer, options)
    if scale.source.codec == codec:
        return
    misread = codec.neuroglancer_misreads(info.num_channels, info.dtype)
    if misread is not None and not request.allow_misread:
        raise ValueError(
            f"{misread}. Choose another encoding, or pass allow_misread=True to write it for "
            "other readers"
        )
    codec.encode(np.zeros((info.num_channels, 8, 8, 8), info.dtype))


def _check_compression(writer: RegionWriter, options: WriteOptions) -> None:
    encoding = writer.content_encoding
    if encoding is not None:
        content.apply(b"", encoding, level=options.compress_level)
    elif options.compress_level is not None and isinstance(writer, ChunkWriter):
        raise ValueError(
            f"compress_level is {options.compress_level}, but chunks are not compressed: pass "
            "compress='gzip', 'br' or 'zstd'"
        )


def _array(storage: Storage, info: VolumeInfo, scale: Scale) -> ChunkedArray:
    """A scale that `info` need not name yet."""
    return ChunkedArray(
        storage=storage, scale=scale, data_type=info.data_type, num_channels=info.num_channels
    )
