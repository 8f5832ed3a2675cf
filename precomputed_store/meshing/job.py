"""A job that makes meshes, from voxels to stored meshes, in parts that are not done twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from precomputed_store.codecs.base import require
from precomputed_store.errors import UnsupportedError
from precomputed_store.grid import XYZ
from precomputed_store.layer import Layer
from precomputed_store.mesh.extract import Extractor
from precomputed_store.mesh_encoding import LevelOptions, check_libraries
from precomputed_store.mesh_target import MeshWish, Target, mesh_sharding, put_info
from precomputed_store.mesh_writer import MeshWriter
from precomputed_store.meshing.blocks import (
    BlockTask,
    Pieces,
    block_shape_for,
    blocks_of,
    stored_pieces,
)
from precomputed_store.meshing.merge import MergeTask, PieceTable, Shaping
from precomputed_store.meshing.run import run_tasks
from precomputed_store.meshing.workplace import Workplace
from precomputed_store.metadata.mesh import MeshInfo
from precomputed_store.object_steps import run_steps
from precomputed_store.storage import Storage

__all__ = ["MeshJob", "MeshMode", "SurfaceOptions"]

MeshMode: TypeAlias = Literal["w-", "w", "a"]

# Halves of voxels beyond are not exact in single precision.
_LARGEST_SIZE = 1 << 23


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceOptions:
    """Which surfaces are made, and what is done to them; see `make_meshes`."""

    scale: int
    ids: tuple[int, ...] | None
    min_voxels: int
    smooth: int
    simplify: float
    block_shape: XYZ | None
    extractor: Extractor

    def check(self, layer: Layer) -> None:
        """Raise for what cannot be made."""
        info, scale = layer.info, layer.scale(self.scale)
        if info.num_channels != 1 or info.dtype.kind not in "iu":
            raise ValueError(
                f"{layer.storage.url}: {info.num_channels} channels of {info.data_type}; "
                "meshes are made of one channel of integers"
            )
        if max(scale.size) >= _LARGEST_SIZE:
            raise UnsupportedError(f"{scale.size} voxels: more than {_LARGEST_SIZE} along an axis")
        if self.min_voxels < 0 or self.smooth < 0 or not self.simplify >= 1:
            raise ValueError("expected min_voxels >= 0, smooth >= 0 and simplify >= 1")
        shape = self.block_shape
        if shape is not None and (len(shape) != 3 or min(shape) < 1):
            raise ValueError(f"block_shape {shape}: expected three positive integers x, y, z")

    def to_json(self) -> dict[str, Any]:
        """Everything but the extractor, which is named."""
        members = {name: getattr(self, name) for name in self.__slots__}
        one = self.extractor
        kind = one if hasattr(one, "__qualname__") else type(one)
        return {**members, "extractor": f"{kind.__module__}.{kind.__qualname__}"}


@dataclass(frozen=True, kw_only=True)
class MeshJob:
    """What is to be made, and where it goes.

    Attributes
    ----------
    layer : Layer
    surfaces : SurfaceOptions
    levels : LevelOptions
    target : Target
    wish : MeshWish
        How meshes are to be stored.
    mode : {"w-", "w", "a"}
    resume, progress : bool
    """

    layer: Layer
    surfaces: SurfaceOptions
    levels: LevelOptions
    target: Target
    wish: MeshWish
    mode: MeshMode
    resume: bool
    progress: bool

    def run(self) -> MeshInfo:
        """Make and store the meshes; their `info`, with sharding chosen."""
        info = self._info
        check_libraries(info, self.levels)
        if self.surfaces.simplify > 1:
            require("fast_simplification", extra="meshes", purpose="simplification")
        place = self._workplace
        self._check_mode(place)
        place.begin(resume=self.resume, discard=self.mode == "w")
        try:
            info = self._make(place, info)
        except BaseException:
            if not self.resume:
                place.clear()
            raise
        place.clear()
        return info

    @property
    def _is_new(self) -> bool:
        """Whether meshes that may be there do not say how these are stored."""
        return self.mode == "w" or self.target.info is None

    @property
    def _info(self) -> MeshInfo:
        return self.wish.info(self.target._replace(info=None) if self._is_new else self.target)

    def _check_mode(self, place: Workplace) -> None:
        is_there = self.target.info is not None
        if self.mode == "w-" and is_there and not (self.resume and place.is_begun):
            raise FileExistsError(
                f"{self.target.storage.url}: there are meshes; mode='a' adds to them, mode='w' "
                "replaces them"
            )

    @property
    def _workplace(self) -> Workplace:
        scale = self.layer.scale(self.surfaces.scale)
        job = {
            "volume": self.layer.storage.url,
            "size": scale.size,
            "resolution": scale.resolution,
            "voxel_offset": scale.voxel_offset,
            "surfaces": self.surfaces.to_json(),
            "levels": asdict(self.levels),
            "kind": self.wish.kind,
            "vertex_quantization_bits": self.wish.vertex_quantization_bits,
            "sharding": str(self.wish.sharding),
        }
        return Workplace(self.target.storage, job)

    def _make(self, place: Workplace, info: MeshInfo) -> MeshInfo:
        pieces = self._extract(place.storage)
        table = PieceTable.of(list(enumerate(pieces)), min_voxels=self.surfaces.min_voxels)
        if self._is_new and self.wish.sharding == "auto":
            faces = sum(int(each.faces.sum()) for each in pieces)
            spec = mesh_sharding(len(np.unique(table.ids)), int(faces / self.surfaces.simplify))
            info = replace(info, sharding=spec)
        if self.mode == "w" and not place.has_erased:
            self._replace_meshes(info)
            place.tick_erased()
        self._merge(table, place, info)
        if self._is_new:
            put_info(self.target.storage, info)
        return info

    def _extract(self, storage: Storage) -> list[Pieces]:
        """The pieces of every block, made now or before."""
        shape = self.surfaces.block_shape
        scale = self.layer.scale(self.surfaces.scale)
        blocks = list(
            blocks_of(scale.size, shape or block_shape_for(scale.size, scale.chunk_size))
        )
        found: list[Pieces | None] = [None] * len(blocks)
        if self.resume:
            found = run_steps(storage, range(len(blocks)), stored_pieces)
        task = BlockTask(
            array=self.layer.array(self.surfaces.scale),
            extractor=self.surfaces.extractor,
            storage=storage,
            ids=self.surfaces.ids,
            count_voxels=self.surfaces.min_voxels > 0,
        )
        missing = [block for block in blocks if found[block.number] is None]
        made: Sequence[Pieces] = run_tasks(
            task, missing, storage=storage, description="surfaces", progress=self.progress
        )
        fresh = iter(made)
        return [next(fresh) if each is None else each for each in found]

    def _replace_meshes(self, info: MeshInfo) -> None:
        storage, old = self.target.storage, self.target.info
        if old is not None:
            MeshWriter(storage=storage, info=old).delete_everything()
        put_info(storage, info)

    def _merge(self, table: PieceTable, place: Workplace, info: MeshInfo) -> None:
        scale = self.layer.scale(self.surfaces.scale)
        x, y, z = (n * r for n, r in zip(scale.voxel_offset, scale.resolution, strict=True))
        shaping = Shaping(
            resolution=scale.resolution,
            origin_nm=(x, y, z),
            smooth=self.surfaces.smooth,
            simplify=self.surfaces.simplify,
        )
        writer = MeshWriter(storage=self.target.storage, info=info, levels=self.levels)
        task = MergeTask(pieces=place.storage, writer=writer, shaping=shaping)
        stored = place.marks() if self.resume else set()
        groups = (each for each in table.groups(info.sharding) if each.mark not in stored)
        run_tasks(
            task, groups, storage=place.storage, description="meshes", progress=self.progress
        )
