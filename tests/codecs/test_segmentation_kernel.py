"""The compiled kernel of compressed_segmentation does what numpy and the library do."""

from __future__ import annotations

import shutil
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from image_peers import mutants
from segmentation_peers import check_layer

from precomputed_store._native import library, segmentation as native
from precomputed_store.codecs import _segmentation_blocks as blocks
from precomputed_store.codecs.compressed_segmentation import CompressedSegmentation
from precomputed_store.errors import FormatError

needs_kernel = pytest.mark.skipif(
    not native.is_available(), reason="the package was installed without a compiler"
)
DTYPES = st.sampled_from(["uint32", "uint64"])
SHAPES = st.tuples(*[st.integers(1, 40)] * 3)
BLOCKS = st.sampled_from([(8, 8, 8), (5, 7, 3), (16, 4, 2), (64, 64, 1), (1, 1, 1), (3, 1, 40)])


def codec(block: tuple[int, int, int]) -> CompressedSegmentation:
    return CompressedSegmentation(compressed_segmentation_block_size=block)


def voxels_of(shape: tuple[int, ...], dtype: str, labels: int, seed: int) -> np.ndarray[Any, Any]:
    """Noise, or stripes of it, of labels from the whole range of the data type."""
    random = np.random.default_rng(seed)
    values = random.integers(0, np.iinfo(dtype).max, labels, dtype, endpoint=True)
    indices = random.integers(0, labels, shape)
    return values[np.sort(indices, axis=seed % 3) if seed % 2 else indices]


@pytest.mark.skipif(sys.platform == "win32", reason="compilers are found in another way")
def test_where_there_is_a_compiler_the_kernel_was_installed() -> None:
    if shutil.which("cc") is None:
        pytest.skip("no compiler")
    assert native.is_available()


@pytest.mark.parametrize("number", [0, 2, 1 << 20])
def test_a_library_of_another_installation_is_none(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    other = SimpleNamespace(interface_version=lambda: number)
    monkeypatch.setattr(library.ctypes, "CDLL", lambda _: other)
    assert library.kernels.__wrapped__() is None


def test_a_machine_of_the_other_byte_order_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.sys, "byteorder", "big")
    assert library.kernels.__wrapped__() is None


@needs_kernel
@given(
    shape=SHAPES, block=BLOCKS, dtype=DTYPES, labels=st.integers(1, 400), seed=st.integers(0, 9)
)
def test_it_encodes_to_the_bytes_of_the_library(
    shape: tuple[int, int, int], block: tuple[int, int, int], dtype: str, labels: int, seed: int
) -> None:
    library = pytest.importorskip("compressed_segmentation")
    voxels = voxels_of(shape, dtype, labels, seed)
    expected = library.compress(voxels.T, block_size=block, order="F")
    assert codec(block).encode(voxels[np.newaxis]) == bytes(expected)


@needs_kernel
@pytest.mark.parametrize("step", [(1, 1, 1), (1, 2, 1), (-1, 1, -1), (2, 1, 3)])
def test_arrays_of_any_strides_are_encoded_and_decoded_in_place(
    step: tuple[int, int, int],
) -> None:
    voxels = voxels_of((20, 30, 25), "uint64", 50, 1)[tuple(slice(None, None, n) for n in step)]
    encoded = codec((8, 8, 8)).encode(voxels[np.newaxis])
    assert encoded == codec((8, 8, 8)).encode(np.ascontiguousarray(voxels)[np.newaxis])
    out = np.zeros((40, 60, 80), "uint64")
    z, y, x = voxels.shape
    target = out[: 2 * z : 2, y - 1 :: -1, 1 : 3 * x : 3]
    box = (0, z), (0, y), (0, x)
    assert codec((8, 8, 8)).decode_box(
        encoded, shape=(1, z, y, x), box=box, out=target[np.newaxis]
    )
    np.testing.assert_array_equal(target, voxels)
    target[...] = 0
    assert not out.any()


@needs_kernel
@given(
    shape=SHAPES,
    block=BLOCKS,
    dtype=DTYPES,
    labels=st.sampled_from([1, 2, 4, 16, 17, 300]),
    data=st.data(),
)
def test_a_box_is_that_part_of_the_chunk(
    shape: tuple[int, int, int],
    block: tuple[int, int, int],
    dtype: str,
    labels: int,
    data: st.DataObject,
) -> None:
    voxels = voxels_of((2, *shape), dtype, labels, 3)
    starts = [data.draw(st.integers(0, length - 1)) for length in shape]
    stops = [
        data.draw(st.integers(first + 1, length))
        for first, length in zip(starts, shape, strict=True)
    ]
    z, y, x = zip(starts, stops, strict=True)
    wanted = voxels[:, slice(*z), slice(*y), slice(*x)]
    out = np.zeros(wanted.shape, dtype)
    encoded = codec(block).encode(voxels)
    assert codec(block).decode_box(encoded, shape=(2, *shape), box=(z, y, x), out=out)
    np.testing.assert_array_equal(out, wanted)


@needs_kernel
def test_blocks_of_more_than_65536_labels_are_decoded() -> None:
    voxels = np.arange(48**3, dtype="uint32").reshape(1, 48, 48, 48)
    encoded = codec((48, 48, 48)).encode(voxels)
    out = np.empty((1, 3, 48, 48), "uint32")
    box = (40, 43), (0, 48), (0, 48)
    assert codec((48, 48, 48)).decode_box(encoded, shape=voxels.shape, box=box, out=out)
    np.testing.assert_array_equal(out, voxels[:, 40:43])


@needs_kernel
@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
def test_of_damaged_bytes_it_takes_those_that_numpy_takes_and_reads_the_same(
    monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    shape, block = (1, 20, 17, 18), (8, 8, 8)
    encoded = codec(block).encode(voxels_of(shape, dtype, 20, 2))
    taken = refused = 0
    for number, data in enumerate(mutants(encoded, 3000)):
        results = []
        for kernel in (True, False):
            with monkeypatch.context() as patched:
                if not kernel:
                    patched.setattr(native, "_library", lambda: None)
                try:
                    results.append(codec(block).decode(data, shape=shape, dtype=np.dtype(dtype)))
                except FormatError as error:
                    results.append(str(error))
        if isinstance(results[0], str):
            assert results[0] == results[1], number
            refused += 1
        else:
            np.testing.assert_array_equal(results[0], results[1], err_msg=f"mutant {number}")
            taken += 1
    assert taken > 100
    assert refused > 100


@needs_kernel
def test_damage_outside_of_the_box_does_not_matter() -> None:
    shape = (1, 16, 16, 16)
    words = np.frombuffer(codec((8, 8, 8)).encode(voxels_of(shape, "uint32", 9, 2)), "<u4").copy()
    words[1 + 2 * 7] = 33 << 24
    out, z = np.empty((1, 8, 8, 8), "uint32"), codec((8, 8, 8))
    corner, other = ((0, 8),) * 3, ((8, 16),) * 3
    assert z.decode_box(words.tobytes(), shape=shape, box=corner, out=out)
    assert not z.decode_box(words.tobytes(), shape=shape, box=other, out=out)
    with pytest.raises(FormatError, match="33 bits"):
        z.decode(words.tobytes(), shape=shape, dtype=np.dtype("uint32"))


@needs_kernel
def test_a_channel_beyond_the_offsets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_CHANNEL_WORDS", 100)
    with pytest.raises(FormatError, match="use a smaller chunk size"):
        codec((4, 4, 4)).encode(voxels_of((1, 16, 16, 16), "uint64", 1000, 2))


@needs_kernel
def test_a_box_that_is_not_in_the_chunk_is_a_mistake_of_the_caller() -> None:
    words = np.zeros(100, "<u4")
    for box in (((0, 9), (0, 8), (0, 8)), ((4, 4), (0, 8), (0, 8)), ((-1, 8), (0, 8), (0, 8))):
        out = np.empty([b - a for a, b in box], "uint32")
        with pytest.raises(ValueError, match="cannot be decoded into"):
            native.decode_box(words, shape=(8, 8, 8), block=(8, 8, 8), box=box, out=out)


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
def test_every_selection_reads_alike_with_and_without_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, dtype: str, kernel: bool
) -> None:
    if not kernel:
        monkeypatch.setattr(native, "_library", lambda: None)
    voxels = voxels_of((1, 30, 41, 52), dtype, 30, 4)
    check_layer(tmp_path / "layer", voxels, "compressed_segmentation")
