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

from precomputed_store import isolation
from precomputed_store._native import compresso as native
from precomputed_store.codecs.compresso import Compresso
from precomputed_store.errors import FormatError, UnsupportedError

compresso = pytest.importorskip("compresso")

FROZEN = frozen("compresso")
NAMES = [name for name, _, _ in FROZEN]
frozen_chunks = pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=NAMES)
DTYPES = ["uint8", "uint16", "uint32", "uint64"]
SHAPES = [(1, 1, 1, 1), (1, 5, 9, 13), (1, 1, 64, 3), (1, 17, 1, 1), (1, 16, 32, 32)]

HEADER = struct.Struct("<4s2B3H3BQIQB")
FIELDS = (
    "magic", "version", "label_bytes", "sx", "sy", "sz", "step_x", "step_y", "step_z",
    "num_ids", "num_values", "num_locations", "connectivity",
)  # fmt: skip


def decode(data, like):
    return Compresso().decode(data, shape=like.shape, dtype=like.dtype)


def header(data):
    return dict(zip(FIELDS, HEADER.unpack_from(data), strict=True))


def with_header(data, **fields):
    return HEADER.pack(*(header(data) | fields).values()) + data[HEADER.size :]


@pytest.fixture(autouse=True, params=["kernel", "library"])
def means(request, monkeypatch):
    """With the compiled kernel, and as where it could not be compiled."""
    if request.param == "library":
        monkeypatch.setattr(native, "_library", lambda: None)
    elif not native.is_available():
        pytest.skip("the package was installed without a compiler")
    return request.param


@pytest.fixture
def without_kernel(monkeypatch):
    monkeypatch.setattr(native, "_library", lambda: None)


@pytest.fixture
def without_library(monkeypatch):
    """Fail if the library is given the bytes."""

    def decompress(_data):
        raise AssertionError

    monkeypatch.setitem(sys.modules, "compresso", types.SimpleNamespace(decompress=decompress))


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
        encoded = Compresso().encode(array)
        assert len(encoded) <= Compresso().max_encoded_bytes(shape=shape, dtype=array.dtype)
        np.testing.assert_array_equal(cloudvolume_decode(encoded, "compresso", like=array), array)
        np.testing.assert_array_equal(decode(cloudvolume_encode(array, "compresso"), array), array)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": (8, 8, 1)},
        {"steps": (2, 2, 1)},
        {"steps": (4, 4, 2)},
        {"random_access_z_index": False},
        {"connectivity": 6, "random_access_z_index": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_form_that_the_library_writes_is_read(shape, options):
    for array in (cells(shape, 6, "uint32"), noise(shape, 3, "uint32")):
        data = compresso.compress(np.asfortranarray(array[0].T), **options)
        np.testing.assert_array_equal(decode(data, array), array)


@pytest.mark.parametrize("first", [0, 2**32 - 20, 2**40 - 9, 2**63, 2**64 - 30])
@pytest.mark.parametrize("shape", SHAPES)
def test_labels_that_neuroglancer_would_cut_to_32_bits_stand_behind_an_escape(shape, first):
    array = np.random.default_rng(1).integers(0, 30, shape, "uint64") + np.uint64(first)
    array.flat[::5] = 3
    encoded = Compresso().encode(array)
    fields = header(encoded)
    start = HEADER.size + 8 * fields["num_ids"] + 2 * fields["num_values"]
    locations = np.frombuffer(encoded, "<u8", fields["num_locations"], start)
    assert (locations[np.flatnonzero(locations > 0xFFFFFFFF) - 1] == 6).all()
    np.testing.assert_array_equal(decode(encoded, array), array)
    for z in range(shape[1]):  # by the index of slices
        part = compresso.decompress(encoded, z=(z, z + 1))
        np.testing.assert_array_equal(part[..., 0].T, array[0, z])


def test_empty_windows_beyond_the_longest_run_are_read():
    array = np.full((1, 4, 600, 800), 9, "uint32")
    array[0, 2, 300, 400] = 8
    np.testing.assert_array_equal(decode(Compresso().encode(array), array), array)


def test_arrays_of_any_layout_encode_alike():
    array = cells((1, 9, 10, 11), 6, "uint16")
    expected = Compresso().encode(array)
    read_only = array.copy()
    read_only.flags.writeable = False
    spaced = np.repeat(array, 2, axis=3)[..., ::2]
    swapped = array.astype(">u2")
    for other in (np.asfortranarray(array), read_only, spaced, swapped):
        assert Compresso().encode(other) == expected


@pytest.mark.usefixtures("without_library")
@frozen_chunks
def test_every_prefix_is_refused_before_the_library_sees_it(name, data, expected):
    for length in range(len(data)):
        with pytest.raises(FormatError):
            decode(data[:length], expected)


@pytest.mark.usefixtures("without_library")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"magic": b"cpsp"}, "begins with b'cpsp', version 1"),
        ({"version": 2}, "version 2; expected b'cpso', version 0 or 1"),
        ({"sx": 19}, r"holds \(19, 21, 9\) voxels \(x, y, z\).*expected \(18, 21, 9\)"),
        ({"sz": 0}, r"holds \(18, 21, 0\) voxels"),
        ({"label_bytes": 4}, "of 4 bytes; expected .* of 8"),
        ({"step_x": 0}, r"windows of \(0, 4, 1\) voxels"),
        ({"step_x": 17}, r"windows of \(17, 4, 1\) voxels"),
        ({"connectivity": 6}, "connectivity 6"),
        ({"connectivity": 0}, "connectivity 0"),
        ({"num_ids": 2**64 - 1}, "its header announces"),
        ({"num_values": 0}, "window"),
        ({"num_values": 2**32 - 1}, "its header announces"),
        ({"num_locations": 2**63}, "its header announces"),
        ({"step_y": 2}, "windows"),
        ({"version": 0}, "windows do not add up"),
    ],
    ids=str,
)
def test_a_header_of_something_else_is_refused(fields, message):
    _, data, expected = FROZEN[NAMES.index("cloudvolume_uint64")]
    with pytest.raises(FormatError, match=message):
        decode(with_header(data, **fields), expected)


@pytest.mark.usefixtures("without_library")
def test_an_index_that_counts_other_labels_is_refused():
    _, data, expected = FROZEN[NAMES.index("cloudvolume_uint64")]
    index_start = len(data) - 2 * 2 * header(data)["sz"]
    damaged = data[:index_start] + b"\xff" + data[index_start + 1 :]
    with pytest.raises(FormatError, match="index of z slices counts"):
        decode(damaged, expected)


@pytest.mark.usefixtures("without_library")
@pytest.mark.parametrize("garbage", [b"", b"cpso", bytes(36), b"cpso" * 100])
def test_garbage_is_refused_before_the_library_sees_it(garbage):
    with pytest.raises(FormatError):
        decode(garbage, FROZEN[0][2])


@pytest.mark.usefixtures("without_kernel")
@pytest.mark.parametrize("error", [ValueError("bad"), MemoryError(), SystemError("worse")])
def test_whatever_the_library_raises_is_a_format_error(monkeypatch, error):
    def decompress(_data):
        raise error

    monkeypatch.setattr(compresso, "decompress", decompress)
    with pytest.raises(FormatError, match="compresso: ") as caught:
        decode(FROZEN[0][1], FROZEN[0][2])
    assert caught.value.__cause__ is error


@pytest.mark.usefixtures("without_kernel")
def test_another_shape_from_the_library_is_refused(monkeypatch):
    monkeypatch.setattr(compresso, "decompress", lambda _data: np.zeros((1, 2, 3), "uint8"))
    with pytest.raises(FormatError, match=r"decoded to uint8 \(1, 3, 2, 1\)"):
        decode(FROZEN[0][1], FROZEN[0][2])


def test_axes_beyond_sixteen_bits_are_refused():
    with pytest.raises(FormatError, match="at most 65535 voxels"):
        Compresso().encode(np.zeros((1, 1, 1, 65536), "uint8"))


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 2, 2), "uint8"), np.zeros((1, 2, 2, 2), "int32")]
)
def test_other_chunks_are_refused(array):
    with pytest.raises(FormatError, match="compresso holds"):
        Compresso().encode(array)


def test_chunks_are_recognised_by_their_magic():
    _, data, expected = FROZEN[0]
    like = {"shape": expected.shape, "dtype": expected.dtype}
    assert Compresso().recognises(memoryview(data), **like)
    assert not Compresso().recognises(b"\x1f\x8b" + data, **like)
    assert not Compresso().recognises(b"", **like)


@pytest.mark.usefixtures("without_kernel")
def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "compresso", None)
    with pytest.raises(UnsupportedError, match="pip install 'compresso'"):
        decode(FROZEN[0][1], FROZEN[0][2])


def test_the_library_needs_a_process_of_its_own_and_the_kernel_does_not(means, monkeypatch):
    _, data, expected = FROZEN[0]
    taken = []
    take = isolation._pool.take
    monkeypatch.setattr(isolation._pool, "take", lambda: taken.append(1) or take())
    # The process has a kernel of its own, and decodes alike.
    decoded = isolation.decode(Compresso(), data, shape=expected.shape, dtype=expected.dtype)
    np.testing.assert_array_equal(decoded, expected)
    assert bool(taken) == (means == "library")


def without_last(section, data):
    """The stream without its last id or location, and with everything else to match."""
    fields = header(data)
    width, num_slices = fields["label_bytes"], fields["sz"]
    ids_stop = HEADER.size + width * fields["num_ids"]
    window_bytes = compresso.raw_values(data).itemsize
    stop = ids_stop + window_bytes * fields["num_values"] + width * fields["num_locations"]
    if section == "locations":
        shorter = with_header(data, num_locations=fields["num_locations"] - 1)
        return shorter[: stop - width] + data[stop:]
    index_bytes = compresso.zindex_byte_width(fields["sx"], fields["sy"])
    index_start = len(data) - 2 * num_slices * index_bytes
    counts = np.frombuffer(data, f"<u{index_bytes}", num_slices, index_start).copy()
    counts[-1] -= 1
    shorter = with_header(data, num_ids=fields["num_ids"] - 1)
    return b"".join(
        [
            shorter[: ids_stop - width],
            data[ids_stop:index_start],
            counts.tobytes(),
            data[index_start + counts.nbytes :],
        ]
    )


@pytest.mark.parametrize("section", ["ids", "locations"])
@pytest.mark.parametrize("num_labels", [20, 256])
@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_are_never_taken_from_beyond_the_chunk(dtype, num_labels, section):
    array = noise((1, 6, 24, 24), num_labels, dtype)
    data = Compresso().encode(array)
    np.testing.assert_array_equal(decode(data, array), array)
    with pytest.raises(FormatError, match="need more ids or locations than there are"):
        decode(without_last(section, data), array)
