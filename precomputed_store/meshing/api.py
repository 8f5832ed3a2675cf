"""`make_meshes`: surfaces of the segments of a volume, into its folder of meshes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from precomputed_store.codecs.base import require
from precomputed_store.errors import UnsupportedError
from precomputed_store.grid import XYZ
from precomputed_store.keyed_reader import check_id
from precomputed_store.layer import Layer, open_layer
from precomputed_store.mesh.extract import Extractor, extract_surfaces
from precomputed_store.mesh_encoding import LevelOptions, check_libraries
from precomputed_store.mesh_source import MeshSource
from precomputed_store.mesh_target import Target, link_meshes, open_target, put_info
from precomputed_store.mesh_writer import MeshWriter, delete_all, mesh_sharding
from precomputed_store.meshing.blocks import Block, BlockTask, Pieces, block_shape_for, blocks_of
from precomputed_store.meshing.merge import MergeTask, PieceTable, Shaping
from precomputed_store.meshing.run import MARK, run_tasks
from precomputed_store.metadata import ScaleSelector, ShardingSpec
from precomputed_store.metadata.mesh import MeshInfo, MeshKind
from precomputed_store.storage import Storage

__all__ = ["make_meshes"]

# Halves of voxels beyond are not exact in single precision.
_LARGEST_SIZE = 1 << 23


def make_meshes(
    url: str | os.PathLike[str],
    *,
    scale: ScaleSelector = 0,
    ids: Iterable[int] | None = None,
    kind: MeshKind | None = None,
    folder: str | None = None,
    sharding: ShardingSpec | Literal["auto"] | None = None,
    lods: int | Literal["auto"] = "auto",
    reduction: float = 4.0,
    vertex_quantization_bits: Literal[10, 16] = 16,
    draco_level: int = 7,
    min_voxels: int = 0,
    smooth: int = 0,
    simplify: float = 1.0,
    block_shape: XYZ | None = None,
    extractor: Extractor = extract_surfaces,
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> MeshSource:
    """Make meshes of the segments of a volume.

    Tasks of dask: one for each block of voxels, then one for each shard or group of
    segments. Between them, pieces of surface lie in a temporary folder beside the meshes.
    Surfaces are closed, at the faces of the volume too; voxel i spans [i, i + 1) times the
    resolution. Meshes that the folder has are replaced; those of segments that there are no
    more stay (see `delete_meshes`).

    Parameters
    ----------
    url : str or path
        A segmentation.
    scale : int, str or (float, float, float)
        Index, key, or resolution in nanometres of the scale to take the voxels of.
    ids : iterable of int, optional
        Only these segments. Default: all but 0.
    kind : {"multilod", "legacy"}, optional
        Default: what the folder has, or ``"multilod"``.
    folder : str, optional
        Where meshes go, relative to the volume. Default: what `info` links, or ``"mesh"``.
    sharding, lods, reduction, vertex_quantization_bits, draco_level
        See `write_meshes`.
    min_voxels : int
        Segments of fewer voxels get no mesh.
    smooth : int
        Rounds of smoothing; 10 takes the steps off.
    simplify : float
        How many times fewer triangles the finest level is to have; 1 keeps all.
    block_shape : (int, int, int), optional
        Voxels of a block along x, y, z: what one task holds, up to about 60 bytes for each.
        Default: whole chunks, up to 8 million voxels.
    extractor : callable
        Another source of surfaces; see `precomputed_store.mesh.extract.Extractor`.
    progress : bool
        Show progress bars.
    storage_options : mapping, optional
        Passed to fsspec.

    Returns
    -------
    MeshSource
        Linked from the volume's `info`.

    Raises
    ------
    ValueError
        The volume is no segmentation, or an argument is wrong; nothing is written then.
    """
    layer = open_layer(url, storage_options=storage_options)
    levels = LevelOptions(lods=lods, reduction=reduction, draco_level=draco_level)
    kept = None if ids is None else tuple(sorted({check_id(one) for one in ids}))
    job = _Job(
        layer=layer,
        scale=layer.info.scale_index(scale),
        ids=kept,
        min_voxels=min_voxels,
        smooth=smooth,
        simplify=simplify,
        block_shape=block_shape,
        extractor=extractor,
        progress=progress,
    )
    job.check()
    target = _target(layer, folder)
    info = MeshInfo(
        kind=kind or "multilod",
        vertex_quantization_bits=vertex_quantization_bits,
        sharding=None if sharding == "auto" else sharding,
    )
    if target.info is not None and kind not in (None, target.info.kind):
        raise ValueError(
            f"{target.storage.url}: there are {target.info.kind} meshes, not {kind} ones"
        )
    check_libraries(target.info or info, levels)
    if simplify > 1:
        require("fast_simplification", extra="meshes", purpose="simplification")
    auto = sharding == "auto" and target.info is None
    info = job.run(target.storage, target.info or info, levels, choose_sharding=auto)
    if target.info is None:
        put_info(target.storage, info)
    if target.volume is not None:
        link_meshes(target.volume, target.storage)
    return MeshSource(storage=target.storage, info=info)


def _target(layer: Layer, folder: str | None) -> Target:
    options = layer.storage.storage_options
    if folder is None:
        return open_target(layer.storage.url, storage_options=options)
    place = layer.storage.child(folder)
    return open_target(place.url, storage_options=options)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What is to be made; see `make_meshes`."""

    layer: Layer
    scale: int
    ids: tuple[int, ...] | None
    min_voxels: int
    smooth: int
    simplify: float
    block_shape: XYZ | None
    extractor: Extractor
    progress: bool
    token: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def check(self) -> None:
        """Raise for what cannot be made."""
        info, scale = self.layer.info, self.layer.scale(self.scale)
        if info.num_channels != 1 or info.dtype.kind not in "iu":
            raise ValueError(
                f"{self.layer.storage.url}: {info.num_channels} channels of {info.data_type}; "
                "meshes are made of one channel of integers"
            )
        if max(scale.size) >= _LARGEST_SIZE:
            raise UnsupportedError(f"{scale.size} voxels: more than {_LARGEST_SIZE} along an axis")
        if self.min_voxels < 0 or self.smooth < 0 or not self.simplify >= 1:
            raise ValueError("expected min_voxels >= 0, smooth >= 0 and simplify >= 1")
        shape = self.block_shape
        if shape is not None and (len(shape) != 3 or min(shape) < 1):
            raise ValueError(f"block_shape {shape}: expected three positive integers x, y, z")

    def run(
        self, storage: Storage, info: MeshInfo, levels: LevelOptions, *, choose_sharding: bool
    ) -> MeshInfo:
        """Make and store the meshes; their `info`, with sharding chosen."""
        pieces = storage.child(f".pieces-{self.token}")
        blocks = list(blocks_of(self.layer.scale(self.scale).size, self._block_shape()))
        try:
            found = self._extract(blocks, pieces)
            numbers = [block.number for block in blocks]
            table = PieceTable.of(
                list(zip(numbers, found, strict=True)), min_voxels=self.min_voxels
            )
            if choose_sharding:
                faces = sum(int(each.faces.sum()) for each in found)
                spec = mesh_sharding(len(np.unique(table.ids)), int(faces / self.simplify))
                info = MeshInfo(
                    kind=info.kind,
                    vertex_quantization_bits=info.vertex_quantization_bits,
                    sharding=spec,
                )
            self._merge(table, pieces, MeshWriter(storage=storage, info=info, levels=levels))
        finally:
            delete_all(pieces, [MARK, *(str(block.number) for block in blocks)])
            storage.remove_empty_folder(f".pieces-{self.token}")
        return info

    def _extract(self, blocks: list[Block], pieces: Storage) -> list[Pieces]:
        task = BlockTask(
            array=self.layer.array(self.scale),
            extractor=self.extractor,
            storage=pieces,
            ids=self.ids,
            count_voxels=self.min_voxels > 0,
        )
        return run_tasks(
            task, blocks, storage=pieces, description="surfaces", progress=self.progress
        )

    def _merge(self, table: PieceTable, pieces: Storage, writer: MeshWriter) -> None:
        scale = self.layer.scale(self.scale)
        x, y, z = (n * r for n, r in zip(scale.voxel_offset, scale.resolution, strict=True))
        shaping = Shaping(
            resolution=scale.resolution,
            origin_nm=(x, y, z),
            smooth=self.smooth,
            simplify=self.simplify,
        )
        task = MergeTask(pieces=pieces, writer=writer, shaping=shaping)
        groups = table.groups(writer.info.sharding)
        run_tasks(task, groups, storage=pieces, description="meshes", progress=self.progress)

    def _block_shape(self) -> XYZ:
        if self.block_shape is not None:
            return self.block_shape
        scale = self.layer.scale(self.scale)
        return block_shape_for(scale.size, scale.chunk_size)
