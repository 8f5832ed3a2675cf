"""Three gibibytes of zeros in a few kilobytes or megabytes, made in no time."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

__all__ = ["BOMBS"]

GIBIBYTES = 3
_MEBIBYTES = GIBIBYTES << 10


def gzip_bomb() -> bytes:
    """A deflate stream that is flushed after each MiB, whose pieces can be repeated."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    # Its end and its checksum are never reached.
    return b"\x1f\x8b\x08" + bytes(7) + _MEBIBYTES * piece


def gzip_members() -> bytes:
    """As many gzip streams, one behind the other, each sound."""
    return _MEBIBYTES * gzip.compress(bytes(1 << 20), mtime=0)


def zstd_bomb() -> bytes:
    """One frame of run-length blocks of 128 KiB: four bytes each."""
    # Magic number; no content size, no checksum; window of 8 MiB.
    header = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([13 << 3])
    size, run_length = 128 << 10, 1
    block = (run_length << 1 | size << 3).to_bytes(3, "little") + b"\0"
    last = (1 | run_length << 1 | size << 3).to_bytes(3, "little") + b"\0"
    return header + (8 * _MEBIBYTES - 1) * block + last


def brotli_bomb() -> bytes:
    """Meta-blocks of a MiB, flushed so that the same bytes say the same again."""
    import brotli

    compressor = brotli.Compressor(quality=5)
    pieces = [compressor.process(bytes(1 << 20)) + compressor.flush() for _ in range(4)]
    assert pieces[2] == pieces[3]
    bomb: bytes = b"".join(pieces) + (_MEBIBYTES - 4) * pieces[3] + compressor.finish()
    return bomb


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip": ("gzip", gzip_bomb),
    "gzip, 3,072 streams": ("gzip", gzip_members),
    "br": ("br", brotli_bomb),
    "zstd": ("zstd", zstd_bomb),
}
