"""`functools.cached_property`, without the lock that it takes before Python 3.12.

All objects of a class share that lock there, threads wait for each other at it, and a child
forked meanwhile waits for ever. Without it a value may be worked out twice at first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

__all__ = ["cached_property"]

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property
else:
    T = TypeVar("T")

    class cached_property(Generic[T]):  # noqa: N801
        """A property whose value is kept in the object's ``__dict__``, which then precedes it."""

        def __init__(self, function: Callable[[Any], T]) -> None:
            self._function = function
            self._name = function.__name__
            self.__doc__ = function.__doc__

        def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
            if instance is None:
                return self
            value = instance.__dict__[self._name] = self._function(instance)
            return value
