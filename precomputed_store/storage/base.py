"""What every kind of storage shares: blobs, ranges, frozen options, the two interfaces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

from precomputed_store.codecs.base import Buffer
from precomputed_store.codecs.content import SUFFIXES
from precomputed_store.errors import ConflictError, StorageError, UnsupportedError
from precomputed_store.storage.retry import RetryPolicy

__all__ = [
    "ABSENT",
    "WRITE_ID",
    "AsyncBackend",
    "Blob",
    "ByteRange",
    "Delete",
    "FrozenOptions",
    "Get",
    "Page",
    "Place",
    "Put",
    "ThreadedBackend",
    "Version",
    "Versioned",
    "changed",
    "freeze_statuses",
    "no_conditions",
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
    """

    data: Buffer
    content_encoding: str | None
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Version:
    """One state of an object, as its storage tells it from others: to compare, not to read.

    Attributes
    ----------
    token : str or None
        None: the object is absent. Else something that only the storage understands.
    """

    token: str | None


WRITE_ID = "precomputed-store-write"
"""Metadata of objects stored on condition: by which it is known that a write was ours."""

ABSENT = Version(None)
"""The version of an object that is not there: ``put(…, expected=ABSENT)`` only creates."""


class Versioned(NamedTuple):
    """An object and its version; both are of the same moment.

    Attributes
    ----------
    blob : Blob or None
        None: absent.
    version : Version
    """

    blob: Blob | None
    version: Version


class Page(NamedTuple):
    """One answer of a listing: names of direct children, and where the next page begins."""

    names: list[str]
    token: str | None


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
            raise StorageError(f"{url}: {size} bytes or more; expected at most {self.max_bytes}")

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
    """One write of a whole object, already encoded.

    With `expected` only if the object is at that version.
    """

    key: str
    data: Buffer
    content_type: str
    content_encoding: str | None = None
    cache_control: str | None = None
    expected: Version | None = None

    def __post_init__(self) -> None:
        if self.content_encoding is not None and self.content_encoding not in SUFFIXES:
            raise ValueError(
                f"content_encoding {self.content_encoding!r}; expected one of "
                f"{', '.join(SUFFIXES)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """The removal of an object; with `expected` only if it is at that version."""

    key: str
    expected: Version | None = None


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
    has_headers: ClassVar[bool] = False
    has_conditions: ClassVar[bool] = False
    concurrency: int
    url: str

    @abstractmethod
    def get(self, request: Get) -> Blob | None: ...

    def get_versioned(self, request: Get) -> Versioned:
        raise no_conditions(self.url)

    @abstractmethod
    def put(self, request: Put) -> None: ...

    @abstractmethod
    def delete(self, request: Delete) -> None: ...

    @abstractmethod
    def exists(self, key: str) -> bool: ...

    @abstractmethod
    def names(self) -> Iterator[str]: ...


class AsyncBackend(ABC):
    """Storage behind coroutines that run on fsspec's event loop only."""

    threaded: ClassVar[bool] = False
    has_headers: ClassVar[bool] = False
    has_conditions: ClassVar[bool] = False
    concurrency: int = 64
    url: str

    @abstractmethod
    async def get(self, request: Get) -> Blob | None: ...

    async def get_versioned(self, request: Get) -> Versioned:
        raise no_conditions(self.url)

    @abstractmethod
    async def put(self, request: Put) -> None: ...

    @abstractmethod
    async def delete(self, request: Delete) -> None: ...

    @abstractmethod
    async def exists(self, key: str) -> bool: ...

    @abstractmethod
    async def page(self, token: str | None) -> Page: ...


def no_conditions(url: str) -> UnsupportedError:
    """The error for a conditional write where there is no such thing."""
    return UnsupportedError(
        f"{url}: this storage cannot write on condition that an object is unchanged, so what "
        "another writer stores meanwhile would be lost. Write whole objects (whole chunks, whole "
        "shards), use a local disk, s3:// or gs://, or, if nobody else writes there, say so: "
        'unaligned="unsafe-read-modify-write" for volumes, unconditional="allow" for updates'
    )


def changed(url: str) -> ConflictError:
    """The error for a condition that does not hold."""
    return ConflictError(
        f"{url}: another writer has changed it since it was read; nothing was written. Read it "
        "again, or use Storage.update, which does"
    )


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
