"""Programs that fork, spawn and use threads, at whatever moment: nobody waits for ever."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.forks import restart_in_children

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

READ = """
import sys, warnings
import numpy as np
import precomputed_store as ps

warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads

def by_volume():
    return int(np.asarray(ps.open_volume(sys.argv[1])[...]).sum())

def by_zarr():
    import zarr
    return int(zarr.open_group(ps.PrecomputedStore(sys.argv[1]), mode="r")["0"][...].sum())

read = by_zarr if sys.argv[2:] == ["zarr"] else by_volume
"""

FORK = """
import os, sys, threading
from read import read

if "zarr" in sys.argv:
    read()  # zarr begins with a lock of its own, which its children do not survive
threads = [threading.Thread(target=lambda: [read() for _ in range(5)]) for _ in range(3)]
for thread in threads:
    thread.start()
ends = []
for _ in range(6):
    pid = os.fork()
    if not pid:
        print(read(), flush=True)
        os._exit(0)
    ends.append(os.waitpid(pid, 0)[1])
for thread in threads:
    thread.join()
print(read(), *ends)
"""

POOL = """
import multiprocessing
from read import read

if __name__ == "__main__":
    for method in ("spawn", "forkserver", "fork"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(*[result.get(60) for result in [pool.apply_async(read) for _ in range(4)]])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forks")
    labels = np.kron(np.arange(64).reshape(4, 4, 4), np.ones((8, 8, 8), int)).astype(np.uint32)
    for name, sharding in (("files", None), ("shards", "auto")):
        ps.to_precomputed(
            labels,
            folder / name,
            dims="xyz",
            resolution=(8, 8, 8),
            encoding="crackle",
            chunk_size=(16, 16, 16),
            sharding=sharding,  # type: ignore[arg-type]
        )
    for name, text in (("read", READ), ("fork", FORK), ("pool", POOL)):
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


TOTAL = str(512 * sum(range(64)))


def run(folder: Path, *arguments: str) -> list[str]:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


# The first imports, the first process that decodes, the first pool of threads: each a moment
# in which other threads hold locks, and each comes once per program.
@pytest.mark.slow
@pytest.mark.parametrize("door", ["volume", "zarr"])
@pytest.mark.parametrize("layer", ["files", "shards"])
def test_children_forked_while_threads_read_for_the_first_time_read_too(
    folder: Path, layer: str, door: str
) -> None:
    for _ in range(3):
        assert run(folder, "fork.py", layer, door) == [*[TOTAL] * 6, f"{TOTAL} 0 0 0 0 0 0"]


def test_pools_of_processes_read_however_they_start(folder: Path) -> None:
    assert run(folder, "pool.py", "files") == [" ".join([TOTAL] * 4)] * 3


def test_a_forked_child_stores_chunks_while_its_parent_stores_some(folder: Path) -> None:
    script = """
import os, sys, threading, warnings
import numpy as np
import precomputed_store as ps

warnings.simplefilter("ignore", DeprecationWarning)
volume = ps.open_volume("shards", mode="r+", unaligned="read-modify-write")
values = volume[...]
stop = threading.Event()

def write():
    while not stop.is_set():
        volume[:16] = values[:16]

threads = [threading.Thread(target=write) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(5):
    pid = os.fork()
    if not pid:
        volume[16:] = values[16:]
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
print(int(ps.open_volume("shards")[...].sum()))
"""
    assert run(folder, "-c", script) == [TOTAL]


class Counting:
    """Equal to all of its kind."""

    def __init__(self) -> None:
        self.restarts = 0
        restart_in_children(self)

    def restart(self) -> None:
        self.restarts += 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counting)

    def __hash__(self) -> int:
        return 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_objects_restart_in_a_child_whether_or_not_they_are_equal() -> None:
    both = Counting(), Counting()
    gone = Counting()
    del gone
    gc.collect()
    pid = os.fork()
    if not pid:
        os._exit(0 if [one.restarts for one in both] == [2, 2] else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert [one.restarts for one in both] == [1, 1]
