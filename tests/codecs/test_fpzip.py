import sys
import types

import numpy as np
import pytest
from hostile_codecs import FpzipInLibrary
from image_peers import frozen
from segmentation_peers import (
    cloudvolume_decode,
    cloudvolume_encode,
    outcomes_of_prefixes,
    walk,
)

from precomputed_store._native import fpzip as native
from precomputed_store.codecs.fpzip import Fpzip, estimated_bytes
from precomputed_store.errors import FormatError, UnsupportedError

fpzip = pytest.importorskip("fpzip")

FROZEN = frozen("fpzip")
NAMES = [name for name, _, _ in FROZEN]
frozen_chunks = pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=NAMES)
SHAPES = [(1, 1, 1, 1), (1, 5, 9, 13), (3, 1, 1, 30), (2, 17, 1, 1), (1, 16, 20, 24)]


def decode(data, like):
    return Fpzip().decode(data, shape=like.shape, dtype=like.dtype)


def assert_same_bits(actual, expected):
    assert actual.dtype == expected.dtype
    unsigned = f"u{expected.itemsize}"
    np.testing.assert_array_equal(
        np.ascontiguousarray(actual).view(unsigned), np.ascontiguousarray(expected).view(unsigned)
    )


def scattered(shape, dtype):
    """Numbers of all magnitudes, which no predictor can compress."""
    rng = np.random.default_rng(0)
    return (rng.choice([-1, 1], shape) * 10 ** rng.uniform(-30, 30, shape)).astype(dtype)


@pytest.fixture(params=["kernel", "library"], autouse=True)
def decoder(request, monkeypatch):
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

    def decompress(_data, order):
        raise AssertionError

    monkeypatch.setitem(sys.modules, "fpzip", types.SimpleNamespace(decompress=decompress))


@frozen_chunks
def test_frozen_chunks_decode_exactly(name, data, expected):
    assert_same_bits(decode(data, expected), expected)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_chunks_pass_between_cloudvolume_and_us(shape, dtype):
    for array in (walk(shape, dtype), np.zeros(shape, dtype), walk(shape, dtype) * 1e-30):
        array = array.astype(dtype)
        encoded = Fpzip().encode(array)
        assert len(encoded) <= Fpzip().max_encoded_bytes(shape=shape, dtype=array.dtype)
        assert_same_bits(cloudvolume_decode(encoded, "fpzip", like=array), array)
        assert_same_bits(decode(cloudvolume_encode(array, "fpzip"), array), array)


@pytest.mark.parity
@pytest.mark.parametrize(("dtype", "precision"), [("float32", 16), ("float64", 20)])
def test_a_precision_keeps_as_many_bits_as_in_cloudvolume(dtype, precision):
    array = walk((2, 5, 6, 7), dtype)
    encoded = Fpzip(fpzip_precision=precision).encode(array)
    assert encoded == cloudvolume_encode(array, "fpzip", level=precision)
    decoded = decode(encoded, array)
    assert_same_bits(decoded, cloudvolume_decode(encoded, "fpzip", like=array))
    dropped = 8 * array.itemsize - precision
    bits = decoded.view(f"u{array.itemsize}")
    assert not (bits & bits.dtype.type((1 << dropped) - 1)).any()


def test_arrays_of_any_layout_encode_alike():
    array = walk((2, 9, 10, 11), "float32")
    expected = Fpzip().encode(array)
    read_only = array.copy()
    read_only.flags.writeable = False
    spaced = np.repeat(array, 2, axis=3)[..., ::2]
    swapped = array.astype(">f4")
    for other in (np.asfortranarray(array), read_only, spaced, swapped):
        assert Fpzip().encode(other) == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_prefix_decodes_to_other_numbers(dtype, tmp_path, decoder):
    expected = walk((2, 2, 4, 4), dtype)
    data = cloudvolume_encode(expected, "fpzip")
    codec = Fpzip if decoder == "kernel" else FpzipInLibrary
    outcomes = outcomes_of_prefixes(codec, data, expected, tmp_path)
    if decoder == "kernel":
        assert set(outcomes) == {"refused"}
        return
    assert set(outcomes[:28]) == {"refused"}
    assert set(outcomes[28:-3]) <= {"refused", "crashed"}
    assert set(outcomes[-3:]) <= {"refused", "same"}
    assert outcomes.count("refused") > len(data) / 3


@pytest.mark.usefixtures("without_library")
@pytest.mark.parametrize("name", ["cloudvolume_float32_3", "cloudvolume_float64_2"])
def test_a_header_of_something_else_is_refused(name):
    _, data, expected = FROZEN[NAMES.index(name)]
    channels, z, y, x = expected.shape
    other = "float64" if expected.itemsize == 4 else "float32"
    for shape, dtype in [
        ((channels, z, x, y), expected.dtype),
        ((channels + 1, z, y, x), expected.dtype),
        ((channels, z, y, x + 65536), expected.dtype),
        (expected.shape, np.dtype(other)),
    ]:
        with pytest.raises(FormatError, match=r"fpzip chunk holds .* expected"):
            Fpzip().decode(data, shape=shape, dtype=dtype)


@pytest.mark.usefixtures("without_library")
@pytest.mark.parametrize(
    "garbage", [b"", b"fpz", bytes(28), b"\xff" * 99, b"fpz\0" + bytes(40), b"\x1f\x8b" * 40]
)
def test_garbage_is_refused_before_the_library_sees_it(garbage):
    with pytest.raises(FormatError):
        decode(garbage, FROZEN[0][2])


@pytest.mark.usefixtures("without_kernel")
def test_whatever_the_library_raises_is_a_format_error(monkeypatch):
    error = fpzip.FpzipReadError("cannot read stream")

    def decompress(_data, order):
        raise error

    monkeypatch.setattr(fpzip, "decompress", decompress)
    with pytest.raises(FormatError, match="fpzip: cannot read stream") as caught:
        decode(FROZEN[0][1], FROZEN[0][2])
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("shape", [(1, 1, 20, 50), (1, 16, 32, 32)])
def test_numbers_that_would_overflow_the_library_are_refused(shape):
    with pytest.raises(FormatError, match="would enlarge this chunk"):
        Fpzip().encode(scattered(shape, "float32"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 40), (2, 5, 6, 7), (1, 16, 32, 32)])
def test_the_length_is_estimated_well(shape, dtype):
    rng = np.random.default_rng(0)
    for array in (walk(shape, dtype), rng.normal(size=shape).astype(dtype)):
        encoded = Fpzip().encode(array)
        assert estimated_bytes(array, 0) == pytest.approx(len(encoded), rel=0.05)


@pytest.mark.parametrize(
    ("precision", "dtype"), [(1, "float32"), (33, "float32"), (2, "float64"), (17, "float64")]
)
def test_a_precision_that_the_data_type_has_not_is_refused(precision, dtype):
    with pytest.raises(FormatError, match=f"precision {precision} of {dtype}; expected"):
        Fpzip(fpzip_precision=precision).encode(walk((1, 2, 3, 4), dtype))


@pytest.mark.parametrize("value", [-1, 65, 8.5, "8", True])
def test_other_precisions_are_refused(value):
    with pytest.raises(ValueError) as caught:
        Fpzip.from_parameters({"fpzip_precision": value})
    ((member, _message),) = caught.value.args
    assert member == "fpzip_precision"


def test_parameters_round_trip():
    assert Fpzip.from_parameters({}).to_parameters() == {}
    assert Fpzip.from_parameters({"fpzip_precision": 16.0}).to_parameters() == {
        "fpzip_precision": 16
    }


def test_other_data_types_are_refused():
    with pytest.raises(FormatError, match="fpzip holds float32, float64, not uint8"):
        Fpzip().encode(np.zeros((1, 2, 2, 2), "uint8"))


def test_chunks_are_recognised_by_their_magic():
    _, data, expected = FROZEN[0]
    like = {"shape": expected.shape, "dtype": expected.dtype}
    assert Fpzip().recognises(memoryview(data), **like)
    assert not Fpzip().recognises(b"\x1f\x8b" + data, **like)
    assert not Fpzip().recognises(b"", **like)


@pytest.mark.usefixtures("without_kernel")
def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fpzip", None)
    with pytest.raises(UnsupportedError, match="pip install 'fpzip'"):
        decode(FROZEN[0][1], FROZEN[0][2])
