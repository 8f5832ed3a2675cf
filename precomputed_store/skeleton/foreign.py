"""Skeleton objects of other libraries, known by what they have, without importing them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from precomputed_store.metadata.skeleton import IDENTITY, VertexAttribute
from precomputed_store.skeleton.affine import to_physical
from precomputed_store.skeleton.skeleton import Skeleton

__all__ = ["as_skeleton", "default_attributes"]

_STORED_AS = {
    # Neuroglancer draws no skeleton that has an attribute of 8 or 16 bits
    # (google/neuroglancer issue 572).
    "int8": "float32", "uint8": "float32", "int16": "float32", "uint16": "float32",
    "bool": "float32", "float16": "float32", "float32": "float32", "float64": "float32",
    "int32": "int32", "int64": "int32", "uint32": "uint32", "uint64": "uint32",
}  # fmt: skip


def as_skeleton(value: Any) -> Skeleton:
    """`value` as a `Skeleton`: one already, or an object of kimimaro, osteoid or CloudVolume.

    Parameters
    ----------
    value : object
        Has ``vertices`` and ``edges``; where it has them, ``extra_attributes`` names its
        attributes, and ``transform`` takes vertices to nm if ``space`` is "voxel".

    Raises
    ------
    TypeError
        `value` has no vertices and edges.
    ValueError
        Its arrays do not fit one another.
    """
    if isinstance(value, Skeleton):
        return value
    if not hasattr(value, "vertices") or not hasattr(value, "edges"):
        raise TypeError(f"expected a skeleton with vertices and edges, got {type(value).__name__}")
    if hasattr(value, "nodes"):
        raise TypeError(
            f"the edges of {type(value).__name__} (navis?) name nodes by id, in units of its own; "
            "give Skeleton.from_swc its SWC text, with the scale"
        )
    vertices = np.asarray(value.vertices)
    entries = getattr(value, "extra_attributes", None) or ()
    attributes = {entry["id"]: np.asarray(getattr(value, entry["id"])) for entry in entries}
    if getattr(value, "space", "physical") == "voxel":
        matrix = np.asarray(getattr(value, "transform", IDENTITY), dtype=np.float64)
        affine = to_physical(tuple(matrix.ravel().tolist()))
        vertices = vertices if affine is None else affine.apply(vertices)
    return Skeleton(vertices, value.edges, attributes)


def default_attributes(skeletons: Iterable[Skeleton]) -> tuple[VertexAttribute, ...]:
    """The attributes to store for skeletons, where the user names none.

    Those of any skeleton, in the order in which they are met; integers of 8 and 16 bits
    as float32, because Neuroglancer shows no skeletons that have them.

    Raises
    ------
    ValueError
        Skeletons disagree on the number of components or on the type of an attribute.
    """
    found: dict[str, VertexAttribute] = {}
    for skeleton in skeletons:
        for name, values in skeleton.attributes.items():
            components = 1 if values.ndim == 1 else values.shape[1]
            stored = _STORED_AS.get(values.dtype.name)
            if stored is None:
                raise ValueError(f"attributes[{name!r}]: {values.dtype} cannot be stored")
            attribute = VertexAttribute(name, stored, components)
            if found.setdefault(name, attribute) != attribute:
                raise ValueError(
                    f"attributes[{name!r}]: skeletons disagree: {found[name]} and {attribute}; "
                    "name the attributes to store"
                )
    return tuple(found.values())
