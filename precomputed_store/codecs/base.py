"""What an encoding is: a frozen dataclass of its parameters that turns chunk bytes into an array.

Codecs are pure: no I/O, no state. An optional library is imported inside the method
that needs it, so that a codec's metadata can be read without it.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.errors import UnsupportedError

__all__ = ["CZYX", "Buffer", "ChunkArray", "Codec", "Cut", "Place", "Ranges", "Slab", "require"]

CZYX: TypeAlias = tuple[int, int, int, int]
Buffer: TypeAlias = bytes | bytearray | memoryview
ChunkArray: TypeAlias = npt.NDArray[Any]

Place: TypeAlias = Literal["inline", "thread", "worker"]
"""Where a codec may run.

``inline``: cheap enough for an event loop's own thread. ``thread``: long enough to be
sent to a thread. ``worker``: native code that malformed bytes can crash, or that takes much
memory, to be run in an isolated process.
"""


Ranges: TypeAlias = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Half-open ranges of voxels along z, y and x."""

Slab: TypeAlias = tuple[int, int]
"""Half-open range of a chunk's z slices."""


class Cut(NamedTuple):
    """A part of an encoded chunk, as an encoded chunk of its own.

    Attributes
    ----------
    data : bytes-like
    shape : (int, int, int, int)
        ``(channel, z, y, x)``.
    start : (int, int, int)
        Its first voxel in the whole chunk, along z, y and x.
    """

    data: Buffer
    shape: CZYX
    start: tuple[int, int, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Codec(ABC):
    """One encoding with its parameters.

    The dataclass fields of a subclass are the members of a scale in `info` that belong
    to the encoding, under the names that they have there.
    """

    name: ClassVar[str]
    """Value of ``encoding`` in `info`, lower case."""
    place: ClassVar[Place] = "thread"
    working_memory: ClassVar[tuple[int, int]] = (2, 0)
    """For `most_memory`: times the bytes of the decoded chunk, plus bytes per voxel."""
    data_types: ClassVar[tuple[str, ...]]
    """Data types that the encoding can hold."""
    channels: ClassVar[tuple[int, ...] | None] = None
    """Channel counts that the encoding can hold; None for any."""
    content_type: ClassVar[str] = "application/octet-stream"
    compressible: ClassVar[bool] = False
    """Whether ``compress="auto"`` compresses chunks once more (gzip) on object stores."""
    brief: ClassVar[bool] = False
    """Whether decoding a chunk can be a matter of microseconds."""
    decodes_boxes: ClassVar[bool] = False
    """Whether `decode_box` ever does. It runs in the user's process, whatever `place` says."""
    can_cut: ClassVar[bool] = False
    """Whether `cut` ever gives anything."""
    plain: ClassVar[bool] = False
    """Whether a chunk is its little-endian voxels, x fastest, channel slowest, and no more."""
    in_neuroglancer: ClassVar[bool] = True
    """Whether the Neuroglancer client decodes it."""

    @property
    def lossless(self) -> bool:
        """Whether decoding gives back exactly what was encoded, with these parameters."""
        return True

    def neuroglancer_misreads(self, num_channels: int, dtype: np.dtype[Any]) -> str | None:
        """Why the Neuroglancer client shows such chunks wrongly though they are valid, or None.

        To be asked before writing: reading them here is unaffected.
        """
        return None

    def most_memory(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        """Bytes that decoding a valid chunk takes at most, the decoded chunk included.

        Of a decoder process, where `place` is ``"worker"``.
        """
        per_byte, per_voxel = self.working_memory
        return math.prod(shape) * (per_byte * dtype.itemsize + per_voxel)

    @classmethod
    def parameter_names(cls) -> tuple[str, ...]:
        """Members of a scale that belong to this encoding."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, object]) -> Codec:
        """Build from the members of a scale named in `parameter_names`.

        Raises
        ------
        ValueError
            With one ``(member, message)`` pair of strings in ``args`` per wrong member.
        """
        return cls(**parameters)

    def to_parameters(self) -> dict[str, Any]:
        """The members of a scale that `from_parameters` reads, without those unset."""
        pairs = ((name, getattr(self, name)) for name in self.parameter_names())
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in pairs
            if value is not None
        }

    @abstractmethod
    def decode(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> ChunkArray:
        """Chunk bytes to voxels.

        Parameters
        ----------
        data : bytes-like
            The encoded chunk, content encoding undone.
        shape : (int, int, int, int)
            Expected ``(channel, z, y, x)`` shape, already cropped to the volume.
        dtype : numpy.dtype
            Expected data type.

        Returns
        -------
        numpy.ndarray
            Of exactly `shape` and `dtype`; may be read-only or a view of `data`.

        Raises
        ------
        FormatError
            The bytes are not an encoded chunk of this shape and data type.
        UnsupportedError
            The library that decodes it is not installed.
        """

    def decode_slab(
        self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any], slab: Slab
    ) -> ChunkArray:
        """As `decode`, but some z slices only: where the encoding can, faster.

        Parameters
        ----------
        data, shape, dtype
            As for `decode`: of the whole chunk.
        slab : (int, int)
            First z slice and the one after the last, within the chunk.
        """
        start, stop = slab
        return self.decode(data, shape=shape, dtype=dtype)[:, start:stop]

    def cut(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any], box: Ranges) -> Cut | None:
        """A smaller chunk that holds a box of an encoded one, or None if that does not pay.

        Parameters
        ----------
        data : bytes-like
            The encoded chunk, content encoding undone.
        shape : (int, int, int, int)
            Its ``(channel, z, y, x)`` shape.
        dtype : numpy.dtype
            Its data type.
        box : three (int, int)
            First voxel wanted and the one after the last, along z, y and x.

        Raises
        ------
        FormatError
            The bytes are not an encoded chunk of this shape and data type.
        """
        return None

    def decode_box(self, data: Buffer, *, shape: CZYX, box: Ranges, out: ChunkArray) -> bool:
        """Decode a box of a chunk straight into its place, if this encoding can.

        Parameters
        ----------
        data : bytes-like
            The encoded chunk, content encoding undone.
        shape : (int, int, int, int)
            Its ``(channel, z, y, x)`` shape.
        box : three (int, int)
            First voxel wanted and the one after the last, along z, y and x.
        out : numpy.ndarray
            Where the box goes: ``(channel, z, y, x)`` of the chunk's data type, any strides.

        Returns
        -------
        bool
            Whether it was done. If not, `out` may hold anything, and `decode` does it or says
            what is wrong.

        Raises
        ------
        FormatError
            The bytes are not an encoded chunk of this shape and data type.
        """
        return False

    def decode_as_box(
        self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]
    ) -> ChunkArray | None:
        """As `decode`, the whole chunk by `decode_box`, or None if that does not do it."""
        out = np.empty(shape, dtype.newbyteorder("="))
        whole = (0, shape[1]), (0, shape[2]), (0, shape[3])
        done = self.decode_box(data, shape=shape, box=whole, out=out)
        return out.astype(dtype, copy=False) if done else None

    @abstractmethod
    def encode(self, array: ChunkArray) -> bytes:
        """Voxels ``(channel, z, y, x)`` of any strides to chunk bytes.

        Raises
        ------
        FormatError
            These voxels cannot be held in this encoding.
        UnsupportedError
            The library that encodes it is not installed.
        """

    @abstractmethod
    def max_encoded_bytes(self, *, shape: CZYX, dtype: np.dtype[Any]) -> int:
        """An upper bound of the size of any valid encoded chunk: what inflation may reach."""

    @abstractmethod
    def recognises(self, data: Buffer, *, shape: CZYX, dtype: np.dtype[Any]) -> bool:
        """Whether `data` begins like this encoding (or has its exact length).

        Asked only where the storage cannot say if a content encoding was already undone.
        """


def require(module: str, *, extra: str | None, purpose: str) -> ModuleType:
    """Import an optional library, or say how to install it.

    Raises
    ------
    UnsupportedError
        It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        package = f"precomputed-store[{extra}]" if extra else name
        raise UnsupportedError(
            f"{purpose} needs the package {name!r}, which cannot be imported ({error}): "
            f"pip install '{package}'"
        ) from error
