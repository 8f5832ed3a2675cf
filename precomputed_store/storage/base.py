"""What every kind of storage shares: blobs, ranges, frozen options, the two interfaces."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

from precomputed_store.codecs.base import Buffer, ChunkArray
from precomputed_store.errors import StorageError
from precomputed_store.storage.blocks import FileBlocks
from precomputed_store.storage.retry import RetryPolicy

if TYPE_CHECKING:
    from precomputed_store.storage.pieces import PutFile
    from precomputed_store.storage.update import Update

__all__ = [
    "AsyncBackend",
    "Blob",
    "ByteRange",
    "FrozenOptions",
    "Get",
    "ObjectTooLargeError",
    "Page",
    "Place",
    "Put",
    "Stat",
    "ThreadedBackend",
    "freeze_statuses",
    "refusal",
]

ByteRange: TypeAlias = tuple[int, int]
"""Half-open: the first byte wanted and the one after the last."""


class Blob(NamedTuple):
    """An object, or the part of it that was asked for, as stored.

    Attributes
    ----------
    data : bytes-like
    content_encoding : str or None
        Compression still to be undone, as `codecs.content.undo` takes it. None: nothing.
    certain : bool
        False where the storage cannot tell whether something is to be undone, because a
        client in between (a cache, an unknown protocol) may have undone it or not.
    version : hashable
        Another object under the same key has another version; None where the storage does
        not say.
    """

    data: Buffer
    content_encoding: str | None
    certain: bool = True
    version: Hashable = None

    def __eq__(self, other: object) -> bool:
        """Whether the same is stored; when it was stored does not matter."""
        return isinstance(other, Blob) and self[:3] == other[:3]

    def __ne__(self, other: object) -> bool:
        # That of tuples would compare the versions too.
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:3])


class ObjectTooLargeError(StorageError):
    """An object is longer than it may be, and was not read."""


class Stat(NamedTuple):
    """How an object is stored.

    Attributes
    ----------
    num_bytes : int or None
        Its size as stored; None where the storage does not tell.
    content_encoding : str or None
        As in `Blob`.
    """

    num_bytes: int | None
    content_encoding: str | None = None


class Page(NamedTuple):
    """One answer of a listing: names of direct children, and where the next page begins.

    `sizes` are those of the objects among them, in bytes, where the storage tells.
    """

    names: list[str]
    token: str | None
    sizes: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Get:
    """One read: which object, which bytes, how many at most."""

    key: str
    byte_range: ByteRange | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.byte_range is not None and not 0 <= self.byte_range[0] < self.byte_range[1]:
            raise ValueError(f"byte_range {self.byte_range}; expected 0 <= start < stop")

    def check_size(self, size: int, url: str) -> None:
        """Refuse an object (or its range) of `size` bytes that is too large."""
        if self.max_bytes is not None and size > self.max_bytes:
            raise ObjectTooLargeError(
                f"{url}: {size} bytes or more; expected at most {self.max_bytes}"
            )

    def compressed(self, encoding: str, url: str) -> StorageError:
        """A range was asked for, of bytes that exist in a compressed form only."""
        return StorageError(
            f"{url}: a range of it was asked for, but it is stored compressed as a whole "
            f"({encoding}); uncompress it there"
        )

    def past_end(self, size: int | None, url: str) -> StorageError:
        """The range asked for does not lie within the object."""
        start, stop = self.byte_range or (0, 0)
        found = "shorter" if size is None else f"{size} bytes long"
        return StorageError(f"{url}: bytes {start} to {stop} were asked for; it is {found}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """One write of a whole object, already encoded."""

    key: str
    data: Buffer
    content_type: str
    content_encoding: str | None = None
    cache_control: str | None = None


def freeze_statuses(statuses: Iterable[int]) -> frozenset[int]:
    """The HTTP statuses that mean "no such object", checked.

    Raises
    ------
    TypeError, ValueError
        They are something else than refusals: a failing server never means "missing".
    """
    if not isinstance(statuses, Iterable) or isinstance(statuses, str):
        raise TypeError(f"missing_statuses is {statuses!r}; expected several, such as (404, 403)")
    found = frozenset(statuses)
    for status in found:
        if not isinstance(status, int) or not 400 <= status < 500:
            raise ValueError(
                f"missing_statuses has {status!r}; expected HTTP statuses from 400 to 499"
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a backend has to know of the storage that it serves."""

    url: str
    root: str
    missing_statuses: frozenset[int]
    retry: RetryPolicy
    fsync: bool
    cross_origin: bool


class ThreadedBackend(ABC):
    """Storage whose calls block: for local disks, memory and clients without coroutines."""

    threaded: ClassVar[bool] = True
    has_blocks: bool = False
    has_headers: ClassVar[bool] = False
    has_files: ClassVar[bool] = False
    can_guard: ClassVar[bool] = True
    can_delete_if: ClassVar[bool] = True
    concurrency: int

    @property
    def write_concurrency(self) -> int:
        return self.concurrency

    @abstractmethod
    def get(self, request: Get) -> Blob | None: ...

    def read_blocks(self, folder: str, blocks: FileBlocks, out: ChunkArray) -> list[int]:
        """See `Storage.read_blocks`."""
        return list(range(len(blocks)))

    @abstractmethod
    def put(self, request: Put) -> None: ...

    def put_file(self, request: PutFile) -> None:
        self.put(request.held())

    @abstractmethod
    def delete(self, key: str) -> None: ...

    @abstractmethod
    def exists(self, key: str) -> bool: ...

    @abstractmethod
    def stat(self, key: str) -> Stat | None: ...

    @abstractmethod
    def names(self) -> Iterator[str]: ...

    def sizes(self) -> Iterator[tuple[str, int | None]]:
        """The names, each with the bytes of the object, where they are known."""
        for name in self.names():
            yield name, None

    @abstractmethod
    def update(self, request: Update) -> None: ...


class AsyncBackend(ABC):
    """Storage behind coroutines that run on fsspec's event loop only."""

    threaded: ClassVar[bool] = False
    has_blocks: bool = False
    has_headers: ClassVar[bool] = False
    has_files: ClassVar[bool] = False
    can_guard: ClassVar[bool] = True
    can_delete_if: ClassVar[bool] = True
    concurrency: int = 64

    @property
    def write_concurrency(self) -> int:
        return self.concurrency

    @abstractmethod
    async def get(self, request: Get) -> Blob | None: ...

    @abstractmethod
    async def put(self, request: Put) -> None: ...

    async def put_file(self, request: PutFile) -> None:
        await self.put(await asyncio.to_thread(request.held))

    @abstractmethod
    async def delete(self, key: str) -> None: ...

    @abstractmethod
    async def exists(self, key: str) -> bool: ...

    @abstractmethod
    async def stat(self, key: str) -> Stat | None: ...

    @abstractmethod
    async def page(self, token: str | None) -> Page: ...

    @abstractmethod
    async def update(self, request: Update) -> None: ...


def refusal(url: str, *, status: int, reason: str, anonymous: str | None) -> StorageError:
    """The error for an answer that means neither success nor absence."""
    message = f"{url}: the server answered {status} {reason}".rstrip()
    if status in (401, 403):
        message += ": no permission. "
        if anonymous:
            message += f"For a public bucket try storage_options={anonymous}. "
        message += (
            f"Where absent objects are answered with {status}, as some public buckets do, pass "
            f"missing_statuses=(404, {status})"
        )
    return StorageError(message, status=status)


class FrozenOptions(Mapping[str, Any]):
    """Options of a file system: an immutable, hashable, picklable mapping.

    Nested mappings and sequences take part in equality and hash by value. `repr` shows
    the names alone, since the values may be secrets.
    """

    __slots__ = ("_hash", "_key", "_options")

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        if options is not None and not isinstance(options, Mapping):
            raise TypeError(f"storage_options is a {type(options).__name__}; expected a mapping")
        self._options = {str(name): _copy(value) for name, value in (options or {}).items()}
        self._key = _frozen(self._options)
        self._hash = hash(self._key)

    def thaw(self) -> dict[str, Any]:
        """A new dict, which the receiver may change."""
        return {name: _copy(value) for name, value in self._options.items()}

    def __getitem__(self, name: str) -> Any:
        return _copy(self._options[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._options)

    def __len__(self) -> int:
        return len(self._options)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FrozenOptions):
            return bool(self._key == other._key)
        return isinstance(other, Mapping) and self == FrozenOptions(other)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name!r}: …" for name in self._options) + "}"

    def __reduce__(self) -> tuple[Callable[..., FrozenOptions], tuple[dict[str, Any]]]:
        return FrozenOptions, (self._options,)

    def __dask_tokenize__(self) -> tuple[str, object]:
        return "precomputed_store.FrozenOptions", self._key


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copy(member) for name, member in value.items()}
    return list(value) if isinstance(value, list) else value


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        pairs = sorted((str(name), _frozen(member)) for name, member in value.items())
        return ("mapping", tuple(pairs))
    if isinstance(value, list | tuple):
        return (type(value).__name__, tuple(_frozen(member) for member in value))
    try:
        hash(value)
    except TypeError:
        return (type(value).__qualname__, repr(value))
    return value
