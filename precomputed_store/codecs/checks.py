"""Checks that several encodings share: what they can hold, their parameters, their libraries."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from precomputed_store.codecs.base import CZYX, ChunkArray, Codec
from precomputed_store.errors import FormatError, PrecomputedError

__all__ = [
    "check_holds",
    "conform",
    "integer_parameter",
    "library_errors",
    "parameter_error",
]


def check_holds(codec: type[Codec], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise FormatError unless chunks of this shape and data type can have this encoding."""
    if dtype.name not in codec.data_types:
        holds = ", ".join(codec.data_types)
        raise FormatError(f"{codec.name} holds {holds}, not {dtype.name}")
    if codec.channels is not None and shape[0] not in codec.channels:
        holds = " or ".join(map(str, codec.channels))
        raise FormatError(f"{codec.name} holds {holds} channels, not {shape[0]}")


@contextmanager
def library_errors(encoding: str) -> Iterator[None]:
    """Turn whatever the library of an encoding raises into FormatError."""
    try:
        yield
    except PrecomputedError:
        raise
    except Exception as error:
        detail = str(error) or type(error).__name__
        raise FormatError(f"{encoding}: {detail}") from error


def conform(array: ChunkArray, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
    """A decoded array in the byte order asked for, or FormatError if it is another array."""
    if array.shape != shape or array.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        raise FormatError(
            f"decoded to {array.dtype} {array.shape} (channel, z, y, x); expected {dtype} {shape}"
        )
    return array.astype(dtype, copy=False)


def parameter_error(member: str, value: object, expected: str) -> ValueError:
    """What `Codec.from_parameters` raises for one wrong member."""
    return ValueError((member, f"expected {expected}, got {reprlib.repr(value)}"))


def integer_parameter(member: str, value: object, *, minimum: int, maximum: int) -> int:
    """A whole number within bounds (JSON also writes it as 8.0), or a parameter error."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    whole = whole or (isinstance(value, float) and value.is_integer())
    if not whole or not minimum <= int(value) <= maximum:  # type: ignore[call-overload]
        raise parameter_error(member, value, f"an integer from {minimum} to {maximum}")
    return int(value)  # type: ignore[call-overload, no-any-return]
