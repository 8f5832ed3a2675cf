"""Content encodings: the compression around stored bytes, named by a header or a suffix. Pure.

Inflation is streamed and stops at a limit that the caller knows. The sizes that a
compressed stream declares are not believed, a stream that ends early is an error, and so
is anything behind the last stream: zero padding too, as that is what a torn write leaves.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from precomputed_store.codecs.base import CZYX, Buffer, Codec, require
from precomputed_store.codecs.checks import library_errors
from precomputed_store.errors import FormatError, UnsupportedError

__all__ = ["SUFFIXES", "apply", "from_header", "guess", "undo", "zlib_library"]

SUFFIXES: Final[Mapping[str, str]] = {
    "gzip": ".gz",
    "br": ".br",
    "zstd": ".zstd",
    "xz": ".xz",
    "bz2": ".bz2",
}
"""Content encoding → suffix of its file name on storages without headers."""

_ALIASES = {"x-gzip": "gzip", "bzip2": "bz2", "x-bzip2": "bz2", "x-xz": "xz"}

_NOTHING = ("", "identity", "aws-chunked")
"""``aws-chunked`` is about the upload; some S3 servers keep it although nothing is left of it."""

_MAGIC: Final[Mapping[str, bytes]] = {
    "gzip": b"\x1f\x8b\x08",
    "zstd": b"\x28\xb5\x2f\xfd",
    "xz": b"\xfd7zXZ\x00",
    "bz2": b"BZh",
}

_XZ_MEMORY = 96 << 20
"""More than the 65 MiB that the highest preset of xz needs, far less than a header can ask for."""


def from_header(value: str | None) -> str | None:
    """What a ``Content-Encoding`` header leaves to undo, for `undo`; None for nothing.

    Examples
    --------
    >>> from_header("x-gzip"), from_header("identity"), from_header("gzip, br")
    ('gzip', None, 'gzip,br')
    """
    return ",".join(_names(value or "")) or None


def _names(encodings: str) -> list[str]:
    names = (name.strip().lower() for name in encodings.split(","))
    return [_ALIASES.get(name, name) for name in names if name not in _NOTHING]


def undo(data: Buffer, encoding: str, *, limit: int, allow_zlib: bool = False) -> bytes:
    """Decompress.

    Parameters
    ----------
    data : bytes-like
    encoding : str
        ``"gzip"``, ``"br"``, ``"zstd"``, ``"xz"``, ``"bz2"``, ``"deflate"``, or several,
        comma-separated in the order in which they were applied.
    limit : int
        The most bytes that may come out.
    allow_zlib : bool
        Take zlib streams for gzip too: neuroglancer-scripts writes them into shards.

    Raises
    ------
    FormatError
        Not such a stream, damaged, truncated, followed by other bytes, or larger than `limit`.
    UnsupportedError
        An unknown encoding, or one whose library is not installed.
    """
    names = _names(encoding)
    for applied_after, name in enumerate(reversed(names), start=1):
        innermost = applied_after == len(names)
        # Compressed bytes can be a little longer than what they hold.
        room = limit if innermost else limit + limit // 64 + (64 << 10)
        new = _opener(name, allow_zlib=allow_zlib)
        with library_errors(name):
            data = _inflate(data, name, new, limit=room)
    return bytes(data)


class _Stream(Protocol):
    """What the decompressors of zlib, isal, bz2, lzma and zstd have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: Buffer, max_length: int, /) -> bytes: ...


class _BrotliStream:
    """The same for brotli, whose streams refuse bytes behind their end by themselves."""

    unused_data = b""

    def __init__(self, decompressor: Any) -> None:
        self._decompressor = decompressor

    @property
    def eof(self) -> bool:
        finished: bool = self._decompressor.is_finished()
        return finished

    def decompress(self, data: Buffer, max_length: int, /) -> bytes:
        part: bytes = self._decompressor.process(data, output_buffer_limit=max_length)
        return part


def _opener(name: str, *, allow_zlib: bool) -> Callable[[], _Stream]:
    match name:
        case "gzip":
            return partial(zlib_library().decompressobj, 47 if allow_zlib else 31)
        case "deflate":
            return partial(zlib_library().decompressobj, 15)
        case "br":
            brotli = _brotli()
            return lambda: _BrotliStream(brotli.Decompressor())
        case "zstd":
            return _zstd().ZstdDecompressor  # type: ignore[no-any-return]
        case "xz":
            return partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, _XZ_MEMORY)
        case "bz2":
            return bz2.BZ2Decompressor
    raise UnsupportedError(
        f"content encoding {name!r} is unknown; known are {', '.join(SUFFIXES)} and deflate"
    )


@cache
def zlib_library() -> Any:
    """isal's module like zlib, if it is installed; else zlib."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib


def _brotli() -> Any:
    brotli = require("brotli", extra="fast", purpose="the content encoding br")
    if not hasattr(brotli.Decompressor, "can_accept_more_data"):
        raise UnsupportedError(
            "the content encoding br needs brotli 1.2 or newer, which can stop at a limit: "
            "pip install 'precomputed-store[fast]'"
        )
    return brotli


def _zstd() -> Any:
    module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    return require(module, extra="fast", purpose="the content encoding zstd")


def _inflate(data: Buffer, name: str, new: Callable[[], _Stream], *, limit: int) -> Buffer:
    """One or more streams, one behind the other, of at most `limit` bytes in all."""
    view = memoryview(data)
    parts: list[bytes] = []
    position = size = 0
    while position < len(view) or position == 0:
        stream = new()
        # A first stream is most often the only one. Those behind it are fed step by step,
        # as each copies what it was given and did not need.
        step = 256 if position else max(len(view), 1)
        while not stream.eof:
            block = view[position : position + step]
            if not block:
                raise FormatError(f"{name} stream is truncated")
            part = stream.decompress(block, limit - size + 1)
            parts.append(part)
            size += len(part)
            if size > limit:
                raise FormatError(f"{name} stream holds more than the {limit} bytes expected")
            position += len(block)
            step *= 2
        position -= len(stream.unused_data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Levels(NamedTuple):
    default: int
    minimum: int
    maximum: int


_LEVELS: Final[Mapping[str, _Levels]] = {
    "gzip": _Levels(6, 0, 9),
    "br": _Levels(5, 0, 11),
    "zstd": _Levels(3, 1, 22),
    "xz": _Levels(6, 0, 9),
    "bz2": _Levels(9, 1, 9),
}


def apply(data: Buffer, encoding: str, *, level: int | None = None) -> bytes:
    """Compress. The same bytes come out whenever the same go in: no time stamps.

    With the same libraries: gzip's bytes (never what is in them) depend on whether `deflate`,
    of the extra ``fast``, is installed.

    Parameters
    ----------
    data : bytes-like
    encoding : str
        A key of `SUFFIXES`.
    level : int, optional
        0 to 9 for gzip and xz (default 6), 0 to 11 for br (default 5), 1 to 22 for zstd
        (default 3), 1 to 9 for bz2 (default 9).

    Raises
    ------
    ValueError
        An unknown encoding, or a level that it does not have.
    UnsupportedError
        Its library is not installed.
    """
    name = _ALIASES.get(encoding, encoding)
    if name not in _LEVELS:
        raise ValueError(f"content encoding is {encoding!r}; expected one of {', '.join(_LEVELS)}")
    return _deflate(data, name, _checked_level(name, level))


def _checked_level(name: str, level: int | None) -> int:
    default, minimum, maximum = _LEVELS[name]
    if level is None:
        return default
    whole = isinstance(level, int | np.integer) and not isinstance(level, bool)
    if not whole or not minimum <= level <= maximum:
        raise ValueError(
            f"level of {name} is {level!r}; expected an integer from {minimum} to {maximum}"
        )
    return int(level)


def _deflate(data: Buffer, name: str, level: int) -> bytes:
    compressed: bytes
    match name:
        case "gzip":
            compressed = _gzip(data, level)
        case "br":
            compressed = _brotli().compress(data, quality=level)
        case "zstd":
            zstd = _zstd()
            parameter = zstd.CompressionParameter
            options = {parameter.compression_level: level, parameter.checksum_flag: 1}
            compressed = zstd.compress(data, options=options)
        case "xz":
            compressed = lzma.compress(data, preset=level)
        case _:
            compressed = bz2.compress(data, level)
    return compressed


def _gzip(data: Buffer, level: int) -> bytes:
    """One gzip stream without a time: by libdeflate, twice as fast as zlib and smaller.

    isal is faster still, but labels become twice as large.
    """
    try:
        import deflate
    except ImportError:
        return zlib.compress(data, level, wbits=31)
    return bytes(deflate.gzip_compress(data, level))


def guess(data: Buffer, codec: Codec, *, shape: CZYX, dtype: np.dtype[Any]) -> str | None:
    """Which content encoding a chunk still has, where the storage cannot say.

    A client in between may have undone it or not. Bytes that the codec recognises are
    taken as they are, so that raw voxels which happen to begin like gzip are left alone.
    """
    if codec.recognises(data, shape=shape, dtype=dtype):
        return None
    beginning = bytes(data[:6])
    return next((name for name, magic in _MAGIC.items() if beginning.startswith(magic)), None)
