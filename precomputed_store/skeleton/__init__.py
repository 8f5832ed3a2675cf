"""One skeleton: the object, and its stored bytes."""

from __future__ import annotations

from precomputed_store.skeleton.encoding import decode_skeleton, encode_skeleton
from precomputed_store.skeleton.foreign import as_skeleton, default_attributes
from precomputed_store.skeleton.skeleton import Skeleton

__all__ = ["Skeleton", "as_skeleton", "decode_skeleton", "default_attributes", "encode_skeleton"]
