"""The compiled encoder of compresso writes what the library does, byte for byte."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st
from image_peers import frozen
from segmentation_peers import cloudvolume_decode, voxels_of

import precomputed_store as ps
from precomputed_store._native import compresso as native
from precomputed_store.codecs.compresso import Compresso, _wide_labels_in_full

compresso = pytest.importorskip("compresso")
pytestmark = pytest.mark.skipif(
    not native.is_available(), reason="the package was installed without a compiler"
)
DTYPES = ["uint8", "uint16", "uint32", "uint64"]
KINDS = ["noise", "sparse", "along x", "along y", "along z", "cells", "stripes"]
# Rows of one and of several words, of exactly one and two, and axes of one voxel.
SHAPES = st.one_of(
    st.tuples(*[st.integers(1, 20)] * 3),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(60, 140)),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.sampled_from([63, 64, 65, 127, 128, 129])),
    st.sampled_from([(1, 1, 1), (1, 1, 200), (1, 200, 1), (200, 1, 1)]),
)
FROZEN = [
    pytest.param(data, expected, id=name)
    for name, data, expected in frozen("compresso")
    if name.startswith("cloudvolume") and expected.itemsize < 8
]


def by_library(labels: npt.NDArray[Any]) -> bytes:
    """What the library writes, with wide labels behind escapes."""
    encoded = bytes(compresso.compress(np.asfortranarray(labels.T)))
    return _wide_labels_in_full(encoded) if labels.itemsize == 8 else encoded


def check(labels: npt.NDArray[Any]) -> None:
    encoded = native.encode(labels)
    assert encoded == by_library(labels)
    np.testing.assert_array_equal(compresso.decompress(encoded).T, labels)
    most = Compresso().max_encoded_bytes(shape=(1, *labels.shape), dtype=labels.dtype)
    assert len(encoded) <= most


@given(
    shape=SHAPES, dtype=st.sampled_from(DTYPES), kind=st.sampled_from(KINDS),
    labels=st.integers(1, 300), seed=st.integers(0, 9),
)  # fmt: skip
def test_it_writes_the_bytes_of_the_library(
    shape: tuple[int, int, int], dtype: str, kind: str, labels: int, seed: int
) -> None:
    check(voxels_of(kind, shape, dtype, labels, seed))


@pytest.mark.parametrize(("data", "expected"), FROZEN)
def test_it_writes_the_bytes_that_cloudvolume_wrote(
    data: bytes, expected: npt.NDArray[Any]
) -> None:
    assert native.encode(expected[0]) == data


@pytest.mark.parametrize("dtype", DTYPES)
def test_chunks_of_usual_sizes(dtype: str) -> None:
    for kind in KINDS:
        check(voxels_of(kind, (9, 64, 128), dtype, 20, 5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["noise", "sparse", "along y"])
def test_labels_that_are_no_locations_stand_behind_an_escape(kind: str, dtype: str) -> None:
    indices = voxels_of(kind, (3, 30, 40), "uint8", 25, 2).astype(dtype) % 25
    firsts = [np.iinfo(dtype).max - 24]
    if dtype == "uint64":
        firsts += [0xFFFFFFFF - 12, 1 << 40]
    for first in firsts:
        check(indices + np.dtype(dtype).type(first))


@pytest.mark.parametrize("dtype", DTYPES)
def test_cloudvolume_and_the_kernel_read_it(dtype: str) -> None:
    labels = voxels_of("sparse", (7, 33, 65), dtype, 30, 1)
    encoded = native.encode(labels)
    assert encoded is not None
    like = labels[np.newaxis]
    np.testing.assert_array_equal(cloudvolume_decode(encoded, "compresso", like=like), like)
    for z in range(7):
        out = np.empty((1, 33, 65), dtype)
        box = (z, z + 1), (0, 33), (0, 65)
        assert native.decode_box(encoded, shape=labels.shape, box=box, out=out) == 0
        np.testing.assert_array_equal(out[0], labels[z])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize(
    "step", [(1, 1, 1), (1, 2, 1), (-1, 1, -1), (2, 1, 3), (-2, -1, 1), (1, -3, -2)]
)
def test_arrays_of_any_strides_encode_alike(
    step: tuple[int, int, int], axes: tuple[int, int, int], dtype: str
) -> None:
    around = voxels_of("cells", (20, 30, 80), dtype, 12, 1)
    around[1::2, ::3, 1::2] += 1
    around.flags.writeable = False
    labels = around[1:-1:, 2:-2, 3:-3][tuple(slice(None, None, n) for n in step)].transpose(axes)
    assert native.encode(labels) == by_library(labels)


def test_arrays_without_alignment_or_of_another_byte_order_encode_alike() -> None:
    labels = voxels_of("cells", (5, 6, 70), "uint32", 12, 1)
    packed = np.zeros(labels.nbytes + 1, "uint8")[1:].view("uint32").reshape(labels.shape)
    packed[...] = labels
    assert not packed.flags.aligned
    for other in (packed, labels.astype(">u4"), np.broadcast_to(labels[:1], labels.shape)):
        assert native.encode(other) == by_library(np.ascontiguousarray(other, "uint32"))


@pytest.mark.parametrize("length", [32766, 32767, 32768, 32769, 65535])
def test_runs_of_empty_windows_end_where_the_longest_code_does(length: int) -> None:
    labels = np.zeros((length, 4, 4), "uint16")
    check(labels)
    labels[-1, :2, :2] = 1
    check(labels)


def slices_of_all_windows() -> npt.NDArray[np.uint8]:
    """For every set of 4 x 4 boundary voxels that labels can have, 5 x 5 labels that have it."""
    rows, columns = np.indices((4, 4))
    bits = np.arange(1 << 16)[:, np.newaxis, np.newaxis] >> (4 * rows + columns) & 1
    labels = np.broadcast_to(np.arange(25, dtype="uint8").reshape(5, 5), (1 << 16, 5, 5)).copy()
    for _ in range(25):  # until the least label of what belongs together is everywhere
        for y, x in np.ndindex(4, 4):
            inside = bits[:, y, x] == 0
            alike = [labels[inside, b, a] for b, a in ((y, x), (y, x + 1), (y + 1, x))]
            for b, a in ((y, x), (y, x + 1), (y + 1, x)):
                labels[inside, b, a] = np.minimum.reduce(alike)
    here = labels[:, :4, :4]
    found = (here != labels[:, :4, 1:]) | (here != labels[:, 1:, :4])
    return labels[(found == bits).all((1, 2))]


def test_chunks_of_more_windows_than_can_be_numbered_are_left_to_the_library() -> None:
    labels = slices_of_all_windows()
    steps_of = {}
    low, high = 30_000, 33_000  # slices, and the number of windows grows with them
    while high - low > 1:
        middle = (low + high) // 2
        steps_of[middle] = by_library(labels[:middle])[12:15]
        low, high = (low, middle) if steps_of[middle] == bytes((8, 8, 1)) else (middle, high)
    last = native.encode(labels[:low])
    assert last == by_library(labels[:low])
    assert int.from_bytes(last[23:27], "little") == 32768
    assert native.encode(labels[:high]) is None
    assert Compresso().encode(labels[np.newaxis, :high]) == by_library(labels[:high])


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 3, 0), (65536, 1, 1), (1, 1, 65536)])
def test_what_has_no_voxels_or_too_many_is_not_for_the_kernel(
    shape: tuple[int, int, int],
) -> None:
    assert native.encode(np.zeros(shape, "uint32")) is None


def test_no_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    without = SimpleNamespace(encode_compresso_uint8=lambda *_: -1)
    monkeypatch.setattr(native, "_library", lambda: without)
    with pytest.raises(MemoryError, match=r"no memory to encode a chunk of \(2, 3, 4\) voxels"):
        native.encode(np.zeros((2, 3, 4), "uint8"))


def test_layers_are_the_same_files_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = voxels_of("cells", (30, 41, 52), "uint64", 30, 4)
    for name in ("kernel", "library"):
        if name == "library":
            monkeypatch.setattr(native, "encode", lambda _labels: None)
        ps.to_precomputed(
            voxels,
            tmp_path / name,
            dims=("z", "y", "x"),
            resolution=(8, 8, 8),
            encoding="compresso",
            chunk_size=(16, 16, 16),
        )
    files = {
        name: {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*-*_*-*_*-*")
        }
        for name in ("kernel", "library")
    }
    assert len(files["kernel"]) == 24
    assert files["kernel"] == files["library"]
