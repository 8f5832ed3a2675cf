"""How much of a thing a test does: some in every run, much more on request (``-m long``)."""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["amounts"]


def amounts(few: int, many: int) -> list[Any]:
    """For `pytest.mark.parametrize`: `few` in every run, `many` in the long one."""
    return [pytest.param(few), pytest.param(many, marks=pytest.mark.long)]
