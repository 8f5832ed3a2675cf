"""Finding a scale by index, key or resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from info_builders import info_json, read, scale_json

from precomputed_store.errors import MetadataError
from precomputed_store.metadata import VolumeInfo


@pytest.fixture
def info() -> VolumeInfo:
    return read(
        info_json(
            scale_json(key="fine", resolution=[4, 4, 40], size=[400, 400, 30]),
            scale_json(key="broken", encoding="npz", size=[0, 0, 0]),
            scale_json(key="../x/16_16_40", resolution=[16.5, 16.5, 40.0], size=[100, 100, 30]),
        )
    )


@pytest.mark.parametrize(
    ("selector", "index"),
    [
        (0, 0),
        (2, 2),
        (-1, 2),
        (-3, 0),
        (np.int64(2), 2),
        ("fine", 0),
        ("../x/16_16_40", 2),
        ((4, 4, 40), 0),
        ([4.0, 4.0, 40.0], 0),
        (np.array([16.5, 16.5, 40]), 2),
        ((16.500001, 16.5, 40), 2),
        ((value for value in (4, 4, 40)), 0),
    ],
)
def test_finds(info: VolumeInfo, selector: Any, index: int) -> None:
    assert info.scale_index(selector) == index


LISTING = (
    "this volume has:"
    "\n  0: key 'fine', resolution (4, 4, 40) nm, size (400, 400, 30)"
    "\n  1: key 'broken', unusable: "
    "scales[1].size[0]: expected an integer >= 1, got 0 (and 3 more problems)"
    "\n  2: key '../x/16_16_40', resolution (16.5, 16.5, 40.0) nm, size (100, 100, 30)"
)


@pytest.mark.parametrize(
    ("selector", "error", "words"),
    [
        (3, IndexError, "no scale with index 3; "),
        (-4, IndexError, "no scale with index -4; "),
        ("8_8_8", ValueError, "no scale with key '8_8_8'; "),
        ("", ValueError, "no scale with key ''; "),
        ("0", ValueError, "no scale with key '0'; "),
        ((8, 8, 8), ValueError, "no scale with resolution (8, 8, 8) nm; "),
        ((16.51, 16.5, 40), ValueError, "no scale with resolution (16.51, 16.5, 40) nm; "),
        ((4, 4), ValueError, "no scale with resolution (4, 4) nm; "),
        ((0, 0, 0), ValueError, "no scale with resolution (0, 0, 0) nm; "),
        ((float("nan"),) * 3, ValueError, "no scale with resolution (nan, nan, nan) nm; "),
        ((), ValueError, "no scale with resolution () nm; "),
    ],
)
def test_says_what_there_is_instead(
    info: VolumeInfo, selector: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        info.scale_index(selector)
    assert str(caught.value) == words + LISTING


@pytest.mark.parametrize(
    "selector",
    [None, True, np.True_, 1.0, {4, 40}, {"key": "fine"}, b"fine", ("4", "4", "4"), (None,) * 3],
)
def test_other_types_are_type_errors(info: VolumeInfo, selector: Any) -> None:
    with pytest.raises(TypeError, match=r"^scale: expected"):
        info.scale_index(selector)


@pytest.mark.parametrize("selector", [1, -2, "broken"])
def test_a_damaged_scale_says_what_is_wrong_with_it(info: VolumeInfo, selector: Any) -> None:
    with pytest.raises(MetadataError) as caught:
        info.scale_index(selector)
    assert [problem.location for problem in caught.value.problems] == [
        "scales[1].size[0]",
        "scales[1].size[1]",
        "scales[1].size[2]",
        "scales[1].encoding",
    ]


def test_of_two_near_resolutions_the_nearest_is_taken() -> None:
    info = read(
        info_json(
            scale_json(key="a", resolution=[8, 8, 8]),
            scale_json(key="b", resolution=[8.000001, 8, 8]),
        )
    )
    assert info.scale_index((8, 8, 8)) == 0
    assert info.scale_index((8.000001, 8, 8)) == 1


def test_of_several_scales_that_fit_the_first_is_taken() -> None:
    info = read(info_json(scale_json(), scale_json(hidden=True)))
    assert info.scale_index("8_8_8") == info.scale_index((8, 8, 8)) == 0


def test_open_scale_vectors(vectors: dict[str, Any]) -> None:
    info = read(
        info_json(
            scale_json(key="8_8_8", resolution=[5, 6, 7]),
            scale_json(key="16_16_16", resolution=[10, 11, 12]),
        )
    )
    single = [case for case in vectors["open_scale"]["cases"] if len(case["constraints"]) == 1]
    assert len(single) == 8
    for case in single:
        ((kind, selector),) = case["constraints"].items()
        if "scale" in case:
            assert info.scale_index(selector) == case["scale"], kind
        else:
            with pytest.raises((IndexError, ValueError), match="this volume has"):
                info.scale_index(selector)
