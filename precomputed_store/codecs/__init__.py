"""Encodings of chunk bytes: one file each, one registry line each.

To add one: write ``codecs/<name>.py`` with a `Codec` subclass, add its line to
`ENCODINGS`, add ``tests/codecs/test_<name>.py`` and a fixture folder. Metadata
validation, the engine and the zarr and numcodecs codecs find it through the registry.
"""

from __future__ import annotations

import importlib
from typing import Any

from precomputed_store.codecs.base import Codec

__all__ = ["ENCODINGS", "Codec", "codec_class"]

ENCODINGS: dict[str, tuple[str, str]] = {
    "raw": ("precomputed_store.codecs.raw", "Raw"),
    "jpeg": ("precomputed_store.codecs.jpeg", "Jpeg"),
    "png": ("precomputed_store.codecs.png", "Png"),
    "jxl": ("precomputed_store.codecs.jxl", "Jxl"),
    "compressed_segmentation": (
        "precomputed_store.codecs.compressed_segmentation",
        "CompressedSegmentation",
    ),
    "compresso": ("precomputed_store.codecs.compresso", "Compresso"),
    "crackle": ("precomputed_store.codecs.crackle", "Crackle"),
    "fpzip": ("precomputed_store.codecs.fpzip", "Fpzip"),
    "kempressed": ("precomputed_store.codecs.kempressed", "Kempressed"),
    "zfpc": ("precomputed_store.codecs.zfpc", "Zfpc"),
}
"""``encoding`` in `info` → (module, class)."""


def codec_class(encoding: str) -> type[Codec] | None:
    """The codec of an encoding by its lower-case name, or None if it is unknown."""
    entry = ENCODINGS.get(encoding)
    if entry is None:
        return None
    module, name = entry
    found: Any = getattr(importlib.import_module(module), name)
    return found  # type: ignore[no-any-return]
