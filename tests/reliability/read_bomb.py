"""Read a layer and print what that took: ``python read_bomb.py LAYER`` (a plain script)."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from peaks import forget_peak, peak_bytes

import precomputed_store as ps
from precomputed_store.metadata import VolumeInfo

VolumeInfo.from_json  # noqa: B018  # imported before the measurement begins
before, started = forget_peak(), time.process_time()
try:
    volume = ps.open_volume(sys.argv[1])
    np.asarray(volume[...])
except ps.PrecomputedError as error:
    message = str(error)
else:
    message = "no error"
mebibytes = (peak_bytes() - before) / 2**20
print(f"{mebibytes:.0f} {time.process_time() - started:.2f} {type(message).__name__} {message}")
