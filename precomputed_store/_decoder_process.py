"""The program in which chunks are decoded that can crash their decoder.

`isolation` starts it, as a program of its own, and is its only client. It answers
requests until its input ends, and never imports the program that it works for.

A request is a `REQUEST` header and a job in JSON, on the standard input; a reply is a
`REPLY` header and a message, on what was the standard output. Encoded and decoded bytes
lie in memory that both sides have mapped: the decoded chunk first, the encoded one at
the offset that the request gives.

Where forking is safe the first process only supervises: it forks a child that answers
the requests, and another one when that has refused a chunk or died, so that every child
begins with an intact heap and with the libraries loaded. Elsewhere the first process
answers, and the client restarts it.
"""

from __future__ import annotations

import functools
import importlib
import json
import mmap
import os
import select
import signal
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple, NoReturn

import numpy as np

from precomputed_store._shared_memory import map_memory
from precomputed_store.codecs.base import CZYX, ChunkArray, Codec, Slab
from precomputed_store.errors import FormatError, UnsupportedError

__all__ = ["MAX_MESSAGE_BYTES", "REPLY", "REQUEST", "Status", "death", "main"]

REQUEST: Final = struct.Struct("<QIQQQ")
"""Number of the request, bytes of the job, bytes of the shared memory, offset and length of
the encoded chunk."""
REPLY: Final = struct.Struct("<QBI")
"""Number of the request, status, bytes of the message."""
MAX_MESSAGE_BYTES: Final = 2000
"""With its header less than what a pipe takes in one piece."""

_ENDED: Final = 0
_REPLACE: Final = 64
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4


class Status(IntEnum):
    """What became of a request."""

    READY = 0
    DECODED = 1
    REFUSED = 2
    """The codec says that the bytes are malformed."""
    UNSUPPORTED = 3
    """The codec or its library is not there."""
    FAILED = 4
    """Any other exception, or death."""
    HUNG = 5


def death(code: int) -> tuple[Status, str]:
    """Status and message for a decoder process by its exit code, negative for a signal."""
    if code >= 0:
        return Status.FAILED, f"decoder process exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGXCPU":
        return Status.HUNG, "decoder process hung and was stopped (SIGXCPU)"
    cause = " (ended by the system, perhaps for want of memory)" if name == "SIGKILL" else ""
    return Status.FAILED, f"decoder process died with {name}{cause}"


def main(*, memory: int | str, forks: bool) -> NoReturn:
    """Answer requests until the standard input ends.

    Parameters
    ----------
    memory : int or str
        Handle of the shared memory.
    forks : bool
        Whether children of this process answer.
    """
    channel = _take_channel()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _leave_no_dumps()
    channel.reply(0, Status.READY)
    if forks:
        _supervise(channel, memory)
    else:
        _serve(channel, memory, _Progress(report=None))
    os._exit(_ENDED)


@dataclass(frozen=True, slots=True)
class _Channel:
    requests: int
    replies: int

    def receive(self) -> bytes:
        """A request, header and job, or nothing if there are no more.

        The next one is sent when this one is answered. It is taken at once as far as it is
        there, so that a process that dies does not leave a part of it to its successor.
        """
        received, size = b"", REQUEST.size
        while len(received) < size:
            part = os.read(self.requests, 65536)
            if not part:
                return b""
            received += part
            if len(received) >= REQUEST.size:
                size = REQUEST.size + REQUEST.unpack_from(received)[1]
        return received

    def reply(self, number: int, status: Status, message: str = "") -> None:
        encoded = message.encode("utf-8", "replace")[:MAX_MESSAGE_BYTES]
        os.write(self.replies, REPLY.pack(number, status, len(encoded)) + encoded)


def _take_channel() -> _Channel:
    """Keep the standard streams for the protocol, out of the reach of whoever prints."""
    if sys.platform == "win32":
        import msvcrt

        for fd in (0, 1):
            msvcrt.setmode(fd, os.O_BINARY)
    channel = _Channel(os.dup(0), os.dup(1))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    return channel


def _leave_no_dumps() -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.SetErrorMode(
            msvcrt.SEM_FAILCRITICALERRORS
            | msvcrt.SEM_NOGPFAULTERRORBOX
            | msvcrt.SEM_NOOPENFILEERRORBOX
        )
        return
    import resource

    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A core pattern that is a pipe does not heed the limit.
    _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        with suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class _Progress:
    """What a supervisor has to know of its child when that dies."""

    def __init__(self, *, report: int | None) -> None:
        self.report = report
        self._pending = mmap.mmap(-1, 8)
        self._num_modules = len(sys.modules)

    @property
    def pending(self) -> int:
        """Number of the request that is not answered yet; 0 for none."""
        return int.from_bytes(self._pending[:8], "little")

    @pending.setter
    def pending(self, number: int) -> None:
        self._pending[:8] = number.to_bytes(8, "little")

    def report_modules(self) -> None:
        """Tell which modules were loaded: the next child is to have them from the start."""
        if self.report is None or len(sys.modules) == self._num_modules:
            return
        names = list(sys.modules)[self._num_modules :]
        self._num_modules = len(sys.modules)
        os.write(self.report, "".join(f"{name}\n" for name in names).encode())


def _supervise(channel: _Channel, memory: int | str) -> None:
    code = _REPLACE
    while code != _ENDED:
        reader, writer = os.pipe()
        progress = _Progress(report=writer)
        pid = os.fork()
        if not pid:
            _be_child(channel, memory, progress)
        os.close(writer)
        modules = _watch(channel, reader, pid)
        os.close(reader)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if modules is None:
            return
        if code not in (_ENDED, _REPLACE):
            # Number 0: it died between requests, or with one that it had not noted yet.
            channel.reply(progress.pending, *death(code))
        _load(modules)


def _be_child(channel: _Channel, memory: int | str, progress: _Progress) -> NoReturn:
    code = 1
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        code = _serve(channel, memory, progress)
    finally:
        os._exit(code)


def _watch(channel: _Channel, reader: int, pid: int) -> list[str] | None:
    """Wait for a child's end; the modules that it loaded, or None if the client has gone."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(channel.requests, 0)  # reports a hang-up, nothing else
    reported = b""
    while True:
        events = dict(poll.poll())
        if channel.requests in events:
            os.kill(pid, signal.SIGKILL)
            return None
        part = os.read(reader, 65536)
        if not part:
            return reported.decode("utf-8", "replace").splitlines()
        reported += part


def _load(modules: list[str]) -> None:
    for name in modules:
        # What a dying child reports need not be true.
        with suppress(BaseException):
            importlib.import_module(name)


def _serve(channel: _Channel, memory: int | str, progress: _Progress) -> int:
    """Answer requests; the exit code once there are no more, or after a failure."""
    decoder = _Decoder(memory)
    while request := channel.receive():
        number, _, *place = REQUEST.unpack_from(request)
        progress.pending = number
        status, message = decoder.answer(request[REQUEST.size :], *place)
        channel.reply(number, status, message)
        progress.pending = 0
        progress.report_modules()
        if status is not Status.DECODED:
            return _REPLACE
    return _ENDED


class _Job(NamedTuple):
    codec: Codec
    shape: CZYX
    dtype: np.dtype[Any]
    slab: Slab
    memory_bytes: int
    """Private memory that decoding may take."""
    seconds: int
    """Processor time that decoding may take."""

    def decode(self, data: memoryview) -> ChunkArray:
        start, stop = self.slab
        if (start, stop) == (0, self.shape[1]):
            chunk = self.codec.decode(data, shape=self.shape, dtype=self.dtype)
        else:
            chunk = self.codec.decode_slab(
                data, shape=self.shape, dtype=self.dtype, slab=self.slab
            )
        expected = (self.shape[0], stop - start, *self.shape[2:])
        if chunk.shape != expected or chunk.dtype != self.dtype:
            raise FormatError(
                f"decoded to {chunk.dtype} {chunk.shape} (channel, z, y, x); "
                f"expected {self.dtype} {expected}"
            )
        return chunk


@functools.lru_cache(maxsize=256)
def _read_job(encoded: bytes) -> _Job:
    fields = json.loads(encoded)
    return _Job(
        codec=_codec_class(fields["module"], fields["class"]).from_parameters(fields["codec"]),
        shape=tuple(fields["shape"]),
        dtype=np.dtype(fields["dtype"]),
        slab=tuple(fields["slab"]),
        memory_bytes=fields["memory_bytes"],
        seconds=fields["seconds"],
    )


def _codec_class(module: str, name: str) -> type[Codec]:
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UnsupportedError(
            f"the decoder process cannot import the codec {module}.{name} ({error}): "
            "it has to be in a module of its own, not in the program that is run"
        ) from error
    return found  # type: ignore[no-any-return]


class _Decoder:
    """Decodes within limits that are relative to the process as it was at first."""

    def __init__(self, memory: int | str) -> None:
        self._handle = memory
        self._mapping: mmap.mmap | None = None
        self._private_bytes = _private_bytes()

    def answer(self, encoded_job: bytes, *place: int) -> tuple[Status, str]:
        try:
            self._decode(_read_job(encoded_job), *place)
        except FormatError as error:
            return Status.REFUSED, str(error)
        except UnsupportedError as error:
            return Status.UNSUPPORTED, str(error)
        except MemoryError:
            return Status.FAILED, "decoding needs more memory than such a chunk can need"
        except BaseException as error:
            return Status.FAILED, f"{type(error).__name__}: {error}"
        return Status.DECODED, ""

    def _decode(self, job: _Job, size: int, offset: int, num_bytes: int) -> None:
        if self._mapping is None or len(self._mapping) != size:
            self._mapping = map_memory(self._handle, size)
        data = memoryview(self._mapping)[offset : offset + num_bytes].toreadonly()
        self._limit(job)
        chunk = job.decode(data)
        np.ndarray(chunk.shape, chunk.dtype, self._mapping)[...] = chunk

    def _limit(self, job: _Job) -> None:
        if sys.platform == "win32":
            return
        import resource

        seconds = int(time.process_time()) + 1 + job.seconds
        with suppress(OSError, ValueError):
            hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))
        if self._private_bytes is not None:
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            with suppress(OSError, ValueError):
                limit = self._private_bytes + job.memory_bytes
                resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _private_bytes() -> int | None:
    """Private writable memory of this process, which is what RLIMIT_DATA is about on Linux."""
    if sys.platform != "linux":
        return None
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[5]) * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):
        return None
