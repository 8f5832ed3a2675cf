"""fpzip, compiled, reads of damaged streams what the library does, and no other stream.

A stream is sound if the library writes it for the numbers that it has read from it: it must be
read, with these numbers, and any other must be refused. The library is asked in a process of
its own, as many of these streams crash it. The kernel runs in the user's process, so a read or
write beside the arrays would be a crash, or show in what lies between the numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from amounts import amounts
from hostile_chunks import mutants
from hostile_codecs import FpzipInLibrary, FpzipUnchecked

from precomputed_store import isolation
from precomputed_store._native import fpzip as native
from precomputed_store.codecs.base import CZYX, Ranges
from precomputed_store.codecs.fpzip import Fpzip
from precomputed_store.errors import FormatError

fpzip = pytest.importorskip("fpzip")
pytestmark = pytest.mark.skipif(
    not native.is_available(), reason="the package was installed without a compiler"
)
# Shape (channel, z, y, x), data type, bits kept.
CHUNKS: list[tuple[CZYX, str, int]] = [
    ((1, 6, 7, 9), "float32", 0),
    ((1, 4, 5, 8), "float64", 0),
    ((3, 2, 6, 7), "float32", 0),
    ((1, 1, 1, 60), "float64", 0),
    ((1, 9, 1, 11), "float32", 20),
    ((2, 3, 7, 8), "float32", 8),
    ((1, 3, 10, 10), "float64", 24),
]
GUARD = 7


def numbers_of(shape: CZYX, dtype: str) -> npt.NDArray[Any]:
    """A noisy slope, beside zeros, so that symbols of all lengths occur."""
    rng = np.random.default_rng(3)
    slope = np.indices(shape).sum(0) + rng.normal(0, 0.01, shape)
    slope[..., : shape[-1] // 3] = 0
    return slope.astype(dtype)


def library_reads(
    codec: Fpzip, data: bytes, shape: CZYX, dtype: str
) -> tuple[npt.NDArray[Any] | None, bool]:
    """The numbers, or None if it refuses; and whether it survived."""
    try:
        return isolation.decode(codec, data, shape=shape, dtype=np.dtype(dtype)), True
    except FormatError as error:
        return None, "decoder process" not in str(error)


class LeftError(Exception):
    """The kernel leaves a stream to the library: damage has made different NaNs."""


def kernel_reads(data: bytes, shape: CZYX, box: Ranges, dtype: str) -> npt.NDArray[Any] | None:
    """Decode between guards, from an odd address; None if it was refused."""
    sizes = [shape[0], *(stop - start for start, stop in box)]
    around = np.full([2 * size + 1 for size in sizes], GUARD, dtype)
    rows = np.full([sizes[0], sizes[1], sizes[2] + 2, sizes[3] + 2], GUARD, dtype)
    unaligned = memoryview(b"-" + data)[1:]
    read: list[npt.NDArray[Any]] = []
    outcomes = []
    for out in (around[1::2, 1::2, 1::2, 1::2], rows[:, :, 1:-1, 1:-1]):
        try:
            outcomes.append(Fpzip().decode_box(unaligned, shape=shape, box=box, out=out))
            read.append(out.copy())
        except FormatError:
            outcomes.append(None)
        out[...] = GUARD
    assert np.all(around == GUARD)
    assert np.all(rows == GUARD)
    assert outcomes[0] == outcomes[1]
    if outcomes[0] is None:
        return None
    if not outcomes[0]:
        raise LeftError
    assert read[0].tobytes() == read[1].tobytes()
    return read[0]


def a_box(shape: CZYX, rng: np.random.Generator) -> Ranges:
    z, y, x = (np.sort(rng.choice(size + 1, 2, replace=False)).tolist() for size in shape[1:])
    return (z[0], z[1]), (y[0], y[1]), (x[0], x[1])


def variants(numbers: npt.NDArray[Any], codec: Fpzip, count: int) -> Iterator[bytes]:
    """Damage of every kind; then a quarter that is small, or at the end.

    As damage leaves hardly ever a sound stream, every ninth of these is that of numbers of
    which one has another bit.
    """
    encoded = codec.encode(numbers)
    yield from mutants(encoded, count - count // 4, seed=17)
    rng = np.random.default_rng(19)
    for kind in np.arange(count // 4) % 9:
        data = bytearray(encoded)
        at = int(rng.integers(24 if kind < 4 else len(data) - 6, len(data)))
        data[at] ^= 1 << int(rng.integers(8)) if kind % 2 else int(rng.integers(1, 256))
        if kind == 7:
            data = bytearray(encoded + rng.bytes(int(rng.integers(1, 4))))
        if kind == 8:
            other = numbers.copy()
            bits = other.reshape(-1).view(f"u{other.itemsize}")
            # No exponent changes, so that no stream becomes too long for the library.
            bits[rng.integers(bits.size)] ^= bits.dtype.type(1 << int(rng.integers(20)))
            data = bytearray(codec.encode(other))
        yield bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("count", amounts(300, 6_000))
@pytest.mark.parametrize(("shape", "dtype", "precision"), CHUNKS)
def test_damaged_streams_and_boxes_of_them_are_read_as_by_the_library_or_refused(
    shape: CZYX,
    dtype: str,
    precision: int,
    count: int,
    record_property: Callable[[str, object], None],
) -> None:
    rng = np.random.default_rng(5)
    whole = (0, shape[1]), (0, shape[2]), (0, shape[3])
    codec = Fpzip(fpzip_precision=precision)
    found: Counter[str] = Counter()
    for data in variants(numbers_of(shape, dtype), codec, count):
        expected, survived = library_reads(FpzipInLibrary(), data, shape, dtype)
        found["died"] += not survived
        box = a_box(shape, rng)
        try:
            part = kernel_reads(data, shape, box, dtype)
            actual = kernel_reads(data, shape, whole, dtype)
        except LeftError:
            found["left"] += 1
            continue
        assert (actual is None) == (expected is None)
        if actual is not None and expected is not None:
            assert actual.tobytes() == expected.tobytes()
            found["chunks"] += 1
        if part is None:
            assert actual is None
            continue
        found["boxes"] += 1
        numbers, _ = library_reads(FpzipUnchecked(), data, shape, dtype)
        if numbers is not None:
            found["compared"] += 1
            z, y, x = (slice(*bounds) for bounds in box)
            assert part.tobytes() == numbers[:, z, y, x].tobytes()
    record_property(
        "figure",
        f"fpzip, {dtype} {shape} {precision or 'all'} bits, {count} mutants: {found['chunks']} "
        f"chunks read as by the library, {found['boxes']} boxes, of which {found['compared']} "
        f"compared with it, {found['left']} left to it, the others refused; "
        f"it died of {found['died']}",
    )
    assert 0 < found["chunks"] < count
    assert found["left"] < count / 20
    assert 0 < found["compared"] <= found["boxes"] < count
