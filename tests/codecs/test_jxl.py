import pickle
import sys

import numpy as np
import pytest
from image_peers import (
    cloudvolume_decode,
    cloudvolume_encode,
    frozen,
    mutants,
    read_whatever,
    smooth,
)

from precomputed_store.codecs.jxl import Jxl
from precomputed_store.errors import FormatError, UnsupportedError

imagecodecs = pytest.importorskip("imagecodecs")

FROZEN = frozen("jxl")
NAMES = [name for name, _, _ in FROZEN]
UINT8 = np.dtype("uint8")
LOSSLESS = Jxl(jxl_quality=100, jxl_effort=1)


def difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def box(kind: bytes, content: bytes, *, long: bool = False, open_end: bool = False) -> bytes:
    if long:
        return b"\0\0\0\1" + kind + (16 + len(content)).to_bytes(8, "big") + content
    size = 0 if open_end else 8 + len(content)
    return size.to_bytes(4, "big") + kind + content


SIGNATURE = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ")


@pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=NAMES)
def test_frozen_chunks_decode(name, data, expected):
    decoded = Jxl().decode(data, shape=expected.shape, dtype=expected.dtype)
    # Lossy images may be rounded otherwise by another version of the decoder.
    assert difference(decoded, expected) <= (0 if "lossless" in name else 1)


@pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=NAMES)
def test_every_prefix_is_refused(name, data, expected):
    for length in range(len(data)):
        assert read_whatever(Jxl(), data[:length], expected) is None, length


@pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=NAMES)
def test_damaged_bytes_are_refused_or_fit(name, data, expected):
    refused = [read_whatever(Jxl(), mutant, expected) is None for mutant in mutants(data, 150)]
    assert any(refused)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_quality_of_100_is_lossless(channels):
    array = smooth((channels, 7, 9, 11), UINT8)
    array[-1, :2] = 0  # were it opacity, the colours behind it would not matter
    decoded = LOSSLESS.decode(LOSSLESS.encode(array), shape=array.shape, dtype=UINT8)
    np.testing.assert_array_equal(decoded, array)
    assert LOSSLESS.lossless
    assert not Jxl().lossless
    assert not Jxl(jxl_quality=99).lossless


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_bytes_are_an_image_whose_components_are_the_channels(channels):
    array = smooth((channels, 7, 9, 11), UINT8)
    image = imagecodecs.jpegxl_decode(LOSSLESS.encode(array), numthreads=1)
    expected = np.moveaxis(array, 0, -1).reshape(63, 11, channels)
    np.testing.assert_array_equal(image.reshape(63, 11, channels), expected)


@pytest.mark.parity
@pytest.mark.parametrize("quality", [50, 85, 100])
def test_one_channel_agrees_with_cloudvolume_in_both_directions(quality):
    array = smooth((1, 7, 9, 16), UINT8)
    codec = Jxl(jxl_quality=quality)
    data = cloudvolume_encode(array, "jxl", level=quality, jxl_effort=5, jxl_decodingspeed=0)
    assert codec.encode(array) == data
    read = cloudvolume_decode(data, "jxl", array.shape, UINT8)
    np.testing.assert_array_equal(codec.decode(data, shape=array.shape, dtype=UINT8), read)


@pytest.mark.parity
def test_defaults_are_those_of_cloudvolume():
    array = smooth((1, 7, 9, 16), UINT8)
    assert Jxl().encode(array) == cloudvolume_encode(array, "jxl")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_lossy_error_is_that_of_the_library(channels):
    array = smooth((channels, 7, 9, 16), UINT8)
    codec = Jxl(jxl_quality=90)
    decoded = codec.decode(codec.encode(array), shape=array.shape, dtype=UINT8)
    image = np.moveaxis(array, 0, -1).reshape(63, 16, channels)
    bare = imagecodecs.jpegxl_encode(image.squeeze(), 90, effort=5, numthreads=1)
    theirs = imagecodecs.jpegxl_decode(bare, numthreads=1).reshape(image.shape)
    assert difference(decoded, array) == difference(theirs, image)


@pytest.mark.parametrize(
    "container",
    [
        lambda stream: SIGNATURE + box(b"jxlc", stream),
        lambda stream: SIGNATURE + box(b"jxlc", stream, open_end=True),
        lambda stream: SIGNATURE + box(b"Exif", bytes(9)) + box(b"jxlc", stream, long=True),
        lambda stream: (
            SIGNATURE
            + box(b"jxlp", b"\0\0\0\0" + stream[:3])
            + box(b"jxlp", b"\0\0\0\1" + stream[3:8])
            + box(b"jxlp", b"\x80\0\0\2" + stream[8:])
        ),
    ],
    ids=["one box", "to the end", "long size", "in parts"],
)
def test_every_kind_of_container_is_read(container):
    array = smooth((3, 7, 9, 11), UINT8)
    data = container(LOSSLESS.encode(array))
    np.testing.assert_array_equal(Jxl().decode(data, shape=array.shape, dtype=UINT8), array)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\x0a",
        b"\xff\x0a\x00",
        SIGNATURE,
        SIGNATURE + box(b"jxlc", b"\xff\x0a"),
        SIGNATURE + box(b"jxlc", bytes(60)),
        SIGNATURE + b"\0\0\0\4Exif" + bytes(30),
        SIGNATURE + box(b"Exif", bytes(30)),
        b"\0" * 64,
    ],
)
def test_what_is_no_image_is_refused(data):
    with pytest.raises(FormatError):
        Jxl().decode(data, shape=(1, 4, 5, 6), dtype=UINT8)


@pytest.mark.parametrize("size", [(64, 8), (8, 64), (40, 30), (600, 3), (3, 9000), (2, 300_000)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_image_of_another_size_is_refused_before_decoding(size, channels, monkeypatch):
    height, width = size
    shape = (height, width) if channels == 1 else (height, width, channels)
    data = imagecodecs.jpegxl_encode(np.zeros(shape, UINT8), effort=1, numthreads=1)

    def jpegxl_decode(*args, **options):
        raise AssertionError("reached the decoder")

    monkeypatch.setattr(imagecodecs, "jpegxl_decode", jpegxl_decode)
    with pytest.raises(FormatError, match=f"{width} × {height} pixels; expected 120"):
        Jxl().decode(data, shape=(channels, 4, 5, 6), dtype=UINT8)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((20, 6, 3), "uint8"), r"decoded to \(20, 6, 3\)"),
        (np.zeros((20, 6, 4), "uint8"), "1 channels besides its colours"),
        (np.zeros((20, 6), "uint16"), "16 bits per sample; expected 8"),
        (np.zeros((20, 6), "float32"), "floating-point samples"),
        (np.zeros((4, 20, 6), "uint8"), "an animation"),
    ],
    ids=["colours", "alpha", "16 bits", "float", "animation"],
)
def test_image_of_another_kind_is_refused(image, message):
    kind = "RGB" if image.shape[-1] in (3, 4) else "GRAY"
    data = imagecodecs.jpegxl_encode(image, effort=1, photometric=kind, numthreads=1)
    with pytest.raises(FormatError, match=message):
        Jxl().decode(data, shape=(1, 4, 5, 6), dtype=UINT8)


def test_grey_image_in_a_scale_of_four_channels_is_refused():
    data = LOSSLESS.encode(smooth((1, 4, 5, 6), UINT8))
    with pytest.raises(FormatError, match="0 channels besides its colours"):
        Jxl().decode(data, shape=(4, 4, 5, 6), dtype=UINT8)


def test_chunks_higher_than_the_format_allows_lie_side_by_side():
    array = np.full((1, 600, 500, 3), 9, UINT8)
    data = LOSSLESS.encode(array)
    assert imagecodecs.jpegxl_decode(data).shape == (150_000, 6)
    np.testing.assert_array_equal(Jxl().decode(data, shape=array.shape, dtype=UINT8), array)


def test_arrays_of_any_strides_are_encoded_alike():
    array = smooth((3, 4, 5, 6), UINT8)
    data = LOSSLESS.encode(array)
    assert LOSSLESS.encode(np.asfortranarray(array)) == data
    assert LOSSLESS.encode(np.repeat(array, 2, axis=3)[..., ::2]) == data


def test_noise_stays_within_the_promised_size():
    array = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 32), UINT8)
    for codec in (LOSSLESS, Jxl(jxl_quality=99, jxl_effort=1)):
        limit = codec.max_encoded_bytes(shape=array.shape, dtype=UINT8)
        assert len(codec.encode(array)) < limit - (1 << 20)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 4, 4, 4), "uint8", "1 or 3 or 4 channels, not 2"),
        ((1, 4, 4, 4), "uint16", "uint8, not uint16"),
    ],
)
def test_arrays_it_cannot_hold_are_refused(shape, dtype, message):
    with pytest.raises(FormatError, match=message):
        Jxl().encode(np.zeros(shape, dtype))


def test_every_wrong_parameter_is_named():
    with pytest.raises(ValueError) as caught:
        Jxl.from_parameters({"jxl_quality": 101, "jxl_effort": 0, "jxl_decodingspeed": "fast"})
    assert dict(caught.value.args) == {
        "jxl_quality": "expected an integer from 0 to 100, got 101",
        "jxl_effort": "expected an integer from 1 to 10, got 0",
        "jxl_decodingspeed": "expected an integer from 0 to 4, got 'fast'",
    }


def test_parameters_round_trip_and_the_unset_ones_stay_unset():
    assert Jxl().to_parameters() == {}
    parameters = {"jxl_quality": 90, "jxl_effort": 3, "jxl_decodingspeed": 2}
    codec = Jxl.from_parameters(parameters)
    assert codec.to_parameters() == parameters
    assert pickle.loads(pickle.dumps(codec)) == codec


def test_effort_and_decoding_speed_reach_the_encoder():
    array = smooth((1, 16, 16, 16), UINT8)
    encoded = {
        Jxl(jxl_quality=100, jxl_effort=effort, jxl_decodingspeed=speed).encode(array)
        for effort, speed in [(1, 0), (7, 0), (7, 4)]
    }
    assert len(encoded) == 3


def test_recognises_its_own_beginning_only():
    for _, data, expected in FROZEN:
        assert Jxl().recognises(data, shape=expected.shape, dtype=UINT8)
    assert not Jxl().recognises(b"\x1f\x8b\x08", shape=(1, 1, 1, 3), dtype=UINT8)


def test_without_its_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(UnsupportedError, match=r"precomputed-store\[images\]"):
        Jxl().decode(FROZEN[0][1], shape=FROZEN[0][2].shape, dtype=UINT8)


def test_neuroglancer_misreads_several_channels():
    assert Jxl().neuroglancer_misreads(1, UINT8) is None
    assert "several channels" in Jxl().neuroglancer_misreads(3, UINT8)
