"""Malformed chunks harm nobody: not the process that reads, not the next chunk."""

from __future__ import annotations

import json
import multiprocessing.spawn
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from hostile_codecs import CompressoInLibrary, FpzipInLibrary, Hostile, KempressedInLibrary
from peaks import IMPORT

from precomputed_store import _decoder_worker, isolation
from precomputed_store.codecs.base import Codec
from precomputed_store.codecs.crackle import Crackle
from precomputed_store.codecs.zfpc import Zfpc
from precomputed_store.concurrency import num_cores
from precomputed_store.errors import FormatError, UnsupportedError

HERE = Path(__file__).parent
SHAPE = (1, 2, 3, 4)
UINT64 = np.dtype(np.uint64)
NUM_MUTATIONS = int(os.environ.get("PRECOMPUTED_TEST_MUTATIONS", "300"))

posix = pytest.mark.skipif(os.name != "posix", reason="signals and forks")
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory")


def segments(size: int, dtype: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    blocks = np.kron(rng.integers(1, 200, (size // 4,) * 3), np.ones((4, 4, 4), int))
    speckles = rng.random(blocks.shape) < 0.03
    blocks[speckles] = rng.integers(1, 200, speckles.sum())
    return blocks.astype(dtype)[np.newaxis]


def field(size: int, dtype: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    return rng.normal(size=(1, size, size, size)).cumsum(axis=3).astype(dtype)


CHUNKS: dict[str, tuple[Codec, np.ndarray]] = {
    "compresso": (CompressoInLibrary(), segments(16, "uint8")),
    "crackle": (Crackle(), segments(16, "uint32")),
    "fpzip": (FpzipInLibrary(), field(8, "float32")),
}


def hostile(data: bytes, *, offset: int = 0, shape: Any = SHAPE) -> int:
    """The id of the process in which a chunk was decoded."""
    chunk = isolation.decode(Hostile(offset=offset), data, shape=shape, dtype=UINT64)
    assert chunk.shape == shape
    assert chunk.dtype == UINT64
    assert (chunk == chunk.flat[0]).all()
    return int(chunk.flat[0])


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A pool without workers, that end with the test."""
    fresh = isolation._Pool()
    monkeypatch.setattr(isolation, "_pool", fresh)
    yield fresh
    for worker in fresh.workers():
        worker.end()


@pytest.fixture(params=["as here", "no fork", "no poll"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, pool: Any) -> Any:
    """This platform, and what others lack."""
    if request.param == "no fork":
        monkeypatch.setattr(_decoder_worker, "_FORKS", False)
    if request.param == "no poll":
        monkeypatch.setattr(_decoder_worker, "_POLLS", False)
    return pool


# Mutations


def mutations(encoded: bytes, count: int) -> Iterator[bytes]:
    rng = np.random.default_rng(11)
    for number in range(count):
        data = bytearray(encoded)
        position = int(rng.integers(len(data)))
        length = int(rng.integers(1, 32))
        span = slice(position, position + length)
        kind = number % 6
        if kind == 0:
            del data[position:]
        elif kind == 1:
            data[position] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            data[span] = rng.bytes(len(data[span]))
        elif kind == 3:
            data[span] = b"\xff" * len(data[span])
        elif kind == 4:
            del data[span]
        else:
            data = bytearray(encoded[: min(40, position)] + rng.bytes(length * 8))
        yield bytes(data)


@pytest.mark.parametrize("encoding", CHUNKS)
def test_mutated_chunks_give_an_error_or_an_array_and_harm_no_other(encoding: str) -> None:
    codec, array = CHUNKS[encoding]
    encoded = codec.encode(array)

    def outcome(data: bytes) -> bytes | type[Exception]:
        try:
            chunk = isolation.decode(codec, data, shape=array.shape, dtype=array.dtype)
        except FormatError:
            return FormatError
        assert chunk.shape == array.shape
        assert chunk.dtype == array.dtype
        return chunk.tobytes()

    mutated = list(mutations(encoded, NUM_MUTATIONS))
    outcomes = []
    for number, data in enumerate(mutated):
        outcomes.append(outcome(data))
        if number % 10 == 0:
            assert outcome(encoded) == array.tobytes()
    again = [outcome(data) for data in reversed(mutated)]
    assert again[::-1] == outcomes
    assert FormatError in outcomes
    if encoding == "crackle":  # its checksums find whatever changes a label
        assert set(outcomes) <= {FormatError, array.tobytes()}


@pytest.mark.parametrize("encoding", CHUNKS)
def test_garbage_is_refused(encoding: str) -> None:
    codec, array = CHUNKS[encoding]
    for data in (b"", b"\0", b"\0" * 4096, b"\xff" * 4096, os.urandom(512)):
        with pytest.raises(FormatError):
            isolation.decode(codec, data, shape=array.shape, dtype=array.dtype)


def noise(side: int, dtype: str) -> np.ndarray:
    """Labels that no encoding makes shorter: what takes its decoder most."""
    shape = (1, side, side, side)
    return np.random.default_rng(0).integers(0, 1 << 40, shape).astype(dtype)


@pytest.mark.parametrize(
    ("codec", "array"),
    [
        (
            CompressoInLibrary(),
            np.random.default_rng(0).integers(0, 255, (1, 96, 96, 96)).astype("u1"),
        ),
        (CompressoInLibrary(), segments(64, "uint64")),
        (CompressoInLibrary(), noise(160, "uint64")),
        (Crackle(), noise(160, "uint64")),
        (Crackle(), segments(96, "uint8")),
        (FpzipInLibrary(), field(96, "float32")),
        (FpzipInLibrary(), field(64, "float64")),
        (KempressedInLibrary(), field(64, "float32") * 0 + 0.5),
        (Zfpc(), np.random.default_rng(0).normal(size=(1, 40, 64, 64))),
        (Zfpc(), np.random.default_rng(0).normal(size=(1, 1, 10, 4000))),
        (Zfpc(zfpc_correlated_dims=(True, True, False, False)), field(96, "float32")),
    ],
)
def test_the_limit_of_memory_is_far_from_what_large_valid_chunks_need(
    codec: Codec, array: np.ndarray, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_SPARE_MEMORY", isolation._SPARE_MEMORY // 2)
    encoded = codec.encode(array)
    for _ in range(3):
        chunk = isolation.decode(codec, encoded, shape=array.shape, dtype=array.dtype)
        np.testing.assert_array_equal(chunk, array)


LONG_ZFPC = (
    IMPORT
    + """
import numpy as np
from precomputed_store import isolation
from precomputed_store.codecs.zfpc import Zfpc

numbers = np.random.default_rng(0).normal(size=(1, 1, 300, 4000)).astype("float32")
encoded = Zfpc().encode(numbers)
few = numbers[..., :2, :40]
isolation.decode(Zfpc(), Zfpc().encode(few), shape=few.shape, dtype=few.dtype)
before = forget_peak()
chunk = isolation.decode(Zfpc(), encoded, shape=numbers.shape, dtype=numbers.dtype)
grown = peak_bytes() - before
assert np.array_equal(chunk, numbers)
print(len(encoded), numbers.nbytes, grown)
"""
)


@linux
def test_an_encoded_chunk_that_is_longer_than_its_voxels_is_not_copied_in_this_process() -> None:
    """A plane of numbers, in blocks of four dimensions: 16 times as long."""
    done = subprocess.run(
        [sys.executable, "-c", LONG_ZFPC], capture_output=True, text=True, check=True
    )
    encoded, decoded, grown = map(int, done.stdout.split())
    spare = 8 << 20
    assert encoded > 2 * (2 * decoded + spare)
    assert grown < 2 * decoded + spare


# What a decoder can do


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        ("refuse", "hostile: ValueError: not today"),
        ("wrong shape", r"decoded to uint64 \(2, 3, 4\).*expected uint64 \(1, 2, 3, 4\)"),
        ("leave", "hostile: decoder process exited with code 3"),
        pytest.param("crash", "hostile: decoder process died with SIGSEGV", marks=posix),
        pytest.param("kill", "died with SIGKILL .*perhaps for want of memory", marks=posix),
        pytest.param("read_nowhere", "hostile: decoder process died with SIGSEGV", marks=posix),
        pytest.param("balloon", "hostile: decoding needs more memory than", marks=linux),
    ],
)
def test_a_decoder_that_fails_is_a_format_error(deed: str, message: str, platform: Any) -> None:
    for _ in range(2):
        with pytest.raises(FormatError, match=message):
            hostile(deed.encode())
        assert hostile(b"", offset=5) > 5


def test_a_decoder_that_waits_for_ever_is_a_format_error(
    platform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile(b"")
    start = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(isolation, "TIME_LIMIT_SECONDS", 0.3)
        with pytest.raises(FormatError, match=r"process hung: no result after 0\.3 s"):
            hostile(b"sleep")
    assert time.monotonic() - start < 5
    assert hostile(b"")


@posix
def test_a_decoder_that_computes_for_ever_is_stopped_by_its_processor_time(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_decoder_worker.Job, "to_json", with_seconds(_decoder_worker.Job, 0))
    with pytest.raises(FormatError, match=r"hung and was stopped \(SIGXCPU\)"):
        hostile(b"spin")
    assert hostile(b"")


def with_seconds(job: type[_decoder_worker.Job], seconds: int) -> Callable[[Any], bytes]:
    original = job.to_json

    def to_json(self: Any) -> bytes:
        return json.dumps(json.loads(original(self)) | {"seconds": seconds}).encode()

    return to_json


def test_a_library_that_is_missing_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="no library: pip install it"):
        hostile(b"lack")


def test_what_a_decoder_prints_goes_nowhere(
    platform: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    processes = {hostile(b"chat") for _ in range(3)}
    assert len(processes) == 1
    assert capfd.readouterr() == ("", "")


@posix
def test_the_damage_that_a_chunk_does_is_not_charged_to_the_next(platform: Any) -> None:
    poisoned = hostile(b"poison")
    assert hostile(b"") != poisoned
    with pytest.raises(FormatError, match="SIGSEGV"):
        hostile(b"crash")


@posix
def test_a_death_between_two_chunks_is_noticed_and_forgotten(platform: Any) -> None:
    doomed = hostile(b"die_later")
    deadline = time.monotonic() + 10
    while hostile(b"") == doomed:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(FormatError, match="not today"):
        hostile(b"refuse")


@posix
def test_a_process_that_is_killed_while_it_waits_is_replaced(pool: Any) -> None:
    hostile(b"")
    (worker,) = pool.workers()
    os.killpg(worker._process.pid, signal.SIGKILL)
    assert hostile(b"")
    os.killpg(worker._process.pid, signal.SIGKILL)
    worker._process.wait()
    assert hostile(b"")


@posix
def test_a_crash_does_not_cost_the_start_of_a_program(pool: Any) -> None:
    first = hostile(b"")
    (worker,) = pool.workers()
    program = worker._process.pid
    for _ in range(5):
        with pytest.raises(FormatError):
            hostile(b"crash")
    assert worker._process.pid == program
    assert hostile(b"") not in (first, program)


def test_only_codecs_for_a_worker_leave_this_process(
    monkeypatch: pytest.MonkeyPatch, pool: Any
) -> None:
    monkeypatch.setattr(Hostile, "place", "thread")
    assert hostile(b"") == os.getpid()
    with pytest.raises(ValueError, match="not today"):
        hostile(b"refuse")
    assert pool.workers() == []


def test_isolation_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, pool: Any) -> None:
    assert hostile(b"") != os.getpid()
    monkeypatch.setenv("PRECOMPUTED_STORE_ISOLATION", "0")
    assert hostile(b"") == os.getpid()
    with pytest.raises(FormatError, match="hostile: ValueError: not today"):
        hostile(b"refuse")
    with pytest.raises(UnsupportedError):
        hostile(b"lack")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, np.frombuffer])
def test_any_buffer_can_be_decoded(kind: Callable[..., Any]) -> None:
    codec, array = CHUNKS["compresso"]
    data = (
        kind(codec.encode(array))
        if kind is not np.frombuffer
        else memoryview(np.frombuffer(codec.encode(array), "u1"))
    )
    chunk = isolation.decode(codec, data, shape=array.shape, dtype=array.dtype)
    np.testing.assert_array_equal(chunk, array)
    assert chunk.flags.writeable


def test_chunks_of_any_size_follow_each_other(pool: Any) -> None:
    for edge in (1, 100, 2, 160, 0, 3):
        shape = (1, edge, edge, edge)
        chunk = isolation.decode(Hostile(), bytes(edge), shape=shape, dtype=UINT64)
        assert chunk.shape == shape
        assert np.unique(chunk).size == min(edge, 1)


def test_a_decoded_chunk_can_be_used_without_a_copy(pool: Any) -> None:
    codec, array = CHUNKS["crackle"]
    encoded = codec.encode(array)
    with isolation.decoded(codec, encoded, shape=array.shape, dtype=array.dtype) as chunk:
        np.testing.assert_array_equal(chunk, array)
        assert not chunk.flags.owndata
    with (
        pytest.raises(ZeroDivisionError),
        isolation.decoded(codec, encoded, shape=array.shape, dtype=array.dtype),
    ):
        raise ZeroDivisionError
    assert len(pool._waiting) == len(pool.workers()) == 1


@pytest.mark.parametrize("encoding", CHUNKS)
@pytest.mark.parametrize("place", ["worker", "here"])
def test_of_a_slab_no_other_slices_are_given(
    encoding: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "here":
        monkeypatch.setenv(isolation.SWITCH, "0")
    codec, array = CHUNKS[encoding]
    encoded = codec.encode(array)
    for slab in ((0, 3), (2, 7), (7, 8), (0, array.shape[1])):
        with isolation.decoded(
            codec, encoded, shape=array.shape, dtype=array.dtype, slab=slab
        ) as chunk:
            np.testing.assert_array_equal(chunk, array[:, slice(*slab)])


# Where codecs come from


def test_a_codec_of_another_package_is_imported_by_its_module(
    pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile(b"")  # the process starts before the folder is on the path
    source = (HERE / "hostile_codecs.py").read_text(encoding="utf-8")
    (tmp_path / "codecs_from_afar.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import codecs_from_afar

    codec = codecs_from_afar.Hostile(offset=1)
    assert isolation.decode(codec, b"", shape=SHAPE, dtype=UINT64).all()


def test_a_codec_that_cannot_be_imported_is_unsupported() -> None:
    class Local(Hostile):
        name: ClassVar[str] = "local"

    with pytest.raises(UnsupportedError, match="has to be in a module of its own"):
        isolation.decode(Local(), b"", shape=SHAPE, dtype=UINT64)


# Threads and processes


def test_one_thread_needs_one_process_and_many_share_as_many_as_processors(pool: Any) -> None:
    assert {hostile(b"") for _ in range(5)} == {hostile(b"")}
    assert len(pool.workers()) == 1
    codec, array = CHUNKS["compresso"]
    encoded = codec.encode(array)

    def work(number: int) -> None:
        chunk = isolation.decode(codec, encoded, shape=array.shape, dtype=array.dtype)
        np.testing.assert_array_equal(chunk, array)
        if number % 7 == 0:
            with pytest.raises(FormatError):
                hostile(b"refuse")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(200)))
    assert len(pool._waiting) == len(pool.workers()) <= num_cores()


def test_a_worker_that_is_lost_makes_room_for_another(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "num_cores", lambda: 1)
    lost = pool.take()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(hostile, b"")
        time.sleep(0.1)
        assert not waiting.done()
        del lost
        assert waiting.result(timeout=30)


SCRIPT = """
import os, sys, time
import numpy as np
from hostile_codecs import Hostile
from precomputed_store import isolation

print("started", flush=True)

def decode(data=b""):
    chunk = isolation.decode(Hostile(), data, shape=(1, 2, 2, 2), dtype=np.dtype("u8"))
    return int(chunk.flat[0])

def program():
    return isolation._pool.workers()[0]._process.pid
"""


def python(
    *arguments: str, folder: Path, script: str | None = None, **options: Any
) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "TMPDIR": str(folder)},
        **options,
    )
    if script is not None:
        assert process.stdin is not None
        process.stdin.write(script)
        process.stdin.close()
        process.stdin = None
    return process


def output(script: str, folder: Path) -> list[str]:
    """What a script prints, run from a file; it must not print an error."""
    (folder / "script.py").write_text(SCRIPT + script, encoding="utf-8")
    out, err = python("-W", "error", "script.py", folder=folder).communicate(timeout=60)
    assert err == ""
    return out.split()


def test_a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    shown = output("print(decode() != os.getpid())", tmp_path)
    assert shown == ["started", "True"]


def test_a_program_without_a_file_works(tmp_path: Path) -> None:
    script = SCRIPT + "print(decode() != os.getpid())"
    out, err = python("-", folder=tmp_path, script=script).communicate(timeout=60)
    assert (out.split(), err) == (["started", "True"], "")


def test_modules_in_the_current_folder_are_not_taken_for_the_real_ones(tmp_path: Path) -> None:
    script = SCRIPT + "print(decode() != os.getpid())"
    (tmp_path / "main.py").write_text(script, encoding="utf-8")
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("json", "numpy", "struct", "mmap"):
        (trap / f"{name}.py").write_text("raise SystemError", encoding="utf-8")
    out, err = python(str(tmp_path / "main.py"), folder=trap).communicate(timeout=60)
    assert (out.split(), err) == (["started", "True"], "")


@posix
def test_a_forked_child_has_workers_of_its_own(tmp_path: Path) -> None:
    shown = output(
        """
mine = decode(), program()
pid = os.fork()
if not pid:
    assert isolation._pool.workers() == []
    theirs = decode(), program()
    assert not set(mine) & set(theirs)
    try:
        decode(b"crash")
    except ValueError as error:
        assert "SIGSEGV" in str(error)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
print((decode(), program()) == mine)
""",
        tmp_path,
    )
    assert shown == ["started", "True"]


@posix
def test_an_interrupt_leaves_the_pool_in_order(tmp_path: Path) -> None:
    """In a program of its own: others in this one may have taken the signal for themselves."""
    shown = output(
        """
import signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if started so
decode()
timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
timer.start()
try:
    decode(b"sleep")
except KeyboardInterrupt:
    print("interrupted")
timer.join()
print(decode() > 0, len(isolation._pool._waiting), len(isolation._pool.workers()))
""",
        tmp_path,
    )
    assert shown == ["started", "interrupted", "True", "1", "1"]


@posix
def test_daemonic_processes_and_their_threads_decode(tmp_path: Path) -> None:
    shown = output(
        """
import multiprocessing, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
decode()

def work(_):
    assert multiprocessing.current_process().daemon
    found = []
    threads = [threading.Thread(target=lambda: found.append(decode())) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return len(found)

with multiprocessing.get_context("fork").Pool(2) as pool:
    print(*pool.map(work, range(4)))
""",
        tmp_path,
    )
    assert shown == ["started", "4", "4", "4", "4"]


# What is left over


def shared_memory_files() -> set[str]:
    """All but semaphores, which are other programs' and those of tests that run beside."""
    folder = Path("/dev/shm")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if not name.startswith("sem.")}


def ends_within(seconds: float, group: int) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@posix
@pytest.mark.parametrize("last", ["pass", "os._exit(0)", "1 / 0"])
def test_nothing_is_left_after_a_program_has_ended(tmp_path: Path, last: str) -> None:
    before = shared_memory_files()
    lines = ["decode()", "print(program(), flush=True)", "try:", "    decode(b'crash')"]
    lines += ["except ValueError:", "    pass", last]
    (tmp_path / "script.py").write_text(SCRIPT + "\n".join(lines), encoding="utf-8")
    out, _ = python("script.py", folder=tmp_path).communicate(timeout=60)
    assert ends_within(5, int(out.split()[1]))
    assert shared_memory_files() <= before
    assert {path.name for path in tmp_path.iterdir()} <= {"script.py", "__pycache__"}


@posix
@pytest.mark.parametrize(("deed", "named"), [("", False), ("sleep", False), ("spin", True)])
def test_nothing_is_left_after_a_program_was_killed(
    tmp_path: Path, deed: str, named: bool
) -> None:
    before = shared_memory_files()
    without_memfd = "vars(os).pop('memfd_create', None)\n" if named else ""
    script = f"decode()\nprint(program(), flush=True)\ndecode({deed.encode()!r})\ntime.sleep(60)"
    (tmp_path / "script.py").write_text(SCRIPT + without_memfd + script, encoding="utf-8")
    process = python("script.py", folder=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    group = int(process.stdout.readline())
    time.sleep(0.2)
    process.kill()
    process.communicate()
    assert ends_within(5, group)
    assert shared_memory_files() <= before
    assert {path.name for path in tmp_path.iterdir()} <= {"script.py", "__pycache__"}


# Starting


@pytest.mark.parametrize(
    ("executable", "reason"),
    [
        ("/nowhere/python", "No such file"),
        ("a program that fails", "decoder process exited with code 1"),
        (None, r"sys\.executable does not say"),
        ("", r"sys\.executable does not say"),
    ],
)
def test_a_process_that_cannot_be_started_is_unsupported_and_says_what_to_do(
    pool: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    executable: str | None,
    reason: str,
) -> None:
    if executable == "a program that fails":
        path = tmp_path / "python"
        path.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
        path.chmod(0o755)
        executable = str(path)
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.spawn, "_python_exe", executable)
        for _ in range(num_cores() + 1):
            with pytest.raises(UnsupportedError, match=reason) as caught:
                hostile(b"")
            assert "PRECOMPUTED_STORE_ISOLATION=0" in str(caught.value)
    assert hostile(b"")


def test_the_reason_why_a_process_does_not_start_is_shown(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_decoder_worker, "_import_path", lambda: ["/nowhere"])
    with pytest.raises(UnsupportedError, match="ModuleNotFoundError: No module named"):
        hostile(b"")


def test_a_frozen_program_is_not_started_again(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(UnsupportedError, match="frozen"):
        hostile(b"")


def test_an_answer_that_is_nonsense_is_a_format_error(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile(b"")
    nonsense = SimpleNamespace(size=13, unpack=lambda _: (1 << 60, 1, 0))
    with monkeypatch.context() as patch:
        patch.setattr(_decoder_worker, "REPLY", nonsense)
        with pytest.raises((FormatError, UnsupportedError)):
            hostile(b"")
    assert hostile(b"")
