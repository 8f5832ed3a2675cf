"""Give a decoder thousands of damaged chunks, and every truncation of one; report what it did.

A plain script without a ``__main__`` guard, as users write them:
``python tests/reliability/try_decoder.py crackle 2000``
"""

import hashlib
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[0]))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from hostile_chunks import SUBJECTS, mutants
from peaks import forget_peak, peak_bytes, status_bytes

from precomputed_store import isolation
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
slowest = 0.0
worker_base = worker_peak = 0


def outcome(data):
    global slowest, worker_peak
    started = time.monotonic()
    try:
        result = subject.decode(data)
    except FormatError as error:
        result = re.sub(r"[\d.]+", "#", str(error))
        outcomes["refused"] += 1
        if "decoder process" in result:
            outcomes["of these, decoder died or hung"] += 1
        if "more memory" in result:
            outcomes["of these, stopped at its limit of memory"] += 1
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
        outcomes[f"raised {type(error).__name__}"] += 1
    else:
        result = hashlib.sha256(result).digest()
        outcomes["accepted"] += 1
    slowest = max(slowest, time.monotonic() - started)
    worker_peak = max([worker_peak, *(status_bytes("VmHWM", pid) for pid in workers())])
    return result


plain = subject.decode(subject.encoded)
for _ in range(20):
    subject.decode(subject.encoded)
worker_base = max([0, *(status_bytes("VmHWM", pid) for pid in workers())])
before = forget_peak()

sizes = range(len(subject.encoded))
cuts = [outcome(subject.encoded[:size]) for size in (sizes if len(sizes) < 4000 else sizes[::7])]
# A cut that takes nothing but padding may lose nothing: then it must decode to the same.
digest = hashlib.sha256(plain).digest()
silent = sum(isinstance(cut, bytes) and cut != digest for cut in cuts)
truncations = Counter(outcomes)
outcomes.clear()
results = []
for number, data in enumerate(mutants(subject.encoded, count)):
    results.append(outcome(data))
    # A chunk between them has to come out as ever.
    if number % 50 == 0 and subject.decode(subject.encoded) != plain:
        outcomes["harmed another chunk"] += 1
tried = Counter(outcomes)
# The same bytes again, more often those that were taken for a chunk. They are made anew, as to
# keep them all would be the largest part of the memory that is measured.
taken = [n for n, r in enumerate(results) if isinstance(r, bytes)]
again = {*taken[:300], *range(0, count, 20)}
differing = 0
for number, data in enumerate(mutants(subject.encoded, count)):
    if number in again:
        first, new = results[number], outcome(data)
        same = new == first if isinstance(first, bytes) else not isinstance(new, bytes)
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
