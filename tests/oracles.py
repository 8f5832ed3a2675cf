"""CloudVolume and TensorStore as oracles: the same folder through other programs.

All arrays are ``(x, y, z, channel)``.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "cloudvolume_read",
    "cloudvolume_write",
    "make_info",
    "tensorstore_read",
    "tensorstore_write",
]


def make_info(
    *,
    size: tuple[int, int, int],
    dtype: str = "uint8",
    num_channels: int = 1,
    voxel_offset: tuple[int, int, int] = (0, 0, 0),
    chunk_size: tuple[int, int, int] = (64, 64, 64),
    resolution: tuple[float, float, float] = (8, 8, 8),
    encoding: str = "raw",
    layer_type: str = "image",
    sharding: dict[str, Any] | None = None,
    **members: Any,
) -> dict[str, Any]:
    """An `info` document of one scale, as another program would write it."""
    scale = {
        "key": "_".join(f"{r:g}" for r in resolution),
        "size": list(size),
        "voxel_offset": list(voxel_offset),
        "chunk_sizes": [list(chunk_size)],
        "resolution": list(resolution),
        "encoding": encoding,
        **members,
    }
    if encoding == "compressed_segmentation":
        scale.setdefault("compressed_segmentation_block_size", [8, 8, 8])
    if sharding is not None:
        scale["sharding"] = {"@type": "neuroglancer_uint64_sharded_v1", **sharding}
    return {
        "@type": "neuroglancer_multiscale_volume",
        "type": layer_type,
        "data_type": dtype,
        "num_channels": num_channels,
        "scales": [scale],
    }


def _tensorstore(folder: Path, *, scale_index: int = 0) -> Any:
    import tensorstore as ts

    return ts.open(
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": f"{folder}/"},
            "scale_index": scale_index,
        },
        open=True,
        context=ts.Context({"cache_pool": {"total_bytes_limit": 0}}),
    ).result()


def tensorstore_write(folder: Path, info: dict[str, Any], data: np.ndarray) -> None:
    """Write a whole volume with TensorStore, by its own rules of what is stored."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "info").write_text(json.dumps(info))
    _tensorstore(folder)[...].write(data).result()


def tensorstore_read(folder: Path, *, scale_index: int = 0) -> np.ndarray:
    """Read a whole volume with TensorStore, no cache."""
    result: np.ndarray = _tensorstore(folder, scale_index=scale_index).read(order="F").result()
    return result


def _cloudvolume(folder: Path, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cloudvolume import CloudVolume

        return CloudVolume(f"file://{folder}", progress=False, **options)


def cloudvolume_write(
    folder: Path, info: dict[str, Any], data: np.ndarray, *, compress: Any = None
) -> None:
    """Write a whole volume with CloudVolume; ``compress=None`` is its default."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = _cloudvolume(folder, info=info, compress=compress)
        volume.commit_info()
        volume[:, :, :] = data


def cloudvolume_read(folder: Path, *, mip: int = 0) -> np.ndarray:
    """Read a whole volume with CloudVolume; missing chunks are zeros."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(_cloudvolume(folder, mip=mip, fill_missing=True)[:, :, :])
