"""What the formats of `formats.FORMATS` share: what they are asked, and what they answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from precomputed_store.errors import FormatError, PrecomputedError

if TYPE_CHECKING:
    import dask.array as da

__all__ = [
    "EXTRA",
    "FoundArray",
    "ImportFormat",
    "ImportRequest",
    "SliceHeader",
    "SliceReader",
    "blame_file",
]

EXTRA = "convert"
"""The extra that installs what the formats need."""


@contextmanager
def blame_file(path: str) -> Iterator[None]:
    """What a library raises over a broken file, as a `FormatError` that names the file.

    Libraries have errors of all kinds. Those of the operating system, which have a number,
    stay what they are.
    """
    try:
        yield
    except (PrecomputedError, MemoryError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise FormatError(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """What is to be opened.

    Attributes
    ----------
    path : str
        Absolute local path, or URL.
    inner : str or None
        Which array in the file: what the user wrote behind ``#``.
    axes : str or None
        A letter for each axis, if the user gave them.
    storage_options : mapping
        For fsspec, where `path` is a URL.
    """

    path: str
    inner: str | None = None
    axes: str | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.path if self.inner is None else f"{self.path}#{self.inner}"

    def letters(self, default: str) -> str:
        """The axes that the user gave, if they are as many, else `default`."""
        given = self.axes
        return given if given is not None and len(given) == len(default) else default


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundArray:
    """An array in a file, unread, and what the file says of it.

    Attributes
    ----------
    array : dask.array.Array
    axes : str
        A letter for each axis of `array`: x, y, z, c for the channel, any other for
        what Precomputed does not have.
    resolution : tuple of (float or None), optional
        Nanometres along each axis of `array`; None where the file does not say.
    voxel_offset : tuple of (int or None), optional
        The first voxel along each axis.
    encoding : mapping
        As `xarray_backend.writing_encoding` has it, if it is a Precomputed layer.
    notes : tuple of str
        What the user should know of how it was read.
    """

    array: da.Array
    axes: str
    resolution: tuple[float | None, ...] = ()
    voxel_offset: tuple[int | None, ...] = ()
    encoding: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceHeader:
    """What one file of a stack holds, without its voxels.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    axes : str
        ``"yx"``, or with ``c`` for channels somewhere.
    rows : int or None
        How many rows are stored together; None if the slice cannot be read in part.
    resolution : tuple of (float or None), optional
        Nanometres along each axis.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str
    rows: int | None = None
    resolution: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceReader:
    """How files that are slices of a stack are read.

    Attributes
    ----------
    header : callable
        Path → `SliceHeader`.
    read : callable
        Path and rows (a slice along y) → array with the axes of the header.
    """

    header: Callable[[str], SliceHeader]
    read: Callable[[str, slice], np.ndarray[Any, Any]]


def _is_none_of_ours(path: str) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFormat:
    """One format that can be imported: an entry of `formats.FORMATS`.

    Attributes
    ----------
    name : str
    suffixes : tuple of str
        How its files and folders end, with the dot, in lower case.
    open : callable
        `ImportRequest` → `FoundArray`. Imports its libraries itself.
    slices : SliceReader, optional
        For formats whose files may each be one slice of a stack.
    is_folder : callable
        Whether a local folder is of this format, whatever it is called.
    is_remote : bool
        Whether `open` takes URLs.
    """

    name: str
    suffixes: tuple[str, ...]
    open: Callable[[ImportRequest], FoundArray]
    slices: SliceReader | None = None
    is_folder: Callable[[str], bool] = _is_none_of_ours
    is_remote: bool = False

    def has_suffix(self, path: str) -> bool:
        return os.path.basename(path.rstrip("/")).lower().endswith(self.suffixes)
