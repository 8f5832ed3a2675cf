"""Memory that copies take: none that grows with the shards that are copied as they are."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peaks import IMPORT
from servers.moto import MotoServer

pytest.importorskip("resource", reason="memory is measured on POSIX systems only")

Record = Callable[[str, object], None]

MIB = 1 << 20
SHARD_MIB = 300
ROOM_MIB = 48

CODE = (
    IMPORT
    + """
import json
import precomputed_store as ps

job = json.loads(sys.argv[1])
ps.copy(job["small"], job["first"], **job["options"])
before = forget_peak()
ps.copy(job["large"], job["second"], **job["options"])
print(peak_bytes() - before)
"""
)

LAYERS = f"""
import sys
import numpy as np
import precomputed_store as ps
block = np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)
spec = ps.ShardingSpec(hash="identity", preshift_bits=6, minishard_bits=6, shard_bits=0)
for name, size in (("small", 64), ("large", {SHARD_MIB} * 16)):
    volume = np.lib.stride_tricks.as_strided(block, (size, 256, 256), (0, 256, 1))
    ps.to_precomputed(volume, f"{{sys.argv[1]}}/{{name}}", dims="zyx", resolution=(8, 8, 8),
                      chunk_size=(64, 64, 64), encoding="raw", layer_type="image", sharding=spec)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of one shard each; that of the large one has some hundred MiB."""
    folder = tmp_path_factory.mktemp("shards")
    subprocess.run([sys.executable, "-c", LAYERS, str(folder)], check=True)
    (shard,) = (folder / "large" / "8_8_8").glob("*.shard")
    assert shard.stat().st_size >= SHARD_MIB * MIB
    return folder


def grown_mib(job: dict[str, Any], record: Record) -> float:
    """Memory that the copy of the large layer took, beyond what that of the small one did."""
    command = [sys.executable, "-c", CODE, json.dumps(job)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    grown = int(shown.stdout) / MIB
    record("figure", f"a shard of {SHARD_MIB} MiB copied to {job['second'][:4]}: {grown:.0f} MiB")
    return grown


@pytest.mark.slow
def test_a_shard_that_is_copied_as_it_is_is_not_held(
    folder: Path, tmp_path: Path, record_property: Record
) -> None:
    job = {
        "small": f"{folder}/small", "first": f"{tmp_path}/first",
        "large": f"{folder}/large", "second": f"{tmp_path}/second", "options": {},
    }  # fmt: skip
    assert grown_mib(job, record_property) < ROOM_MIB


@pytest.mark.long
@pytest.mark.server
def test_a_shard_is_not_held_on_its_way_to_a_bucket_and_back(
    folder: Path, tmp_path: Path, s3_server: MotoServer, record_property: Record
) -> None:
    bucket = f"s3://{s3_server.create_bucket(f'bucket-{uuid.uuid4().hex[:12]}')}"
    options = s3_server.storage_options
    there = {
        "small": f"{folder}/small", "first": f"{bucket}/first",
        "large": f"{folder}/large", "second": f"{bucket}/second",
        "options": {"storage_options": options},
    }  # fmt: skip
    back = {
        "small": f"{bucket}/first", "first": f"{tmp_path}/first",
        "large": f"{bucket}/second", "second": f"{tmp_path}/second",
        "options": {"source_storage_options": options},
    }  # fmt: skip
    # Parts on their way: four of 8 MiB, which the client holds several times.
    assert grown_mib(there, record_property) < ROOM_MIB + 96
    assert grown_mib(back, record_property) < ROOM_MIB + 96
    (ours,) = (folder / "large" / "8_8_8").glob("*.shard")
    assert (tmp_path / "second" / "8_8_8" / ours.name).read_bytes() == ours.read_bytes()
