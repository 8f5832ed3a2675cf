import io
import pickle
import struct

import numpy as np
import pytest
from image_peers import (
    cloudvolume_decode,
    cloudvolume_encode,
    frozen,
    mutants,
    read_whatever,
    smooth,
    tensorstore_decode,
    tensorstore_encode,
)

from precomputed_store.codecs.jpeg import Jpeg
from precomputed_store.errors import FormatError

FROZEN = frozen("jpeg")
UINT8 = np.dtype("uint8")


def difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def with_frame(data: bytes, **fields: int) -> bytes:
    """The image with other numbers in its frame header."""
    start = data.index(b"\xff\xc0") + 4
    found = struct.unpack_from(">BHHB", data, start)
    frame = dict(zip(("bits", "height", "width", "components"), found, strict=True))
    header = struct.pack(">BHHB", *(frame | fields).values())
    return data[:start] + header + data[start + len(header) :]


@pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=[f[0] for f in FROZEN])
def test_frozen_chunks_decode_as_tensorstore_reads_them(name, data, expected):
    decoded = Jpeg().decode(data, shape=expected.shape, dtype=expected.dtype)
    assert difference(decoded, expected) <= 1


@pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=[f[0] for f in FROZEN])
def test_every_prefix_is_refused(name, data, expected):
    for length in range(len(data)):
        assert read_whatever(Jpeg(), data[:length], expected) is None, length


@pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=[f[0] for f in FROZEN])
def test_damaged_bytes_are_refused_or_fit(name, data, expected):
    refused = [read_whatever(Jpeg(), mutant, expected) is None for mutant in mutants(data, 300)]
    assert any(refused)


@pytest.mark.parity
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [30, 85, 100])
def test_chunks_of_ours_are_what_tensorstore_reads(channels, quality):
    array = smooth((channels, 7, 9, 16), UINT8)
    data = Jpeg(jpeg_quality=quality).encode(array)
    theirs = tensorstore_decode(data, "jpeg", array.shape, UINT8)
    ours = Jpeg().decode(data, shape=array.shape, dtype=UINT8)
    assert difference(ours, theirs) <= 1


@pytest.mark.parity
@pytest.mark.parametrize("channels", [1, 3])
def test_error_is_no_larger_than_that_of_tensorstore_at_the_same_quality(channels):
    array = smooth((channels, 7, 9, 16), UINT8)
    theirs = tensorstore_decode(
        tensorstore_encode(array, "jpeg", jpeg_quality=85), "jpeg", array.shape, UINT8
    )
    codec = Jpeg(jpeg_quality=85)
    ours = codec.decode(codec.encode(array), shape=array.shape, dtype=UINT8)
    assert difference(ours, array) <= difference(theirs, array)


@pytest.mark.parity
def test_one_channel_agrees_with_cloudvolume_in_both_directions():
    array = smooth((1, 7, 9, 16), UINT8)
    data = cloudvolume_encode(array, "jpeg", level=85)
    assert Jpeg(jpeg_quality=85).encode(array) == data
    assert Jpeg().encode(array) == data
    decoded = Jpeg().decode(data, shape=array.shape, dtype=UINT8)
    np.testing.assert_array_equal(decoded, cloudvolume_decode(data, "jpeg", array.shape, UINT8))


def test_channels_keep_their_own_values():
    array = np.empty((3, 8, 8, 8), UINT8)
    array[0], array[1], array[2] = 20, 200, 90
    codec = Jpeg(jpeg_quality=95)
    decoded = codec.decode(codec.encode(array), shape=array.shape, dtype=UINT8)
    assert difference(decoded, array) <= 3


def test_arrays_of_any_strides_are_encoded_alike():
    array = smooth((3, 4, 5, 6), UINT8)
    data = Jpeg().encode(array)
    assert Jpeg().encode(np.asfortranarray(array)) == data
    assert Jpeg().encode(np.repeat(array, 2, axis=3)[..., ::2]) == data


def test_bytearrays_and_views_are_decoded_too():
    _, data, expected = FROZEN[0]
    for buffer in (bytearray(data), memoryview(b"__" + data)[2:]):
        decoded = Jpeg().decode(buffer, shape=expected.shape, dtype=UINT8)
        assert difference(decoded, expected) <= 1


@pytest.mark.parametrize(
    "shape",
    [(1, 70_000, 1, 1), (1, 1, 1, 70_000), (1, 1000, 100, 2), (1, 7, 11 * 13 * 1000, 3)],
)
def test_chunks_too_high_for_one_row_of_voxels_lie_side_by_side(shape):
    array = np.full(shape, 77, UINT8)
    decoded = Jpeg().decode(Jpeg().encode(array), shape=shape, dtype=UINT8)
    np.testing.assert_array_equal(decoded, array)


def test_voxels_that_fill_no_image_are_refused():
    with pytest.raises(FormatError, match="65521 voxels do not fill an image"):
        Jpeg().encode(np.zeros((1, 1, 1, 65521), UINT8))  # a prime


def test_chunk_without_voxels_is_refused():
    with pytest.raises(FormatError, match="without voxels"):
        Jpeg().encode(np.zeros((1, 0, 4, 4), UINT8))


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 4, 4, 4), "uint8", "1 or 3 channels, not 2"),
        ((1, 4, 4, 4), "uint16", "uint8, not uint16"),
    ],
)
def test_arrays_it_cannot_hold_are_refused(shape, dtype, message):
    with pytest.raises(FormatError, match=message):
        Jpeg().encode(np.zeros(shape, dtype))
    with pytest.raises(FormatError, match=message):
        Jpeg().decode(FROZEN[0][1], shape=shape, dtype=np.dtype(dtype))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 10}, "10 × 54 pixels; expected 594"),
        ({"height": 65500, "width": 65500}, "65500 × 65500 pixels"),
        ({"height": 0}, "11 × 0 pixels"),
        ({"bits": 12}, "12 bits per sample; expected 8"),
        ({"components": 3}, "3 components; expected 1"),
    ],
)
def test_header_that_contradicts_the_chunk_is_refused_before_decoding(
    fields, message, monkeypatch
):
    import simplejpeg

    def decode_jpeg(*args, **options):
        raise AssertionError("reached the decoder")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode_jpeg)
    _, data, expected = FROZEN[0]
    with pytest.raises(FormatError, match=message):
        Jpeg().decode(with_frame(data, **fields), shape=expected.shape, dtype=UINT8)


def test_colour_image_in_a_grey_scale_is_refused():
    data = Jpeg().encode(smooth((3, 4, 5, 6), UINT8))
    with pytest.raises(FormatError, match="3 components; expected 1"):
        Jpeg().decode(data, shape=(1, 4, 5, 6), dtype=UINT8)


def test_cmyk_image_is_refused():
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.new("CMYK", (6, 20)).save(file, "JPEG")
    with pytest.raises(FormatError, match="4 components; expected 3"):
        Jpeg().decode(file.getvalue(), shape=(3, 4, 5, 6), dtype=UINT8)


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\0" * 64])
def test_what_is_no_image_is_refused(data):
    with pytest.raises(FormatError):
        Jpeg().decode(data, shape=(1, 4, 5, 6), dtype=UINT8)


def test_image_of_countless_scans_is_refused():
    (data,) = [data for name, data, _ in FROZEN if "progressive" in name]
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    bomb = data[:-2] + 1000 * last_scan + data[-2:]
    with pytest.raises(FormatError, match="more than 200 scans"):
        Jpeg().decode(bomb, shape=(3, 6, 9, 11), dtype=UINT8)


def test_fill_bytes_in_front_of_markers_are_skipped():
    _, data, expected = FROZEN[0]
    filled = data[:2] + b"\xff\xff\xff" + data[2:]
    decoded = Jpeg().decode(filled, shape=expected.shape, dtype=UINT8)
    assert difference(decoded, expected) <= 1


def test_noise_at_full_quality_stays_within_the_promised_size():
    array = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 32), UINT8)
    for shape in [array.shape, (3, 1, 32 * 32 * 32, 1), (3, 1, 1, 32 * 32 * 32)]:
        data = Jpeg(jpeg_quality=100).encode(array.reshape(shape))
        for_metadata = 1 << 20
        assert len(data) < Jpeg().max_encoded_bytes(shape=shape, dtype=UINT8) - for_metadata


def test_recognises_its_own_beginning_only():
    for _, data, expected in FROZEN:
        assert Jpeg().recognises(data, shape=expected.shape, dtype=UINT8)
    assert not Jpeg().recognises(b"\x1f\x8b\x08", shape=(1, 1, 1, 3), dtype=UINT8)


@pytest.mark.parametrize("quality", [-1, 101, "85", 85.5, True])
def test_wrong_quality_is_named(quality):
    with pytest.raises(ValueError) as caught:
        Jpeg.from_parameters({"jpeg_quality": quality})
    ((member, message),) = caught.value.args
    assert member == "jpeg_quality"
    assert "from 0 to 100" in message


def test_parameters_round_trip_and_the_unset_ones_stay_unset():
    assert Jpeg().to_parameters() == {}
    codec = Jpeg.from_parameters({"jpeg_quality": 90.0})
    assert codec.to_parameters() == {"jpeg_quality": 90}
    assert pickle.loads(pickle.dumps(codec)) == codec == Jpeg(jpeg_quality=90)


def test_lower_quality_makes_smaller_chunks():
    array = smooth((1, 16, 16, 16), UINT8)
    sizes = [len(Jpeg(jpeg_quality=quality).encode(array)) for quality in (10, 50, 85, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_jpeg_is_lossy_and_read_well_by_neuroglancer():
    assert not Jpeg(jpeg_quality=100).lossless
    assert Jpeg().neuroglancer_misreads(3, UINT8) is None
