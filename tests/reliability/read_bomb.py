"""Read a layer and print what that took: ``python read_bomb.py LAYER`` (a plain script)."""

import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import numpy as np

import precomputed_store as ps
from precomputed_store.metadata import VolumeInfo

VolumeInfo.from_json  # noqa: B018  # imported before the measurement begins
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    volume = ps.open_volume(sys.argv[1])
    np.asarray(volume[...])
except ps.PrecomputedError as error:
    message = str(error)
else:
    message = "no error"
mebibytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(f"{mebibytes:.0f} {time.process_time() - started:.2f} {type(message).__name__} {message}")
