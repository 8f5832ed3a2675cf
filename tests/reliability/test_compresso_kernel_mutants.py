"""compresso, compiled, gives of damaged chunks what the specification says.

The specification is written out once more here, voxel by voxel: a chunk that it can read must
be read, with these voxels, and any other must be refused. The kernel runs in the user's
process, so a read or write beside the arrays would be a crash, or show in what lies between
the voxels.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from amounts import amounts
from hostile_chunks import mutants

from precomputed_store._native import compresso as native
from precomputed_store.codecs.base import Ranges
from precomputed_store.codecs.compresso import Compresso
from precomputed_store.errors import FormatError

compresso = pytest.importorskip("compresso")
pytestmark = pytest.mark.skipif(
    not native.is_available(), reason="the package was installed without a compiler"
)
# Shape (z, y, x), data type, what the library is asked for.
CHUNKS: list[tuple[tuple[int, int, int], str, dict[str, Any]]] = [
    ((5, 6, 9), "uint8", {}),
    ((4, 7, 8), "uint64", {"steps": (8, 8, 1)}),
    ((3, 2, 70), "uint16", {"steps": (3, 2, 2)}),
    ((5, 6, 7), "uint32", {"random_access_z_index": False}),
    ((4, 6, 8), "uint16", {"random_access_z_index": False, "connectivity": 6}),
    ((6, 1, 11), "uint64", {"steps": (3, 5, 2), "random_access_z_index": False}),
    ((1, 9, 64), "uint32", {}),
]
GUARD = 7

Voxel = tuple[int, int, int]


class DamagedError(Exception):
    """The specification cannot read the chunk."""


def require(condition: object) -> None:
    if not condition:
        raise DamagedError


def width_for(bits: int) -> int:
    return next(width for width in (1, 2, 4, 8) if bits <= 8 * width)


@dataclass
class Sections:
    """A chunk taken apart; axes are x, y, z."""

    data: bytes
    shape: tuple[int, int, int]
    label_bytes: int
    at: int = 36
    stop: int = field(init=False)

    def __post_init__(self) -> None:
        require(len(self.data) >= 36)
        self.stop = len(self.data)
        magic, version, width, *sizes = struct.unpack_from("<4s2B3H3BQIQB", self.data)
        size, self.step = sizes[:3], sizes[3:6]
        num_ids, num_values, num_locations, self.connectivity = sizes[6:]
        require(magic == b"cpso" and version in (0, 1) and width == self.label_bytes)
        require(tuple(size) == self.shape[::-1])
        require(0 < math.prod(self.step) <= 64)
        require(self.connectivity == 4 or (self.connectivity == 6 and version == 0))
        window_bytes = width_for(math.prod(self.step))
        self.ids = self.take(num_ids, width)
        self.values = self.take(num_values, window_bytes)
        self.locations = self.take(num_locations, width)
        index_bytes = width_for((2 * size[0] * size[1]).bit_length())
        self.stop -= 2 * index_bytes * size[2] * version
        require(self.stop >= self.at and (self.stop - self.at) % window_bytes == 0)
        codes = self.take((self.stop - self.at) // window_bytes, window_bytes)
        self.grid = [-(-n // step) for n, step in zip(size, self.step, strict=True)]
        self.windows = self.all_windows(codes)
        self.stop = len(self.data)
        self.counts = self.take(size[2], index_bytes) if version else None
        self.starts = np.cumsum(self.take(size[2], index_bytes)).tolist() if version else None
        if self.counts is not None and self.starts is not None:
            require(sum(self.counts) == num_ids and self.starts[-1] <= num_locations)

    def take(self, count: int, width: int) -> list[int]:
        require(self.at + count * width <= self.stop)
        numbers = np.frombuffer(self.data, f"<u{width}", count, self.at)
        self.at += count * width
        return [int(number) for number in numbers]

    def all_windows(self, codes: list[int]) -> list[int]:
        windows: list[int] = []
        for code in codes:
            number, is_run = divmod(code, 2)
            count = number if is_run else 1
            require(len(windows) + count <= math.prod(self.grid))
            windows += [0] * count if is_run else [number]
        require(len(windows) == math.prod(self.grid))
        require(self.values and max(windows) < len(self.values))
        return [self.values[window] for window in windows]

    def boundaries(self) -> npt.NDArray[np.bool_]:
        found = np.zeros(self.shape, bool)
        for z, y, x in np.ndindex(self.shape):
            (cx, ox), (cy, oy), (cz, oz) = map(divmod, (x, y, z), self.step)
            window = self.windows[cx + self.grid[0] * (cy + self.grid[1] * cz)]
            bit = ox + self.step[0] * (oy + self.step[1] * oz)
            found[z, y, x] = window >> bit & 1
        return found


NEIGHBOURS = [(0, 0, -1), (0, 0, 1), (0, -1, 0), (0, 1, 0), (-1, 0, 0), (1, 0, 0)]
"""In the order of the locations that copy their label, as z, y, x."""


def step_to(voxel: Voxel, direction: int) -> Voxel:
    z, y, x = (a + b for a, b in zip(voxel, NEIGHBOURS[direction], strict=True))
    return z, y, x


def components(boundary: npt.NDArray[np.bool_], connectivity: int) -> npt.NDArray[np.intp]:
    """Numbers from 0 in the order of first voxels; -1 in boundaries."""
    numbers = np.full(boundary.shape, -1)
    count = 0
    for first in np.ndindex(boundary.shape):
        if boundary[first] or numbers[first] >= 0:
            continue
        pending = [first]
        numbers[first] = count
        while pending:
            voxel = pending.pop()
            for direction in range(connectivity):
                other = step_to(voxel, direction)  # type: ignore[arg-type]
                inside = all(0 <= a < n for a, n in zip(other, boundary.shape, strict=True))
                if inside and not boundary[other] and numbers[other] < 0:
                    numbers[other] = count
                    pending.append(other)
        count += 1
    return numbers


class CrossingError(Exception):
    """A location copies from another slice, though slices should be readable alone."""


class Reader:
    """Labels of a chunk: of slices alone by the index of them, or of all."""

    def __init__(self, sections: Sections, dtype: str) -> None:
        self.sections = sections
        self.boundary = sections.boundaries()
        self.numbers = components(self.boundary, sections.connectivity)
        self.labels = np.zeros(sections.shape, dtype)
        self.at = self.stop = 0
        self.slices = range(0)

    def read(self, slices: range, ids: list[int], start: int, stop: int) -> None:
        """Label slices by these ids and by the locations from `start` to `stop`."""
        self.slices, self.at, self.stop = slices, start, stop
        part = slice(slices[0], slices[-1] + 1)
        inside = ~self.boundary[part]
        numbers = self.numbers[part][inside]
        if numbers.size:
            count = int(np.ptp(numbers)) + 1
            require(count <= len(ids))
            chosen = np.array(ids, self.labels.dtype)[numbers - numbers.min()]
            self.labels[part][inside] = chosen
        else:
            count = 0
        require(self.sections.counts is None or count == len(ids))
        for z, y, x in np.argwhere(self.boundary).tolist():
            if z in slices:
                self.labels[z, y, x] = self.label((z, y, x))

    def read_alone(self, slices: range) -> None:
        counts, starts = self.sections.counts, self.sections.starts
        assert counts is not None
        assert starts is not None
        for z in slices:
            first, is_last = sum(counts[:z]), z + 1 == len(counts)
            stop = len(self.sections.locations) if is_last else starts[z + 1]
            ids = self.sections.ids[first : first + counts[z]]
            self.read(range(z, z + 1), ids, starts[z], stop)
            require(is_last or self.at == stop)

    def read_all(self) -> None:
        start = self.sections.starts[0] if self.sections.starts else 0
        stop = len(self.sections.locations)
        self.read(range(len(self.labels)), self.sections.ids, start, stop)

    def neighbour(self, voxel: Voxel, direction: int) -> Voxel | None:
        other = step_to(voxel, direction)
        inside = all(0 <= a < n for a, n in zip(other, self.labels.shape, strict=True))
        return other if inside else None

    def next_location(self) -> int:
        require(self.at < self.stop)
        self.at += 1
        return self.sections.locations[self.at - 1]

    def label(self, voxel: Voxel) -> int:
        for direction in (0, 2, 4) if self.sections.connectivity == 6 else (0, 2):
            other = self.neighbour(voxel, direction)
            if other is not None and not self.boundary[other]:
                return int(self.labels[other])
        location = self.next_location()
        if location > 6:
            return location - 7
        if location == 6:
            return self.next_location()
        other = self.neighbour(voxel, location)
        if other is None:
            raise DamagedError
        if other[0] not in self.slices:
            raise CrossingError
        return int(self.labels[other])


def expected(
    data: bytes, shape: tuple[int, int, int], box: Ranges, dtype: str
) -> npt.NDArray[Any] | None:
    """The voxels of a box, or None if what they take is damaged."""
    try:
        sections = Sections(data, shape, np.dtype(dtype).itemsize)
        reader = Reader(sections, dtype)
        try:
            if sections.counts is None:
                raise CrossingError
            reader.read_alone(range(*box[0]))
        except CrossingError:
            reader = Reader(sections, dtype)
            reader.read_all()
    except DamagedError:
        return None
    return reader.labels[tuple(slice(*bounds) for bounds in box)]


def check(data: bytes, shape: tuple[int, int, int], box: Ranges, dtype: str) -> bool:
    """Decode between guards, from an odd address; whether it was read."""
    sizes = [stop - start for start, stop in box]
    around = np.full([2 * size + 1 for size in sizes], GUARD, dtype)
    spaced = around[1::2, 1::2, 1::2]
    rows = np.full([sizes[0], sizes[1] + 2, sizes[2] + 2], GUARD, dtype)
    beside = rows[:, 1:-1, 1:-1]
    unaligned = memoryview(b"-" + data)[1:]
    wanted = expected(data, shape, box, dtype)
    for out in (spaced, beside):
        try:
            read = Compresso().decode_box(
                unaligned, shape=(1, *shape), box=box, out=out[np.newaxis]
            )
        except FormatError:
            read = False
        assert read == (wanted is not None)
        if wanted is not None:
            np.testing.assert_array_equal(out, wanted)
        out[...] = GUARD
    assert np.all(around == GUARD)
    assert np.all(rows == GUARD)
    return wanted is not None


def labels_of(shape: tuple[int, int, int], dtype: str) -> npt.NDArray[Any]:
    """Columns, speckled, some of whose labels take the whole width."""
    rng = np.random.default_rng(3)
    values = rng.integers(0, np.iinfo(dtype).max, 6, dtype, endpoint=True)
    values[:2] = np.iinfo(dtype).max, 0
    chosen = np.indices(shape).sum(0) // 5 % 6
    speckles = rng.random(shape) < 0.08
    chosen[speckles] = rng.integers(0, 6, speckles.sum())
    labels: npt.NDArray[Any] = values[chosen]
    return labels


def a_box(shape: tuple[int, int, int], rng: np.random.Generator) -> Ranges:
    z, y, x = (np.sort(rng.choice(size + 1, 2, replace=False)).tolist() for size in shape)
    return (z[0], z[1]), (y[0], y[1]), (x[0], x[1])


def variants(encoded: bytes, dtype: str, count: int) -> Iterator[bytes]:
    """Damage of every kind; and a third that reaches deeper, in single labels and windows."""
    yield from mutants(encoded, count - count // 3, seed=17)
    rng = np.random.default_rng(19)
    width = np.dtype(dtype).itemsize
    for _ in range(count // 3):
        data = bytearray(encoded)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(36, len(data)))
            at -= (at - 36) % width
            data[at : at + width] = int(rng.integers(0, 9)).to_bytes(width, "little")
        yield bytes(data[: len(encoded)])


@pytest.mark.slow
@pytest.mark.parametrize("count", amounts(600, 20_000))
@pytest.mark.parametrize(("shape", "dtype", "options"), CHUNKS)
def test_damaged_chunks_and_boxes_of_them_are_read_as_specified_or_refused(
    shape: tuple[int, int, int],
    dtype: str,
    options: dict[str, Any],
    count: int,
    record_property: Callable[[str, object], None],
) -> None:
    rng = np.random.default_rng(5)
    voxels = labels_of(shape, dtype)
    encoded = bytes(compresso.compress(np.asfortranarray(voxels.T), **options))
    whole = (0, shape[0]), (0, shape[1]), (0, shape[2])
    np.testing.assert_array_equal(expected(encoded, shape, whole, dtype), voxels)
    chunks = boxes = 0
    for data in variants(encoded, dtype, count):
        chunks += check(data, shape, whole, dtype)
        boxes += check(data, shape, a_box(shape, rng), dtype)
    record_property(
        "figure",
        f"compresso, {dtype} {shape} {options or ''}, {count} mutants: {chunks} chunks and "
        f"{boxes} boxes read as specified, the others refused",
    )
    assert 0 < chunks < count
    assert 0 < boxes < count
