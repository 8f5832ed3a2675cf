"""Checking a layer: its metadata against the specification, its chunks against its metadata."""

from precomputed_store.validation.layer import validate
from precomputed_store.validation.report import (
    ChunkProblem,
    Report,
    ScaleReport,
    UnknownObject,
)

__all__ = ["ChunkProblem", "Report", "ScaleReport", "UnknownObject", "validate"]
