"""Fragments of a multi-resolution mesh: compressed octree nodes ⇄ a mesh in nanometres. Pure.

Specification: meshes.md, "Multi-resolution mesh fragment data file format".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from precomputed_store.codecs.base import Buffer
from precomputed_store.errors import FormatError
from precomputed_store.mesh import draco
from precomputed_store.mesh.manifest import Manifest
from precomputed_store.mesh.mesh import Mesh, NmBox
from precomputed_store.metadata.mesh import MeshInfo

__all__ = ["Fragment", "decode_fragment", "nodes_within"]


class Fragment(NamedTuple):
    """One octree node of one level of detail, by its place in the manifest."""

    lod: int
    node: int


def decode_fragment(data: Buffer, fragment: Fragment, manifest: Manifest, info: MeshInfo) -> Mesh:
    """One fragment as a mesh in nanometres; an empty one as an empty mesh.

    Raises
    ------
    FormatError
        It is no Draco mesh within its node, or leaves what float32 can hold.
    """
    if not len(data):
        return Mesh.concatenate()
    bits = info.vertex_quantization_bits
    points, faces = draco.decode(data, bits=bits)
    lod, node = fragment
    position = manifest.fragment_positions[lod][node]
    within = points / float((1 << bits) - 1)
    # As the specification writes it: a vertex on the face between two nodes is the same in both.
    origin = manifest.grid_origin.astype(np.float64) + manifest.vertex_offsets[lod]
    stored = origin + manifest.node_shape(lod) * (position + within)
    matrix = info.matrix
    try:
        return Mesh(vertices=stored @ matrix[:, :3].T + matrix[:, 3], faces=faces)
    except ValueError as error:
        raise FormatError(f"node {node} of lod {lod}: {error}") from error


def nodes_within(manifest: Manifest, lod: int, box: NmBox, info: MeshInfo) -> Sequence[int]:
    """Indices of the nodes of a level that touch a box in nanometres."""
    corners = np.indices((2, 2, 2)).reshape(3, 8).T
    origins = manifest.node_origins(lod)
    stored = origins[:, None, :] + corners * manifest.node_shape(lod)
    matrix = info.matrix
    placed: npt.NDArray[np.float64] = stored @ matrix[:, :3].T + matrix[:, 3]
    low, high = np.asarray(box[0], float), np.asarray(box[1], float)
    # What float32 rounds to may lie a little outside of its node.
    margin = np.spacing(np.abs(placed).max(initial=0).astype(np.float32))
    touching = np.all(
        (placed.min(axis=1) <= high + margin) & (placed.max(axis=1) >= low - margin), axis=1
    )
    found: list[int] = np.flatnonzero(touching).tolist()
    return found
