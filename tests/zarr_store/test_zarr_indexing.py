"""Every way to index a zarr array, against numpy; cropped chunks, channels, encodings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr
from packaging.version import Version

import precomputed_store as ps

from .conftest import Layer

PIPELINES = ["BatchedCodecPipeline"]
if hasattr(zarr.core.codec_pipeline, "FusedCodecPipeline"):
    PIPELINES.append("FusedCodecPipeline")

BASIC: list[Any] = [
    ...,
    (),
    0,
    -1,
    (slice(None), 16, 34, 24),
    (0, 0, 0, 0),
    (slice(None), slice(5, 13), slice(9, 31), slice(7, 25)),
    (slice(None), slice(None), slice(None), slice(24, 25)),
    (slice(None), slice(1, 17, 5), slice(0, 35, 7), slice(3, None, 11)),
    (..., slice(-9, -1)),
    (slice(None), -3),
    (slice(None), slice(4, 4)),
]

MASK_Z = np.arange(17) % 3 == 1
MASK_Y = np.arange(35) % 4 == 0
MASK_X = np.arange(25) > 20

OUTER: list[Any] = [
    (slice(None), [0, 5, 16], slice(None), slice(None)),
    (slice(None), slice(None), slice(None), MASK_X),
    (slice(None), MASK_Z, MASK_Y, MASK_X),
    (0, [16, 2], slice(3, 30, 4), [24, 0, 8]),
    ([0], 3, MASK_Y, slice(None)),
    (slice(None), slice(None), [34, -1, 0, 9, 10], 24),
]

POINTS: list[Any] = [
    ([0, 0, 0], [0, 16, 5], [34, 0, 10], [24, 8, 7]),
    ([0], [16], [34], [24]),
    tuple(np.random.default_rng(1).integers(0, n, (4, 5)) for n in (1, 17, 35, 25)),
]


@pytest.fixture(params=PIPELINES)
def array(request: pytest.FixtureRequest, layer: Layer) -> Any:
    path = f"zarr.core.codec_pipeline.{request.param}"
    with zarr.config.set({"codec_pipeline.path": path}):
        yield zarr.open_group(ps.PrecomputedStore(layer.folder), mode="r")["0"]


def outer(selection: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """The same orthogonal selection as numpy takes it, and the axes to drop afterwards."""
    arrays = [
        np.atleast_1d(np.arange(n)[np.asarray(item) if isinstance(item, list) else item])
        for item, n in zip(selection, shape, strict=True)
    ]
    dropped = tuple(i for i, item in enumerate(selection) if isinstance(item, int))
    return np.ix_(*arrays), dropped


@pytest.mark.parametrize("selection", BASIC, ids=repr)
def test_basic_selections_read_what_numpy_reads(array: Any, layer: Layer, selection: Any) -> None:
    np.testing.assert_array_equal(array[selection], layer.expected[selection])


@pytest.mark.parametrize("selection", OUTER, ids=range(len(OUTER)))
def test_orthogonal_selections_read_what_numpy_reads(
    array: Any, layer: Layer, selection: Any
) -> None:
    index, dropped = outer(selection, layer.expected.shape)
    if dropped and Version(zarr.__version__) < Version("3.1.6"):
        pytest.skip("zarr drops the axes of integers from partial reads since 3.1.6")
    np.testing.assert_array_equal(
        array.oindex[selection], layer.expected[index].squeeze(axis=dropped)
    )


@pytest.mark.parametrize("selection", POINTS, ids=range(len(POINTS)))
def test_pointwise_selections_read_what_numpy_reads(
    array: Any, layer: Layer, selection: Any
) -> None:
    np.testing.assert_array_equal(array.vindex[selection], layer.expected[selection])


def test_a_mask_of_the_whole_array_reads_what_numpy_reads(array: Any, layer: Layer) -> None:
    mask = layer.expected % 3 == 0
    np.testing.assert_array_equal(array.vindex[mask], layer.expected[mask])


def test_blocks_are_whole_chunks(array: Any, layer: Layer) -> None:
    np.testing.assert_array_equal(array.blocks[0, 2, 3, 3], layer.expected[:, 12:17, 30:35, 24:25])


def test_an_index_outside_is_an_error(array: Any) -> None:
    with pytest.raises(IndexError):
        array[0, 17]
