"""Meshes of other libraries, and files of other formats, through trimesh."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import numpy as np

from precomputed_store.codecs.base import require
from precomputed_store.mesh.mesh import Mesh

__all__ = ["load", "save", "to_trimesh"]

_FORMATS: Final = ("ply", "obj", "stl", "glb")


def to_trimesh(mesh: Mesh) -> Any:
    trimesh = require("trimesh", extra="meshes", purpose="trimesh objects")
    # Without processing: it would merge vertices and drop triangles.
    return trimesh.Trimesh(
        vertices=np.array(mesh.vertices), faces=np.array(mesh.faces, np.int64), process=False
    )


def save(mesh: Mesh, path: str | os.PathLike[str]) -> None:
    target = Path(path).expanduser()
    kind = _format_of(target)
    content = to_trimesh(mesh).export(file_type=kind)
    data = content.encode() if isinstance(content, str) else bytes(content)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(data)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Mesh:
    source = Path(path).expanduser()
    kind = _format_of(source)
    trimesh = require("trimesh", extra="meshes", purpose="mesh files")
    with source.open("rb") as file:
        found = trimesh.load(file, file_type=kind, force="mesh", process=False)
    return Mesh.from_trimesh(found)


def _format_of(path: Path) -> str:
    kind = path.suffix.removeprefix(".").lower()
    if kind not in _FORMATS:
        raise ValueError(f"{path.name!r}: expected a name that ends in .{', .'.join(_FORMATS)}")
    return kind
