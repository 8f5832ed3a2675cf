"""Arrays → layers: source → target → blocks → objects."""

from __future__ import annotations

from precomputed_store.writing.api import to_precomputed

__all__ = ["to_precomputed"]
