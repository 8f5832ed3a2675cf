"""The encodings as numcodecs codecs, for zarr format 2, kerchunk and whoever speaks numcodecs.

One class per encoding, registered by entry points: ``numcodecs.get_codec({"id":
"precomputed.jpeg", "shape": [1, 64, 64, 64], "dtype": "uint8"})``. The numcodecs interface
does not say which chunk is meant, so its shape is configuration, and the cropped chunks at
a volume's edges need a codec of their own: zarr's format 3 and `PrecomputedStore` do not
have this limit.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from numcodecs.abc import Codec as NumcodecsCodec  # type: ignore[import-untyped]
from numcodecs.compat import ensure_contiguous_ndarray, ndarray_copy  # type: ignore[import-untyped]

from precomputed_store.codecs import ENCODINGS, Codec, codec_class
from precomputed_store.codecs.base import CZYX, ChunkArray

__all__ = ["PrecomputedNumcodecsCodec"]


class PrecomputedNumcodecsCodec(NumcodecsCodec):  # type: ignore[misc]
    """One encoding with its parameters, for chunks of one shape and data type.

    Parameters
    ----------
    shape : sequence of int
        ``(channel, z, y, x)`` of every chunk. A zarr array must have C order.
    dtype : str or numpy.dtype
    parameters : mapping, optional
        Members of a scale that belong to the encoding, under their names in `info`.

    Raises
    ------
    ValueError
        A shape, or a parameter, that there cannot be.
    """

    encoding: ClassVar[str]

    def __init__(
        self,
        *,
        shape: Iterable[int],
        dtype: npt.DTypeLike,
        parameters: Mapping[str, object] | None = None,
    ) -> None:
        self.shape = _checked_shape(shape)
        self.dtype = np.dtype(dtype).name
        self._codec = _build(self.encoding, parameters or {})
        self.parameters = self._codec.to_parameters()

    def get_config(self) -> dict[str, Any]:
        return {
            "id": self.codec_id,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "parameters": dict(self.parameters),
        }

    def encode(self, buf: npt.ArrayLike) -> bytes:
        """Voxels of this shape and data type, or flat and in C order, to chunk bytes."""
        array = np.asarray(memoryview(buf) if isinstance(buf, bytes | bytearray) else buf)
        dtype = np.dtype(self.dtype)
        if array.ndim == 1 and array.nbytes == math.prod(self.shape) * dtype.itemsize:
            array = np.ascontiguousarray(array).view(dtype).reshape(self.shape)
        if array.shape != self.shape or array.dtype.newbyteorder("=") != dtype:
            raise ValueError(
                f"got {array.dtype} of shape {array.shape}; expected {dtype} of shape "
                f"{self.shape} (channel, z, y, x)"
            )
        return self._codec.encode(array)

    def decode(self, buf: Any, out: Any = None) -> ChunkArray:
        """Chunk bytes to voxels, C-contiguous, in `out` if there is one."""
        data = memoryview(ensure_contiguous_ndarray(buf)).cast("B")
        array = self._codec.decode(data, shape=self.shape, dtype=np.dtype(self.dtype))
        # Callers take the memory as it lies there for the chunk's bytes.
        copied: ChunkArray = ndarray_copy(np.ascontiguousarray(array), out)
        return copied


def _checked_shape(shape: Iterable[int]) -> CZYX:
    sides = tuple(operator.index(side) for side in shape)
    if len(sides) != 4 or min(sides) < 1:
        raise ValueError(f"shape is {sides}; expected four positive integers (channel, z, y, x)")
    channels, z, y, x = sides
    return channels, z, y, x


def _build(encoding: str, parameters: Mapping[str, object]) -> Codec:
    found = codec_class(encoding)
    assert found is not None
    known = found.parameter_names()
    for name in parameters:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(
                f"{encoding} has no parameter {name!r}, only {', '.join(known) or 'none'}{hint}"
            )
    try:
        return found.from_parameters(parameters)
    except ValueError as error:
        problems = [": ".join(map(str, pair)) for pair in error.args]
        raise ValueError("; ".join(problems)) from error


def _register(encoding: str, name: str) -> None:
    members = {
        "__module__": __name__,
        "__doc__": f"The encoding {encoding}; see `PrecomputedNumcodecsCodec`.",
        "encoding": encoding,
        "codec_id": f"precomputed.{encoding}",
    }
    globals()[name] = type(name, (PrecomputedNumcodecsCodec,), members)


for _encoding, (_, _name) in ENCODINGS.items():
    _register(_encoding, _name)
