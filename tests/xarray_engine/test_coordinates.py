"""What coordinates say of voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, strategies as st

from precomputed_store.codecs.raw import Raw
from precomputed_store.metadata import Scale
from precomputed_store.xarray_coords import CoordinateKind, read_axis, scale_coordinates

RESOLUTIONS = st.integers(1, 10_000) | st.floats(0.01, 10_000, allow_subnormal=False)


def coordinate(values: Any, **attrs: Any) -> xr.DataArray:
    return xr.DataArray(values, dims="x", coords={"x": ("x", values, attrs)})["x"]


@given(
    offset=st.integers(-(2**30), 2**30),
    size=st.integers(1, 300),
    resolution=RESOLUTIONS,
    kind=st.sampled_from(["physical", "voxel"]),
)
def test_coordinates_say_where_the_voxels_were(
    offset: int, size: int, resolution: float, kind: CoordinateKind
) -> None:
    scale = Scale(
        key="a",
        size=(size, 1, 1),
        resolution=(resolution, 1, 1),
        voxel_offset=(offset, 0, 0),
        chunk_sizes=((1, 1, 1),),
        codec=Raw(),
    )
    _, values, attrs = scale_coordinates(scale, kind)["x"]
    axis = read_axis(coordinate(values, **attrs), name="x")
    assert axis.kind == kind
    assert axis.voxel(resolution) == offset
    if size > 1 and kind == "physical":
        assert axis.step == pytest.approx(resolution, rel=1e-6)


@pytest.mark.parametrize("resolution", [8, 4.2, 33, 0.3, 1 / 3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rounding_errors_do_not_reach_the_resolution(resolution: float, dtype: str) -> None:
    values = ((np.arange(1000, 1100) + 0.5) * resolution).astype(dtype)
    axis = read_axis(coordinate(values), name="x")
    assert axis.step == pytest.approx(resolution, rel=1e-12 if dtype == "float64" else 1e-5)
    assert axis.voxel(resolution) == 1000


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ("nm", 12),
        ("Nanometers", 12),
        ("um", 12_000),
        ("MICRONS", 12_000),
        ("mm", 12e6),
        ("Å", 1.2),
    ],
)
def test_lengths_are_in_nanometres(units: str, expected: float) -> None:
    axis = read_axis(coordinate(np.array([4, 16, 28]), units=units), name="x")
    assert axis.step == pytest.approx(expected)


@pytest.mark.parametrize("units", ["Mm", "NM", "s", "degrees", "1"])
def test_other_units_are_refused(units: str) -> None:
    with pytest.raises(ValueError, match="expected 'voxel' or a length"):
        read_axis(coordinate(np.array([4, 16, 28]), units=units), name="x")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, 1, np.nan], "finite numbers"),
        ([0.0, 1, 2.1], "not evenly spaced: they differ from steps of 1.05 by up to 0.05"),
        ([3, 2, 1], "do not increase"),
        ([1, 1, 1], "do not increase"),
        (np.array(["2020-01-01", "2020-01-02"], "M8[ns]"), "datetime64"),
        ([True, False], "bool"),
    ],
)
def test_coordinates_that_are_no_positions_are_refused(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_axis(coordinate(values), name="x")


def test_a_single_voxel_has_a_place_but_no_size() -> None:
    axis = read_axis(coordinate([20.0]), name="x")
    assert axis.step is None
    assert axis.voxel(8) == 2
    with pytest.raises(ValueError, match="not the centre of a voxel"):
        axis.voxel(5)
