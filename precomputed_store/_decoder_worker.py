"""One decoder process as its client sees it: started when needed, restarted after a failure."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from precomputed_store._decoder_process import (
    MAX_MESSAGE_BYTES,
    REPLY,
    REQUEST,
    Status,
    death,
)
from precomputed_store._shared_memory import SharedMemory, nameless_file
from precomputed_store.codecs.base import CZYX, ChunkArray, Codec, Slab
from precomputed_store.errors import FormatError, PrecomputedError, UnsupportedError

__all__ = ["Job", "Worker"]

START_SECONDS: float = 60.0
"""How long a decoder process may take to start."""

# macOS has system libraries that do not survive a fork.
_FORKS: bool = hasattr(os, "fork") and sys.platform != "darwin"
_POLLS: bool = hasattr(select, "poll")
_LAST_SECONDS: Final = 1.0

_PROGRAM: Final = (
    "import json, sys; setup = json.loads(sys.stdin.buffer.readline()); "
    "sys.path[:] = setup.pop('path'); "
    "from precomputed_store._decoder_process import main; main(**setup)"
)
_ENVIRONMENT: Final = {
    # Threads would not survive the forks, and reserve memory.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    # Giving memory back to the system after each chunk costs a page fault per 4 KiB.
    "MALLOC_MMAP_THRESHOLD_": str(16 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A chunk to decode, and what decoding it may take.

    Parameters
    ----------
    codec : Codec
    data : memoryview
        The encoded chunk, of single bytes.
    shape : (int, int, int, int)
        Expected ``(channel, z, y, x)`` shape.
    dtype : numpy.dtype
        Expected data type.
    slab : (int, int)
        Which of its z slices are wanted.
    seconds : float
        Time until the decoder counts as hanging. Half as much processor time counts too.
    memory_bytes : int
        Private memory.
    """

    codec: Codec
    data: memoryview
    shape: CZYX
    dtype: np.dtype[Any]
    slab: Slab
    seconds: float
    memory_bytes: int

    def to_json(self) -> bytes:
        kind = type(self.codec)
        fields = {
            "module": kind.__module__,
            "class": kind.__qualname__,
            "codec": self.codec.to_parameters(),
            "shape": list(map(int, self.shape)),
            "dtype": self.dtype.str,
            "slab": list(map(int, self.slab)),
            "seconds": math.ceil(self.seconds / 2),
            "memory_bytes": self.memory_bytes,
        }
        return json.dumps(fields).encode()

    @property
    def decoded_shape(self) -> CZYX:
        channels, _, y, x = self.shape
        start, stop = self.slab
        return channels, stop - start, y, x

    @property
    def decoded_bytes(self) -> int:
        return math.prod(self.decoded_shape) * self.dtype.itemsize

    def error(self, status: Status, message: str) -> PrecomputedError:
        if status is Status.UNSUPPORTED:
            return UnsupportedError(message)
        if status is Status.REFUSED:
            return FormatError(message)
        return FormatError(f"{self.codec.name}: {message}")


class Worker:
    """A decoder process; one request at a time. No process runs before the first one."""

    def __init__(self) -> None:
        self._memory: SharedMemory | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._release: weakref.finalize[Any, Worker] | None = None
        self._path: list[str] = []
        self._number = 0
        self._decoded = 0
        """Chunks decoded since the process was new."""

    def decode(self, job: Job) -> ChunkArray:
        """Decode in the process.

        The result lies in shared memory and is valid until the next request.

        A failure counts only in a process that has not decoded anything before:
        malformed bytes can damage a decoder that then fails at the next chunk.

        Raises
        ------
        FormatError
            The bytes are malformed: the codec says so, or it crashed, hung or ballooned.
        UnsupportedError
            The codec cannot be had in the process, or the process cannot be started.
        """
        used = self._decoded > 0
        status, message = self._exchange(job)
        if self._is_worth_another_try(status, used=used):
            status, message = self._exchange(job)
        if status is not Status.DECODED:
            raise job.error(status, message)
        assert self._memory is not None
        return self._memory.array(job.decoded_shape, job.dtype)

    def _is_worth_another_try(self, status: Status, *, used: bool) -> bool:
        if status in (Status.DECODED, Status.HUNG):
            return False
        if status is Status.UNSUPPORTED:
            if self._path == sys.path:
                return False
            self.end()
            return True
        # A supervisor outlives whatever its child decodes.
        return used or (_FORKS and self._process is None)

    def _exchange(self, job: Job) -> tuple[Status, str]:
        """Send a request and wait for its reply; whatever goes wrong ends the process."""
        process = self._running()
        assert self._memory is not None
        place = self._memory.put(job.data, behind=job.decoded_bytes)
        self._number += 1
        encoded = job.to_json()
        header = REQUEST.pack(self._number, len(encoded), *place)
        try:
            _write(process, header + encoded)
            status, message = self._reply(process, job.seconds)
        except TimeoutError:
            self.end()
            return Status.HUNG, f"decoder process hung: no result after {job.seconds:.1f} s"
        except (EOFError, OSError):
            return death(self.end(grace=_LAST_SECONDS))
        except BaseException:
            self.end()
            raise
        self._decoded = self._decoded + 1 if status is Status.DECODED else 0
        if not _FORKS and status is not Status.DECODED:
            self.end()
        return status, message

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.end()
        try:
            return self._start()
        except BaseException:
            self.end()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            with nameless_file() as errors:
                return self._launch(errors)
        except TimeoutError:
            raise _cannot_start(f"it was not ready after {START_SECONDS:.0f} s") from None
        except (OSError, ValueError) as error:
            raise _cannot_start(str(error)) from error

    def _launch(self, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        if self._memory is None:
            self._memory = SharedMemory()
        process = _popen(self._memory, errors)
        self._process = process
        self._release = weakref.finalize(self, _release, process, os.getpid())
        self._path = list(sys.path)
        self._number = 0
        setup = {"path": _import_path(), "memory": self._memory.handle, "forks": _FORKS}
        try:
            _write(process, json.dumps(setup).encode() + b"\n")
            self._reply(process, START_SECONDS)
        except (EOFError, BrokenPipeError):
            code = self.end(grace=_LAST_SECONDS)
            raise ValueError(_last_words(errors) or death(code)[1]) from None
        return process

    def _reply(self, process: subprocess.Popen[bytes], seconds: float) -> tuple[Status, str]:
        """The reply to the current request.

        Raises
        ------
        TimeoutError
            None came in time.
        EOFError
            The process has died, or answers nonsense.
        """
        deadline = time.monotonic() + seconds
        with _ended_after(process, seconds):
            while True:
                number, code, size = REPLY.unpack(_read(process, REPLY.size, deadline))
                if number > self._number or code > max(Status) or size > MAX_MESSAGE_BYTES:
                    raise EOFError
                if number == 0 and self._number:
                    # A child died by itself, perhaps with a request that nobody will answer.
                    raise EOFError
                message = _read(process, size, deadline).decode("utf-8", "replace")
                if number == self._number:
                    return Status(code), message

    def end(self, *, grace: float = 0.0) -> int:
        """End the process, if there is one, and return its exit code.

        Parameters
        ----------
        grace : float
            Seconds in which it may end by itself.
        """
        process, self._process, self._decoded = self._process, None, 0
        if process is None:
            return 0
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
        if self._release is not None:
            self._release()
        return process.returncode

    def abandon(self) -> None:
        """Let go of a process that belongs to the parent of this one."""
        if self._release is not None:
            self._release()
        self._process, self._memory = None, None


def _popen(memory: SharedMemory, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the program in a session of its own: Ctrl-C is not meant for it."""
    if getattr(sys, "frozen", False):
        raise ValueError("this program is frozen and has no Python interpreter to run")
    from multiprocessing.spawn import get_executable

    executable = get_executable()
    if not executable:
        raise ValueError("sys.executable does not say which interpreter to run")
    options: dict[str, Any] = {"start_new_session": True, "pass_fds": (memory.handle,)}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NO_WINDOW}
    return subprocess.Popen(
        [executable, *_interpreter_flags(), "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        bufsize=0,
        env=os.environ | _ENVIRONMENT,
        **options,
    )


def _interpreter_flags() -> list[str]:
    """Import nothing from the current folder by accident; else as this interpreter."""
    inherited = {"I": sys.flags.isolated, "E": sys.flags.ignore_environment}
    inherited |= {"s": sys.flags.no_user_site, "S": sys.flags.no_site}
    return ["-P", "-W", "ignore", *(f"-{letter}" for letter, on in inherited.items() if on)]


def _import_path() -> list[str]:
    path = [entry for entry in sys.path if isinstance(entry, str)]
    return [*path, str(Path(__file__).resolve().parents[1])]


def _cannot_start(reason: str) -> UnsupportedError:
    return UnsupportedError(
        "the process that decodes chunks safely could not be started with "
        f"{sys.executable!r}: {reason}. PRECOMPUTED_STORE_ISOLATION=0 in the environment decodes "
        "in this process, which a malformed chunk can then crash"
    )


def _last_words(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(process.stdin.fileno(), rest) :]


def _read(process: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
    assert process.stdout is not None
    fd = process.stdout.fileno()
    received = b""
    while len(received) < size:
        if _POLLS:
            _wait_readable(fd, deadline)
        part = os.read(fd, size - len(received))
        if not part:
            raise EOFError
        received += part
    return received


def _wait_readable(fd: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


@contextlib.contextmanager
def _ended_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """Where pipes cannot be waited for (Windows), end a process whose time is over."""
    if _POLLS:
        yield
        return
    over = threading.Event()

    def end() -> None:
        over.set()
        _kill(process)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except EOFError:
        if over.is_set():
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with its children, and wait for it."""
    if process.poll() is not None:
        return
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _release(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner:
        _kill(process)
    else:
        process.returncode = 0  # not ours to wait for
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
