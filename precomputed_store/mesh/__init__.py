"""Meshes: bytes ⇄ objects, levels of detail, octrees. Pure."""

from __future__ import annotations

from precomputed_store.mesh.manifest import Manifest
from precomputed_store.mesh.mesh import Mesh, NmBox, as_mesh

__all__ = ["Manifest", "Mesh", "NmBox", "as_mesh"]
