"""Give a decoder thousands of damaged chunks, and every truncation of one; report what it did.

A plain script without a ``__main__`` guard, as users write them:
``python tests/reliability/try_decoder.py crackle 2000``
"""

import hashlib
import json
import re
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[0]))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from hostile_chunks import SUBJECTS, mutants
from peaks import forget_peak, peak_bytes, status_bytes

from precomputed_store import isolation
from precomputed_store.concurrency import num_cores
from precomputed_store.errors import FormatError

subject, count = SUBJECTS[sys.argv[1]], int(sys.argv[2])


def workers():
    """Process ids of the decoder processes, those in which the decoding is done last."""
    for worker in isolation._pool.workers():
        program = worker._process.pid
        yield program
        for children in Path(f"/proc/{program}/task").glob("*/children"):
            try:
                yield from map(int, children.read_text().split())
            except OSError:
                continue


outcomes = Counter()
counting = threading.Lock()
threads = ThreadPoolExecutor(num_cores())  # as many as decoder processes: half the time
slowest = 0.0
worker_base = worker_peak = 0


def outcome(data):
    global slowest, worker_peak
    found = ["refused"]
    started = time.monotonic()
    try:
        result = subject.decode(data)
    except FormatError as error:
        result = re.sub(r"[\d.]+", "#", str(error))
        if "decoder process" in result:
            found.append("of these, decoder died or hung")
        if "more memory" in result:
            found.append("of these, stopped at its limit of memory")
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
        found = [f"raised {type(error).__name__}"]
    else:
        result = hashlib.sha256(result).digest()
        found = ["accepted"]
    with counting:
        outcomes.update(found)
        slowest = max(slowest, time.monotonic() - started)
        worker_peak = max([worker_peak, *(status_bytes("VmHWM", pid) for pid in workers())])
    return result


def batched(items):
    """Fifty at a time: threads would else be given, and hold, all of them at once."""
    items = iter(items)
    while group := list(islice(items, 50)):
        yield group


plain = subject.decode(subject.encoded)
list(threads.map(lambda _: subject.decode(subject.encoded), range(40)))
worker_base = max([0, *(status_bytes("VmHWM", pid) for pid in workers())])
before = forget_peak()

sizes = range(len(subject.encoded))
sizes = sizes if len(sizes) < 4000 else sizes[::7]
cuts = list(threads.map(outcome, (subject.encoded[:size] for size in sizes)))
# A cut that takes nothing but padding may lose nothing: then it must decode to the same.
digest = hashlib.sha256(plain).digest()
silent = sum(isinstance(cut, bytes) and cut != digest for cut in cuts)
truncations = Counter(outcomes)
outcomes.clear()
results = []
for group in batched(mutants(subject.encoded, count)):
    results += threads.map(outcome, group)
    # A chunk between them has to come out as ever.
    if subject.decode(subject.encoded) != plain:
        outcomes["harmed another chunk"] += 1
tried = Counter(outcomes)
# The same bytes again, more often those that were taken for a chunk. They are made anew, as to
# keep them all would be the largest part of the memory that is measured.
taken = [n for n, r in enumerate(results) if isinstance(r, bytes)]
again = {*taken[:300], *range(0, count, 20)}
repeats = (data for n, data in enumerate(mutants(subject.encoded, count)) if n in again)
first = (results[number] for number in sorted(again))
differing = 0
for group in batched(zip(first, repeats, strict=True)):
    for old, new in zip(
        (old for old, _ in group), threads.map(outcome, (d for _, d in group)), strict=True
    ):
        same = new == old if isinstance(old, bytes) else not isinstance(new, bytes)
        differing += not same
report = {
    "mutants": dict(tried),
    "truncations": dict(truncations),
    "truncations_silently_different": silent,
    "differing_on_repetition": differing,
    "repeated": len(again),
    "slowest_s": round(slowest, 2),
    "memory_mib": round((peak_bytes() - before) / 2**20, 1),
    "worker_memory_mib": round(max(0, worker_peak - worker_base) / 2**20, 1),
    "decoded_bytes": subject.decoded_bytes,
}
print(json.dumps(report))
