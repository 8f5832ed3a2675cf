"""``.precomputed`` on xarray objects: metadata and writing.

Registered when this module is imported, which using the engine does.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from precomputed_store.metadata import Scale, VolumeInfo

if TYPE_CHECKING:
    from dask.delayed import Delayed

    from precomputed_store.grid import XYZ
    from precomputed_store.layer import ScaleSelector
    from precomputed_store.pyramid_plan import Pyramid
    from precomputed_store.volume import Volume
    from precomputed_store.write_plan import Unaligned
    from precomputed_store.writer import Compress
    from precomputed_store.writing.layers import WriteMode
    from precomputed_store.writing.place import Region, Resolution
    from precomputed_store.writing.pyramid import MethodName
    from precomputed_store.writing.target import LayerType, Sharding

__all__ = ["PrecomputedAccessor", "PrecomputedTreeAccessor"]


@xr.register_dataset_accessor("precomputed")  # type: ignore[no-untyped-call]
@xr.register_dataarray_accessor("precomputed")  # type: ignore[no-untyped-call]
class PrecomputedAccessor:
    """Metadata of the layer that a Dataset or DataArray was read from; writing it."""

    def __init__(self, target: xr.Dataset | xr.DataArray) -> None:
        self._target = target

    @property
    def info(self) -> VolumeInfo:
        """Metadata of the layer.

        Raises
        ------
        AttributeError
            It was not read by ``engine="precomputed"``, or computing has changed it, or a
            dataset holds variables of several layers.
        """
        info: VolumeInfo = self._origin()["info"]
        return info

    @property
    def scale(self) -> Scale:
        """Metadata of the scale, as it was opened: slicing does not change it.

        Raises
        ------
        AttributeError
            See `info`.
        """
        origin = self._origin()
        scale: Scale = origin["info"].scales[origin["scale_index"]]
        return scale

    def to_precomputed(
        self,
        url: str | os.PathLike[str],
        *,
        dims: Iterable[Hashable] | None = None,
        layer_type: LayerType | None = None,
        encoding: str | None = None,
        encoding_options: Mapping[str, Any] | None = None,
        resolution: Resolution | None = None,
        voxel_offset: XYZ | None = None,
        chunk_size: XYZ | None = None,
        key: str | None = None,
        sharding: Sharding = None,
        pyramid: Pyramid = None,
        method: MethodName = "auto",
        compress: Compress = "auto",
        compress_level: int | None = None,
        write_empty_chunks: bool = False,
        mode: WriteMode = "w-",
        scale: ScaleSelector | None = None,
        region: Region | None = None,
        unaligned: Unaligned = "raise",
        allow_misread: bool = False,
        resume: bool = False,
        compute: bool = True,
        progress: bool | None = None,
        storage_options: Mapping[str, Any] | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> Volume | Delayed:
        """Write as a Precomputed layer, or into one; see `precomputed_store.to_precomputed`."""
        from precomputed_store.writing import to_precomputed

        return to_precomputed(
            self._target,
            url,
            dims=dims,
            layer_type=layer_type,
            encoding=encoding,
            encoding_options=encoding_options,
            resolution=resolution,
            voxel_offset=voxel_offset,
            chunk_size=chunk_size,
            key=key,
            sharding=sharding,
            pyramid=pyramid,
            method=method,
            compress=compress,
            compress_level=compress_level,
            write_empty_chunks=write_empty_chunks,
            mode=mode,
            scale=scale,
            region=region,
            unaligned=unaligned,
            allow_misread=allow_misread,
            resume=resume,
            compute=compute,
            progress=progress,
            storage_options=storage_options,
            root=root,
        )

    def _origin(self) -> Mapping[Hashable, Any]:
        found = list(_origins(self._target))
        if not found:
            raise AttributeError(
                "no metadata: this was not opened with engine='precomputed', or computing made "
                "something new of it. Ask the object that was opened"
            )
        if len(found) > 1:
            raise AttributeError(
                f"the dataset holds {len(found)} layers: ask one, dataset[name].precomputed"
            )
        return found[0]


@xr.register_datatree_accessor("precomputed")  # type: ignore[no-untyped-call]
class PrecomputedTreeAccessor:
    """Metadata of the layer that a DataTree was read from."""

    def __init__(self, target: xr.DataTree) -> None:
        self._target = target

    @property
    def info(self) -> VolumeInfo:
        """Metadata of the layer.

        Raises
        ------
        AttributeError
            It was not read by ``engine="precomputed"``.
        """
        for node in self._target.subtree:
            for origin in _origins(node.dataset):
                info: VolumeInfo = origin["info"]
                return info
        raise AttributeError("no metadata: this was not opened with engine='precomputed'")


def _origins(target: Any) -> Iterator[Mapping[Hashable, Any]]:
    """The encodings that this package's engine wrote."""
    arrays = target.data_vars.values() if hasattr(target, "data_vars") else [target]
    for array in arrays:
        if isinstance(array.encoding.get("info"), VolumeInfo) and "scale_index" in array.encoding:
            yield array.encoding
