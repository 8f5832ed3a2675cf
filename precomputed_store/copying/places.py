"""Whether two addresses may be of the same objects."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Mapping

from precomputed_store.errors import MetadataError, StorageError
from precomputed_store.layer import Layer
from precomputed_store.storage import Storage
from precomputed_store.url import contains, local_path, split_url

__all__ = ["refuse_alias", "refuse_overlap"]

_WEB = (
    (re.compile(r"https?://storage\.googleapis\.com/"), "gs://"),
    (re.compile(r"https?://([^/.]+)\.storage\.googleapis\.com(?=/|$)"), r"gs://\1"),
    (re.compile(r"https?://s3[^/]*\.amazonaws\.com/"), "s3://"),
    (re.compile(r"https?://([^/]+)\.s3[^/]*\.amazonaws\.com(?=/|$)"), r"s3://\1"),
)


def refuse_overlap(layer: Layer, folders: Iterable[str], destination: Storage) -> None:
    """Refuse a destination that is the source, lies in it, or has it within.

    Parameters
    ----------
    layer : Layer
        The source.
    folders : iterable of str
        Of its scales, and others that are copied; they may lie elsewhere.
    destination : Storage

    Raises
    ------
    ValueError
    """
    source = layer.storage
    if _endpoint(source) != _endpoint(destination):
        return
    target = _canonical(destination.url)
    for url in {source.url, *(source.child(folder).url for folder in folders)}:
        if contains(_canonical(url), target) or contains(target, _canonical(url)):
            relation = "is" if _canonical(url) == target else "overlaps"
            raise ValueError(
                f"the destination {destination.url} {relation} what is to be copied, {url}: copy "
                "it beside that"
            )


def refuse_alias(source: Storage, destination: Storage) -> None:
    """Refuse to replace a destination through which the source itself can be seen.

    Addresses may differ for the same bucket. So a small object is written to the
    destination, looked for in the source, and removed.

    Raises
    ------
    ValueError
    """
    key, mark = f"copying-{uuid.uuid4().hex}.json", b"{}"
    destination.put(key, mark, content_type="application/json", cache_control="no-cache")
    try:
        seen = source.exists(key)
    except (StorageError, MetadataError):
        seen = False
    finally:
        destination.delete(key)
    if seen:
        raise ValueError(
            f"{destination.url} is the layer to be copied, {source.url}, by another address: "
            "mode='w' would remove it first"
        )


def _endpoint(storage: Storage) -> object:
    """Which server of a protocol is meant, where the address does not say."""
    options = storage.storage_options
    scheme = split_url(storage.url).scheme
    nested = options.get(scheme)
    for place in (options, nested if isinstance(nested, Mapping) else {}):
        client = place.get("client_kwargs")
        inner = client.get("endpoint_url") if isinstance(client, Mapping) else None
        if found := place.get("endpoint_url") or inner:
            return str(found).rstrip("/")
    return None


def _canonical(url: str) -> str:
    """An address without caches in front, links in it, and web addresses of buckets."""
    path = local_path(url)
    if path is not None:
        return "file://" + os.path.realpath(path).replace(os.sep, "/")
    bare = split_url(url)._replace(before="").with_path(split_url(url).path)
    for pattern, replacement in _WEB:
        bare = pattern.sub(replacement, bare, count=1)
    return bare
