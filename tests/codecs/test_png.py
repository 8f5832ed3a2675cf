import logging
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator

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
from peaks import IMPORT

from precomputed_store._native import png_rows as native
from precomputed_store.codecs import png
from precomputed_store.codecs.png import Png
from precomputed_store.errors import FormatError, UnsupportedError

FROZEN = frozen("png")
NAMES = [name for name, _, _ in FROZEN]
KINDS = [(dtype, channels) for dtype in ("uint8", "uint16") for channels in (1, 2, 3, 4)]
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True, params=["kernel", "imagecodecs", "pyspng"])
def library(request, monkeypatch) -> Iterator[str]:
    """The whole file runs with each of the two libraries, and with the compiled kernel."""
    logging.getLogger("imagecodecs").setLevel(logging.ERROR)
    if request.param == "kernel":
        if not native.is_available():
            pytest.skip("the package was installed without a compiler")
    else:
        pytest.importorskip(request.param)
        monkeypatch.setattr(native, "is_available", lambda: False)
    if request.param == "pyspng":
        monkeypatch.setitem(sys.modules, "imagecodecs", None)
    png._imagecodecs.cache_clear()
    yield request.param
    png._imagecodecs.cache_clear()


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def image(
    *chunks: bytes, width: int = 6, height: int = 20, bits: int = 8, colour: int = 0
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"".join([SIGNATURE, chunk(b"IHDR", header), *chunks, chunk(b"IEND", b"")])


def pixels(width: int = 6, height: int = 20, bytes_per_pixel: int = 1) -> bytes:
    """Rows without filter: 0, 1, 2, …"""
    rows = np.arange(width * height * bytes_per_pixel, dtype=np.uint8).reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)
    return zlib.compress(filtered.tobytes())


COUNTING = np.arange(120, dtype=np.uint8).reshape(1, 4, 5, 6)


def decode(data: bytes, like: np.ndarray = COUNTING) -> np.ndarray:
    return Png().decode(data, shape=like.shape, dtype=like.dtype)


@pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=NAMES)
def test_frozen_chunks_decode(name, data, expected):
    decoded = Png().decode(data, shape=expected.shape, dtype=expected.dtype)
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.dtype == expected.dtype


@pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=NAMES)
def test_every_prefix_is_refused(name, data, expected):
    for length in range(len(data)):
        assert read_whatever(Png(), data[:length], expected) is None, length


@pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=NAMES)
def test_damage_to_the_pixels_is_noticed(name, data, expected):
    for mutant in mutants(data, 200):
        decoded = read_whatever(Png(), mutant, expected)
        if decoded is not None:  # harmless: in the metadata, or no change at all
            np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parity
@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_tensorstore_reads_what_we_write(dtype, channels, library):
    if library == "pyspng" and (dtype, channels) == ("uint16", 3):
        pytest.skip("the library cannot write it")
    array = smooth((channels, 7, 5, 9), dtype)
    data = Png().encode(array)
    np.testing.assert_array_equal(decode(data, array), array)
    np.testing.assert_array_equal(tensorstore_decode(data, "png", array.shape, dtype), array)


@pytest.mark.parity
@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize("level", [0, 9])
def test_we_read_what_tensorstore_writes(dtype, channels, level):
    array = smooth((channels, 7, 5, 9), dtype)
    data = tensorstore_encode(array, "png", png_level=level)
    np.testing.assert_array_equal(decode(data, array), array)


@pytest.mark.parity
def test_one_channel_agrees_with_cloudvolume_in_both_directions():
    pytest.importorskip("pyspng")
    array = smooth((1, 7, 5, 9), "uint8")
    np.testing.assert_array_equal(decode(cloudvolume_encode(array, "png"), array), array)
    read = cloudvolume_decode(Png().encode(array), "png", array.shape, "uint8")
    np.testing.assert_array_equal(read, array)


@pytest.mark.parity
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_several_channels_that_cloudvolume_writes_are_read(channels):
    array = smooth((channels, 7, 5, 9), "uint8")
    np.testing.assert_array_equal(decode(cloudvolume_encode(array, "png"), array), array)


def test_big_endian_arrays_keep_their_values():
    array = smooth((2, 3, 4, 5), "uint16")
    swapped = array.astype(">u2")
    assert Png().encode(swapped) == Png().encode(array)
    decoded = Png().decode(Png().encode(array), shape=array.shape, dtype=swapped.dtype)
    assert decoded.dtype == swapped.dtype
    np.testing.assert_array_equal(decoded, array)


def test_sixteen_bits_of_three_channels_need_imagecodecs_to_be_written(library):
    array = smooth((3, 3, 4, 5), "uint16")
    if library != "pyspng":
        np.testing.assert_array_equal(decode(Png().encode(array), array), array)
    else:
        with pytest.raises(UnsupportedError, match=r"precomputed-store\[images\]"):
            Png().encode(array)


def test_without_any_library_one_is_named(library, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setitem(sys.modules, "pyspng", None)
    png._imagecodecs.cache_clear()
    with pytest.raises(UnsupportedError, match="pip install"):
        Png(png_level=6).encode(COUNTING)
    data = image(chunk(b"IDAT", pixels()))
    if library == "kernel":
        np.testing.assert_array_equal(decode(data), COUNTING)
        np.testing.assert_array_equal(decode(Png().encode(COUNTING)), COUNTING)
        return
    with pytest.raises(UnsupportedError, match="pip install"):
        Png().encode(COUNTING)
    with pytest.raises(UnsupportedError, match="pip install"):
        decode(data)


def test_arrays_of_any_strides_are_encoded_alike():
    array = smooth((2, 4, 5, 6), "uint8")
    data = Png().encode(array)
    assert Png().encode(np.asfortranarray(array)) == data
    assert Png().encode(np.repeat(array, 2, axis=3)[..., ::2]) == data


def test_images_of_any_factoring_are_read():
    for width in (1, 2, 6, 30, 120):
        data = image(chunk(b"IDAT", pixels(width, 120 // width)), width=width, height=120 // width)
        np.testing.assert_array_equal(decode(data), COUNTING)


def test_chunks_higher_than_a_million_rows_lie_side_by_side():
    array = np.full((1, 1001, 1000, 3), 5, np.uint8)
    data = Png(png_level=1).encode(array)
    assert struct.unpack_from(">II", data, 16) == (3 * 2, 1001 * 1000 // 2)
    np.testing.assert_array_equal(decode(data, array), array)


def test_pixels_in_several_pieces_are_read():
    compressed = pixels()
    data = image(chunk(b"IDAT", compressed[:10]), chunk(b"IDAT", compressed[10:]))
    np.testing.assert_array_equal(decode(data), COUNTING)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 7}, "7 × 20 pixels; expected 120"),
        ({"width": 2**31 - 1, "height": 2**31 - 1}, "2147483647 × 2147483647 pixels"),
        ({"bits": 16}, "16 bits per sample; expected 8"),
        ({"bits": 4}, "4 bits per sample; expected 8"),
        ({"colour": 2}, "3 components; expected 1"),
        ({"colour": 4}, "2 components; expected 1"),
        ({"colour": 3}, "has a palette"),
        ({"colour": 5}, "unknown colour type 5"),
    ],
)
def test_header_that_contradicts_the_chunk_is_refused(options, message):
    with pytest.raises(FormatError, match=message):
        decode(image(chunk(b"IDAT", pixels()), **options))


def test_eight_bit_image_in_a_sixteen_bit_scale_is_refused():
    data = Png().encode(COUNTING)
    with pytest.raises(FormatError, match="8 bits per sample; expected 16 for uint16"):
        Png().decode(data, shape=COUNTING.shape, dtype=np.dtype("uint16"))


def test_metadata_is_neither_inflated_nor_applied():
    data = image(
        chunk(b"gAMA", struct.pack(">I", 10)),
        chunk(b"tRNS", struct.pack(">H", 7)),
        chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(1000))),
        chunk(b"IDAT", pixels()),
        chunk(b"tEXt", b"note\0behind"),
    )
    chunks, _ = png._read_image(data, shape=COUNTING.shape, dtype=COUNTING.dtype)
    assert png._pixels_of(data, chunks) == image(chunk(b"IDAT", pixels()))
    np.testing.assert_array_equal(decode(data), COUNTING)


def test_image_of_pixels_only_is_not_copied():
    data = image(chunk(b"IDAT", pixels()))
    chunks, _ = png._read_image(data, shape=COUNTING.shape, dtype=COUNTING.dtype)
    assert png._pixels_of(data, chunks) is data


def test_header_with_a_wrong_checksum_is_refused():
    data = bytearray(image(chunk(b"IDAT", pixels())))
    data[32] ^= 1
    with pytest.raises(FormatError):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "png"),
        ([chunk(b"IDAT", pixels()[:30])], "png"),
        ([chunk(b"IDAT", pixels(height=10))], "png"),
        ([chunk(b"IDAT", b"garbage")], "png"),
        ([chunk(b"ABCD", b""), chunk(b"IDAT", pixels())], "unknown critical chunk b'ABCD'"),
    ],
    ids=["no pixels", "cut short", "too few rows", "not zlib", "critical chunk"],
)
def test_broken_pixels_are_refused(chunks, message):
    with pytest.raises(FormatError, match=message):
        decode(image(*chunks))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        SIGNATURE,
        SIGNATURE + chunk(b"IEND", b""),
        SIGNATURE + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
        SIGNATURE + chunk(b"IHDR", b"short") + chunk(b"IEND", b""),
        SIGNATURE + b"\xff\xff\xff\xffIHDR" + bytes(40),
        b"\0" * 64,
    ],
)
def test_what_is_no_image_is_refused(data):
    with pytest.raises(FormatError):
        decode(data)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((5, 4, 4, 4), "uint8", "1 or 2 or 3 or 4 channels, not 5"),
        ((1, 4, 4, 4), "uint32", "uint8, uint16, not uint32"),
        ((1, 4, 4, 4), "int16", "uint8, uint16, not int16"),
    ],
)
def test_arrays_it_cannot_hold_are_refused(shape, dtype, message):
    with pytest.raises(FormatError, match=message):
        Png().encode(np.zeros(shape, dtype))


def test_noise_stays_within_the_promised_size():
    noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 32), np.uint8)
    for shape in [noise.shape, (1, 32 * 32 * 32, 1, 1), (1, 1, 1, 32 * 32 * 32)]:
        for level in (0, 6):
            data = Png(png_level=level).encode(noise.reshape(shape))
            limit = Png().max_encoded_bytes(shape=shape, dtype=noise.dtype)
            assert len(data) < limit - (1 << 20)


def test_recognises_its_own_beginning_only():
    for _, data, expected in FROZEN:
        assert Png().recognises(data, shape=expected.shape, dtype=expected.dtype)
    assert not Png().recognises(b"\x1f\x8b\x08", shape=(1, 1, 1, 3), dtype=np.dtype("uint8"))


@pytest.mark.parametrize("level", [-1, 10, "6", None])
def test_levels_are_checked(level):
    if level is None:
        assert Png.from_parameters({"png_level": None}) == Png()
        return
    with pytest.raises(ValueError) as caught:
        Png.from_parameters({"png_level": level})
    ((member, message),) = caught.value.args
    assert member == "png_level"
    assert "from 0 to 9" in message


def test_level_is_that_of_the_compressor():
    array = smooth((1, 16, 16, 16), "uint8")
    assert len(Png(png_level=0).encode(array)) > array.size
    assert len(Png(png_level=6).encode(array)) < array.size


def test_parameters_round_trip_and_the_unset_ones_stay_unset():
    assert Png().to_parameters() == {}
    codec = Png.from_parameters({"png_level": 3})
    assert codec.to_parameters() == {"png_level": 3}
    assert pickle.loads(pickle.dumps(codec)) == codec


def test_neuroglancer_misreads_several_channels_of_sixteen_bits_only():
    assert Png().lossless
    misread = {
        (dtype, channels)
        for dtype, channels in KINDS
        if Png().neuroglancer_misreads(channels, np.dtype(dtype))
    }
    assert misread == {("uint16", 2), ("uint16", 3), ("uint16", 4)}


REFUSED = (
    IMPORT
    + """
import numpy as np
from peaks import status_bytes
from precomputed_store.codecs.png import Png
from precomputed_store.errors import FormatError

voxels = np.arange(4 * 20_000, dtype="uint16").reshape(1, 1, 20_000, 4)
encoded = bytearray(Png().encode(voxels))
encoded[len(encoded) // 2] ^= 1

def refuse():
    try:
        Png().decode(encoded, shape=voxels.shape, dtype=voxels.dtype)
    except FormatError:
        return 1
    return 0

refused = sum(refuse() for _ in range(20))
before = status_bytes("VmRSS")
refused += sum(refuse() for _ in range(200))
print(refused, status_bytes("VmRSS") - before)
"""
)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc for memory")
def test_images_that_are_refused_leave_no_memory_behind():
    """libpng as imagecodecs calls it leaves 8 bytes per row behind, here 32 MB."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], capture_output=True, text=True, check=True
    )
    refused, grown = map(int, done.stdout.split())
    assert refused == 220
    assert grown < 4 << 20
