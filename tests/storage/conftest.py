"""Fixtures of the storage tests."""

from __future__ import annotations

import pytest

from precomputed_store.storage import RetryPolicy


@pytest.fixture
def hasty() -> RetryPolicy:
    """Retries as usual, but without the waiting."""
    return RetryPolicy(first_wait_s=0.001, longest_wait_s=0.01, deadline_s=10, stall_s=0.5)
