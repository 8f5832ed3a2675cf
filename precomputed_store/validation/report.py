"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from precomputed_store.errors import Problem
from precomputed_store.grid import Box

__all__ = ["ChunkProblem", "Report", "ScaleReport", "UnknownObject"]


class ChunkProblem(NamedTuple):
    """A chunk that is stored, but cannot be used.

    Attributes
    ----------
    key : str
        The object that holds it, relative to the layer's folder.
    box : Box
        Its voxels.
    message : str
        What is wrong with it.
    """

    key: str
    box: Box
    message: str

    def __str__(self) -> str:
        return f"{self.key}: chunk {self.box}: {self.message}"


class UnknownObject(NamedTuple):
    """Something in the folder of a scale that no reader looks at."""

    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleReport:
    """What was found in the folder of one scale.

    Attributes
    ----------
    index : int
        Its index in `info.scales`.
    key : str
    num_chunks : int
        Chunks of its grid.
    num_checked : int
        Chunks that were looked for: all of them, or those of a sample.
    decoded : bool
        Whether the stored ones were read and decoded.
    num_present : int
        Chunks that are stored, corrupt ones included.
    num_bytes : int or None
        Bytes that these take; None where not every size is known.
    corrupt : tuple of ChunkProblem
    unknown : tuple of UnknownObject
        Only where the storage has a listing, and no sample was taken.
    """

    index: int
    key: str
    num_chunks: int
    num_checked: int
    decoded: bool
    num_present: int
    num_bytes: int | None
    corrupt: tuple[ChunkProblem, ...] = ()
    unknown: tuple[UnknownObject, ...] = ()

    @property
    def num_missing(self) -> int:
        """Chunks that are not stored: readers take the fill value."""
        return self.num_checked - self.num_present

    def to_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "key": self.key,
            "num_chunks": self.num_chunks,
            "num_checked": self.num_checked,
            "decoded": self.decoded,
            "num_present": self.num_present,
            "num_missing": self.num_missing,
            "num_corrupt": len(self.corrupt),
            "num_bytes": self.num_bytes,
            "corrupt": [
                {"key": key, "box": [list(box.start), list(box.stop)], "message": message}
                for key, box, message in self.corrupt
            ],
            "unknown": [unknown._asdict() for unknown in self.unknown],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that `validate` found.

    Attributes
    ----------
    url : str
        Where the layer is, redirects followed.
    problems : tuple of Problem
        Where the metadata breaks the specification.
    warnings : tuple of Problem
        What other programs refuse or misread, or the specification discourages.
    scales : tuple of ScaleReport
        Empty unless chunks were asked for.
    """

    url: str
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    scales: tuple[ScaleReport, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong. Warnings, missing chunks and unknown objects are not wrong."""
        return not self.problems and not any(scale.corrupt for scale in self.scales)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return {
            "url": self.url,
            "ok": self.ok,
            "problems": [problem._asdict() for problem in self.problems],
            "warnings": [warning._asdict() for warning in self.warnings],
            "scales": [scale.to_json() for scale in self.scales],
        }
