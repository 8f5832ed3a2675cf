"""The stored bytes of a skeleton.

Specification: skeletons.md, "Encoded skeleton file format".
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from precomputed_store.errors import FormatError
from precomputed_store.metadata.skeleton import SkeletonInfo, VertexAttribute
from precomputed_store.skeleton.affine import scaled_radius, to_physical, to_stored
from precomputed_store.skeleton.skeleton import Skeleton

__all__ = ["decode_skeleton", "encode_skeleton"]

_HEADER = struct.Struct("<II")
# What CloudVolume and kimimaro store where a radius or an SWC type is not known.
_UNKNOWN = {"radius": -1, "vertex_types": 0}


def decode_skeleton(
    data: bytes | bytearray | memoryview, *, info: SkeletonInfo, segment_id: int
) -> Skeleton:
    """The skeleton that `data` holds, in nm.

    Parameters
    ----------
    data : bytes-like
        The object as stored, without any content encoding.
    info : SkeletonInfo
        Says which attributes are stored, and where positions lie.
    segment_id : int
        For messages.

    Returns
    -------
    Skeleton
        Attributes of one component have shape (n,), others (n, k).

    Raises
    ------
    FormatError
        The length is not what counts and attributes require, or an edge names a vertex
        that is not there.
    """
    data = bytes(data)
    if len(data) < _HEADER.size:
        raise FormatError(
            f"skeleton {segment_id}: expected at least {_HEADER.size} bytes, got {len(data)}"
        )
    count, edge_count = _HEADER.unpack_from(data)
    _check_length(data, info, segment_id)
    offset = _HEADER.size
    vertices = np.frombuffer(data, dtype="<f4", count=3 * count, offset=offset).reshape(-1, 3)
    offset += vertices.nbytes
    edges = np.frombuffer(data, dtype="<u4", count=2 * edge_count, offset=offset).reshape(-1, 2)
    offset += edges.nbytes
    attributes = {}
    for attribute in info.vertex_attributes:
        k = attribute.num_components
        values = np.frombuffer(data, dtype=attribute.dtype, count=count * k, offset=offset)
        offset += values.nbytes
        attributes[attribute.id] = values if k == 1 else values.reshape(count, k)
    if edge_count and (high := int(edges.max())) >= count:
        raise FormatError(
            f"skeleton {segment_id}: an edge names vertex {high}, but there are {count} vertices"
        )
    affine = to_physical(info.transform)
    if affine is not None:
        vertices = affine.apply(vertices)
        attributes = scaled_radius(attributes, affine.scale)
    return Skeleton(vertices, edges, attributes)


def _check_length(data: bytes, info: SkeletonInfo, segment_id: int) -> None:
    count, edge_count = _HEADER.unpack_from(data)
    bare = _HEADER.size + 12 * count + 8 * edge_count
    per_vertex = sum(a.dtype.itemsize * a.num_components for a in info.vertex_attributes)
    expected = bare + count * per_vertex
    if len(data) == expected:
        return
    where = f"skeleton {segment_id}: {count} vertices and {edge_count} edges"
    if len(data) < bare:
        raise FormatError(f"{where} take {bare} bytes, but there are {len(data)}: cut short?")
    names = ", ".join(
        f"{a.id} ({a.data_type} x {a.num_components})" for a in info.vertex_attributes
    )
    raise FormatError(
        f"{where} leave {len(data) - bare} bytes for attributes, but vertex_attributes in info "
        f"({names or 'none'}) take {expected - bare}: the file and info disagree"
    )


def encode_skeleton(skeleton: Skeleton, *, info: SkeletonInfo) -> bytes:
    """The bytes to store for `skeleton`.

    A radius that `info` asks for and the skeleton lacks becomes -1, and ``vertex_types``
    0: what other programs write where they are not known.

    Parameters
    ----------
    skeleton : Skeleton
        In nm.
    info : SkeletonInfo
        Which attributes to store, and where positions lie.

    Raises
    ------
    ValueError
        The attributes are not those of `info`, or do not fit its data types.
    """
    vertices, attributes = skeleton.vertices, dict(skeleton.attributes)
    names = {attribute.id for attribute in info.vertex_attributes}
    if surplus := sorted(attributes.keys() - names):
        raise ValueError(
            f"attributes: {', '.join(surplus)} not in vertex_attributes of info "
            f"({', '.join(sorted(names)) or 'none'}); add or leave them out"
        )
    affine = to_stored(info.transform)
    if affine is not None:
        vertices = affine.apply(vertices)
        attributes = scaled_radius(attributes, affine.scale)
    parts = [
        _HEADER.pack(len(vertices), len(skeleton.edges)),
        vertices.astype("<f4", copy=False).tobytes(),
        skeleton.edges.astype("<u4", copy=False).tobytes(),
    ]
    parts += [_stored(a, attributes.get(a.id), len(vertices)) for a in info.vertex_attributes]
    return b"".join(parts)


def _stored(attribute: VertexAttribute, values: NDArray[Any] | None, count: int) -> bytes:
    name, k = attribute.id, attribute.num_components
    if values is None:
        if name not in _UNKNOWN or k != 1:
            raise ValueError(f"attributes: {name!r} is missing; info asks for it")
        values = np.full(count, _UNKNOWN[name])
    components = 1 if values.ndim == 1 else values.shape[1]
    if components != k:
        raise ValueError(
            f"attributes[{name!r}]: expected {k} components as in info, got {components}"
        )
    if values.dtype != attribute.dtype:
        values = _cast(values, attribute)
    return values.tobytes()


def _cast(values: NDArray[Any], attribute: VertexAttribute) -> NDArray[Any]:
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(attribute.dtype)
        # Rounding to float32 is what a float attribute means; anything else is loss.
        both_float = values.dtype.kind == "f" and cast.dtype.kind == "f"
        kept = np.isfinite(cast) == np.isfinite(values) if both_float else cast == values
    if not kept.all():
        raise ValueError(
            f"attributes[{attribute.id!r}]: {values[~kept][0]} does not fit "
            f"{attribute.data_type}, the data type in info"
        )
    return cast
