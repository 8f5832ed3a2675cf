import gzip
import struct
import sys
import types

import numpy as np
import pytest
from image_peers import frozen
from segmentation_peers import (
    cells,
    cloudvolume_decode,
    cloudvolume_encode,
    noise,
)

from precomputed_store.codecs.crackle import Crackle
from precomputed_store.errors import FormatError, UnsupportedError

crackle = pytest.importorskip("crackle")

FROZEN = frozen("crackle")
NAMES = [name for name, _, _ in FROZEN]
frozen_chunks = pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=NAMES)
DTYPES = ["uint8", "uint16", "uint32", "uint64"]
SHAPES = [(1, 1, 1, 1), (1, 5, 9, 13), (1, 1, 64, 3), (1, 17, 1, 1), (1, 16, 32, 32)]


def decode(data, like):
    return Crackle().decode(data, shape=like.shape, dtype=like.dtype)


def without_checksums(data):
    """The stream as format version 0 has it: no checksums, a narrower header."""
    magic, _, kind, *size, grid, label_bytes, _ = struct.unpack_from("<4sBH3IBQB", data)
    index_stop = 29 + 4 * size[2]
    sections_stop = len(data) - 4 * (size[2] + 1)
    header = struct.pack("<4sBH3IBI", magic, 0, kind, *size, grid, label_bytes)
    return header + data[29:index_stop] + data[index_stop + 4 : sections_stop]


@pytest.fixture
def without_library(monkeypatch):
    """Fail if the library is given the bytes."""

    def decompress(_data, parallel):
        raise AssertionError

    monkeypatch.setitem(sys.modules, "crackle", types.SimpleNamespace(decompress=decompress))


@frozen_chunks
def test_frozen_chunks_decode_exactly(name, data, expected):
    decoded = decode(data, expected)
    assert decoded.dtype == expected.dtype
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_chunks_pass_between_cloudvolume_and_us(shape, dtype):
    for array in (cells(shape, 6, dtype), noise(shape, 2, dtype), noise(shape, 200, dtype)):
        encoded = Crackle().encode(array)
        assert len(encoded) <= Crackle().max_encoded_bytes(shape=shape, dtype=array.dtype)
        np.testing.assert_array_equal(cloudvolume_decode(encoded, "crackle", like=array), array)
        np.testing.assert_array_equal(decode(cloudvolume_encode(array, "crackle"), array), array)


@pytest.mark.parametrize(
    "options",
    [{}, {"allow_pins": 1}, {"markov_model_order": 5}, {"allow_pins": 2, "markov_model_order": 1}],
    ids=str,
)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_form_that_the_library_writes_is_read(shape, order, options):
    for array in (cells(shape, 6, "uint32"), noise(shape, 3, "uint32")):
        data = crackle.compress(np.array(array[0].T, order=order), parallel=1, **options)
        np.testing.assert_array_equal(decode(data, array), array)


def decode_slab(data, like, *slab):
    return Crackle().decode_slab(data, shape=like.shape, dtype=like.dtype, slab=slab)


@frozen_chunks
@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("memory", ["filled by the C library", "as it comes"])
def test_slabs_of_frozen_chunks_decode_exactly(name, data, expected, version, memory, monkeypatch):
    if memory == "as it comes":
        monkeypatch.setattr("precomputed_store.codecs.crackle._glibc", lambda: None)
    data = data if version else without_checksums(data)
    num_slices = expected.shape[1]
    for start in range(num_slices):
        for stop in range(start + 1, num_slices + 1):
            slab = decode_slab(data, expected, start, stop)
            assert slab.dtype == expected.dtype
            np.testing.assert_array_equal(slab, expected[:, start:stop])


@pytest.mark.parametrize("options", [{"allow_pins": 1}, {"markov_model_order": 5}], ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_slabs_of_every_form_that_the_library_writes_are_read(order, options):
    for array in (cells((1, 16, 32, 32), 6, "uint32"), noise((1, 16, 32, 32), 3, "uint32")):
        data = crackle.compress(np.array(array[0].T, order=order), parallel=1, **options)
        for slab in ((0, 16), (0, 1), (5, 11), (15, 16)):
            np.testing.assert_array_equal(decode_slab(data, array, *slab), array[:, slice(*slab)])


@frozen_chunks
def test_streams_of_version_0_are_read(name, data, expected):
    np.testing.assert_array_equal(decode(without_checksums(data), expected), expected)


def test_a_real_stream_of_version_0_is_read(real_data):
    with gzip.open(real_data / "pinky40_512.ckl.gz") as stream:
        _, data, _ = crackle.zsplit(stream.read(), 256)
    assert data[4] == 0
    expected = crackle.decompress(data).T[np.newaxis]
    assert len(np.unique(expected)) == 267
    np.testing.assert_array_equal(decode(data, expected), expected)


def test_arrays_of_any_layout_encode_alike():
    array = cells((1, 9, 10, 11), 6, "uint16")
    expected = Crackle().encode(array)
    read_only = array.copy()
    read_only.flags.writeable = False
    spaced = np.repeat(array, 2, axis=3)[..., ::2]
    swapped = array.astype(">u2")
    for other in (np.asfortranarray(array), read_only, spaced, swapped):
        assert Crackle().encode(other) == expected


@pytest.mark.usefixtures("without_library")
@frozen_chunks
def test_every_prefix_is_refused_before_the_library_sees_it(name, data, expected):
    for length in range(len(data)):
        with pytest.raises(FormatError):
            decode(data[:length], expected)


@pytest.mark.usefixtures("without_library")
@frozen_chunks
def test_every_prefix_of_version_0_is_refused_before_the_library_sees_it(name, data, expected):
    data = without_checksums(data)
    for length in range(len(data)):
        with pytest.raises(FormatError):
            decode(data[:length], expected)


@pytest.mark.usefixtures("without_library")
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, b"x", "begins with b'xrkl'"),
        (4, b"\x02", "has version 2; expected 0 or 1"),
        (4, b"\x00", "announce"),
        (5, b"\x03", "of 8 bytes; expected .* of 1"),
        (7, b"\x13", r"holds \(19, 21, 9\) voxels \(x, y, z\).*expected \(18, 21, 9\)"),
        (15, b"\x00", r"holds \(18, 21, 0\) voxels"),
        (20, b"\xff" * 8, "its header and index announce"),
        (29, b"\xff" * 4, "its header and index announce"),
        (70, b"\xff", "labels do not match their checksum"),
    ],
)
def test_a_header_of_something_else_is_refused(place, value, message):
    _, data, expected = FROZEN[NAMES.index("cloudvolume_uint8")]
    damaged = data[:place] + value + data[place + len(value) :]
    with pytest.raises(FormatError, match=message):
        decode(damaged, expected)


@pytest.mark.usefixtures("without_library")
def test_labels_that_do_not_match_their_checksum_are_refused():
    for _, data, expected in FROZEN:
        num_slices, label_bytes = expected.shape[1], int.from_bytes(data[20:28], "little")
        start = 29 + 4 * (num_slices + 1)
        for place in range(start, start + label_bytes):
            damaged = bytearray(data)
            damaged[place] ^= 1
            with pytest.raises(FormatError, match="labels do not match"):
                decode(damaged, expected)


@pytest.mark.parametrize("place", [6, 19, 28, 29 + 4 * 9])
def test_checksums_of_header_and_index_are_compared(place):
    _, data, expected = FROZEN[NAMES.index("cloudvolume_uint8")]
    damaged = bytearray(data)
    damaged[place] ^= 64
    with pytest.raises(FormatError):
        decode(damaged, expected)


@pytest.mark.usefixtures("without_library")
@pytest.mark.parametrize("garbage", [b"", b"crkl", b"crkl\0", b"crkl\1" + bytes(24), bytes(99)])
def test_garbage_is_refused_before_the_library_sees_it(garbage):
    with pytest.raises(FormatError):
        decode(garbage, FROZEN[0][2])


def test_whatever_the_library_raises_is_a_format_error(monkeypatch):
    error = RuntimeError()

    def decompress(_data, parallel):
        assert parallel == 1
        raise error

    monkeypatch.setattr(crackle, "decompress", decompress)
    with pytest.raises(FormatError, match="crackle: RuntimeError") as caught:
        decode(FROZEN[0][1], FROZEN[0][2])
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 2, 2), "uint8"), np.zeros((1, 2, 2, 2), "int32")]
)
def test_other_chunks_are_refused(array):
    with pytest.raises(FormatError, match="crackle holds"):
        Crackle().encode(array)


def test_chunks_are_recognised_by_their_magic():
    _, data, expected = FROZEN[0]
    like = {"shape": expected.shape, "dtype": expected.dtype}
    assert Crackle().recognises(memoryview(data), **like)
    assert not Crackle().recognises(b"\x1f\x8b" + data, **like)
    assert not Crackle().recognises(b"", **like)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "crackle", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'precomputed-store\[seg\]'"):
        decode(FROZEN[0][1], FROZEN[0][2])


@pytest.mark.parametrize("memory", ["filled by the C library", "as it comes"])
@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (1, 3, 16, 16), (1, 4, 32, 32)])
@pytest.mark.parametrize("dtype", ["uint8", "uint64"])
def test_a_slice_that_the_library_leaves_out_is_an_error(dtype, shape, memory, monkeypatch):
    if memory == "as it comes":
        monkeypatch.setattr("precomputed_store.codecs.crackle._glibc", lambda: None)
    array = noise(shape, 5, dtype)
    data = Crackle().encode(array)
    num_slices = shape[1]
    for z in range(num_slices):
        np.testing.assert_array_equal(decode(data, array), array)
        damaged = bytearray(data)
        damaged[len(data) - 4 * (num_slices - z)] ^= 1  # of its checksum
        for _ in range(3):
            with pytest.raises(FormatError, match="slice"):
                decode(bytes(damaged), array)
            with pytest.raises(FormatError, match="slice"):
                decode_slab(bytes(damaged), array, z, z + 1)
        if z:
            np.testing.assert_array_equal(decode_slab(bytes(damaged), array, 0, z), array[:, :z])


@pytest.mark.parametrize("filler", [0xA5, 0x5A])
def test_slices_that_look_like_memory_left_out_are_read(filler):
    array = np.full((1, 3, 32, 32), int.from_bytes([filler] * 4), "uint32")
    array[0, 1, 4, 5] = 7
    np.testing.assert_array_equal(decode(Crackle().encode(array), array), array)
