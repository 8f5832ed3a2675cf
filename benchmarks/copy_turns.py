"""One turn of `copies.py`: one contender makes one copy, in a process of its own.

    python benchmarks/copy_turns.py JOB CONTENDER FOLDER

FOLDER holds the layers that are copied; prints what it took as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from write_turns import Work, boxes, measured, open_tensorstore, stored

import precomputed_store as ps
from precomputed_store.copying import CopyPlan

CHUNK = 64
SHARD = 256
SOURCES: dict[str, dict[str, Any]] = {
    "labels, unsharded": {"encoding": "compressed_segmentation", "layer_type": "segmentation"},
    "labels, sharded": {"encoding": "compressed_segmentation", "layer_type": "segmentation"},
    "labels, raw": {"encoding": "raw", "layer_type": "segmentation"},
    "image, unsharded": {"encoding": "raw", "layer_type": "image"},
    "image, sharded": {"encoding": "raw", "layer_type": "image"},
}
"""Layers that are copied, and how `to_precomputed` writes them."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is copied, and into what.

    Attributes
    ----------
    source : str
        One of `SOURCES`.
    sharded : bool
        Whether the copy is.
    encoding : str or None
        Of the copy; None: that of the source.
    """

    source: str
    sharded: bool = False
    encoding: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Of `copy`. The quality is CloudVolume's, which cannot be told another."""
        options = {"jpeg_quality": 85} if self.encoding == "jpeg" else None
        return {"encoding": self.encoding, "encoding_options": options}


JOBS = {
    "chunks as they are": Job(source="labels, unsharded"),
    "shards as they are": Job(source="labels, sharded", sharded=True),
    "chunks into shards": Job(source="labels, unsharded", sharded=True),
    "shards into chunks": Job(source="labels, sharded"),
    "raw chunks to png": Job(source="image, unsharded", encoding="png"),
    "raw chunks to jpeg": Job(source="image, unsharded", encoding="jpeg"),
    "raw shards to jpeg shards": Job(source="image, sharded", encoding="jpeg", sharded=True),
    "raw labels to compressed_segmentation shards": Job(
        source="labels, raw", encoding="compressed_segmentation", sharded=True
    ),
}


def sharding(size: int, *, data_encoding: str) -> ps.ShardingSpec:
    """Boxes of 256³ voxels."""
    cells = max(1, size // CHUNK)
    return ps.ShardingSpec(
        hash="identity",
        preshift_bits=6,
        minishard_bits=0,
        shard_bits=max(0, 3 * (cells - 1).bit_length() - 6),
        minishard_index_encoding="gzip",
        data_encoding=data_encoding,  # type: ignore[arg-type]
    )


def spec_of(job: Job, source: ps.Scale) -> ps.ShardingSpec | None:
    if not job.sharded:
        return None
    if source.sharding is not None:
        return source.sharding
    data_encoding = "raw" if job.encoding == "jpeg" else "gzip"
    return sharding(max(source.size), data_encoding=data_encoding)


def ours(job: Job, source: Path, copy: Path) -> Work:
    spec = spec_of(job, ps.open_layer(source).scale(0))
    small = ps.to_precomputed(
        np.ones((8, 8, 8), np.uint8), "memory://small", dims="xyz", resolution=(8, 8, 8), mode="w"
    )
    assert isinstance(small, ps.Volume)
    ps.copy("memory://small", "memory://copy", mode="w")  # imports what is needed
    return lambda: ps.copy(source, copy, sharding=spec, **job.arguments)


def tensorstore(job: Job, source: Path, copy: Path) -> Work:
    """Shard by shard where there are shards, as one write of everything takes all memory."""
    spec = spec_of(job, ps.open_layer(source).scale(0))
    plan = ps.copy(source, copy, sharding=spec, dry_run=True, **job.arguments)
    assert isinstance(plan, CopyPlan)
    copy.mkdir()
    (copy / "info").write_text(json.dumps(plan.info.to_json()))

    def work() -> None:
        there, here = open_tensorstore(source, 0), open_tensorstore(copy, 0)
        edge = SHARD if job.sharded else None
        for box in boxes(tuple(there.shape[:3]), edge):
            here[box].write(there[box]).result()

    return work


def cloudvolume(job: Job, source: Path, copy: Path) -> Work:
    """`transfer_to`, with sharding of its own choice."""
    from cloudvolume import CloudVolume

    volume = CloudVolume(f"file://{source}", progress=False, fill_missing=True)

    def work() -> None:
        volume.image.transfer_to(
            f"file://{copy}", volume.bounds, 0, encoding=job.encoding, sharded=job.sharded,
            compress="auto" if job.sharded else False,
        )  # fmt: skip

    return work


CONTENDERS: dict[str, Callable[[Job, Path, Path], Work]] = {
    "ours": ours,
    "TensorStore": tensorstore,
    "CloudVolume": cloudvolume,
}


def check(job: Job, source: Path, copy: Path) -> None:
    """Compare the copy with its source, as TensorStore reads both.

    Raises
    ------
    SystemExit
    """
    there, here = (open_tensorstore(folder, 0)[...].read().result() for folder in (source, copy))
    difference = np.abs(there.astype(np.int64) - here) if job.encoding == "jpeg" else there != here
    if np.mean(difference) > (8 if job.encoding == "jpeg" else 0):
        raise SystemExit(f"{copy}: other voxels than {source}")


def main() -> None:
    job, name, folder = JOBS[sys.argv[1]], sys.argv[2], Path(sys.argv[3])
    source, copy = folder / job.source, folder / "copy"
    figures = measured(CONTENDERS[name](job, source, copy))
    check(job, source, copy)
    print(json.dumps({**figures, **stored(copy)}))


if __name__ == "__main__":
    main()
