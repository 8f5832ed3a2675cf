"""Copying layers, and removing them."""

from precomputed_store.copying.api import copy
from precomputed_store.copying.deleting import delete
from precomputed_store.copying.plan import CopyPlan
from precomputed_store.copying.removal import Removal

__all__ = ["CopyPlan", "Removal", "copy", "delete"]
