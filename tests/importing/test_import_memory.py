"""A conversion takes memory for the slices of one row of chunks, not for the volume."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from peaks import IMPORT

pytest.importorskip("resource", reason="memory is measured on POSIX systems only")

SLICE = (1024, 2048)
"""2 MiB"""

CODE = (
    IMPORT
    + """
from precomputed_store.cli import main
main(sys.argv[1:], standalone_mode=False)
print(peak_bytes())
"""
)


def peak_bytes(slices: Path, layer: Path, *options: str) -> int:
    arguments = ["convert", slices, layer, "--resolution", "4,4,40", "--workers", "2", *options]
    shown = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
    )
    return int(shown.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_memory_does_not_grow_with_the_number_of_slices(tmp_path: Path, suffix: str) -> None:
    plane = np.tile(np.arange(256, dtype="uint8"), (SLICE[0], SLICE[1] // 256))
    if suffix == ".tif":
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, plane, compression="zlib", rowsperstrip=64)
        data = buffer.getvalue()
    else:
        pillow = pytest.importorskip("PIL.Image")
        pillow.fromarray(plane).save(tmp_path / "one.png", compress_level=1)
        data = (tmp_path / "one.png").read_bytes()
    peaks = []
    for name, number in (("few", 128), ("many", 512)):
        (tmp_path / name).mkdir()
        for index in range(number):
            (tmp_path / name / f"{index}{suffix}").write_bytes(data)
        options = ("--encoding", "jpeg")
        peaks.append(peak_bytes(tmp_path / name, tmp_path / f"{name}-layer", *options))
    volume = 512 * plane.nbytes
    assert peaks[1] - peaks[0] < volume // 8
    # 64 slices of 2 MiB for each of two threads, and the program itself.
    assert peaks[1] < volume // 2
