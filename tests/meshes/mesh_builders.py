"""Meshes, and layers of meshes as other programs would write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from oracles import make_info

from precomputed_store.mesh import Mesh
from precomputed_store.mesh.extract import extract_surfaces

__all__ = ["ball", "layer_folder", "sphere"]


def ball(radius: int) -> np.ndarray:
    """Voxels (x, y, z) of a ball, with a rim of background."""
    axis = np.arange(-radius - 1, radius + 2)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    inside: np.ndarray = x * x + y * y + z * z <= radius * radius
    return inside


def sphere(radius: int = 12, *, scale: float = 8.0, shift: float = 1000.0) -> Mesh:
    (surface,) = extract_surfaces(ball(radius).astype(np.uint8))
    return Mesh(vertices=surface.vertices * scale + shift, faces=surface.faces)


def layer_folder(folder: Path, *, mesh: str | None = None, **members: Any) -> Path:
    """A segmentation's `info`, without chunks."""
    folder.mkdir(parents=True, exist_ok=True)
    info = make_info(size=(64, 64, 64), dtype="uint64", layer_type="segmentation", **members)
    if mesh is not None:
        info["mesh"] = mesh
    (folder / "info").write_text(json.dumps(info))
    return folder
