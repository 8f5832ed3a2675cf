"""A user's address → a normalised fsspec URL; relative keys → URLs that stay in bounds. Pure.

Scale keys and the directories of meshes and skeletons are relative paths that may
contain ``..``. They may move within the layer's parent folder on a local disk and
within the bucket or origin elsewhere, and never outside.
Specification: volume.md, "info JSON file format" (``key``).
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import quote

from precomputed_store.errors import MetadataError

__all__ = [
    "Address",
    "contains",
    "default_root",
    "follow",
    "join",
    "local_path",
    "parse_url",
    "same_server",
    "split_url",
]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://")
_PREFIX = re.compile(r"(?:neuroglancer[-_])?precomputed(?:://|::)", re.IGNORECASE)
_SUFFIX = re.compile(r"/?\|(?:neuroglancer-)?precomputed:/*$", re.IGNORECASE)
_ALIASES = {"mem": "memory", "gcs": "gs", "s3a": "s3", "local": "file"}
_CACHES = frozenset({"simplecache", "filecache", "blockcache", "cached"})
# Every path of these begins at the file system's own root: no bucket in front.
_WITHOUT_BUCKET = frozenset({"memory", "zip", "tar", "libarchive", "reference", "dir"})
# What only this computer, or this process, can see.
_OWN = frozenset({"file", "memory"})
# What RFC 3986 allows in a path without percent-encoding.
_HTTP_SAFE = "/-._~!$&'()*+,;=:@"


class Address(NamedTuple):
    """A chained URL, taken apart at the component that holds the path.

    ``simplecache::gs://bucket/layer`` is ``before="simplecache::"``,
    ``scheme="gs"``, ``path="bucket/layer"``; ``after`` is what follows, as in
    ``zip://layer::s3://bucket/volumes.zip``.
    """

    before: str
    scheme: str
    path: str
    after: str

    def with_path(self, path: str) -> str:
        return f"{self.before}{self.scheme}://{path}{self.after}"


def parse_url(address: str | os.PathLike[str]) -> str:
    """Normalise what a user types or pastes.

    Parameters
    ----------
    address : str or os.PathLike
        A local path (``~`` is expanded), or a URL of any fsspec protocol or chain of
        them, with or without ``precomputed://`` in front and
        ``|neuroglancer-precomputed:`` behind. A slash or ``/info`` at the end is
        dropped (a folder that is itself called ``info`` takes a slash behind it).

    Returns
    -------
    str
        An fsspec URL without a slash at its end. Local paths become absolute.

    Raises
    ------
    ValueError
        The address is empty, or its protocol is unknown.

    Examples
    --------
    >>> parse_url("precomputed://gs://bucket/layer/info")
    'gs://bucket/layer'
    >>> parse_url("https://example.org/layer/|neuroglancer-precomputed:")
    'https://example.org/layer'
    """
    if not isinstance(address, str):
        return "file://" + _absolute(_without_info(os.fspath(address)))
    text = _SUFFIX.sub("", _PREFIX.sub("", address.strip(), count=1))
    if not text:
        raise ValueError(f"an empty address: {address!r}")
    if "|" in text and _SCHEME.match(text):
        raise ValueError(
            f"{address!r}: of Neuroglancer's pipelines only '|neuroglancer-precomputed:' is "
            "understood; write an archive as 'zip://folder::gs://bucket/archive.zip'"
        )
    parts = text.split("::")
    if len(parts) == 1 or text.startswith("file://") or not _begins_chain(parts[0]):
        return _normalise(text)
    place = _path_component(parts)
    return "::".join(
        part if _is_bare(part) else _normalise(part, is_folder=index == place)
        for index, part in enumerate(parts)
    )


def _normalise(component: str, *, is_folder: bool = True) -> str:
    match = _SCHEME.match(component)
    if match is None:
        return "file://" + _absolute(_without_info(component) if is_folder else component)
    scheme = _ALIASES.get(match[1].lower(), match[1].lower())
    path = component[match.end() :]
    if scheme == "file":
        return "file://" + _absolute(_without_info(path) if is_folder else path)
    if not _known(scheme):
        raise ValueError(
            f"{component!r}: unknown protocol {scheme!r}; known are a local path and "
            + ", ".join(f"{name}://" for name in _protocols())
        )
    if _SCHEME.match(path):
        raise ValueError(
            f"{component!r}: an address within an address; an S3 server of your own is given as "
            "storage_options={'endpoint_url': 'https://…'}"
        )
    if scheme in ("http", "https"):
        path, mark, query = path.partition("#")[0].partition("?")
        return f"{scheme}://{_without_info(path).rstrip('/')}{mark}{query}"
    if is_folder:
        path = _without_info(path).rstrip("/")
    return f"{scheme}://{path.lstrip('/') if scheme == 'memory' else path}"


def _without_info(path: str) -> str:
    return path[: -len("/info")] if path.endswith("/info") else path


def _absolute(path: str) -> str:
    """An absolute path with forward slashes; ``/C:/…`` on Windows, as in a file URL."""
    if "\0" in path:
        raise ValueError(f"{path!r}: a path cannot contain NUL")
    if os.name == "nt" and re.match(r"/[A-Za-z]:", path):
        path = path[1:]
    path = os.path.abspath(os.path.expanduser(path or "."))
    if os.name == "nt":
        path = "/" + path.replace("\\", "/").lstrip("/")
    return path


def _protocols() -> list[str]:
    from fsspec import available_protocols  # type: ignore[import-untyped]

    return sorted({*available_protocols(), "file"} - {"local"})


def _known(scheme: str) -> bool:
    return scheme in ("file", "http", "https", "gs", "s3", "memory") or scheme in _protocols()


def _begins_chain(part: str) -> bool:
    return _SCHEME.match(part) is not None or _known(part)


def _is_bare(part: str) -> bool:
    return not _SCHEME.match(part) and _known(part)


def _path_component(parts: list[str]) -> int:
    """Index of the component whose path names the folder: caches have none of their own."""
    for index, part in enumerate(parts[:-1]):
        scheme, _, path = part.partition("://")
        if path or scheme not in _CACHES:
            return index
    return len(parts) - 1


def split_url(url: str) -> Address:
    """Take a normalised URL apart at the component whose path names the folder."""
    parts = url.split("::") if not url.startswith("file://") else [url]
    place = _path_component(parts)
    scheme, _, path = parts[place].partition("://")
    before = "".join(part + "::" for part in parts[:place])
    after = "".join("::" + part for part in parts[place + 1 :])
    return Address(before, scheme, path, after)


def local_path(url: str) -> str | None:
    """The path on this computer's disk, or None if the URL is not local."""
    if not url.startswith("file://"):
        return None
    path = url[len("file://") :]
    return path[1:] if os.name == "nt" else path


def default_root(url: str) -> str:
    """The folder that relative keys of a layer at `url` may not leave.

    The parent folder on a local disk; the bucket, the origin of a web server, the whole
    of an archive or of memory elsewhere.
    """
    address = split_url(url)
    if address.scheme == "file":
        return address.with_path(address.path.rpartition("/")[0])
    if address.scheme in _WITHOUT_BUCKET:
        return address.with_path("")
    return address.with_path(address.path.partition("?")[0].partition("/")[0])


def contains(root: str, url: str) -> bool:
    """Whether `url` is `root` or lies below it."""
    outer, inner = split_url(root), split_url(url)
    if (outer.before, outer.scheme, outer.after) != (inner.before, inner.scheme, inner.after):
        return False
    return not _segments(outer) or _segments(inner)[: len(_segments(outer))] == _segments(outer)


def _segments(address: Address) -> list[str]:
    path = address.path.rstrip("/")
    if address.scheme in ("http", "https"):
        path = path.partition("?")[0]
    return path.split("/") if path else []


def follow(url: str, target: str) -> str:
    """The URL that the `redirect` member of the layer at `url` means.

    The real client takes absolute addresses. A layer on a network is believed about the
    network only: it cannot send its reader to files of the reader's own computer.

    Raises
    ------
    MetadataError
        `target` is relative, of an unknown protocol, a chain, or local where `url` is not.

    Examples
    --------
    >>> follow("gs://bucket/old", "precomputed://gs://bucket/new")
    'gs://bucket/new'
    """
    bare = _SUFFIX.sub("", _PREFIX.sub("", target.strip(), count=1))
    first, chained, _ = bare.partition("::")
    at_home = split_url(url).scheme in _OWN
    is_full = _SCHEME.match(bare) or (chained and _known(first))
    if not (is_full or (at_home and os.path.isabs(bare))):
        raise _not_followed(url, target, "expected the full address of another layer")
    try:
        found = parse_url(target)
    except ValueError as error:
        raise _not_followed(url, target, str(error)) from error
    if not at_home and ("::" in found or split_url(found).scheme in _OWN):
        raise _not_followed(
            url, target, "a layer on a network may redirect to another one on a network only"
        )
    return found


def _not_followed(url: str, target: str, reason: str) -> MetadataError:
    return MetadataError(f"redirects to {target!r}: {reason}", source=f"{url}/info")


def same_server(a: str, b: str) -> bool:
    """Whether what opens the one URL may be shown to whoever serves the other.

    The same origin for web servers; the same protocol elsewhere, where requests are signed
    and always go to the same service.
    """
    first, second = split_url(a), split_url(b)
    if first.scheme in ("http", "https"):
        return contains(default_root(a), b)
    return (first.before, first.scheme, first.after) == (
        second.before,
        second.scheme,
        second.after,
    )


def join(url: str, relative: str, *, root: str | None = None) -> str:
    """The URL of an object or folder named relative to a layer's folder.

    Parameters
    ----------
    url : str
        A normalised URL, see `parse_url`.
    relative : str
        Slash-separated; ``.``, ``..`` and doubled slashes are resolved.
    root : str, optional
        A normalised URL that the result must not leave; see `default_root`.

    Raises
    ------
    MetadataError
        `relative` is absolute, a URL, contains NUL, or leaves `root`.

    Examples
    --------
    >>> join("gs://bucket/a/layer", "../other/8_8_8")
    'gs://bucket/a/other/8_8_8'
    >>> join("simplecache::s3://bucket/layer", "8_8_8")
    'simplecache::s3://bucket/layer/8_8_8'
    """
    _check_relative(url, relative)
    address = split_url(url)
    path, query = address.path, ""
    if address.scheme in ("http", "https"):
        path, mark, query = path.partition("?")
        query = mark + query
        relative = quote(relative, safe=_HTTP_SAFE)
    segments = path.split("/") if path else []
    top = 1 if path.startswith("/") else 0
    for part in relative.split("/"):
        if part == ".." and len(segments) <= top:
            raise _escape(url, relative, root)
        if part == "..":
            segments.pop()
        elif part not in ("", "."):
            segments.append(part)
    result = address.with_path("/".join(segments) + query)
    if ".." in relative and not contains(default_root(url) if root is None else root, result):
        raise _escape(url, relative, root)
    return result


def _check_relative(url: str, relative: str) -> None:
    if "\0" in relative:
        problem = "contains NUL"
    elif relative.startswith("/"):
        problem = "is absolute; expected a path relative to the layer's folder"
    elif "://" in relative or "::" in relative:
        problem = "is a URL; expected a path relative to the layer's folder"
    elif os.name == "nt" and ("\\" in relative or ":" in relative):
        problem = "contains a backslash or a colon, which separate folders and drives here"
    else:
        return
    raise MetadataError(f"path {relative!r} {problem}", source=url)


def _escape(url: str, relative: str, root: str | None) -> MetadataError:
    return MetadataError(
        f"path {relative!r} leaves {default_root(url) if root is None else root}, which bounds "
        "what this layer may refer to; open it with a wider root if you trust it",
        source=url,
    )
