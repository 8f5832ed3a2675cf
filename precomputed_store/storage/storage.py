"""Key → bytes and back, wherever a layer is stored.

A `Storage` is a value: address and options. What it takes to reach the objects is
opened on first use, once per process. ``None`` means that an object is known to be
absent; everything else that goes wrong is an exception.
"""

from __future__ import annotations

import contextlib
import os
import re
from asyncio import to_thread
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

from precomputed_store.codecs.base import Buffer, ChunkArray
from precomputed_store.codecs.content import SUFFIXES
from precomputed_store.errors import MetadataError
from precomputed_store.storage.base import (
    AsyncBackend,
    Blob,
    ByteRange,
    FrozenOptions,
    Get,
    Page,
    Place,
    Put,
    Stat,
    ThreadedBackend,
    freeze_statuses,
)
from precomputed_store.storage.blocks import FileBlocks
from precomputed_store.storage.bridge import generation, run_async, run_sync
from precomputed_store.storage.pieces import OpenFile, PutFile
from precomputed_store.storage.retry import DEFAULT_RETRY, RetryPolicy
from precomputed_store.storage.update import Update
from precomputed_store.url import contains, default_root, join, local_path, parse_url

__all__ = [
    "Blob",
    "ByteRange",
    "RetryPolicy",
    "Storage",
    "open_storage",
    "run_async",
    "run_sync",
]

# Keys that have to be resolved: empty, ".", ".." or absolute parts, URLs, NUL, drives.
_ODD_KEY = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|::|://|\0" + (r"|[\\:]" if os.name == "nt" else ""))


@dataclass(frozen=True, kw_only=True)
class Storage:
    """The objects of one layer. Immutable, comparable, hashable, picklable.

    Every method that blocks may be called from any thread, every coroutine from any
    event loop; both may be called in a forked child.

    Attributes
    ----------
    url : str
        Normalised fsspec URL of the layer's folder; see `open_storage`.
    storage_options : mapping
        For fsspec, unchanged. Without credentials here or on the machine, ``s3://`` and
        ``gs://`` are read anonymously.
    missing_statuses : set of int
        HTTP statuses that mean "no such object". Some public buckets answer 403.
    root : str or None
        What keys with ``..`` may not leave. None: the parent folder of the layer on a
        local disk, the bucket or origin elsewhere.
    retry : RetryPolicy
        For remote storages; nothing is retried on a local disk.
    fsync : bool
        Whether a local object is on the disk before it gets its name. Without, a power
        failure (not the death of the process) may leave it empty.
    cross_origin : bool
        Whether a web server may redirect to another.
    """

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=FrozenOptions)
    missing_statuses: Iterable[int] = frozenset({404})
    root: str | None = None
    retry: RetryPolicy = field(default=DEFAULT_RETRY, repr=False)
    fsync: bool = True
    cross_origin: bool = False

    def __post_init__(self) -> None:
        if "://" not in self.url:
            raise ValueError(f"url {self.url!r}: expected an fsspec URL; see open_storage")
        if not isinstance(self.storage_options, FrozenOptions):
            object.__setattr__(self, "storage_options", FrozenOptions(self.storage_options))
        object.__setattr__(self, "missing_statuses", freeze_statuses(self.missing_statuses))

    def child(self, relative: str) -> Storage:
        """The storage of a folder named relative to this one, within the same root.

        Raises
        ------
        MetadataError
            `relative` is absolute, a URL, contains NUL, or leaves the root.
        """
        root = default_root(self.url) if self.root is None else self.root
        return replace(self, url=join(self.url, relative, root=root), root=root)

    @property
    def threaded(self) -> bool:
        """True: call the blocking methods from threads. False: the coroutines are better."""
        return self._backend.threaded

    @property
    def concurrency(self) -> int:
        """How many requests may usefully be under way at once."""
        return self._backend.concurrency

    @property
    def write_concurrency(self) -> int:
        """How many objects may usefully be written at once."""
        return self._backend.write_concurrency

    @property
    def has_blocks(self) -> bool:
        """Whether `read_blocks` ever reads anything."""
        return self._backend.has_blocks

    @property
    def has_headers(self) -> bool:
        """Whether objects carry content type, content encoding and cache headers."""
        return self._backend.has_headers

    @property
    def has_files(self) -> bool:
        """Whether objects are files that `open_file` opens."""
        return self._backend.has_files

    def get(
        self, key: str, byte_range: ByteRange | None = None, *, max_bytes: int | None = None
    ) -> Blob | None:
        """Read an object, or a range of its bytes.

        Parameters
        ----------
        key : str
            Relative to `url`.
        byte_range : (int, int), optional
            First byte and the one after the last.
        max_bytes : int, optional
            Longer objects are refused, where possible before they are read.

        Returns
        -------
        Blob or None
            None only where the object is known to be absent.

        Raises
        ------
        StorageError
            No permission, no connection, a short body, a range that does not lie within
            the object, and whatever else keeps the bytes from coming.
        MetadataError
            `key` is absolute, a URL, contains NUL, or leaves the root.
        """
        storage, key = _resolve(self, key)
        request = Get(key=key, byte_range=byte_range, max_bytes=max_bytes)
        backend = storage._backend
        if isinstance(backend, ThreadedBackend):
            return backend.get(request)
        return run_sync(backend.get(request))

    def read_blocks(self, folder: str, blocks: FileBlocks, out: ChunkArray) -> list[int]:
        """Read blocks of voxels out of uncompressed files, straight into their places.

        For threads; only local disks have blocks (`has_blocks`).

        Parameters
        ----------
        folder : str
            The files' folder, relative to `url`.
        blocks : FileBlocks
            Of one file at least.
        out : numpy.ndarray
            C order.

        Returns
        -------
        list of int
            The numbers of those files that were not read: `get` tells why.
        """
        name = blocks.names[0]
        storage, key = _resolve(self, f"{folder}/{name}" if folder else name)
        backend = storage._backend
        if not isinstance(backend, ThreadedBackend):
            return list(range(len(blocks)))
        return backend.read_blocks(key.rpartition("/")[0], blocks, out)

    async def get_async(
        self, key: str, byte_range: ByteRange | None = None, *, max_bytes: int | None = None
    ) -> Blob | None:
        """As `get`, from any event loop."""
        storage, key = _resolve(self, key)
        request = Get(key=key, byte_range=byte_range, max_bytes=max_bytes)
        found: Blob | None = await storage._call_async("get", request)
        return found

    def put(
        self,
        key: str,
        data: Buffer,
        *,
        content_type: str,
        content_encoding: str | None = None,
        cache_control: str | None = None,
    ) -> None:
        """Write an object as a whole: readers see the old one or the new one, never a part.

        (Protocols other than local, memory, S3 and Google: as far as they go.)

        Parameters
        ----------
        key : str
        data : bytes-like
            Already compressed if `content_encoding` says so.
        content_type, cache_control : str
            Kept where `has_headers`.
        content_encoding : str, optional
            ``"gzip"``, ``"br"``, ``"zstd"``, ``"xz"`` or ``"bz2"``: a header, or a suffix
            of the file's name. Objects of the same key with other suffixes are removed.

        Raises
        ------
        StorageError
            It could not be written; what was there before is still there.
        UnsupportedError
            The storage is read only, or cannot tell readers of a compression.
        """
        storage, key = _resolve(self, key)
        storage._call("put", _put(key, data, content_type, content_encoding, cache_control))

    async def put_async(
        self,
        key: str,
        data: Buffer,
        *,
        content_type: str,
        content_encoding: str | None = None,
        cache_control: str | None = None,
    ) -> None:
        """As `put`, from any event loop."""
        storage, key = _resolve(self, key)
        request = _put(key, data, content_type, content_encoding, cache_control)
        await storage._call_async("put", request)

    def open_file(self, key: str) -> OpenFile | None:
        """The file that holds an object, which the caller closes. See `has_files`."""
        storage, key = _resolve(self, key)
        file: OpenFile | None = storage._call("open_file", key)
        return file

    def put_file(
        self,
        key: str,
        file: OpenFile,
        *,
        content_type: str,
        content_encoding: str | None = None,
        cache_control: str | None = None,
    ) -> None:
        """As `put`, with the bytes of a file: in pieces on local disks, S3 and Google's."""
        storage, key = _resolve(self, key)
        storage._call(
            "put_file",
            PutFile(
                key=key,
                file=file,
                content_type=content_type,
                content_encoding=content_encoding,
                cache_control=cache_control,
            ),
        )

    def delete(self, key: str) -> None:
        """Remove an object, under whatever suffix; it may be absent."""
        storage, key = _resolve(self, key)
        storage._call("delete", key)

    async def delete_async(self, key: str) -> None:
        """As `delete`, from any event loop."""
        storage, key = _resolve(self, key)
        await storage._call_async("delete", key)

    def apply(self, update: Update) -> None:
        """Change an object in place of what was read of it: no write in between is lost.

        Raises
        ------
        ConflictError
            Others changed it again and again.
        UnsupportedError
            The storage knows no conditions, and the update is to be guarded; or it is read
            only.
        StorageError
            It could not be read or written.
        """
        storage, key = _resolve(self, update.key)
        storage._call("update", replace(update, key=key))

    async def apply_async(self, update: Update) -> None:
        """As `apply`, from any event loop."""
        storage, key = _resolve(self, update.key)
        await storage._call_async("update", replace(update, key=key))

    @property
    def can_guard(self) -> bool:
        """Whether `apply` can be guarded, as far as that is known without asking a server."""
        return self._backend.can_guard

    @property
    def can_delete_if(self) -> bool:
        """Whether `apply` can remove an object."""
        return self._backend.can_delete_if

    def exists(self, key: str) -> bool:
        """Whether there is such an object, under whatever suffix.

        Raises
        ------
        StorageError
            It cannot be known.
        """
        storage, key = _resolve(self, key)
        return bool(storage._call("exists", key))

    async def exists_async(self, key: str) -> bool:
        """As `exists`, from any event loop."""
        storage, key = _resolve(self, key)
        return bool(await storage._call_async("exists", key))

    def stat(self, key: str) -> Stat | None:
        """How an object is stored, under whatever suffix; None: there is none (or a folder).

        Raises
        ------
        StorageError
            It cannot be known.
        """
        storage, key = _resolve(self, key)
        found: Stat | None = storage._call("stat", key)
        return found

    async def stat_async(self, key: str) -> Stat | None:
        """As `stat`, from any event loop."""
        storage, key = _resolve(self, key)
        found: Stat | None = await storage._call_async("stat", key)
        return found

    def list_names(self, prefix: str = "") -> Iterator[str]:
        """Names of the direct children of a folder, files and folders, in no promised order.

        Suffixes of compressed files are left out: the names are what `get` takes.

        Raises
        ------
        UnsupportedError
            The storage has no listing.
        StorageError
        """
        backend = _child(self, prefix)._backend
        if isinstance(backend, ThreadedBackend):
            yield from backend.names()
        else:
            for page in _pages(backend):
                yield from page.names

    def list_sizes(self, prefix: str = "") -> Iterator[tuple[str, int | None]]:
        """As `list_names`, each with the bytes of the object where the storage tells them."""
        backend = _child(self, prefix)._backend
        if isinstance(backend, ThreadedBackend):
            yield from backend.sizes()
        else:
            for page in _pages(backend):
                yield from ((name, page.sizes.get(name)) for name in page.names)

    def first_child(self, prefix: str = "") -> str | None:
        """Any one of `list_names`, or None if there is none."""
        return next(self.list_names(prefix), None)

    def sweep(self, prefix: str = "", *, older_than_s: float = 3600.0) -> int:
        """Remove temporary files that killed writers left below a folder on a local disk.

        Parameters
        ----------
        prefix : str
        older_than_s : float
            Younger files may still be being written, and stay.

        Returns
        -------
        int
            Number of files removed; 0 for other storages, which have none.
        """
        from precomputed_store.storage.local_files import sweep_temporaries

        folder = local_path(self.child(prefix).url)
        return 0 if folder is None else sweep_temporaries(folder, older_than_s=older_than_s)

    def remove_empty_folder(self, prefix: str) -> None:
        """Remove a folder that holds nothing. Only local disks have folders to remove."""
        folder = local_path(self.child(prefix).url)
        if folder is not None:
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    @property
    def _backend(self) -> ThreadedBackend | AsyncBackend:
        # Kept beside the fields: it takes part in neither equality nor pickling.
        kept: tuple[int, ThreadedBackend | AsyncBackend] | None = self.__dict__.get("_open")
        if kept is not None and kept[0] == generation():
            return kept[1]
        from precomputed_store.storage.open import open_backend

        place = Place(
            url=self.url,
            root=default_root(self.url) if self.root is None else self.root,
            missing_statuses=frozenset(self.missing_statuses),
            retry=self.retry,
            fsync=self.fsync,
            cross_origin=self.cross_origin,
        )
        backend = open_backend(place, FrozenOptions(self.storage_options))
        self.__dict__["_open"] = (generation(), backend)
        return backend

    def _call(self, method: str, argument: object) -> Any:
        backend = self._backend
        result = getattr(backend, method)(argument)
        return result if backend.threaded else run_sync(result)

    async def _call_async(self, method: str, argument: object) -> Any:
        # Opening may ask the network for credentials.
        backend = self._backend if "_open" in self.__dict__ else await to_thread(self._opened)
        function = getattr(backend, method)
        if backend.threaded:
            return await to_thread(function, argument)
        return await run_async(function(argument))

    def _opened(self) -> ThreadedBackend | AsyncBackend:
        return self._backend

    def __getstate__(self) -> dict[str, Any]:
        return {member.name: getattr(self, member.name) for member in fields(self)}


def open_storage(
    address: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    missing_statuses: Iterable[int] = (404,),
    root: str | os.PathLike[str] | None = None,
    cross_origin: bool = False,
) -> Storage:
    """The storage at what a user typed.

    Parameters
    ----------
    address : str or os.PathLike
        See `precomputed_store.url.parse_url`.
    storage_options, missing_statuses, cross_origin
        See `Storage`.
    root : str or os.PathLike, optional
        See `Storage`; an address like the first.

    Raises
    ------
    ValueError
        The address is empty, its protocol is unknown, or it is not within `root`.
    """
    url = parse_url(address)
    bounds = None if root is None else parse_url(root)
    if bounds is not None and not contains(bounds, url):
        raise ValueError(f"{url} is not within the root {bounds}")
    return Storage(
        url=url,
        storage_options=FrozenOptions(storage_options),
        missing_statuses=missing_statuses,
        root=bounds,
        cross_origin=cross_origin,
    )


def _put(
    key: str,
    data: Buffer,
    content_type: str,
    content_encoding: str | None,
    cache_control: str | None,
) -> Put:
    if content_encoding is not None and content_encoding not in SUFFIXES:
        raise ValueError(
            f"content_encoding {content_encoding!r}; expected one of {', '.join(SUFFIXES)}"
        )
    return Put(
        key=key,
        data=data,
        content_type=content_type,
        content_encoding=content_encoding,
        cache_control=cache_control,
    )


def _pages(backend: AsyncBackend) -> Iterator[Page]:
    token = None
    while True:
        page = run_sync(backend.page(token))
        yield page
        token = page.token
        if token is None:
            return


def _resolve(storage: Storage, key: str) -> tuple[Storage, str]:
    """A storage and a plain key in it, for a key that may contain ``..`` and the like."""
    if not _ODD_KEY.search(key):
        return storage, key
    folder, _, name = key.rpartition("/")
    # An absolute key has an empty folder as well, but is not to be taken for a plain one.
    child = _child(storage, folder or ("/" if key.startswith("/") else ""))
    if _ODD_KEY.search(name):
        raise MetadataError(f"{key!r} does not name an object", source=storage.url)
    return child, name


@lru_cache(maxsize=1024)
def _child(storage: Storage, folder: str) -> Storage:
    return storage.child(folder)
