"""Which scales a pyramid has."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from precomputed_store.grid import XYZ
from precomputed_store.pyramid_plan import (
    MAX_STEPS,
    ScaleGeometry,
    coarse_scale_geometry,
    parse_pyramid,
)


def triples(elements: st.SearchStrategy[int]) -> st.SearchStrategy[XYZ]:
    return st.tuples(elements, elements, elements)


def plan(
    pyramid: Any,
    resolution: tuple[float, float, float] = (4, 4, 40),
    size: XYZ = (2048, 2048, 256),
    chunk_size: XYZ = (64, 64, 64),
    **more: Any,
) -> tuple[XYZ, ...]:
    return parse_pyramid(pyramid, resolution=resolution, size=size, chunk_size=chunk_size, **more)


def scales(fine: ScaleGeometry, factors: tuple[XYZ, ...]) -> list[ScaleGeometry]:
    return list(itertools.accumulate(factors, coarse_scale_geometry, initial=fine))


class TestAuto:
    def test_sections_thicker_than_pixels_are_halved_last(self) -> None:
        factors = plan("auto")
        assert factors == ((2, 2, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2))
        fine = ScaleGeometry(size=(2048, 2048, 256), voxel_offset=(0, 0, 0), resolution=(4, 4, 40))
        assert [scale.resolution for scale in scales(fine, factors)] == [
            (4, 4, 40),
            (8, 8, 40),
            (16, 16, 40),
            (32, 32, 40),
            (64, 64, 80),
            (128, 128, 160),
        ]

    @pytest.mark.parametrize("resolution", [(8, 8, 8), (10.5, 10.5, 10.5), (4, 5, 5)])
    def test_isotropic_voxels_shrink_along_every_axis(
        self, resolution: tuple[float, float, float]
    ) -> None:
        assert plan("auto", resolution, (256, 256, 256)) == ((2, 2, 2), (2, 2, 2))

    def test_neuroglancer_scripts_example(self) -> None:
        # 21 x 21 x 200 nm: sections stay until the pixels have caught up with them.
        factors = plan("auto", (21, 21, 200), (30000, 20000, 600))
        assert factors[:4] == ((2, 2, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2))

    def test_an_axis_is_halved_if_that_brings_it_nearer(self) -> None:
        assert plan(1, (16, 16, 22)) == ((2, 2, 2),)
        assert plan(1, (16, 16, 23)) == ((2, 2, 1),)
        assert plan(1, (30, 4, 4)) == ((1, 2, 2),)

    def test_ends_with_the_first_scale_that_fits_into_a_chunk(self) -> None:
        assert len(plan("auto", (8, 8, 8), (128, 64, 64))) == 1
        assert len(plan("auto", (8, 8, 8), (129, 64, 64))) == 2
        assert plan("auto", (8, 8, 8), (64, 64, 64)) == ()

    def test_the_offset_decides_what_fits(self) -> None:
        assert len(plan("auto", (8, 8, 8), (128, 64, 64), voxel_offset=(1, 0, 0))) == 2

    def test_single_sections_are_neither_halved_nor_compared(self) -> None:
        for z in (1, 4, 40):
            assert plan("auto", (4, 4, z), (1024, 1024, 1)) == ((2, 2, 1),) * 4

    def test_an_axis_that_became_one_voxel_stays(self) -> None:
        factors = plan("auto", (8, 8, 8), (1024, 1024, 3))
        assert factors == ((2, 2, 2), (2, 2, 2), (2, 2, 1), (2, 2, 1))

    def test_ends_where_nothing_shrinks(self) -> None:
        assert plan("auto", size=(1, 1, 1), chunk_size=(1, 1, 1)) == ()
        stuck = plan("auto", (8, 8, 8), (2, 2, 2), (1, 1, 1), voxel_offset=(-1, -1, -1))
        assert stuck == ()

    @given(
        triples(st.integers(1, 100_000)),
        triples(st.integers(-1000, 1000)),
        triples(st.integers(1, 50)),
        triples(st.sampled_from([1, 16, 64])),
    )
    def test_ends_in_a_chunk_and_keeps_voxels_as_isotropic_as_it_can(
        self, size: XYZ, voxel_offset: XYZ, resolution: XYZ, chunk_size: XYZ
    ) -> None:
        factors = plan("auto", resolution, size, chunk_size, voxel_offset=voxel_offset)
        fine = ScaleGeometry(size=size, voxel_offset=voxel_offset, resolution=resolution)
        *others, last = scales(fine, factors)
        assert all(n <= max(c, 2) for n, c in zip(last.size, chunk_size, strict=True))
        for scale in others:
            assert any(n > c for n, c in zip(scale.size, chunk_size, strict=True))
        for scale, coarse in itertools.pairwise([*others, last]):
            live = [axis for axis in range(3) if coarse.size[axis] > 2]
            spread = [
                max(rs) / min(rs)
                for rs in ([s.resolution[axis] for axis in live] or [1] for s in (scale, coarse))
            ]
            assert spread[1] <= max(spread[0], 2)


class TestFactors:
    def test_none_is_no_pyramid(self) -> None:
        assert plan(None) == ()
        assert plan(0) == ()
        assert plan([]) == ()

    @pytest.mark.parametrize("written", ["2x2x1", "2×2×1"])
    def test_a_factor_is_repeated_until_it_fits_where_it_shrinks(self, written: str) -> None:
        assert plan(written, size=(1000, 100, 5000)) == ((2, 2, 1),) * 4

    def test_igneous_volumetric_default(self) -> None:
        assert plan("2x2x2", size=(512, 512, 512)) == ((2, 2, 2),) * 3

    def test_a_factor_that_fits_already_is_not_applied(self) -> None:
        assert plan("1x1x2", size=(1000, 1000, 64)) == ()

    def test_a_factor_that_no_longer_shrinks_ends_the_pyramid(self) -> None:
        stuck = plan("2x1x1", size=(2, 1, 1), chunk_size=(1, 1, 1), voxel_offset=(-1, 0, 0))
        assert stuck == ()

    def test_a_number_is_that_many_automatic_steps(self) -> None:
        assert plan(2, size=(10, 10, 10)) == ((2, 2, 1), (2, 2, 1))
        assert plan(np.int64(4)) == ((2, 2, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2))

    def test_a_number_ends_with_the_last_voxel(self) -> None:
        assert plan(9, (8, 8, 8), (4, 3, 1)) == ((2, 2, 1), (2, 2, 1))

    def test_a_list_is_taken_as_it_is(self) -> None:
        assert plan([(3, 3, 1), (1, 1, 5)], size=(2, 2, 2)) == ((3, 3, 1), (1, 1, 5))
        assert plan(np.array([[2, 2, 1], [4, 4, 2]])) == ((2, 2, 1), (4, 4, 2))
        assert plan(iter([[2, 2, 2]])) == ((2, 2, 2),)

    def test_parsed_factors_are_plain_integers(self) -> None:
        (factor,) = plan([np.array([2, 2, 1])])
        assert all(type(n) is int for n in factor)


class TestMistakes:
    @pytest.mark.parametrize(
        "pyramid",
        [
            "",
            "Auto",
            "2x2",
            "2x2x2x2",
            "2.0x2x1",
            "-2x2x1",
            "2 x 2 x 1",
            "٢x2x1",
            2.0,
            True,
            False,
            object(),
            (2, 2, 1),
            ["2x2x1"],
            [2],
            b"auto",
        ],
    )
    def test_what_is_no_pyramid_shows_what_would_be(self, pyramid: Any) -> None:
        with pytest.raises(ValueError, match=r'expected None, "auto"'):
            plan(pyramid)

    @pytest.mark.parametrize(
        "factor", [(2, 2), (2, 2, 2, 2), (2.0, 2, 1), (True, 2, 2), ("2", 2, 1), (None, 2, 2)]
    )
    def test_a_factor_is_three_integers(self, factor: Any) -> None:
        with pytest.raises(ValueError, match="expected three integers"):
            plan([(2, 2, 1), factor])

    @pytest.mark.parametrize("pyramid", ["0x2x2", [(2, 2, -1)], [(0, 1, 1)]])
    def test_a_factor_is_positive(self, pyramid: Any) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            plan(pyramid)

    @pytest.mark.parametrize("pyramid", ["1x1x1", [(1, 1, 1)]])
    def test_a_factor_shrinks_something(self, pyramid: Any) -> None:
        with pytest.raises(ValueError, match="makes nothing coarser"):
            plan(pyramid)

    @pytest.mark.parametrize("steps", [-1, MAX_STEPS + 1, 10**20])
    def test_a_number_of_steps_is_bounded(self, steps: int) -> None:
        with pytest.raises(ValueError, match=f"expected from 0 to {MAX_STEPS}"):
            plan(steps)

    def test_all_pyramids_are_bounded(self) -> None:
        huge = (2**60, 2**60, 2**60)
        endless = itertools.repeat((2, 2, 2))
        for pyramid in ("auto", "2x2x2", endless):
            with pytest.raises(ValueError, match="more than 32 steps"):
                plan(pyramid, size=huge)
        assert len(plan(MAX_STEPS, size=huge)) == MAX_STEPS


class TestGeometry:
    def test_covers_the_finer_scale(self) -> None:
        fine = ScaleGeometry(size=(5, 4, 3), voxel_offset=(3, -1, -4), resolution=(8, 8, 30))
        coarse = coarse_scale_geometry(fine, (2, 2, 3))
        assert coarse == ScaleGeometry(
            size=(3, 3, 2), voxel_offset=(1, -1, -2), resolution=(16, 16, 90)
        )

    def test_whole_resolutions_are_integers(self) -> None:
        fine = ScaleGeometry(size=(4, 4, 4), voxel_offset=(0, 0, 0), resolution=(4.0, 0.5, 2.3))
        coarse = coarse_scale_geometry(fine, (2, 2, 1))
        assert coarse.resolution == (8, 1, 2.3)
        assert [type(r) for r in coarse.resolution] == [int, int, float]

    @given(
        triples(st.integers(1, 500)), triples(st.integers(-500, 500)), triples(st.integers(1, 9))
    )
    def test_two_steps_are_one_step_of_the_product(
        self, size: XYZ, voxel_offset: XYZ, factor: XYZ
    ) -> None:
        fine = ScaleGeometry(size=size, voxel_offset=voxel_offset, resolution=(1, 1, 1))
        x, y, z = factor
        twice = coarse_scale_geometry(coarse_scale_geometry(fine, factor), (2, 3, 1))
        assert twice == coarse_scale_geometry(fine, (2 * x, 3 * y, z))
