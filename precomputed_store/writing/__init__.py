"""Arrays → layers: source → target → blocks → objects."""

from __future__ import annotations

from precomputed_store.writing.api import to_precomputed
from precomputed_store.writing.coarsen import downsample
from precomputed_store.writing.follow import update_scales
from precomputed_store.writing.preview import plan

__all__ = ["downsample", "plan", "to_precomputed", "update_scales"]
