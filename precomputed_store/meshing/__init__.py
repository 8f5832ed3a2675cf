"""Meshes of a segmentation, made block by block as tasks of dask."""

from __future__ import annotations

from precomputed_store.meshing.api import make_meshes

__all__ = ["make_meshes"]
