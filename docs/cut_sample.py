"""Cut the sample that the package ships out of the training volume it comes from.

    PYTHONPATH=. python docs/cut_sample.py fib25_250.npz

The archive holds `image` (uint8) and `bodies` (uint64), each 250 × 250 × 250 in
(z, y, x): training sample 2 of FlyEM's NeuroProof examples.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyspng

from precomputed_store import sample

FOLDER = Path(sample.__file__).parent


def main(archive: str) -> None:
    volume = np.load(archive)
    (x, y, z), (nx, ny, nz) = sample.VOXEL_OFFSET, sample.SIZE
    box = np.s_[z : z + nz, y : y + ny, x : x + nx]
    slices = np.ascontiguousarray(volume["image"][box].reshape(nz * ny, nx))
    (FOLDER / "image.png").write_bytes(pyspng.encode(slices, compress_level=9))
    bodies = volume["bodies"][box]
    ids, indices = np.unique(bodies, return_inverse=True)
    indices = indices.reshape(bodies.shape).astype(np.uint8)
    np.savez_compressed(FOLDER / "segmentation.npz", ids=ids, indices=indices)


if __name__ == "__main__":
    main(sys.argv[1])
