"""Blocks of voxels that lie as they are in files, for reading many of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["FileBlocks", "Integers"]

Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBlocks:
    """Which bytes of which files go where in an array.

    Attributes
    ----------
    names : sequence of str
        Files of one folder.
    sizes : numpy.ndarray, shape (n,)
        Bytes of each: one of any other length is not what it should be.
    first : numpy.ndarray, shape (n + 1,)
        Where each file's blocks begin in `blocks`, and where the last one's end.
    blocks : numpy.ndarray, shape (m, 9)
        See `precomputed_store._native.file_blocks.BLOCK_FIELDS`.
    """

    names: Sequence[str]
    sizes: Integers
    first: Integers
    blocks: Integers

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, share: slice) -> FileBlocks:
        """Some of the files, without gaps."""
        start, stop, _ = share.indices(len(self))
        return FileBlocks(
            names=self.names[start:stop],
            sizes=self.sizes[start:stop],
            first=self.first[start : stop + 1],
            blocks=self.blocks,
        )
