"""url → metadata: opening and creating a layer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from precomputed_store.engine import ChunkedArray, Missing
from precomputed_store.errors import MetadataError, VolumeNotFoundError
from precomputed_store.metadata import Scale, VolumeInfo, redirect_target
from precomputed_store.metadata.document import MAX_BYTES
from precomputed_store.storage import Storage, open_storage
from precomputed_store.url import contains, follow, same_server

__all__ = ["Layer", "ScaleSelector", "create", "open_layer"]

ScaleSelector: TypeAlias = int | str | Iterable[float]
"""A scale by index (negative from the coarsest), key, or resolution in nanometres."""

_OTHER_FORMATS = {
    "zarr.json": "a Zarr v3 hierarchy: open it with zarr.open or xarray's engine='zarr'",
    ".zgroup": "a Zarr v2 group: open it with zarr.open or xarray's engine='zarr'",
    ".zarray": "a Zarr v2 array: open it with zarr.open",
    "attributes.json": "an N5 container: open it with TensorStore or zarr's n5 readers",
}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An opened volume: where it is, its metadata, and how to read it.

    Parameters
    ----------
    storage : Storage
        The folder that holds `info`.
    info : VolumeInfo
        Its metadata.
    missing : {"fill", "raise"}
        What a chunk that is not stored means.
    """

    storage: Storage
    info: VolumeInfo
    missing: Missing = "fill"

    def scale(self, selector: ScaleSelector) -> Scale:
        """One scale; a wrong selector lists those that there are."""
        found = self.info.scales[self.info.scale_index(selector)]
        if not isinstance(found, Scale):
            raise TypeError("scale_index returned a damaged scale")
        return found

    def array(self, selector: ScaleSelector = 0) -> ChunkedArray:
        """The chunks of one scale."""
        return ChunkedArray(
            storage=self.storage,
            scale=self.scale(selector),
            data_type=self.info.data_type,
            num_channels=self.info.num_channels,
            missing=self.missing,
        )


def open_layer(
    url: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    missing: Missing = "fill",
    missing_statuses: Iterable[int] = (404,),
    max_redirects: int = 10,
    root: str | os.PathLike[str] | None = None,
    cross_origin: bool = False,
) -> Layer:
    """Open a volume: one request for its `info`, and one per redirect.

    Parameters
    ----------
    url : str or path
        Local path, ``file://``, ``memory://``, ``gs://``, ``s3://``, ``http(s)://`` or any
        fsspec chain; ``precomputed://`` in front or ``|neuroglancer-precomputed:`` behind
        is understood.
    storage_options : mapping, optional
        Passed to fsspec.
    missing : {"fill", "raise"}
        What a chunk that is not stored means: zeros, or `MissingChunkError`.
    missing_statuses : iterable of int
        HTTP statuses that mean "not stored". Some sparse public buckets answer 403 for
        absent keys: ``missing_statuses=(404, 403)``.
    max_redirects : int
        How many `redirect` members of `info` to follow; 0 refuses the first.
    root : str or path, optional
        A folder above the layer's (or that one) that nothing in the layer may lead out of:
        keys with ``..``, symbolic links, redirects. By default keys and links stay within the
        parent folder on a local disk, within the bucket or web server elsewhere, and
        redirects are followed anywhere but from a network to local files.
    cross_origin : bool
        Whether a web server's own (HTTP) redirects may lead to another server.

    Raises
    ------
    VolumeNotFoundError
        There is no `info` at this address.
    MetadataError
        `info` breaks the specification, or redirects in a circle or too often.
    StorageError
        The storage refused or failed.
    """
    if missing not in ("fill", "raise"):
        raise ValueError(f"missing is {missing!r}; expected 'fill' or 'raise'")
    if isinstance(max_redirects, bool) or not isinstance(max_redirects, int) or max_redirects < 0:
        raise ValueError(f"max_redirects is {max_redirects!r}; expected an integer from 0 on")
    storage = open_storage(
        url,
        storage_options=storage_options,
        missing_statuses=missing_statuses,
        root=root,
        cross_origin=cross_origin,
    )
    visited = [storage.url]
    while True:
        document = _read_info(storage)
        target = redirect_target(document, source=f"{storage.url}/info")
        if target is None:
            break
        storage = _follow(storage, target, visited, max_redirects)
    info = VolumeInfo.from_json(document, source=f"{storage.url}/info")
    return Layer(storage=storage, info=info, missing=missing)


def _read_info(storage: Storage) -> bytes:
    blob = storage.get("info", max_bytes=MAX_BYTES)
    if blob is None:
        raise _not_found(storage)
    if blob.content_encoding is None:
        return bytes(blob.data)
    from precomputed_store.codecs import content

    return content.undo(blob.data, blob.content_encoding, limit=MAX_BYTES)


def _follow(storage: Storage, target: str, visited: list[str], max_redirects: int) -> Storage:
    """The storage that a `redirect` member points at.

    Options, which may hold logins, go along to the same server only.
    """
    where = f"{storage.url}/info"
    if len(visited) > max_redirects:
        raise MetadataError(
            f"redirects to {target!r}, but only {max_redirects} redirects are allowed "
            "(max_redirects)",
            source=where,
        )
    url = follow(storage.url, target)
    if storage.root is not None and not contains(storage.root, url):
        raise MetadataError(
            f"redirects to {target!r}, which is outside of the root {storage.root}", source=where
        )
    following = open_storage(
        url,
        missing_statuses=storage.missing_statuses,
        root=storage.root,
        cross_origin=storage.cross_origin,
    )
    if same_server(storage.url, url):
        following = replace(following, storage_options=storage.storage_options)
    if following.url in visited:
        raise MetadataError(
            f"redirects in a circle: {' → '.join([*visited, following.url])}", source=where
        )
    visited.append(following.url)
    return following


def _not_found(storage: Storage) -> VolumeNotFoundError:
    """Say what was looked for, and what is there instead."""
    for name, what in _OTHER_FORMATS.items():
        if storage.exists(name):
            return VolumeNotFoundError(f"{storage.url}: no info file; this is {what}")
    message = f"{storage.url}: no Precomputed volume here: looked for {storage.url}/info"
    try:
        names = sorted(storage.list_names(""))[:10]
    except (OSError, NotImplementedError):
        names = []
    if names:
        message += f"; the folder holds {', '.join(map(repr, names))}"
    return VolumeNotFoundError(message)


def create(
    url: str | os.PathLike[str],
    info: VolumeInfo | Mapping[str, Any],
    *,
    storage_options: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    allow_misread: bool = False,
) -> Layer:
    """Create an empty layer: write its `info`.

    Parameters
    ----------
    url : str or path
        As in `open_layer`.
    info : VolumeInfo or mapping
        Its metadata.
    storage_options : mapping, optional
        Passed to fsspec.
    root : str or path, optional
        As in `open_layer`, for what is done with the layer that is returned.
    overwrite : bool
        Replace the `info` of a layer that is there. Its chunks stay.
    allow_misread : bool
        Create even what the Neuroglancer client is known to show wrongly.

    Raises
    ------
    FileExistsError
        There is a layer already, and ``overwrite=False``.
    ValueError
        Neuroglancer would misread a scale, and ``allow_misread=False``.
    MetadataError
        `info` breaks the specification; nothing is written then.
    """
    if not isinstance(info, VolumeInfo):
        info = VolumeInfo.from_json(info)
    if not allow_misread:
        _refuse_misread(info)
    storage = open_storage(url, storage_options=storage_options, root=root)
    if not overwrite and storage.exists("info"):
        raise FileExistsError(
            f"{storage.url}: there is a layer already; mode='r+' opens it for writing, and "
            "overwrite=True replaces its info"
        )
    storage.put("info", info.to_bytes(), content_type="application/json", cache_control="no-cache")
    return Layer(storage=storage, info=info)


def _refuse_misread(info: VolumeInfo) -> None:
    for index, scale in info.usable_scales:
        misread = scale.codec.neuroglancer_misreads(info.num_channels, info.dtype)
        if misread is not None:
            raise ValueError(
                f"scales[{index}]: {misread}. Choose another encoding, or pass "
                "allow_misread=True to create it for other readers"
            )
