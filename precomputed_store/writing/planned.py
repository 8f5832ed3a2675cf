"""What `plan` says of a write, in numbers and in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from precomputed_store.grid import XYZ
from precomputed_store.metadata import Scale
from precomputed_store.writing.staging import staging_folder

__all__ = ["ScalePlan", "WritePlan", "bytes_text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePlan:
    """How one scale will be written.

    Attributes
    ----------
    scale : Scale
        Its metadata.
    num_chunks : int
        Chunks that are written, if none is empty.
    chunks_per_shard : (int, int, int) or None
        Extent of a shard in chunks; None where a shard is no box of chunks, or there are
        no shards.
    num_objects : int
        Files or objects: chunks or shards.
    decoded_object_bytes : int
        Size of the voxels of the largest of them.
    expected_object_bytes : int
        Its size if the encoding does what it usually does.
    shard_index_bytes, minishard_index_bytes : int
        Size of a shard's index, and of a full minishard's before compression; 0 without
        shards.
    num_tasks : int
        Tasks that write it.
    task_bytes : int
        Memory that a task takes, at the expected size of a shard.
    staged_bytes : int
        Encoded chunks that are stored twice for a while, at their expected size.
    cold_requests, warm_requests : int
        Requests for one chunk: the first, and when a neighbour has been read.
    """

    scale: Scale
    num_chunks: int
    chunks_per_shard: XYZ | None
    num_objects: int
    decoded_object_bytes: int
    expected_object_bytes: int
    shard_index_bytes: int
    minishard_index_bytes: int
    num_tasks: int
    task_bytes: int
    staged_bytes: int
    cold_requests: int
    warm_requests: int

    def __str__(self) -> str:
        scale = self.scale
        lines = [
            f"scale {scale.key}: {_by(scale.size)} voxels, {scale.encoding}, "
            f"{self.num_chunks:,} chunks of {_by(scale.chunk_size)}",
            f"  objects       {self.num_objects:,}, {self._shards()}",
            f"  object size   about {bytes_text(self.expected_object_bytes)}, "
            f"{bytes_text(self.decoded_object_bytes)} decoded",
        ]
        if scale.sharding is not None:
            lines.append(
                f"  indices       {bytes_text(self.shard_index_bytes)} for each shard, at most "
                f"{bytes_text(self.minishard_index_bytes)} for each minishard"
            )
        lines.append(
            f"  requests      {self.cold_requests} for the first chunk of a neighbourhood, "
            f"{self.warm_requests} for the next"
        )
        lines.append(
            f"  tasks         {self.num_tasks:,}, about {bytes_text(self.task_bytes)} of memory "
            "each"
        )
        if self.staged_bytes:
            lines.append(
                f"  staged        about {bytes_text(self.staged_bytes)} in "
                f"{staging_folder(scale.key)}, removed at the end"
            )
        return "\n".join(lines)

    def _shards(self) -> str:
        spec = self.scale.sharding
        if spec is None:
            return "one for each chunk"
        bits = (
            f"{spec.hash}, preshift {spec.preshift_bits}, minishard {spec.minishard_bits}, "
            f"shard {spec.shard_bits} bits"
        )
        if self.chunks_per_shard is None:
            return f"shards of chunks from everywhere ({bits})"
        return f"shards of {_by(self.chunks_per_shard)} chunks ({bits})"


@dataclass(frozen=True, slots=True, kw_only=True)
class WritePlan:
    """What a write will do. `print` shows it.

    Attributes
    ----------
    url : str
    scales : tuple of ScalePlan
        Finest first.
    choice : str or None
        How sharding was chosen, if it was.
    """

    url: str
    scales: tuple[ScalePlan, ...]
    choice: str | None = None

    def __str__(self) -> str:
        chosen = [] if self.choice is None else [self.choice]
        return "\n".join([self.url, *chosen, *map(str, self.scales)])


def _by(triple: Iterable[int]) -> str:
    return "×".join(map(str, triple))


def bytes_text(count: int) -> str:
    """A number of bytes with a binary unit."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min(max(0, count.bit_length() - 1) // 10, len(units) - 1)
    value = count / 1024**power
    return (
        f"{value:.0f} {units[power]}"
        if value >= 10 or not power
        else f"{value:.1f} {units[power]}"
    )
