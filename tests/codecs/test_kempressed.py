import numpy as np
import pytest
from image_peers import frozen
from segmentation_peers import cloudvolume_decode, cloudvolume_encode, walk

from precomputed_store._native import fpzip as native
from precomputed_store.codecs.fpzip import Fpzip
from precomputed_store.codecs.kempressed import Kempressed
from precomputed_store.errors import FormatError

pytest.importorskip("fpzip")

FROZEN = frozen("kempressed")
NAMES = [name for name, _, _ in FROZEN]
SHAPES = [(1, 1, 1, 1), (1, 5, 9, 13), (3, 4, 1, 30), (2, 17, 3, 1)]


@pytest.fixture(params=["kernel", "library"], autouse=True)
def means(request, monkeypatch):
    """With the compiled kernel, and as where it could not be compiled."""
    if request.param == "library":
        monkeypatch.setattr(native, "_library", lambda: None)
    elif not native.is_available():
        pytest.skip("the package was installed without a compiler")


def decode(data, like):
    return Kempressed().decode(data, shape=like.shape, dtype=like.dtype)


@pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=NAMES)
def test_frozen_chunks_decode_exactly(name, data, expected):
    decoded = decode(data, expected)
    assert decoded.dtype == expected.dtype
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_chunks_pass_between_cloudvolume_and_us(shape, dtype):
    array = walk(shape, dtype)
    encoded = Kempressed().encode(array)
    assert len(encoded) <= Kempressed().max_encoded_bytes(shape=shape, dtype=array.dtype)
    theirs = cloudvolume_decode(encoded, "kempressed", like=array)
    np.testing.assert_allclose(theirs, array, atol=1e-6)
    decoded = decode(cloudvolume_encode(array, "kempressed"), array)
    np.testing.assert_array_equal(decoded, theirs)
    assert decoded.flags.c_contiguous


def test_channels_precede_z_in_the_stream():
    array = walk((3, 4, 5, 6), "float32")
    fields = Fpzip().decode(Kempressed().encode(array), shape=(4, 3, 5, 6), dtype=array.dtype)
    np.testing.assert_array_equal(fields.swapaxes(0, 1), array + np.float32(2))


def test_arrays_of_any_layout_encode_alike():
    array = walk((2, 9, 10, 11), "float32")
    expected = Kempressed().encode(array)
    for other in (np.asfortranarray(array), np.repeat(array, 2, axis=3)[..., ::2]):
        assert Kempressed().encode(other) == expected


def test_another_number_of_channels_is_refused():
    array = walk((3, 4, 5, 6), "float32")
    data = Kempressed().encode(array)
    with pytest.raises(FormatError, match=r"kempressed chunk holds \(4, 3, 5, 6\)"):
        Kempressed().decode(data, shape=(4, 3, 5, 6), dtype=array.dtype)


def test_other_data_types_are_refused():
    with pytest.raises(FormatError, match="kempressed holds float32, float64"):
        Kempressed().encode(np.zeros((1, 2, 2, 2), "uint8"))


def test_chunks_are_recognised_by_their_magic():
    _, data, expected = FROZEN[0]
    like = {"shape": expected.shape, "dtype": expected.dtype}
    assert Kempressed().recognises(data, **like)
    assert not Kempressed().recognises(b"\x1f\x8b" + data, **like)
