"""Random writes and reads through every door, against a numpy array."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import precomputed_store as ps
from tests.oracles import make_info, tensorstore_read

SIZES = st.tuples(*[st.integers(1, 24)] * 3)
CHUNKS = st.tuples(*[st.integers(3, 11)] * 3)
OFFSETS = st.tuples(*[st.integers(-20, 20)] * 3)
KINDS = st.sampled_from(
    [
        ("raw", "uint8", 1, "image"),
        ("raw", "float32", 2, "image"),
        ("png", "uint16", 1, "image"),
        ("compressed_segmentation", "uint64", 1, "segmentation"),
        ("compressed_segmentation", "uint32", 2, "segmentation"),
    ]
)


class Doors(RuleBasedStateMachine):
    """One layer on a local disk and the numpy array ``(x, y, z, channel)`` that it should be."""

    @initialize(size=SIZES, chunk=CHUNKS, offset=OFFSETS, kind=KINDS)
    def create(self, size: Any, chunk: Any, offset: Any, kind: Any) -> None:
        encoding, dtype, channels, layer_type = kind
        self.folder = Path(tempfile.mkdtemp())
        self.offset = offset
        self.expected = np.zeros((*size, channels), dtype)
        self.rng = np.random.default_rng(sum(size))
        info = make_info(
            size=size,
            dtype=dtype,
            num_channels=channels,
            voxel_offset=offset,
            chunk_size=chunk,
            encoding=encoding,
            layer_type=layer_type,
        )
        ps.create(self.folder, info)
        self.volume = ps.open_volume(self.folder, mode="r+", unaligned="read-modify-write")

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def region(self, data: Any) -> tuple[slice, ...]:
        """A random box, from zero."""
        edges = [
            sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
            for n in self.expected.shape[:3]
        ]
        return tuple(slice(a, b) for a, b in edges)

    def values(self, region: tuple[slice, ...], data: Any) -> np.ndarray:
        shape = self.expected[region].shape
        if data.draw(st.booleans()):
            return np.zeros(shape, self.expected.dtype)
        return self.rng.integers(0, 4, shape).astype(self.expected.dtype)

    def absolute(self, region: tuple[slice, ...]) -> tuple[slice, ...]:
        return tuple(
            slice(s.start + o, s.stop + o) for s, o in zip(region, self.offset, strict=True)
        )

    @rule(data=st.data())
    def write_through_the_volume(self, data: Any) -> None:
        region = self.region(data)
        values = self.values(region, data)
        self.volume[self.absolute(region)] = values
        self.expected[region] = values

    @rule(data=st.data())
    def write_through_zarr(self, data: Any) -> None:
        region = self.region(data)
        values = self.values(region, data)
        store = ps.PrecomputedStore(str(self.folder), read_only=False)
        array: Any = zarr.open_group(store, mode="r+")["0"]
        array[(slice(None), *reversed(region))] = values.transpose()
        self.expected[region] = values

    @rule(data=st.data())
    def write_with_dask(self, data: Any) -> None:
        region = self.region(data)
        values = self.values(region, data)
        if not values.size:
            return
        source = da.from_array(values, chunks=data.draw(st.integers(1, 9)))
        box = ps.Box(*zip(*[(s.start, s.stop) for s in self.absolute(region)], strict=True))
        ps.to_precomputed(
            source,
            self.folder,
            dims=("x", "y", "z", "channel"),
            mode="r+",
            region=box,
            unaligned="read-modify-write",
        )
        self.expected[region] = values

    @rule(data=st.data())
    def read_a_region_through_every_door(self, data: Any) -> None:
        region = self.region(data)
        expected = self.expected[region]
        np.testing.assert_array_equal(self.volume[self.absolute(region)], expected)
        backwards = (slice(None), *reversed(region))
        store = ps.PrecomputedStore(str(self.folder))
        array: Any = zarr.open_group(store, mode="r")["0"]
        np.testing.assert_array_equal(array[backwards], expected.transpose())
        with xr.open_dataset(self.folder, engine="precomputed") as dataset:
            variable = dataset[next(iter(dataset.data_vars))]
            np.testing.assert_array_equal(variable[backwards].values, expected.transpose())
        lazy = ps.open_dask(self.folder)[backwards]
        np.testing.assert_array_equal(lazy.compute(), expected.transpose())

    @invariant()
    def tensorstore_agrees(self) -> None:
        if hasattr(self, "folder"):
            np.testing.assert_array_equal(tensorstore_read(self.folder), self.expected)


Doors.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


TestDoors = Doors.TestCase
# Legal here, and said so: channels in a segmentation, and reads of what was never written.
TestDoors.pytestmark = [
    pytest.mark.filterwarnings("ignore::precomputed_store.errors.PrecomputedWarning")
]
