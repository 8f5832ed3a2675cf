"""Windows, and what each method makes of them, against plain loops and TensorStore."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from precomputed_store.downsampling import METHODS, Method, coarse_box, downsample, fine_box
from precomputed_store.downsampling.windows import pieces
from precomputed_store.grid import XYZ, Box

Array = npt.NDArray[Any]

INTEGERS = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"]
FLOATS = ["f2", "f4", "f8"]
FACTORS: list[XYZ] = [
    (1, 1, 1),
    (2, 2, 1),
    (2, 2, 2),
    (3, 3, 1),
    (3, 1, 2),
    (1, 1, 2),
    (1, 3, 1),
    (4, 2, 1),
    (8, 1, 1),
    (6, 1, 1),
    (5, 7, 1),
    (3, 3, 3),
    (20, 20, 20),
]


def triples(elements: st.SearchStrategy[int]) -> st.SearchStrategy[XYZ]:
    return st.tuples(elements, elements, elements)


def exact_mean(window: Array) -> Any:
    if window.dtype.kind == "f":
        return (window.astype(np.float64).sum() / window.size).astype(window.dtype)
    # Python rounds fractions half to even.
    return round(Fraction(sum(window.ravel().tolist()), window.size))


def smallest_mode(window: Array) -> Any:
    values, counts = np.unique(window, return_counts=True)
    return values[counts.argmax()]


REFERENCE: dict[Method, Callable[[Array], Any]] = {
    "mean": exact_mean,
    "mode": smallest_mode,
    "min": np.min,
    "max": np.max,
    "stride": lambda window: window[0, 0, 0],
}


def cut(start: int, length: int, factor: int) -> list[slice]:
    """The voxels of an axis, one slice per coarse voxel, by asking each voxel where it belongs."""
    homes = [(start + i) // factor for i in range(length)]
    slices = []
    for _, group in itertools.groupby(range(length), key=lambda i: homes[i]):
        found = list(group)
        slices.append(slice(found[0], found[-1] + 1))
    return slices


def reference(block: Array, *, factor: XYZ, start: XYZ, method: Method) -> Array:
    _, *shape = block.shape
    axes = list(map(cut, start[::-1], shape, factor[::-1]))
    result = np.empty((len(block), *map(len, axes)), block.dtype)
    for c in range(len(block)):
        for place in np.ndindex(*result.shape[1:]):
            window = tuple(axis[i] for axis, i in zip(axes, place, strict=True))
            result[(c, *place)] = REFERENCE[method](block[c][window])
    return result


def labels(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, most: int = 4) -> Array:
    """Few values, some of them as large as the dtype has: windows of one value and of several."""
    info = np.iinfo(dtype)
    values = np.array([0, 1, info.max, info.max - 1, info.min, 7][:most], dtype)
    coarse = rng.integers(0, most, [-(-n // 3) for n in shape])
    for axis in range(len(shape)):
        coarse = coarse.repeat(3, axis)
    crop = coarse[tuple(slice(n) for n in shape)].copy()
    noisy = rng.random(shape) < 0.2
    crop[noisy] = rng.integers(0, most, np.count_nonzero(noisy))
    return values[crop]


def noise(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    raw = rng.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return raw.view(dtype)[..., 0]


class TestBoxes:
    def test_start_goes_down_and_stop_goes_up(self) -> None:
        assert coarse_box(Box((-3, 1, 4), (-1, 2, 9)), (2, 2, 3)) == Box((-2, 0, 1), (0, 1, 3))

    def test_an_axis_that_is_empty_stays_empty(self) -> None:
        assert coarse_box(Box((3, 0, 0), (3, 4, 4)), (2, 2, 2)).shape == (0, 2, 2)

    def test_fine_box_is_whole_windows(self) -> None:
        assert fine_box(Box((-2, 0, 1), (0, 1, 3)), (2, 2, 3)) == Box((-4, 0, 3), (0, 2, 9))

    @given(triples(st.integers(-50, 50)), triples(st.integers(1, 30)), triples(st.integers(1, 9)))
    def test_coarse_box_is_the_smallest_that_covers(
        self, start: XYZ, shape: XYZ, factor: XYZ
    ) -> None:
        x, y, z = (a + n for a, n in zip(start, shape, strict=True))
        box = Box(start, (x, y, z))
        coarse = coarse_box(box, factor)
        assert fine_box(coarse, factor).contains(box)
        for axis in range(3):
            assert fine_box(coarse, factor).start[axis] > box.start[axis] - factor[axis]
            assert fine_box(coarse, factor).stop[axis] < box.stop[axis] + factor[axis]


@given(
    triples(st.integers(-20, 20)),
    triples(st.integers(0, 12)),
    triples(st.integers(1, 7)),
    st.integers(1, 200),
)
def test_pieces_cover_each_voxel_once(start: XYZ, shape: XYZ, factor: XYZ, most: int) -> None:
    fine = np.zeros(shape, int)
    homes = np.ogrid[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))]
    for piece in pieces(start, shape, factor, max_voxels=most):
        fine[piece.fine] += 1
        part = fine[piece.fine]
        assert 0 < part.size <= max(most, np.prod(piece.window))
        for axis, (home, within) in enumerate(zip(homes, piece.fine, strict=True)):
            coarse = home.ravel()[within] // factor[axis] - start[axis] // factor[axis]
            expected = range(piece.coarse[axis].start, piece.coarse[axis].stop)
            assert coarse.tolist() == [i for i in expected for _ in range(piece.window[axis])]
    assert (fine == 1).all()


class TestAgainstPlainLoops:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("dtype", INTEGERS)
    @pytest.mark.parametrize("factor", FACTORS)
    def test_integers(self, method: Method, dtype: str, factor: XYZ) -> None:
        rng = np.random.default_rng(1)
        for make in (labels, noise):
            for shape, start in [((2, 5, 6, 9), (-7, 3, 5)), ((1, 4, 4, 16), (0, -8, 40))]:
                block = make(rng, shape, dtype)
                found = downsample(block, factor=factor, start=start, method=method)
                assert found.dtype == block.dtype
                expected = reference(block, factor=factor, start=start, method=method)
                np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("factor", FACTORS)
    def test_floating_point(self, method: Method, dtype: str, factor: XYZ) -> None:
        rng = np.random.default_rng(2)
        some = np.array([0, -0.0, 1.5, -1.5, -3, np.inf, 0.1], dtype)
        for block in (
            noise(rng, (2, 5, 8, 13), dtype),
            rng.choice(some, (1, 5, 8, 13)),
        ):
            found = downsample(block, factor=factor, start=(-3, 4, 1), method=method)
            assert found.dtype == block.dtype
            expected = reference(block, factor=factor, start=(-3, 4, 1), method=method)
            # The order of summation shows in the last bit of float64.
            np.testing.assert_allclose(
                found, expected, rtol=4e-16 if method == "mean" else 0, atol=1e-14
            )

    @given(
        block=hnp.arrays(
            st.sampled_from(INTEGERS),
            st.tuples(st.integers(1, 2), *[st.integers(0, 9)] * 3),
            elements=st.integers(0, 3),
        ),
        start=triples(st.integers(-(2**40), 2**40)),
        factor=triples(st.integers(1, 9)),
        method=st.sampled_from(METHODS),
    )
    def test_any_shape_start_and_factor(
        self, block: Array, start: XYZ, factor: XYZ, method: Method
    ) -> None:
        np.testing.assert_array_equal(
            downsample(block, factor=factor, start=start, method=method),
            reference(block, factor=factor, start=start, method=method),
        )

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("factor", [(2, 2, 2), (2, 2, 1), (3, 2, 1)])
    def test_blocks_of_many_pieces(
        self, method: Method, factor: XYZ, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("precomputed_store.downsampling.blocks.PIECE_VOXELS", 50)
        monkeypatch.setattr("precomputed_store.downsampling._mode._GATHERED_VOXELS", 20)
        block = labels(np.random.default_rng(3), (2, 11, 13, 17), "u4")
        np.testing.assert_array_equal(
            downsample(block, factor=factor, start=(1, -1, 3), method=method),
            reference(block, factor=factor, start=(1, -1, 3), method=method),
        )

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("dtype", ["u1", "u8", "f4"])
    def test_any_memory_layout(self, method: Method, dtype: str) -> None:
        block = labels(np.random.default_rng(4), (2, 10, 14, 18), "u1").astype(dtype)
        expected = downsample(block, factor=(2, 3, 2), start=(1, 0, 0), method=method)
        double = np.repeat(block, 2, axis=3)
        read_only = block.copy()
        read_only.flags.writeable = False
        for same in (
            np.asfortranarray(block),
            double[..., ::2],
            block[..., ::-1].copy()[..., ::-1],
            block.astype(block.dtype.newbyteorder(">")),
            read_only,
        ):
            found = downsample(same, factor=(2, 3, 2), start=(1, 0, 0), method=method)
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == same.dtype
            assert found.flags.c_contiguous

    @pytest.mark.parametrize("method", METHODS)
    def test_the_block_is_left_alone(self, method: Method) -> None:
        for dtype in ("u1", "i1", "u8", "f8"):
            block = labels(np.random.default_rng(5), (1, 6, 6, 6), "u1").astype(dtype)
            before = block.copy()
            for factor in FACTORS:
                result = downsample(block, factor=factor, start=(0, 0, 0), method=method)
                assert not np.shares_memory(result, block)
            np.testing.assert_array_equal(block, before)


class TestMean:
    @pytest.mark.parametrize("dtype", INTEGERS)
    def test_extremes_do_not_overflow(self, dtype: str) -> None:
        info = np.iinfo(dtype)
        for value in (info.min, info.max):
            for factor in FACTORS:
                block = np.full((1, 20, 20, 20), value, dtype)
                found = downsample(block, factor=factor, start=(0, 0, 0), method="mean")
                assert (found == value).all()
            # The largest sum of 257 bytes just fits into 16 bits; rounding it does not.
            row = np.full((1, 1, 1, 257), value, dtype)
            assert downsample(row, factor=(257, 1, 1), start=(0, 0, 0), method="mean") == value

    @pytest.mark.parametrize(
        ("values", "mean"),
        [([1, 2], 2), ([2, 3], 2), ([3, 4], 4), ([-1, -2], -2), ([-2, -3], -2), ([-1, 0], 0)],
    )
    def test_half_goes_to_even(self, values: list[int], mean: int) -> None:
        for dtype in ("i1", "i2", "i4", "i8", "f4"):
            block = np.array([[[values]]], dtype)
            expected = mean if dtype != "f4" else sum(values) / 2
            assert downsample(block, factor=(2, 1, 1), start=(0, 0, 0), method="mean") == expected

    def test_uint64_keeps_every_bit(self) -> None:
        top = 2**64 - 1
        block = np.array([[[[top, top - 2, top, top - 1, 2**63, 2**63 + 2]]]], "u8")
        found = downsample(block, factor=(2, 1, 1), start=(0, 0, 0), method="mean")
        assert found.ravel().tolist() == [top - 1, top - 1, 2**63 + 1]

    def test_nan_propagates_and_infinities_warn_of_nothing(self) -> None:
        block = np.array([[[[np.nan, 1, np.inf, -np.inf, np.inf, 1, 6e4, 6e4]]]], "f2")
        found = downsample(block, factor=(2, 1, 1), start=(0, 0, 0), method="mean")
        np.testing.assert_array_equal(found.ravel(), [np.nan, np.nan, np.inf, np.float16(6e4)])


class TestMode:
    def test_of_equally_frequent_values_the_smallest_wins(self) -> None:
        block = np.array([[[[9, 4, 4, 9], [3, 2, 1, 5]]]], "u8")
        found = downsample(block, factor=(4, 1, 1), start=(0, 0, 0), method="mode")
        assert found.ravel().tolist() == [4, 1]

    def test_zero_counts_like_any_other_value(self) -> None:
        block = np.array([[[[0, 0, 4, 9]]]], "u8")
        assert downsample(block, factor=(4, 1, 1), start=(0, 0, 0), method="mode") == 0

    def test_a_value_in_the_middle_wins_without_a_majority(self) -> None:
        block = np.array([[[[9, 5, 1, 5, 8, 2, 5, 7]]]], "i2")
        assert downsample(block, factor=(8, 1, 1), start=(0, 0, 0), method="mode") == 5

    def test_windows_of_hundreds_of_voxels(self) -> None:
        rng = np.random.default_rng(6)
        block = rng.integers(0, 40, (1, 8, 32, 32)).astype("u2")
        block[0, :, :16, :16][rng.random((8, 16, 16)) < 0.1] = 77
        for factor in [(16, 16, 1), (16, 16, 8), (17, 15, 1)]:
            np.testing.assert_array_equal(
                downsample(block, factor=factor, start=(0, 0, 0), method="mode"),
                reference(block, factor=factor, start=(0, 0, 0), method="mode"),
            )

    def test_nan_is_one_value_and_the_largest(self) -> None:
        other_nan = np.array([0x7FC00001, 0xFFC00000], "u4").view("f4")
        rows = np.array(
            [[*other_nan, np.nan, 1], [np.nan, 1, 2, np.nan], [np.nan, 2, -1, 5]], "f4"
        )
        found = downsample(rows[None, None], factor=(4, 1, 1), start=(0, 0, 0), method="mode")
        np.testing.assert_array_equal(found.ravel(), [np.nan, np.nan, -1])
        pair = np.array([[[[np.nan, np.inf]]]])
        assert downsample(pair, factor=(2, 1, 1), start=(0, 0, 0), method="mode") == np.inf

    def test_channels_are_counted_apart(self) -> None:
        block = np.array([[[[1, 1, 2]]], [[[2, 3, 3]]]], "u4")
        found = downsample(block, factor=(3, 1, 1), start=(0, 0, 0), method="mode")
        assert found.ravel().tolist() == [1, 3]


@pytest.mark.parametrize("method", ["min", "max"])
def test_nan_propagates_through_minimum_and_maximum(method: Method) -> None:
    block = np.array([[[[np.nan, 1, 1, np.nan, 1, 2]]]], "f4")
    found = downsample(block, factor=(2, 1, 1), start=(0, 0, 0), method=method)
    expected = [np.nan, np.nan, 1 if method == "min" else 2]
    np.testing.assert_array_equal(found.ravel(), expected)


def test_stride_takes_the_first_voxel_that_is_there() -> None:
    block = np.arange(8, dtype="u1").reshape(1, 1, 1, 8)
    found = downsample(block, factor=(3, 1, 1), start=(-2, 0, 0), method="stride")
    assert found.ravel().tolist() == [0, 2, 5]


@given(
    cuts=triples(st.integers(1, 4)),
    factor=triples(st.integers(1, 4)),
    start=triples(st.integers(-9, 9)),
    method=st.sampled_from(METHODS),
    seed=st.integers(0, 99),
)
def test_blocks_cut_at_multiples_of_the_factor_make_the_whole(
    cuts: XYZ, factor: XYZ, start: XYZ, method: Method, seed: int
) -> None:
    volume = labels(np.random.default_rng(seed), (1, 9, 10, 11), "u4")
    whole = downsample(volume, factor=factor, start=start, method=method)
    bounds = Box(start, (start[0] + 11, start[1] + 10, start[2] + 9))
    coarse = coarse_box(bounds, factor)
    result = np.zeros_like(whole)
    for cell in itertools.product(
        *(range(a, b, n) for a, b, n in zip(coarse.start, coarse.stop, cuts, strict=True))
    ):
        x, y, z = (a + n for a, n in zip(cell, cuts, strict=True))
        part = Box(cell, (x, y, z)).intersection(coarse)
        fine = fine_box(part, factor).intersection(bounds)
        block = volume[(slice(None), *slices(fine, start))]
        made = downsample(block, factor=factor, start=fine.start, method=method)
        result[(slice(None), *slices(part, coarse.start))] = made
    np.testing.assert_array_equal(result, whole)


def slices(box: Box, origin: XYZ) -> tuple[slice, ...]:
    """`box` as z, y, x slices of an array that begins at `origin`."""
    spans = zip(box.start, box.stop, origin, strict=True)
    return tuple(slice(a - o, b - o) for a, b, o in spans)[::-1]


@pytest.mark.parity
class TestAgainstTensorStore:
    @pytest.mark.parametrize("method", ["mean", "mode", "min", "max"])
    @pytest.mark.parametrize("dtype", [*INTEGERS, "f4", "f8"])
    def test_same_voxels_on_the_absolute_grid(self, method: Method, dtype: str) -> None:
        rng = np.random.default_rng(7)
        for factor, start in itertools.product(FACTORS, [(0, 0, 0), (-7, 3, -4)]):
            if factor == (20, 20, 20) and start[1] == 3:
                continue  # TensorStore 0.1.86 reads beyond a lone window that is cut at its start.
            block = labels(rng, (2, 7, 10, 13), "u1", most=2).astype(dtype)
            if np.dtype(dtype).kind in "ui":
                block = labels(rng, block.shape, dtype, most=6)
            box, expected = by_tensorstore(block, factor=factor, start=start, method=method)
            shape = block.shape[:0:-1]
            x, y, z = (a + n for a, n in zip(start, shape, strict=True))
            assert coarse_box(Box(start, (x, y, z)), factor) == box
            np.testing.assert_array_equal(
                downsample(block, factor=factor, start=start, method=method), expected
            )

    def test_stride_agrees_where_every_window_begins_in_the_block(self) -> None:
        block = noise(np.random.default_rng(8), (1, 6, 9, 10), "u4")
        for start in [(0, 0, 0), (-4, 6, -2)]:
            _, expected = by_tensorstore(block, factor=(2, 3, 2), start=start, method="stride")
            found = downsample(block, factor=(2, 3, 2), start=start, method="stride")
            np.testing.assert_array_equal(found, expected)


def by_tensorstore(block: Array, *, factor: XYZ, start: XYZ, method: Method) -> tuple[Box, Array]:
    tensorstore = pytest.importorskip("tensorstore")
    fine = tensorstore.array(block)[tensorstore.d[1:4].translate_to[start[::-1]]]
    coarse = tensorstore.downsample(fine, [1, *factor[::-1]], method)
    _, *origin = coarse.domain.origin
    _, *stop = coarse.domain.exclusive_max
    return Box(tuple(origin[::-1]), tuple(stop[::-1])), coarse.read().result()


class TestMemory:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("dtype", ["u1", "u4", "u8", "i8", "f2", "f4"])
    def test_noise_takes_no_more_than_promised(self, method: Method, dtype: str) -> None:
        block = noise(np.random.default_rng(9), (1, 64, 128, 256), dtype)
        for factor in [(2, 2, 2), (1, 1, 2), (3, 3, 1)]:
            tracemalloc.start()
            result = downsample(block, factor=factor, start=(1, 0, 1), method=method)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak - result.nbytes < 16 << 20

    def test_labels_take_a_third_of_that(self) -> None:
        block = np.arange(64, dtype="u8").repeat(2**15).reshape(1, 64, 128, 256)
        tracemalloc.start()
        result = downsample(block, factor=(2, 2, 2), start=(1, 0, 1), method="mode")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak - result.nbytes < (16 << 20) // 3


class TestMistakes:
    def test_unknown_method_names_the_known(self) -> None:
        with pytest.raises(ValueError, match="'median'; expected one of mean, mode"):
            downsample(
                np.zeros((1, 2, 2, 2)),
                factor=(2, 2, 2),
                start=(0, 0, 0),
                method="median",  # type: ignore[arg-type]
            )

    def test_a_block_has_four_axes(self) -> None:
        with pytest.raises(ValueError, match="3 axes"):
            downsample(np.zeros((2, 2, 2)), factor=(2, 2, 2), start=(0, 0, 0), method="mean")

    @pytest.mark.parametrize("dtype", ["?", "c8", "O", "S3", "g"])
    def test_dtypes_that_are_no_voxels(self, dtype: str) -> None:
        with pytest.raises(TypeError, match="expected integers or floats"):
            downsample(
                np.zeros((1, 2, 2, 2), dtype), factor=(2, 2, 2), start=(0, 0, 0), method="mean"
            )

    def test_a_factor_is_at_least_one(self) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            downsample(np.zeros((1, 2, 2, 2)), factor=(2, 0, 2), start=(0, 0, 0), method="mean")
