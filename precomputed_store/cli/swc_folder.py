"""A local folder of SWC files as skeletons by segment id: ``720575940.swc``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from precomputed_store.errors import FormatError
from precomputed_store.skeleton import Skeleton

__all__ = ["SwcFolder", "write_swc_file"]


class SwcFolder(Mapping[int, Skeleton]):
    """Files are read when they are asked for.

    Parameters
    ----------
    folder : Path
    scale : float or (float, float, float)
        Nanometres per unit of the files.
    when_read : callable
        Called when a file was read for the first time.

    Raises
    ------
    ValueError
        There is no SWC file, or one is not named after an id.
    """

    def __init__(
        self,
        folder: Path,
        *,
        scale: float | tuple[float, ...],
        when_read: Callable[[], None],
    ) -> None:
        self._files: dict[int, Path] = {}
        self._scale = scale
        self._when_read = when_read
        self._read: set[int] = set()
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() == ".swc":
                self._files[self._id(path)] = path
        if not self._files:
            raise ValueError(f"{folder}: there are no files *.swc")

    def __getitem__(self, segment_id: int) -> Skeleton:
        path = self._files[segment_id]
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
            skeleton = Skeleton.from_swc(text, scale=self._scale)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error
        if segment_id not in self._read:
            self._read.add(segment_id)
            self._when_read()
        return skeleton

    def __iter__(self) -> Iterator[int]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def _id(self, path: Path) -> int:
        if not re.fullmatch("[0-9]{1,20}", path.stem) or int(path.stem) >= 1 << 64:
            raise ValueError(
                f"{path}: expected a file named after a segment id, for instance 720575940.swc"
            )
        segment_id = int(path.stem)
        if segment_id in self._files:
            raise ValueError(f"{path} and {self._files[segment_id]} are named after the same id")
        return segment_id


def write_swc_file(path: Path, text: str) -> None:
    """Store a file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
