"""Legacy meshes: fragments and the manifests that name them. Pure.

Specification: meshes.md, "Legacy single-resolution mesh format".
"""

from __future__ import annotations

import json

import numpy as np

from precomputed_store.codecs.base import Buffer
from precomputed_store.errors import FormatError, MetadataError
from precomputed_store.mesh.mesh import Mesh
from precomputed_store.metadata.document import load_document
from precomputed_store.metadata.rules import ABSENT, Report

__all__ = [
    "decode_fragment",
    "encode_fragment",
    "encode_manifest",
    "manifest_key",
    "parse_manifest",
    "segment_of",
]

_SUFFIX = ":0"
_FACE_BYTES = _VERTEX_BYTES = 12


def manifest_key(segment_id: int) -> str:
    """Name of a segment's manifest."""
    return f"{segment_id}{_SUFFIX}"


def segment_of(name: str) -> int | None:
    """The segment whose manifest has this name, or None if it is no manifest."""
    number = name.removesuffix(_SUFFIX)
    is_manifest = number != name and number.isascii() and number.isdecimal()
    return int(number) if is_manifest and manifest_key(int(number)) == name else None


def parse_manifest(data: Buffer, *, source: str) -> list[str]:
    """Names of a segment's fragments, relative to the folder.

    Raises
    ------
    MetadataError
        It is no JSON object with a list of names.
    """
    report = Report()
    document = load_document(bytes(data), source=source)
    listed = document.get("fragments", ABSENT)
    if not isinstance(listed, list):
        report.wrong("fragments", listed, "a list of names")
        listed = []
    names = [report.path(name, f"fragments[{i}]") for i, name in enumerate(listed)]
    if report.problems:
        raise MetadataError(report.problems, source=source)
    return [name for name in names if name is not None]


def encode_manifest(fragments: list[str]) -> bytes:
    """A manifest that names these fragments."""
    return json.dumps({"fragments": fragments}).encode()


def decode_fragment(data: Buffer) -> Mesh:
    """A fragment as it is stored.

    Raises
    ------
    FormatError
        Its length does not fit, a face names a vertex that is not there, or a coordinate is
        not finite.
    """
    view = memoryview(data).cast("B")
    if len(view) < 4:
        raise FormatError(f"mesh fragment is {len(view)} bytes; expected at least 4")
    num_vertices = int.from_bytes(view[:4], "little")
    faces_at = 4 + _VERTEX_BYTES * num_vertices
    if faces_at > len(view) or (len(view) - faces_at) % _FACE_BYTES:
        raise FormatError(
            f"mesh fragment is {len(view)} bytes; expected {faces_at} for its {num_vertices} "
            "vertices and 12 for each face"
        )
    vertices = np.frombuffer(view, "<f4", 3 * num_vertices, 4).reshape(-1, 3)
    faces = np.frombuffer(view, "<u4", offset=faces_at).reshape(-1, 3)
    try:
        return Mesh(vertices=vertices, faces=faces)
    except ValueError as error:
        raise FormatError(f"mesh fragment: {error}") from error


def encode_fragment(mesh: Mesh) -> bytes:
    """A mesh as a fragment."""
    return b"".join(
        (
            len(mesh.vertices).to_bytes(4, "little"),
            mesh.vertices.astype("<f4").tobytes(),
            mesh.faces.astype("<u4").tobytes(),
        )
    )
