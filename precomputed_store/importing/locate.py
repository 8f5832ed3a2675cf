"""What a user names as a source → files, and the format that they are in."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from precomputed_store.errors import UnsupportedError
from precomputed_store.importing.base import ImportFormat, ImportRequest
from precomputed_store.importing.formats import FORMATS
from precomputed_store.url import local_path, parse_url

__all__ = ["Located", "SourcePath", "SourcePaths", "locate", "natural_key"]

SourcePath: TypeAlias = str | os.PathLike[str]
SourcePaths: TypeAlias = SourcePath | Iterable[SourcePath]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_PRECOMPUTED = re.compile(r"^(neuroglancer[-_])?precomputed:|\|(neuroglancer-)?precomputed:/*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a source is, and how to read it.

    Attributes
    ----------
    format : ImportFormat
    paths : tuple of str
        One file, folder or URL; or the slices of a stack, sorted.
    inner : str or None
        What stood behind ``#``.
    is_stack : bool
        Whether each of `paths` is a slice.
    """

    format: ImportFormat
    paths: tuple[str, ...]
    inner: str | None = None
    is_stack: bool = False
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def request(self, axes: str | None) -> ImportRequest:
        return ImportRequest(
            path=self.paths[0],
            inner=self.inner,
            axes=axes,
            storage_options=self.storage_options,
        )


def locate(
    source: SourcePaths,
    *,
    format: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Located:
    """Find the files of a source.

    Parameters
    ----------
    source : str, path, or several
        A file, a folder, a pattern such as ``"slices/*.tif"``, a URL; ``#name`` behind it
        says which array of several in it. Several are slices of a stack.
    format : str, optional
        One of `FORMATS`, where the suffix does not say it.
    storage_options : mapping, optional
        For URLs.

    Raises
    ------
    FileNotFoundError
        There is no such file, or the pattern matches none.
    ValueError
        Its format is not known, or there are several files that are no slices.
    """
    options = storage_options or {}
    chosen = None if format is None else _format_by_name(format)
    if not isinstance(source, str | os.PathLike):
        every = list(source)
        if len(every) != 1:
            paths = [path for item in every for path in _files(os.fspath(item))]
            return _stack(paths, chosen)
        source = every[0]
    text = os.fspath(source)
    if _SCHEME.match(text) or _PRECOMPUTED.search(text):
        if not text.startswith("file://"):
            return _remote(text, chosen, options)
        text = local_path(parse_url(text)) or text
    path, inner = _split(text)
    if not os.path.exists(path):
        return _stack(_files(path), chosen, inner)
    path = os.path.abspath(path)
    found = chosen or _format_of(path)
    if found is None and os.path.isdir(path):
        return _stack(_slices_in(path), None)
    if chosen is not None and chosen.slices is not None and os.path.isdir(path):
        return _stack(_slices_in(path, (chosen,)), chosen)
    if found is None:
        raise ValueError(f"{path}: its suffix is not known. {_known()}; or say which, format=")
    return Located(format=found, paths=(path,), inner=inner)


def _split(text: str) -> tuple[str, str | None]:
    """``file.h5#/raw`` → file and name, unless a file is called so."""
    path, mark, inner = text.rpartition("#")
    text = os.path.expanduser(text)
    if not mark or os.path.exists(text):
        return text, None
    return os.path.expanduser(path), inner


def _files(pattern: str) -> list[str]:
    """The files that a pattern matches, sorted as people count."""
    pattern = os.path.expanduser(pattern)
    if os.path.exists(pattern):
        return [os.path.abspath(pattern)]
    found = [os.path.abspath(path) for path in glob.glob(pattern, recursive=True)]
    if not found:
        is_pattern = glob.has_magic(pattern)
        what = "no file matches this pattern" if is_pattern else "no such file or folder"
        raise FileNotFoundError(f"{pattern}: {what}")
    return sorted(found, key=natural_key)


def natural_key(text: str) -> tuple[tuple[int, int | str], ...]:
    """Sorts numbers by value.

    Examples
    --------
    >>> sorted(["slice10.tif", "slice2.tif", "slice1.tif"], key=natural_key)
    ['slice1.tif', 'slice2.tif', 'slice10.tif']
    """
    parts = re.split(r"(\d+)", text)
    return tuple((0, int(p)) if p.isdecimal() else (1, p.casefold()) for p in parts if p)


def _stack(paths: list[str], chosen: ImportFormat | None, inner: str | None = None) -> Located:
    if len(paths) == 1:
        return locate(paths[0] if inner is None else f"{paths[0]}#{inner}", format=_name(chosen))
    if not paths:
        raise ValueError(f"no source. {_known()}")
    formats = {path: chosen or _format_of(path) for path in paths}
    first = formats[paths[0]]
    for path, found in formats.items():
        if found is None or found.slices is None or found is not first:
            raise ValueError(
                f"{path}: several files are taken for slices of a stack, which are "
                f"{' or '.join(_slice_formats())}, all of one kind. Convert other files one by one"
            )
    assert first is not None
    return Located(format=first, paths=tuple(paths), inner=inner, is_stack=True)


def _slices_in(folder: str, formats: Iterable[ImportFormat] | None = None) -> list[str]:
    """The slices in a folder; what else lies in it does not matter."""
    readable = [f for f in formats or FORMATS.values() if f.slices is not None]
    files = sorted(
        (entry.path for entry in os.scandir(folder) if not entry.name.startswith(".")),
        key=natural_key,
    )
    found = [path for path in files if any(f.has_suffix(path) for f in readable)]
    if not found:
        raise FileNotFoundError(
            f"{folder}: no slices in this folder ({', '.join(_slice_formats())}), and it is no "
            "zarr and no Precomputed layer"
        )
    return found


def _remote(text: str, chosen: ImportFormat | None, options: Mapping[str, Any]) -> Located:
    path, mark, inner = text.partition("#")
    named = next((f for f in FORMATS.values() if f.has_suffix(path)), None)
    found = chosen or named or FORMATS["precomputed"]
    if _PRECOMPUTED.search(text):
        found = FORMATS["precomputed"]
    if not found.is_remote:
        raise UnsupportedError(
            f"{text}: {found.name} is read from local disks only: download it first"
        )
    return Located(
        format=found, paths=(path,), inner=inner if mark else None, storage_options=options
    )


def _format_of(path: str) -> ImportFormat | None:
    """By what a folder holds, else by its suffix."""
    if os.path.isdir(path):
        for found in FORMATS.values():
            if found.is_folder(path):
                return found
    return next((f for f in FORMATS.values() if f.has_suffix(path)), None)


def _format_by_name(name: str) -> ImportFormat:
    if name not in FORMATS:
        raise ValueError(f"format is {name!r}; expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def _name(found: ImportFormat | None) -> str | None:
    return None if found is None else found.name


def _known() -> str:
    suffixes = [suffix for found in FORMATS.values() for suffix in found.suffixes]
    return f"Known are {', '.join(suffixes)}, folders of slices, and Precomputed layers"


def _slice_formats() -> list[str]:
    return [s for f in FORMATS.values() if f.slices is not None for s in f.suffixes]
