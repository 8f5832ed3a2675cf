"""Decoding where malformed bytes can do no harm.

Some native decoders (compresso, crackle, fpzip) crash, hang, corrupt or exhaust memory on
malformed chunks, whatever their header says; zfpc needs a copy of its chunks, which can be
several times as long as what they hold. Codecs that declare ``place = "worker"`` are
therefore decoded in processes of their own, with limits on memory and time, except for what
their `Codec.decode_box` does. A process that has failed at a chunk is replaced, and what
went wrong in it becomes a `FormatError`.

The processes are programs of their own, not copies of the user's: nothing is imported
from the program that reads, so that no ``__main__`` guard is needed. There are
as many as processors at most; they start when they are first needed and end with the
process that uses them, however that ends. A forked child starts its own.

``PRECOMPUTED_STORE_ISOLATION=0`` in the environment decodes everything in the user's
process, at the risk that a malformed chunk crashes it. It is meant for platforms on which
no process can be started, and for data that are known to be sound.

Memory is limited on Linux only, processor time everywhere but on Windows.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from precomputed_store.codecs.base import CZYX, Buffer, ChunkArray, Codec, Slab
from precomputed_store.concurrency import num_cores
from precomputed_store.errors import FormatError, PrecomputedError

if TYPE_CHECKING:
    from precomputed_store._decoder_worker import Job, Worker

__all__ = ["SWITCH", "TIME_LIMIT_SECONDS", "decode", "decoded"]

SWITCH: Final = "PRECOMPUTED_STORE_ISOLATION"
"""Environment variable: ``0`` decodes in the user's process."""

TIME_LIMIT_SECONDS: float = 10.0
"""Time in which a chunk must be decoded; half as much processor time ends it too. Large
chunks have a quarter of a second per MiB of voxels in addition, about a hundred times what
they need."""
_SECONDS_PER_MIB: Final = 0.25

_SPARE_MEMORY: Final = 64 << 20


def decode(codec: Codec, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
    """Decode a chunk where its codec is to run.

    Callable from any number of threads; waits for the result.

    Parameters
    ----------
    codec : Codec
        If its ``place`` is not ``"worker"``, `Codec.decode` is called directly. Otherwise
        `Codec.decode_box` is, and what it does not do goes to a process: the class must be
        importable, that is, defined in a module and not in the user's program.
    data : bytes-like
        The encoded chunk, content encoding undone.
    shape : (int, int, int, int)
        Expected ``(channel, z, y, x)`` shape, already cropped to the volume.
    dtype : numpy.dtype
        Expected data type.

    Returns
    -------
    numpy.ndarray
        Of exactly `shape` and `dtype`.

    Raises
    ------
    FormatError
        The bytes are not an encoded chunk of this shape and data type, or their decoder
        crashed, hung or took too much memory.
    UnsupportedError
        A library is not installed, or no process can be started.
    """
    if _is_isolated(codec) and codec.decodes_boxes:
        whole = codec.decode_as_box(data, shape=shape, dtype=dtype)
        if whole is not None:
            return whole
    with decoded(codec, data, shape=shape, dtype=dtype) as chunk:
        return chunk.copy() if _is_isolated(codec) else chunk


@contextmanager
def decoded(
    codec: Codec, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any], slab: Slab | None = None
) -> Iterator[ChunkArray]:
    """As `decode`, without the copy: the array is valid inside the ``with`` block only.

    For a chunk that is copied elsewhere at once. The array may be read-only. A process is
    occupied meanwhile: decode no other chunk in the block. Of a `slab` no other z slices are
    given, nor perhaps decoded.
    """
    slab = slab or (0, shape[1])
    if not _is_isolated(codec):
        yield _decode_here(codec, data, shape=shape, dtype=dtype, slab=slab)
        return
    job = _job(codec, data, shape=shape, dtype=dtype, slab=slab)
    worker = None
    try:
        worker = _pool.take()
        yield worker.decode(job)
    finally:
        if worker is not None:
            _pool.give_back(worker)


def _is_isolated(codec: Codec) -> bool:
    return codec.place == "worker" and os.environ.get(SWITCH) != "0"


def _decode_here(
    codec: Codec, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any], slab: Slab
) -> ChunkArray:
    try:
        if slab != (0, shape[1]):
            return codec.decode_slab(data, shape=shape, dtype=dtype, slab=slab)
        return codec.decode(data, shape=shape, dtype=dtype)
    except PrecomputedError:
        raise
    except Exception as error:
        if codec.place != "worker":
            raise
        raise FormatError(f"{codec.name}: {type(error).__name__}: {error}") from error


def _job(codec: Codec, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any], slab: Slab) -> Job:
    from precomputed_store._decoder_worker import Job

    num_bytes = math.prod(shape) * dtype.itemsize
    return Job(
        codec=codec,
        data=memoryview(data).cast("B"),
        shape=shape,
        dtype=dtype,
        slab=slab,
        seconds=TIME_LIMIT_SECONDS + _SECONDS_PER_MIB * num_bytes / 2**20,
        memory_bytes=codec.most_memory(shape=shape, dtype=dtype) + _SPARE_MEMORY,
    )


class _Pool:
    """Workers that wait, and how many there are."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Worker] = []
        # Weak: one that an interrupted thread has lost does not count any more.
        self._workers: list[weakref.ref[Worker]] = []

    def take(self) -> Worker:
        from precomputed_store._decoder_worker import Worker

        with self._changed:
            while not self._waiting and len(self.workers()) >= num_cores():
                self._changed.wait(1.0)
            if self._waiting:
                return self._waiting.pop()
            worker = Worker()
            self._workers = [*map(weakref.ref, self.workers()), weakref.ref(worker)]
            return worker

    def give_back(self, worker: Worker) -> None:
        with self._changed:
            self._waiting.append(worker)
            self._changed.notify()

    def workers(self) -> list[Worker]:
        return [worker for ref in self._workers if (worker := ref()) is not None]


_pool = _Pool()


def _start_afresh() -> None:
    """Leave the parent's workers to the parent, in a forked child."""
    global _pool
    inherited, _pool = _pool, _Pool()
    for worker in inherited.workers():
        worker.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
