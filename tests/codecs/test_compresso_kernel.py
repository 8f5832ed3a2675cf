"""The compiled kernel of compresso does what the library does, of as much as is wanted."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from segmentation_peers import check_layer, voxels_of

from precomputed_store._native import compresso as native
from precomputed_store.codecs.compresso import Compresso
from precomputed_store.errors import FormatError

compresso = pytest.importorskip("compresso")
needs_kernel = pytest.mark.skipif(
    not native.is_available(), reason="the package was installed without a compiler"
)
HEADER = struct.Struct("<4s2B3H3BQIQB")
DTYPES = st.sampled_from(["uint8", "uint16", "uint32", "uint64"])
# Rows of one and of several words, and of exactly one and two.
SHAPES = st.one_of(
    st.tuples(*[st.integers(1, 20)] * 3),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(60, 140)),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.sampled_from([64, 128])),
    st.sampled_from([(1, 1, 1), (1, 1, 200), (1, 200, 1), (200, 1, 1)]),
)
STEPS = st.sampled_from(
    [
        *[(4, 4, 1), (8, 8, 1), (2, 2, 1), (1, 1, 1), (16, 4, 1), (5, 2, 1)],
        *[(4, 4, 2), (8, 1, 8), (3, 5, 3)],
    ]
)
FORMS = st.sampled_from(
    [{}, {"random_access_z_index": False}, {"random_access_z_index": False, "connectivity": 6}]
)
KINDS = st.sampled_from(["noise", "sparse", "along x", "along y", "along z", "cells", "stripes"])
WHOLE = slice(None)


def encode(voxels: np.ndarray[Any, Any], **options: Any) -> bytes:
    return bytes(compresso.compress(np.asfortranarray(voxels.T), **options))


def decode(data: bytes, like: np.ndarray[Any, Any], box: Any = (WHOLE,) * 3) -> np.ndarray:
    """A box of a chunk, by the kernel."""
    bounds = tuple(cut.indices(n)[:2] for cut, n in zip(box, like.shape, strict=True))
    out = np.full([1, *(stop - start for start, stop in bounds)], 77, like.dtype)
    assert Compresso().decode_box(data, shape=(1, *like.shape), box=bounds, out=out)  # type: ignore[arg-type]
    return out[0]


def refused(data: bytes, like: np.ndarray[Any, Any], match: str, box: Any = (WHOLE,) * 3) -> None:
    with pytest.raises(FormatError, match=match):
        decode(data, like, box)


@needs_kernel
@given(
    shape=SHAPES, dtype=DTYPES, steps=STEPS, form=FORMS, kind=KINDS,
    labels=st.integers(1, 300), seed=st.integers(0, 9),
)  # fmt: skip
def test_it_decodes_what_the_library_encodes(
    shape: tuple[int, int, int], dtype: str, steps: tuple[int, int, int],
    form: dict[str, Any], kind: str, labels: int, seed: int,
) -> None:  # fmt: skip
    voxels = voxels_of(kind, shape, dtype, labels, seed)
    data = encode(voxels, steps=steps, **form)
    np.testing.assert_array_equal(decode(data, voxels), voxels)
    np.testing.assert_array_equal(compresso.decompress(data).T, voxels)


@needs_kernel
@pytest.mark.parametrize("steps", [(3, 5, 3), (5, 2, 1), (7, 1, 1), (63, 1, 1), (64, 1, 1)])
@pytest.mark.parametrize("width", [63, 64, 65, 66, 127, 128, 129, 200])
def test_rows_and_windows_of_any_length(width: int, steps: tuple[int, int, int]) -> None:
    for labels in (2, 100):
        voxels = voxels_of("noise", (4, 5, width), "uint16", labels, 1)
        np.testing.assert_array_equal(decode(encode(voxels, steps=steps), voxels), voxels)


@needs_kernel
@given(
    shape=SHAPES, dtype=DTYPES, form=FORMS, kind=KINDS, labels=st.integers(1, 300), data=st.data()
)  # fmt: skip
def test_a_box_is_that_part_of_the_chunk(
    shape: tuple[int, int, int],
    dtype: str,
    form: dict[str, Any],
    kind: str,
    labels: int,
    data: st.DataObject,
) -> None:
    voxels = voxels_of(kind, shape, dtype, labels, 3)
    starts = [data.draw(st.integers(0, length - 1)) for length in shape]
    stops = [
        data.draw(st.integers(first + 1, length))
        for first, length in zip(starts, shape, strict=True)
    ]
    box = tuple(map(slice, starts, stops))
    steps = data.draw(st.sampled_from([(4, 4, 1), (8, 8, 1), (4, 4, 2), (2, 2, 5)]))
    encoded = encode(voxels, steps=steps, **form)
    np.testing.assert_array_equal(decode(encoded, voxels, box), voxels[box])


@needs_kernel
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("step", [(1, 1, 1), (1, 2, 1), (-1, 1, -1), (2, 1, 3), (-2, -1, 1)])
@pytest.mark.parametrize("form", [{}, {"random_access_z_index": False}], ids=["index", "none"])
def test_arrays_of_any_strides_are_decoded_in_place(
    form: dict[str, Any], step: tuple[int, int, int], dtype: str
) -> None:
    voxels = voxels_of("cells", (7, 12, 25), dtype, 9, 1)
    around = np.full((20, 30, 80), 7, dtype)
    z, y, x = (
        slice(1, 1 + abs(n) * size, abs(n)) for n, size in zip(step, voxels.shape, strict=True)
    )
    backwards = tuple(slice(None, None, -1 if n < 0 else 1) for n in step)
    out = around[z, y, x][backwards]
    box = tuple((0, n) for n in voxels.shape)
    assert Compresso().decode_box(
        encode(voxels, **form), shape=(1, *voxels.shape), box=box, out=out[np.newaxis]  # type: ignore[arg-type]
    )  # fmt: skip
    np.testing.assert_array_equal(out, voxels)
    out[...] = 7
    assert (around == 7).all()


@needs_kernel
def test_a_byte_order_that_is_not_the_machine_s_is_converted() -> None:
    voxels = voxels_of("cells", (5, 6, 7), "uint32", 9, 1)
    decoded = Compresso().decode(encode(voxels), shape=(1, 5, 6, 7), dtype=np.dtype(">u4"))
    assert decoded.dtype == np.dtype(">u4")
    np.testing.assert_array_equal(decoded[0], voxels)


# Made by hand, as no encoder writes them


def chunk(
    *, size: tuple[int, int, int], bits: list[int], ids: list[int], locations: list[int],
    index: tuple[list[int], list[int]] | None = None, connectivity: int = 4,
) -> bytes:  # fmt: skip
    """One window of 8 bits for each slice; `size` and window are x, y, z."""
    x, y, _ = size
    counts = len(ids), len(bits), len(locations)
    header = HEADER.pack(b"cpso", index is not None, 1, *size, x, y, 1, *counts, connectivity)
    windows = [2 * i for i in range(len(bits))]
    tail = [*index[0], *index[1]] if index else []
    return header + bytes([*ids, *bits, *locations, *windows, *tail])


ALL = 0b1111
"""A window of 2 x 2 voxels, all boundaries, so that each has a location."""
TWO = np.zeros((1, 2, 2), "uint8")


@needs_kernel
@pytest.mark.parametrize(
    ("locations", "expected"),
    [
        ([17, 18, 19, 20], [10, 11, 12, 13]),
        ([6, 3, 18, 19, 20], [3, 11, 12, 13]),  # the label behind an escape
        ([17, 0, 2, 0], [10, 10, 10, 10]),  # left, above
        ([1, 17, 3 + 7, 2], [0, 10, 3, 10]),  # what has no label yet is 0
        ([3, 17, 18, 19], [0, 10, 11, 12]),
    ],
    ids=str,
)
def test_every_kind_of_location_within_a_slice(locations: list[int], expected: list[int]) -> None:
    data = chunk(size=(2, 2, 1), bits=[ALL], ids=[], locations=locations)
    library = compresso.decompress(data)[..., 0].T
    np.testing.assert_array_equal(library.ravel(), expected)
    np.testing.assert_array_equal(decode(data, TWO), library[np.newaxis])


@needs_kernel
@pytest.mark.parametrize(
    "locations",
    [
        *[[0, 17, 17, 17], [2, 17, 17, 17], [4, 17, 17, 17], [17, 1, 17, 17]],
        *[[17, 17, 3, 17], [17, 17, 17, 1], [17, 17, 17, 3], [17, 17, 17, 5]],
    ],
    ids=str,
)
@pytest.mark.parametrize("index", [None, ([0], [0])], ids=["version 0", "version 1"])
def test_a_copy_from_outside_of_the_chunk_is_refused(index: Any, locations: list[int]) -> None:
    data = chunk(size=(2, 2, 1), bits=[ALL], ids=[], locations=locations, index=index)
    refused(data, TWO, "location copies the label of a voxel outside of the chunk")


SLICES = np.zeros((3, 2, 2), "uint8")
"""Empty, all boundaries, empty."""
BETWEEN: Any = {"size": (2, 2, 3), "bits": [0, ALL, 0], "ids": [40, 50]}


@needs_kernel
@pytest.mark.parametrize("index", [None, ([1, 0, 1], [0, 0, 4])], ids=["version 0", "version 1"])
def test_labels_are_copied_from_slice_to_slice(index: Any) -> None:
    data = chunk(**BETWEEN, locations=[4, 5, 4, 12], index=index)
    expected = compresso.decompress(data).T
    np.testing.assert_array_equal(expected[1], [[40, 50], [40, 5]])
    np.testing.assert_array_equal(decode(data, SLICES), expected)
    for z in range(3):
        box = slice(z, z + 1), slice(0, 2), slice(1, 2)
        np.testing.assert_array_equal(decode(data, SLICES, box), expected[box])


@needs_kernel
def test_where_slices_are_connected_boundaries_take_the_label_of_the_slice_before() -> None:
    data = chunk(**{**BETWEEN, "bits": [0, ALL, ALL]}, locations=[17] * 4, connectivity=6)
    expected = compresso.decompress(data).T
    np.testing.assert_array_equal(expected[:, 0, 0], [40, 40, 10])
    np.testing.assert_array_equal(decode(data, SLICES), expected)


@needs_kernel
@pytest.mark.parametrize(
    ("index", "message"),
    [
        (([2, 0, 0], [0, 0, 4]), "index of z slices counts more"),
        (([1, 1, 0], [0, 0, 4]), "index of z slices counts more"),
        (([0, 1, 1], [0, 0, 4]), "need more ids or locations"),
        (([1, 0, 1], [0, 1, 3]), "index of z slices counts more"),
        (([1, 0, 1], [0, 0, 3]), "need more ids or locations"),
        (([1, 0, 1], [1, 0, 3]), "need more ids or locations"),
        (([1, 0, 0], [0, 0, 4]), "counts 1 ids and 4 locations; the header has 2 and 4"),
        (([1, 0, 1], [0, 0, 5]), "counts 2 ids and 5 locations; the header has 2 and 4"),
    ],
    ids=str,
)
def test_an_index_that_disagrees_with_the_slices_is_refused(index: Any, message: str) -> None:
    locations = [17, 18, 19, 20]
    sound = chunk(**BETWEEN, locations=locations, index=([1, 0, 1], [0, 0, 4]))
    np.testing.assert_array_equal(decode(sound, SLICES)[1], [[10, 11], [12, 13]])
    refused(chunk(**BETWEEN, locations=locations, index=index), SLICES, message)


@needs_kernel
def test_what_is_wrong_in_other_slices_does_not_matter_to_a_box() -> None:
    data = chunk(**BETWEEN, locations=[0, 18, 19, 20], index=([1, 0, 1], [0, 0, 4]))
    for z, label in ((0, 40), (2, 50)):
        assert (decode(data, SLICES, (slice(z, z + 1), WHOLE, WHOLE)) == label).all()
    refused(data, SLICES, "outside of the chunk", (slice(0, 2), WHOLE, WHOLE))


@needs_kernel
def test_more_locations_than_are_needed_are_left() -> None:
    data = chunk(**BETWEEN, locations=[17, 18, 19, 20, 21], index=([1, 0, 1], [0, 0, 4]))
    np.testing.assert_array_equal(decode(data, SLICES), compresso.decompress(data).T)


@needs_kernel
def test_voxels_of_a_window_beyond_the_chunk_do_not_matter() -> None:
    # A window of 4 x 2 voxels, a chunk of 3 x 1: the bits of all that are beyond are set.
    fields = b"cpso", 0, 1, 3, 1, 1, 4, 2, 1, 1, 1, 0, 4
    data = HEADER.pack(*fields) + bytes([9, 0b11111000, 0])
    like = np.zeros((1, 1, 3), "uint8")
    np.testing.assert_array_equal(decode(data, like), [[[9, 9, 9]]])


@needs_kernel
def test_labels_are_copied_along_rows_of_any_length() -> None:
    fields = b"cpso", 0, 1, 130, 1, 1, 64, 1, 1, 0, 1, 130, 4
    for location, expected in ((1, 0), (0, 10)):
        locations = [17] + 129 * [0] if location == 0 else 129 * [1] + [17]
        data = HEADER.pack(*fields) + b"\xff" * 8 + bytes(locations) + 3 * bytes(8)
        library = compresso.decompress(data)[..., 0].T
        assert (library[0, :-1] == expected).all()
        np.testing.assert_array_equal(decode(data, library[np.newaxis])[0], library)


@needs_kernel
def test_a_box_that_is_not_in_the_chunk_is_a_mistake_of_the_caller() -> None:
    data = encode(np.zeros((8, 8, 8), "uint8"))
    for box in (((0, 9), (0, 8), (0, 8)), ((4, 4), (0, 8), (0, 8)), ((-1, 8), (0, 8), (0, 8))):
        out = np.empty([b - a for a, b in box], "uint8")
        with pytest.raises(ValueError, match="cannot be decoded into"):
            native.decode_box(data, shape=(8, 8, 8), box=box, out=out)


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "uint64"])
def test_every_selection_reads_alike_with_and_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, kernel: bool
) -> None:
    if not kernel:
        monkeypatch.setattr(native, "_library", lambda: None)
    voxels = voxels_of("cells", (30, 41, 52), dtype, 30, 4)
    check_layer(tmp_path / "layer", voxels[np.newaxis], "compresso")
