"""An fsspec file system that shows a layer as a Zarr v3 hierarchy, for those who take a string.

``zarr.open_group("precomputed::gs://bucket/layer", mode="r")`` works without importing this
package: fsspec finds it by its entry point, and zarr the codec.
"""

from __future__ import annotations

import asyncio
import difflib
import io
import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn, overload

from fsspec.asyn import AsyncFileSystem  # type: ignore[import-untyped]
from fsspec.utils import stringify_path  # type: ignore[import-untyped]

from precomputed_store.engine import Missing
from precomputed_store.errors import StorageError, UnsupportedError, VolumeNotFoundError
from precomputed_store.forks import restart_in_children
from precomputed_store.layer import ScaleSelector
from precomputed_store.storage.base import FrozenOptions, freeze_statuses
from precomputed_store.url import parse_url
from precomputed_store.zarr_tree import TreeAddress, ZarrTree, freeze_selector

__all__ = ["PrecomputedFileSystem"]

_PREFIX = "precomputed://"
_FSSPEC_OPTIONS = ("use_listings_cache", "listings_expiry_time", "max_paths")
_OWN_OPTIONS = (
    "decoded",
    "scale",
    "missing",
    "missing_statuses",
    "max_redirects",
    "root",
    "cross_origin",
    "target_options",
)


class PrecomputedFileSystem(AsyncFileSystem):  # type: ignore[misc]
    """A Precomputed layer as the files of a Zarr v3 hierarchy. Read-only.

    Written in front of the layer's address as ``precomputed::``, with any chain of
    protocols behind; ``precomputed://gs://…`` is understood too. The files are those of
    `PrecomputedStore`.

    Parameters
    ----------
    fo : str
        Address of the layer; given by fsspec from what stands behind ``precomputed::``.
    target_protocol, target_options
        As above. In ``storage_options``, options of the protocols behind stand under their
        names: ``{"s3": {"anon": True}}``.
    decoded : bool
        Chunks as plain voxels of full size, which every reader of Zarr v3 understands.
    scale : int, str or (float, float, float), optional
        Show this scale alone.
    missing : {"fill", "raise"}
        What a chunk that is not stored means.
    missing_statuses : iterable of int
        HTTP statuses that mean "not stored".
    max_redirects : int
        How many `redirect` members of `info` to follow.
    root, cross_origin
        See `open_layer`.
    asynchronous, loop, batch_size
        As fsspec gives them to every file system.

    Raises
    ------
    TypeError
        An option is unknown.
    """

    protocol = "precomputed"
    root_marker = ""
    # A layer may be rewritten: each opening reads its info.
    cachable = False

    def __init__(
        self,
        fo: str = "",
        *,
        target_protocol: str | None = None,
        target_options: Mapping[str, Any] | None = None,
        decoded: bool = False,
        scale: ScaleSelector | None = None,
        missing: Missing = "fill",
        missing_statuses: Iterable[int] = (404,),
        max_redirects: int = 10,
        root: str | os.PathLike[str] | None = None,
        cross_origin: bool = False,
        asynchronous: bool = False,
        loop: Any = None,
        batch_size: int | None = None,
        **storage_options: Any,
    ) -> None:
        url, options = _target(str(fo), target_protocol, target_options or {})
        own = {
            name: storage_options.pop(name) for name in _FSSPEC_OPTIONS if name in storage_options
        }
        super().__init__(asynchronous=asynchronous, loop=loop, batch_size=batch_size, **own)
        self._address = TreeAddress(
            url=parse_url(url),
            storage_options=FrozenOptions({**options, **_by_protocol(storage_options)}),
            decoded=decoded,
            scale=freeze_selector(scale),
            missing=missing,
            missing_statuses=freeze_statuses(missing_statuses),
            max_redirects=max_redirects,
            root=None if root is None else parse_url(root),
            cross_origin=cross_origin,
        )
        self._opened: ZarrTree | None = None
        restart_in_children(self)

    def restart(self) -> None:
        """Take a new lock, in a forked child."""
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # With the metadata, so that no task of a cluster has to read it again.
        return _rebuild, (type(self), self.storage_args, self.storage_options, self._opened)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._address == other._address

    def __hash__(self) -> int:
        return hash(self._address)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        address = self._address
        return "precomputed_store.PrecomputedFileSystem", repr(address), address.storage_options

    @overload
    @classmethod
    def _strip_protocol(cls, path: str) -> str: ...

    @overload
    @classmethod
    def _strip_protocol(cls, path: list[str]) -> list[str]: ...

    @classmethod
    def _strip_protocol(cls, path: str | list[str]) -> str | list[str]:
        """A path in the hierarchy; the address of a layer is that of its root."""
        if isinstance(path, list):
            return [cls._strip_protocol(item) for item in path]
        path = str(stringify_path(path))
        return "" if _embedded_address(path) else path.removeprefix(_PREFIX).strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        address = _embedded_address(path)
        return {"fo": address} if address else {}

    def _tree(self) -> ZarrTree:
        with self._lock:
            if self._opened is None:
                self._opened = self._address.open()
            return self._opened

    async def _tree_async(self) -> ZarrTree:
        opened = self._opened
        return await asyncio.to_thread(self._tree) if opened is None else opened

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        try:
            tree = await self._tree_async()
        except VolumeNotFoundError as error:
            # zarr would take it for a file that is not there, and say nothing of the reason.
            raise StorageError(str(error)) from error
        value = await tree.get_async(self._strip_protocol(path))
        if value is None:
            raise FileNotFoundError(path)
        return bytes(value if start is None and end is None else memoryview(value)[start:end])

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        tree = await self._tree_async()
        name = self._strip_protocol(path)
        if tree.hierarchy.folders(name) is not None:
            return {"name": name, "size": 0, "type": "directory"}
        size = await asyncio.to_thread(tree.size, name)
        if size is None:
            raise FileNotFoundError(path)
        return {"name": name, "size": size, "type": "file"}

    async def _exists(self, path: str, **kwargs: Any) -> bool:
        tree = await self._tree_async()
        name = self._strip_protocol(path)
        return tree.hierarchy.folders(name) is not None or await tree.exists_async(name)

    @overload
    async def _ls(self, path: str, detail: Literal[True] = ..., **kwargs: Any) -> list[Any]: ...

    @overload
    async def _ls(self, path: str, detail: Literal[False], **kwargs: Any) -> list[str]: ...

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """What a folder holds; sizes of chunks are not looked up."""
        tree = await self._tree_async()
        name = self._strip_protocol(path)
        hierarchy = tree.hierarchy
        if hierarchy.folders(name) is None:
            entry = await self._info(path)
            return [entry] if detail else [entry["name"]]
        # zarr 3.1 writes a slash in front of paths and expects it in front of the answers.
        prefix = ("/" if path.startswith("/") else "") + (f"{name}/" if name else "")
        names = [prefix + child async for child in tree.children(name)]
        if not detail:
            return names
        return [
            {
                "name": child,
                "size": len(hierarchy.documents.get(child.strip("/"), b"")) or None,
                "type": "directory" if hierarchy.folders(child.strip("/")) is not None else "file",
            }
            for child in names
        ]

    async def _find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> Any:
        if maxdepth is not None or withdirs or kwargs.get("detail"):
            return await super()._find(path, maxdepth, withdirs, **kwargs)
        tree = await self._tree_async()
        name = self._strip_protocol(path)
        if tree.hierarchy.folders(name) is None:
            return [name] if await tree.exists_async(name) else []
        return sorted([key async for key in tree.keys(f"{name}/" if name else "")])

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> io.BytesIO:
        if mode != "rb":
            self._refuse()
        return io.BytesIO(self.cat_file(path))

    async def _pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        self._refuse()

    async def _put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        self._refuse()

    async def _cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        self._refuse()

    async def _rm(self, path: str | list[str], **kwargs: Any) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        url = self._address.url
        raise UnsupportedError(
            f"{url}: 'precomputed::' is read-only; to write, give zarr "
            f"precomputed_store.PrecomputedStore({url!r})"
        )


def _rebuild(
    cls: type[PrecomputedFileSystem],
    args: tuple[Any, ...],
    options: Mapping[str, Any],
    opened: ZarrTree | None,
) -> PrecomputedFileSystem:
    filesystem = cls(*args, **options)
    filesystem._opened = opened
    return filesystem


def _embedded_address(path: str) -> str | None:
    """The layer's address in ``precomputed://<address>``; None for a path in the hierarchy."""
    if not path.startswith(_PREFIX):
        return None
    rest = path[len(_PREFIX) :]
    return rest if "://" in rest or rest.startswith(("/", "~")) else None


def _target(
    path: str, protocol: str | None, options: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The address and the options, by protocol, that fsspec took apart.

    Of a chain, it hands over the first protocol and path, and the others nested in its
    options.
    """
    if protocol == PrecomputedFileSystem.protocol:
        protocol, path, options = _without_repetition(path, dict(options))
    if not path:
        raise ValueError(
            "no layer: write its address behind 'precomputed::', as in "
            "'precomputed::gs://bucket/layer'"
        )
    if protocol is None:
        return path, dict(options)
    parts: list[str] = []
    by_protocol: dict[str, Any] = {}
    inner: str | None = protocol
    while inner is not None:
        protocol, rest = inner, dict(options)
        inner, inner_path = rest.pop("target_protocol", None), rest.pop("fo", None)
        options = rest.pop("target_options", {})
        # A cache has no path of its own: fsspec gives it that of what it caches.
        bare = inner is not None and path == inner_path
        parts.append(protocol if bare else path if "://" in path else f"{protocol}://{path}")
        if rest:
            by_protocol[protocol] = rest
        path = str(inner_path)
    first = parts[0].partition("://")[0]
    flat = by_protocol.pop(first, {})
    return "::".join(parts), {**by_protocol, **flat}


def _without_repetition(
    path: str, options: dict[str, Any]
) -> tuple[str | None, str, dict[str, Any]]:
    """Protocol, path and options behind a second ``precomputed``.

    People write ``precomputed::`` in front of addresses that begin with ``precomputed://``.
    """
    if path and "target_protocol" in options:  # precomputed://simplecache::gs://…
        return path, options["fo"], options
    protocol, path = options.pop("target_protocol", None), options.pop("fo", path)
    return protocol, path, options.pop("target_options", {}) if protocol else options


def _by_protocol(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for the protocols behind ours, each a mapping under the protocol's name."""
    for name, value in options.items():
        if not isinstance(value, Mapping):
            close = difflib.get_close_matches(name, _OWN_OPTIONS, n=1)
            hint = (
                f"did you mean {close[0]!r}?" if close else f"known are {', '.join(_OWN_OPTIONS)}"
            )
            raise TypeError(
                f"unknown option {name!r} of 'precomputed::': {hint}. Options of the storage "
                "stand under its protocol: storage_options={'s3': {'anon': True}}"
            )
    return dict(options)
