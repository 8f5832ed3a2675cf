"""Volumes in other formats, opened for `to_precomputed`."""

from __future__ import annotations

from precomputed_store.importing.api import open_source
from precomputed_store.importing.base import (
    FoundArray,
    ImportFormat,
    ImportRequest,
    SliceHeader,
    SliceReader,
)
from precomputed_store.importing.formats import FORMATS

__all__ = [
    "FORMATS",
    "FoundArray",
    "ImportFormat",
    "ImportRequest",
    "SliceHeader",
    "SliceReader",
    "open_source",
]
