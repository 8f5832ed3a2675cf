"""One skeleton: the object, and its stored bytes."""

from __future__ import annotations

from precomputed_store.skeleton.encoding import decode_skeleton, encode_skeleton
from precomputed_store.skeleton.skeleton import Skeleton

__all__ = ["Skeleton", "decode_skeleton", "encode_skeleton"]
