import pickle
import struct
import sys

import numpy as np
import pytest
from image_peers import frozen, mutants, read_whatever
from segmentation_peers import cloudvolume_decode, cloudvolume_encode, walk

from precomputed_store.codecs.zfpc import Zfpc
from precomputed_store.errors import FormatError, UnsupportedError

pytest.importorskip("imagecodecs")

FROZEN = frozen("zfpc")
NAMES = [name for name, _, _ in FROZEN]
frozen_chunks = pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=NAMES)
SHAPES = [(1, 1, 1, 1), (1, 5, 9, 13), (3, 4, 1, 30), (2, 17, 1, 1), (1, 16, 16, 16)]
CORRELATED = [
    [True, True, True, True],
    [True, True, True, False],
    [True, True, False, False],
    [False, True, False, True],
    [False, False, True, False],
]
HEADER_BYTES = 23


def decode(data, like):
    return Zfpc().decode(data, shape=like.shape, dtype=like.dtype)


def numbers(shape, dtype):
    scale = 1e4 if np.dtype(dtype).kind == "i" else 1
    return (walk(shape, "float64") * scale).astype(dtype)


@frozen_chunks
def test_frozen_chunks_decode_exactly(name, data, expected):
    decoded = decode(data, expected)
    assert decoded.dtype == expected.dtype
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("correlated", CORRELATED, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_chunks_are_those_of_cloudvolume_and_come_back(shape, correlated, dtype):
    array = numbers(shape, dtype)
    codec = Zfpc(zfpc_correlated_dims=correlated)
    encoded = codec.encode(array)
    theirs = cloudvolume_encode(array, "zfpc", correlated_dims=correlated)
    memory_order = 5  # a flag in this byte, which says nothing about the streams
    assert encoded[:memory_order] == theirs[:memory_order]
    assert encoded[memory_order + 1 :] == theirs[memory_order + 1 :]
    assert len(encoded) <= codec.max_encoded_bytes(shape=shape, dtype=array.dtype)
    for data in (encoded, theirs):
        np.testing.assert_array_equal(decode(data, array), array)
    if dtype == "float32":  # zfpc decodes everything to float32
        read = cloudvolume_decode(encoded, "zfpc", like=array)
        np.testing.assert_array_equal(read, array)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "level",
    [{"tolerance": 0.01}, {"tolerance": 0}, {"rate": 9}, {"rate": 40.5}, {"precision": 12}],
)
@pytest.mark.parametrize("correlated", CORRELATED[:3], ids=str)
def test_lossy_chunks_are_those_of_cloudvolume(correlated, level, dtype):
    array = numbers((2, 9, 10, 11), dtype)
    parameters = {f"zfpc_{key}": value for key, value in level.items()}
    codec = Zfpc(**parameters, zfpc_correlated_dims=correlated)
    encoded = codec.encode(array)
    assert encoded == cloudvolume_encode(array, "zfpc", correlated_dims=correlated, **level)
    assert len(encoded) <= codec.max_encoded_bytes(shape=array.shape, dtype=array.dtype)
    theirs = cloudvolume_decode(encoded, "zfpc", like=array)
    np.testing.assert_array_equal(decode(encoded, array).astype("float32"), theirs)


def test_noise_stays_below_the_bound():
    rng = np.random.default_rng(0)
    for correlated in CORRELATED:
        array = np.frombuffer(rng.bytes(4 * 7 * 9 * 10), "int32").reshape(1, 7, 9, 10)
        codec = Zfpc(zfpc_correlated_dims=correlated)
        encoded = codec.encode(array)
        assert len(encoded) <= codec.max_encoded_bytes(shape=array.shape, dtype=array.dtype)
        np.testing.assert_array_equal(decode(encoded, array), array)


def test_arrays_of_any_layout_encode_alike():
    array = numbers((2, 9, 10, 11), "float32")
    expected = Zfpc().encode(array)
    read_only = array.copy()
    read_only.flags.writeable = False
    spaced = np.repeat(array, 2, axis=3)[..., ::2]
    swapped = array.astype(">f4")
    for other in (np.asfortranarray(array), read_only, spaced, swapped):
        assert Zfpc().encode(other) == expected


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_decodes(kind):
    _, data, expected = FROZEN[0]
    np.testing.assert_array_equal(decode(kind(data), expected), expected)


@frozen_chunks
def test_every_prefix_is_refused(name, data, expected):
    for length in range(len(data)):
        assert read_whatever(Zfpc(), data[:length], expected) is None, length


@frozen_chunks
def test_damaged_bytes_are_refused_or_decode_the_same_each_time(name, data, expected):
    for mutant in mutants(data, 200):
        first = read_whatever(Zfpc(), mutant, expected)
        again = read_whatever(Zfpc(), mutant, expected)
        assert (first is None) == (again is None)
        assert first is None or first.tobytes() == again.tobytes()


def with_bytes(data, place, value):
    return data[:place] + value + data[place + len(value) :]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, b"x", "begins with b'xfpc', version 0"),
        (4, b"\x01", "version 1; expected b'zfpc', version 0"),
        (5, b"\x2c", "of zfp type 4; expected .* of type 3"),
        (6, b"\x08", r"holds \(8, 6, 5, 2\) numbers \(x, y, z, channel\)"),
        (22, b"\x00", "correlated dimensions 0b00000000"),
        (22, b"\x1f", "correlated dimensions 0b00011111"),
        (22, b"\x00\x00", "correlated dimensions"),
        (22, b"\x01", r"zfpc streams lie in bytes|expected the sizes of 60 streams"),
        (23, b"\x00", "zfpc streams lie in bytes"),
        (31, b"\xff" * 8, "zfpc streams lie in bytes"),
        (39, b"z", "zfpc stream of"),
        (42, b"\x04", r"begins with b'zfp\\x04'"),
        (43, b"\x1f", r"stream holds .* of zfp type 4"),
    ],
)
def test_a_header_of_something_else_is_refused(place, value, message):
    _, data, expected = FROZEN[NAMES.index("cloudvolume_lossless_float32")]
    if place == 39:
        value = b"x"
    with pytest.raises(FormatError, match=message):
        decode(with_bytes(data, place, value), expected)


def test_a_rate_that_needs_more_bytes_than_there_are_is_refused():
    _, data, expected = FROZEN[NAMES.index("cloudvolume_rate_float32")]
    start = struct.unpack_from("<Q", data, HEADER_BYTES)[0]
    meta = int.from_bytes(data[start + 4 : start + 12], "little")
    for mode in (0x7FF, 0xFFF):
        greedy = (meta & (1 << 52) - 1 | mode << 52).to_bytes(8, "little")
        long_form = b"\xff\x7f" if mode == 0xFFF else b""
        with pytest.raises(FormatError, match=r"blocks take at least"):
            decode(with_bytes(data, start + 4, greedy + long_form), expected)


def test_whatever_the_library_raises_is_a_format_error():
    with pytest.raises(FormatError, match="zfpc: "):
        Zfpc().encode(np.zeros((1, 1, 1, 5000), "float32"))


@pytest.mark.parametrize("rate", [0, 0.01])
def test_rates_that_would_overflow_the_library_are_refused(rate):
    with pytest.raises(FormatError, match="expected at least 0\\.25 bits"):
        Zfpc(zfpc_rate=rate).encode(np.zeros((1, 8, 8, 8), "float32"))


@pytest.mark.parametrize(
    ("parameters", "members"),
    [
        ({"zfpc_rate": "8"}, ["zfpc_rate"]),
        ({"zfpc_rate": float("inf")}, ["zfpc_rate"]),
        ({"zfpc_tolerance": True}, ["zfpc_tolerance"]),
        ({"zfpc_precision": 2.5}, ["zfpc_precision"]),
        ({"zfpc_precision": 65}, ["zfpc_precision"]),
        ({"zfpc_correlated_dims": [True] * 3}, ["zfpc_correlated_dims"]),
        ({"zfpc_correlated_dims": [False] * 4}, ["zfpc_correlated_dims"]),
        ({"zfpc_correlated_dims": [1, 1, 1, 2]}, ["zfpc_correlated_dims"]),
        ({"zfpc_correlated_dims": 15}, ["zfpc_correlated_dims"]),
        ({"zfpc_rate": 8, "zfpc_precision": 9}, ["zfpc_precision"]),
        (
            {"zfpc_rate": "8", "zfpc_tolerance": None, "zfpc_correlated_dims": "all"},
            ["zfpc_rate", "zfpc_correlated_dims"],
        ),
    ],
    ids=str,
)
def test_all_wrong_parameters_are_named(parameters, members):
    with pytest.raises(ValueError) as caught:
        Zfpc.from_parameters(parameters)
    assert [member for member, _message in caught.value.args] == members


def test_negative_levels_are_those_not_set():
    unset = Zfpc(zfpc_rate=-1, zfpc_precision=-1, zfpc_tolerance=-1)
    array = numbers((1, 5, 6, 7), "float32")
    assert unset.encode(array) == Zfpc().encode(array)


def test_parameters_round_trip():
    parameters = {"zfpc_tolerance": 0.01, "zfpc_correlated_dims": [True, True, False, False]}
    read = Zfpc.from_parameters(parameters)
    assert read.to_parameters() == parameters
    assert pickle.loads(pickle.dumps(read)) == read
    assert len({read, Zfpc.from_parameters(parameters)}) == 1


def test_other_data_types_are_refused():
    with pytest.raises(FormatError, match="zfpc holds int32, int64, float32, float64"):
        Zfpc().encode(np.zeros((1, 2, 2, 2), "uint8"))


def test_chunks_are_recognised_by_their_magic():
    _, data, expected = FROZEN[0]
    like = {"shape": expected.shape, "dtype": expected.dtype}
    assert Zfpc().recognises(memoryview(data), **like)
    assert not Zfpc().recognises(b"\x1f\x8b" + data, **like)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'precomputed-store\[float\]'"):
        decode(FROZEN[0][1], FROZEN[0][2])
