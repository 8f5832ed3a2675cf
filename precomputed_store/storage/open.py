"""From a URL and options to the backend that serves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from precomputed_store.errors import StorageError, UnsupportedError
from precomputed_store.storage.base import AsyncBackend, FrozenOptions, Place, ThreadedBackend
from precomputed_store.storage.bridge import shared
from precomputed_store.url import split_url

__all__ = ["open_backend"]

Backend: TypeAlias = ThreadedBackend | AsyncBackend

_PROTOCOL_NAMES = {"gs": ("gs", "gcs"), "s3": ("s3", "s3a"), "http": ("http", "https")}
_EXTRAS = {"s3": "s3", "gs": "gcs", "http": "http", "https": "http"}


def open_backend(place: Place, options: FrozenOptions) -> Backend:
    """The backend for a place, on a file system that the process may have open already.

    Raises
    ------
    UnsupportedError
        The library for the protocol is not installed.
    ValueError
        fsspec does not take these options.
    """
    address = split_url(place.url)
    if address.before or address.after:
        return _open_chain(place, options)
    return _OPENERS.get(address.scheme, _open_chain)(place, options)


def _open_local(place: Place, options: FrozenOptions) -> Backend:
    from precomputed_store.storage.local import LocalBackend

    return LocalBackend(place)


def _open_memory(place: Place, options: FrozenOptions) -> Backend:
    from precomputed_store.storage.memory import MemoryBackend

    return MemoryBackend(place, _filesystem(place.url, options))


def _open_http(place: Place, options: FrozenOptions) -> Backend:
    from precomputed_store.storage.http import HttpBackend

    return HttpBackend(place, _filesystem(place.url, _flat(options, "http")))


def _open_gcs(place: Place, options: FrozenOptions) -> Backend:
    from precomputed_store.storage.gcs import GcsBackend, with_default_token

    return GcsBackend(place, _filesystem(place.url, with_default_token(_flat(options, "gs"))))


def _open_s3(place: Place, options: FrozenOptions) -> Backend:
    from precomputed_store.storage.s3 import S3Backend, with_limits

    own = _with_anonymous_s3(_flat(options, "s3"))
    limited = with_limits(own, place.retry, S3Backend.concurrency)
    return S3Backend(place, _filesystem(place.url, limited))


def _open_chain(place: Place, options: FrozenOptions) -> Backend:
    from precomputed_store.storage.generic import generic_backend

    nested = options.thaw()
    for part in place.url.split("::")[1:]:
        scheme = part.partition("://")[0]
        if scheme in ("s3", "gs"):
            given = nested.get(scheme) or {}
            nested[scheme] = _with_anonymous(scheme, given)
    return generic_backend(place, _filesystem(place.url, nested))


def _with_anonymous(scheme: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if scheme == "s3":
        return _with_anonymous_s3(options)
    from precomputed_store.storage.gcs import with_default_token

    return with_default_token(options)


def _with_anonymous_s3(options: Mapping[str, Any]) -> dict[str, Any]:
    from precomputed_store.storage.s3 import with_default_credentials

    try:
        return with_default_credentials(options)
    except ImportError as error:
        raise _not_installed("s3", error) from error


def _flat(options: FrozenOptions, scheme: str) -> dict[str, Any]:
    """Options given under the protocol's name, as fsspec's chains take them, and the others."""
    flat = options.thaw()
    nested: dict[str, Any] = {}
    for name in _PROTOCOL_NAMES[scheme]:
        nested.update(flat.pop(name, None) or {})
    return {**nested, **flat}


def _filesystem(url: str, options: Mapping[str, Any]) -> Any:
    """fsspec's file system for a URL: one per server and options, and ours alone.

    Not from fsspec's own cache, where others could close or reconfigure it.
    """
    address = split_url(url)
    server = address.with_path(address.path.partition("/")[0])
    if address.scheme in ("http", "https", "gs", "s3", "memory"):
        server = address.scheme
    key = (server, FrozenOptions(options))
    return shared(key, lambda: _create(url, address.scheme, options))


def _create(url: str, scheme: str, options: Mapping[str, Any]) -> Any:
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    alone = {} if url.count("::") else {"skip_instance_cache": True}
    try:
        return url_to_fs(url, **alone, **options)[0]
    except ImportError as error:
        raise _not_installed(scheme, error) from error
    except (TypeError, ValueError):
        raise
    except Exception as error:
        raise StorageError(f"{url}: {type(error).__name__}: {error}") from error


def _not_installed(scheme: str, error: ImportError) -> UnsupportedError:
    extra = _EXTRAS.get(scheme)
    advice = f"pip install 'precomputed-store[{extra}]'" if extra else str(error)
    return UnsupportedError(f"{scheme}:// needs a package that is not installed: {advice}")


_OPENERS: Mapping[str, Callable[[Place, FrozenOptions], Backend]] = {
    "file": _open_local,
    "memory": _open_memory,
    "http": _open_http,
    "https": _open_http,
    "gs": _open_gcs,
    "s3": _open_s3,
}
