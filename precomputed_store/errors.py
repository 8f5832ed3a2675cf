"""Everything that can go wrong with a Precomputed layer, as a small tree of exceptions.

`PrecomputedError` means that the data or its host is at fault. A caller's mistake
(a wrong type, an index outside the volume) stays a plain ``TypeError``,
``ValueError`` or ``IndexError``.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

__all__ = [
    "ChunkError",
    "CompatibilityWarning",
    "FormatError",
    "MetadataError",
    "MissingChunkError",
    "MissingDataWarning",
    "ObjectError",
    "PrecomputedError",
    "PrecomputedWarning",
    "Problem",
    "StorageError",
    "UnsupportedError",
    "VolumeNotFoundError",
    "list_problems",
    "warn_caller",
]


class Problem(NamedTuple):
    """One thing wrong with a metadata document: where, and what."""

    location: str
    message: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}" if self.location else self.message


class PrecomputedError(Exception):
    """Base of every error that the data or its host is to blame for."""


class MetadataError(PrecomputedError, ValueError):
    """A metadata document breaks the specification.

    Attributes
    ----------
    problems : tuple of Problem
        Every problem found, each with its location in the document.
    """

    def __init__(self, problems: Iterable[Problem] | str, *, source: str = "info") -> None:
        if isinstance(problems, str):
            problems = [Problem("", problems)]
        self.problems = tuple(problems)
        self.source = source
        super().__init__(list_problems(self.problems, source=source))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_metadata_error, (type(self), self.problems, self.source), vars(self)


# A hostile document has more problems than anybody wants to read in a message.
_SHOWN_PROBLEMS = 50


def list_problems(problems: Sequence[Problem], *, source: str) -> str:
    """A message of one line for one problem, of one more line for each of several."""
    if len(problems) == 1:
        return f"{source}: {problems[0]}"
    lines = [f"\n  - {problem}" for problem in problems[:_SHOWN_PROBLEMS]]
    hidden = len(problems) - len(lines)
    return f"{source}:" + "".join(lines) + (f"\n  … and {hidden} more" if hidden else "")


def _rebuild_metadata_error(
    cls: type[MetadataError], problems: tuple[Problem, ...], source: str
) -> MetadataError:
    return cls(problems, source=source)


class FormatError(PrecomputedError, ValueError):
    """Bytes contradict the specification of what they are said to be."""


class StorageError(PrecomputedError, OSError):
    """The storage refused or failed: permission, network, server, disk.

    Never raised for an object that is merely absent.

    Attributes
    ----------
    status : int or None
        The HTTP status, where there is one.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_storage_error, (type(self), str(self), self.status), vars(self)


def _rebuild_storage_error(
    cls: type[StorageError], message: str, status: int | None
) -> StorageError:
    return cls(message, status=status)


class ConflictError(StorageError):
    """Others changed an object again and again while it was to be changed."""


class ChunkError(PrecomputedError, OSError):
    """A chunk could not be read, decoded, encoded or written.

    Attributes
    ----------
    key : str
        The object that was read or written.
    box : object
        The voxels that it holds.
    """

    def __init__(self, message: str, *, key: str = "", box: object = None) -> None:
        super().__init__(message)
        self.key = key
        self.box = box

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_chunk_error, (type(self), str(self), self.key, self.box), vars(self)


def _rebuild_chunk_error(cls: type[ChunkError], message: str, key: str, box: object) -> ChunkError:
    return cls(message, key=key, box=box)


class MissingChunkError(ChunkError, KeyError):
    """A chunk is not stored, and the caller asked for an error rather than the fill value."""

    def __str__(self) -> str:
        return str(self.args[0])


class ObjectError(PrecomputedError, OSError):
    """A skeleton, mesh or annotation could not be read, decoded, encoded or written.

    Attributes
    ----------
    key : str
        The object of storage that was read or written.
    """

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(message)
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_object_error, (type(self), str(self), self.key), vars(self)


def _rebuild_object_error(cls: type[ObjectError], message: str, key: str) -> ObjectError:
    return cls(message, key=key)


class UnsupportedError(PrecomputedError, ValueError, NotImplementedError):
    """Valid, but not possible here: the message says what to install or to do instead."""


class VolumeNotFoundError(PrecomputedError, FileNotFoundError):
    """There is no layer at this address; the message says what is there instead."""


class PrecomputedWarning(UserWarning):
    """Base of the warnings of this package."""


class CompatibilityWarning(PrecomputedWarning):
    """Readable here, but other programs read it differently or not at all."""


class MissingDataWarning(PrecomputedWarning):
    """Every chunk of a read was missing: the address may be wrong."""


# Whose lines tell a user nothing about where a warning comes from.
_INNER = frozenset({"precomputed_store", "xarray", "dask", "zarr", "fsspec"})


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn of the line that called us, through whatever libraries lie between."""
    level, frame = 3, sys._getframe(1).f_back
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INNER:
        level, frame = level + 1, frame.f_back
    # On a thread of a pool there may be nobody but the pool.
    warnings.warn(message, category, stacklevel=level)
