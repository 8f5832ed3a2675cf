"""Voxels ⇄ coordinates of an xarray dataset.

A physical coordinate is the centre of a voxel, ``(voxel + 0.5) * resolution`` in
nanometres, where `voxel` counts `voxel_offset` in. So layers of the same resolution have
equal coordinates for the same voxels wherever they begin, and averaging pairs of voxels
gives the coordinates of the next scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from precomputed_store.errors import PrecomputedWarning, warn_caller
from precomputed_store.metadata import Scale

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = [
    "AxisCoordinates",
    "CoordinateKind",
    "nanometres",
    "physical_coordinate",
    "read_axis",
    "scale_coordinates",
]

CoordinateKind: TypeAlias = Literal["physical", "voxel"] | None
"""Voxel centres in nanometres, integer voxel indices, or no coordinates at all."""

_KINDS = (*get_args(Literal["physical", "voxel"]), None)
VOXEL_UNIT = "voxel"

_NM = {
    "pm": 1e-3, "picometer": 1e-3, "picometre": 1e-3,
    "angstrom": 0.1, "Å": 0.1,
    "nm": 1, "nanometer": 1, "nanometre": 1,
    "um": 1e3, "µm": 1e3, "μm": 1e3, "micron": 1e3, "micrometer": 1e3, "micrometre": 1e3,
    "mm": 1e6, "millimeter": 1e6, "millimetre": 1e6,
    "cm": 1e7, "centimeter": 1e7, "centimetre": 1e7,
    "m": 1e9, "meter": 1e9, "metre": 1e9,
}  # fmt: skip
_VOXEL_UNITS = ("voxel", "vx", "pixel", "px", "index")

# Longer axes of fractional coordinates would take 1 GiB and more each.
_MOST_FLOATS = 1 << 27
# Coordinates may be off by this part of a voxel, beyond what their data type loses.
_TOLERANCE = 1e-3


def check_kind(kind: CoordinateKind) -> None:
    if kind not in _KINDS:
        raise ValueError(f"coords is {kind!r}; expected 'physical', 'voxel' or None")


def scale_coordinates(
    scale: Scale, kind: CoordinateKind
) -> dict[str, tuple[str, Any, dict[str, str]]]:
    """Coordinates of one scale, as the `coords` of an `xarray.Dataset`.

    Parameters
    ----------
    scale : Scale
    kind : {"physical", "voxel", None}
        Voxel centres in nanometres, integer voxel indices with `voxel_offset`, or none.

    Returns
    -------
    dict of str to (dimension, index, attributes)
        Along z, y and x. A `pandas.RangeIndex`, which takes no memory, where every
        coordinate is an integer; else float64.
    """
    check_kind(kind)
    if kind is None:
        return {}
    coordinates = {}
    for axis in (2, 1, 0):
        name, offset, size = "xyz"[axis], scale.voxel_offset[axis], scale.size[axis]
        if kind == "voxel":
            attrs = {"units": VOXEL_UNIT, "long_name": f"{name} (voxel index)"}
            index = _range_index(offset, 1, size)
            coordinates[name] = (name, index, {**attrs, "axis": name.upper()})
        else:
            found = physical_coordinate(name, offset, size, scale.resolution[axis])
            coordinates |= {} if found is None else {name: found}
    return coordinates


def physical_coordinate(
    name: str, offset: int, size: int, resolution: float
) -> tuple[str, Any, dict[str, str]] | None:
    """The centres of the voxels along one axis, in nanometres.

    Parameters
    ----------
    name : str
        ``"x"``, ``"y"`` or ``"z"``.
    offset, size : int
        The first voxel, and how many there are.
    resolution : float
        Nanometres.

    Returns
    -------
    (dimension, index, attributes), or None
        None, with a warning, where it would take too much memory.
    """
    index = _centres(offset, size, resolution, name=name)
    if index is None:
        return None
    attrs = {"units": "nm", "long_name": f"{name} (voxel centre)", "axis": name.upper()}
    return name, index, attrs


def _centres(offset: int, size: int, resolution: float, *, name: str) -> Any:
    first = (2 * offset + 1) * resolution / 2
    if float(resolution).is_integer() and float(first).is_integer():
        start = (2 * offset + 1) * int(resolution) // 2
        stop = start + int(resolution) * size
        if start >= -(2**63) and stop < 2**63:
            return _range_index(start, int(resolution), size)
    if size > _MOST_FLOATS:
        warn_caller(
            f"no coordinate along {name}: its {size} fractional numbers take "
            f'{8 * size / 2**30:.0f} GiB; use coords="voxel"',
            PrecomputedWarning,
        )
        return None
    # From the absolute index, so that layers with different offsets agree to the last bit.
    return (np.arange(offset, offset + size) + 0.5) * resolution


def _range_index(start: int, step: int, size: int) -> pd.RangeIndex:
    import pandas as pd

    return pd.RangeIndex(start, start + step * size, step)


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisCoordinates:
    """Evenly spaced coordinates along one axis.

    Attributes
    ----------
    name : str
        ``"x"``, ``"y"`` or ``"z"``.
    kind : {"physical", "voxel"}
    first : float
        The first, in nanometres or voxels.
    step : float or None
        Distance to the next; None if there is only one.
    error : float
        By how much each may be off, for its data type's sake.
    """

    name: str
    kind: Literal["physical", "voxel"]
    first: float
    step: float | None
    error: float

    def voxel(self, resolution: float) -> int:
        """Index of the first voxel, `voxel_offset` counted in.

        Raises
        ------
        ValueError
            The coordinates are not those of voxels of this `resolution` (nanometres).
        """
        step = 1 if self.kind == "voxel" else resolution
        shift = 0.0 if self.kind == "voxel" else 0.5
        unit = "" if self.kind == "voxel" else " nm"
        if self.step is not None and not math.isclose(self.step, step, rel_tol=_TOLERANCE):
            raise ValueError(
                f"coordinates along {self.name} are {self.step:g}{unit} apart; voxels are "
                f"{step:g}{unit}. Pass resolution= and voxel_offset= (or region=)"
            )
        place = self.first / step - shift
        if abs(place - round(place)) > _TOLERANCE + self.error / step:
            raise ValueError(
                f"coordinates along {self.name} begin at {self.first:g}{unit}, which is not the "
                f"centre of a voxel, (i + 0.5) × {step:g}{unit}: shift them, or pass "
                "voxel_offset= (or region=)"
            )
        return round(place)


def read_axis(coordinate: xr.DataArray, *, name: str) -> AxisCoordinates:
    """What the coordinate of a dimension says of its voxels.

    Parameters
    ----------
    coordinate : xarray.DataArray
        One-dimensional. Without a `units` attribute it is in nanometres.
    name : str
        ``"x"``, ``"y"`` or ``"z"``.

    Raises
    ------
    ValueError
        It is not evenly spaced, decreases, is not numeric, or has an unknown unit.
    """
    kind, factor = _unit(coordinate, name)
    start, step, size, error = _spacing(coordinate, name)
    if size > 1 and step <= 0:
        raise ValueError(
            f"coordinates along {name} do not increase: sort them first, array.sortby({name!r})"
        )
    return AxisCoordinates(
        name=name,
        kind=kind,
        first=start * factor,
        step=_tidy(step * factor, error * factor) if size > 1 else None,
        error=error * factor,
    )


def _unit(coordinate: xr.DataArray, name: str) -> tuple[Literal["physical", "voxel"], float]:
    unit = str(coordinate.attrs.get("units", "nm")).strip()
    if _plain(unit) in _VOXEL_UNITS:
        return "voxel", 1
    factor = nanometres(unit)
    if factor is not None:
        return "physical", factor
    raise ValueError(
        f"coordinates along {name} have units {unit!r}; expected 'voxel' or a length: "
        f"{', '.join(_NM)}. Or drop them, array.drop_vars({name!r})"
    )


def nanometres(unit: str) -> float | None:
    """How many nanometres a unit of length is; None if it is not known.

    Examples
    --------
    >>> nanometres("um"), nanometres("Micrometers"), nanometres("pixel")
    (1000.0, 1000.0, None)
    """
    return _NM.get(_plain(unit.strip()))


def _plain(unit: str) -> str:
    # Names may be plural and capitalised; symbols may not: "Mm" is no millimetre.
    return unit.lower().removesuffix("s") if len(unit) > 2 else unit


def _spacing(coordinate: xr.DataArray, name: str) -> tuple[float, float, int, float]:
    """First coordinate, distance of two, how many, and by how much they may be off."""
    import pandas as pd

    index = coordinate.variable.to_index() if coordinate.ndim == 1 else None
    if isinstance(index, pd.RangeIndex):
        return index.start, index.step, len(index), 0.0
    values: npt.NDArray[Any] = coordinate.to_numpy()
    if values.ndim != 1 or values.dtype.kind not in "iuf" or not np.all(np.isfinite(values)):
        raise ValueError(
            f"the coordinate along {name} is {values.dtype} of {values.ndim} dimension(s); "
            f"expected finite numbers along one. Drop it, array.drop_vars({name!r})"
        )
    largest = float(np.max(np.abs(values)))
    error = 4 * float(np.finfo(values.dtype).eps) * largest if values.dtype.kind == "f" else 0.0
    exact = values.astype(np.float64)
    if len(exact) == 1:
        return exact[0], 0.0, 1, error
    step = (exact[-1] - exact[0]) / (len(exact) - 1)
    even = exact[0] + step * np.arange(len(exact))
    if np.max(np.abs(exact - even)) > abs(step) * _TOLERANCE + error:
        raise ValueError(
            f"coordinates along {name} are not evenly spaced: they differ from steps of "
            f"{step:g} by up to {np.max(np.abs(exact - even)):g}. Precomputed layers have one "
            "resolution: interpolate, or drop the coordinate and pass resolution="
        )
    return exact[0], step, len(exact), error


def _tidy(value: float, error: float) -> float:
    """A computed number without its rounding error: 8 for 8.000000000000002."""
    digits = 6 if error > 1e-6 * abs(value) else 12
    return float(f"{value:.{digits}g}")
