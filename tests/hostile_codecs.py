"""Codecs for tests of isolation: one does whatever its bytes say, the worst included."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from precomputed_store.codecs.base import CZYX, Buffer, ChunkArray, Codec, Place, Ranges
from precomputed_store.codecs.compresso import Compresso
from precomputed_store.codecs.fpzip import Fpzip
from precomputed_store.codecs.kempressed import Kempressed
from precomputed_store.errors import UnsupportedError

_poisoned = False


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def read_nowhere() -> None:
    ctypes.string_at(0)


def sleep() -> None:
    time.sleep(600)


def spin() -> None:
    while True:
        pass


def balloon() -> None:
    np.concatenate([np.ones(16 << 20, np.uint8) for _ in range(64)])  # 1 GiB, twice


def refuse() -> None:
    raise ValueError("not today")


def lack() -> None:
    raise UnsupportedError("no library: pip install it")


def leave() -> None:
    os._exit(3)


def chat() -> None:
    print("noise " * 1000, flush=True)
    os.write(1, b"\0" * 64)
    os.write(2, b"\0" * 64)


def poison() -> None:
    global _poisoned
    _poisoned = True


def die_later() -> None:
    threading.Timer(0.1, crash).start()


DEEDS: dict[str, Callable[[], None]] = {
    deed.__name__: deed
    for deed in (
        crash,
        kill,
        read_nowhere,
        sleep,
        spin,
        balloon,
        refuse,
        lack,
        leave,
        chat,
        poison,
        die_later,
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile(Codec):
    """Does the deed that the bytes name, then decodes to the process's id plus `offset`."""

    name: ClassVar[str] = "hostile"
    place: ClassVar[Place] = "worker"
    data_types: ClassVar[tuple[str, ...]] = ("uint64",)

    offset: int = 0

    def decode(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        if _poisoned:
            crash()
        if data == b"wrong shape":
            return np.zeros(shape[1:], dtype)
        if deed := DEEDS.get(bytes(data).decode()):
            deed()
        return np.full(shape, os.getpid() + self.offset, dtype)

    def encode(self, array: ChunkArray) -> bytes:
        raise NotImplementedError

    def max_encoded_bytes(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        return math.prod(shape)

    def recognises(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressoInLibrary(Compresso):
    """As where the kernel could not be compiled."""

    decodes_boxes: ClassVar[bool] = False

    def decode_box(self, data: Buffer, *, shape: CZYX, box: Ranges, out: ChunkArray) -> bool:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class FpzipInLibrary(Fpzip):
    """As where the kernel could not be compiled."""

    decodes_boxes: ClassVar[bool] = False

    def decode_box(self, data: Buffer, *, shape: CZYX, box: Ranges, out: ChunkArray) -> bool:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class KempressedInLibrary(Kempressed):
    """As where the kernel could not be compiled."""

    decodes_boxes: ClassVar[bool] = False

    def decode_box(self, data: Buffer, *, shape: CZYX, box: Ranges, out: ChunkArray) -> bool:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class FpzipUnchecked(FpzipInLibrary):
    """Whatever the library makes of a stream."""

    def decode(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        import fpzip

        room = self.max_encoded_bytes(shape=shape, dtype=dtype)
        return np.asarray(fpzip.decompress(bytes(data) + bytes(room), order="C"))
