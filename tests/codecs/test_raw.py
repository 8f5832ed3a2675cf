import numpy as np
import pytest
from image_peers import tensorstore_decode, tensorstore_encode
from segmentation_peers import cloudvolume_decode, cloudvolume_encode

from precomputed_store.codecs.raw import Raw
from precomputed_store.errors import FormatError

IN_THE_SPECIFICATION = (
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32",
)  # fmt: skip
SHAPES = [(1, 1, 1, 1), (1, 5, 9, 13), (3, 4, 1, 30), (2, 17, 3, 1)]


def random_voxels(shape, dtype):
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(0)
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    data = rng.bytes(int(np.prod(shape)) * dtype.itemsize)
    bits = np.frombuffer(data, f"u{dtype.itemsize}").reshape(shape)
    return bits % 2 == 1 if dtype.kind == "b" else bits.view(dtype)


def decode(data, like):
    return Raw().decode(data, shape=like.shape, dtype=like.dtype)


def test_voxels_lie_x_fastest_and_channel_slowest():
    data = bytes(range(24))
    decoded = Raw().decode(data, shape=(2, 1, 3, 4), dtype=np.dtype("uint8"))
    assert decoded[0, 0, 0].tolist() == [0, 1, 2, 3]
    assert decoded[0, 0, :, 0].tolist() == [0, 4, 8]
    assert decoded[:, 0, 0, 0].tolist() == [0, 12]


def test_numbers_are_little_endian():
    decoded = Raw().decode(b"\1\2\3\4", shape=(1, 1, 1, 2), dtype=np.dtype("uint16"))
    assert decoded.ravel().tolist() == [0x0201, 0x0403]
    big = Raw().decode(b"\1\2\3\4", shape=(1, 1, 1, 2), dtype=np.dtype(">u2"))
    assert big.dtype == np.dtype(">u2")
    assert big.ravel().tolist() == [0x0201, 0x0403]
    assert Raw().encode(big) == b"\1\2\3\4"


@pytest.mark.parametrize("dtype", Raw.data_types)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_data_type_comes_back(shape, dtype):
    array = random_voxels(shape, dtype)
    data = Raw().encode(array)
    assert len(data) == Raw().max_encoded_bytes(shape=shape, dtype=array.dtype)
    decoded = decode(data, array)
    assert decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded, array)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", IN_THE_SPECIFICATION)
@pytest.mark.parametrize("shape", SHAPES)
def test_chunks_are_those_of_tensorstore_and_cloudvolume(shape, dtype):
    array = random_voxels(shape, dtype)
    data = Raw().encode(array)
    assert tensorstore_encode(array, "raw") == data
    assert cloudvolume_encode(array, "raw") == data
    np.testing.assert_array_equal(tensorstore_decode(data, "raw", shape, dtype), array)
    np.testing.assert_array_equal(cloudvolume_decode(data, "raw", like=array), array)


def test_chunk_files_of_the_vectors_hold_what_was_written(vectors):
    for vector in vectors["raw_chunks"]:
        written = vector.get("written") or {
            "origin_xyzc": [0, 0, 0, 0],
            "data_xyzc": np.array(vector["written_xy"])[:, :, None, None],
        }
        data = np.array(written["data_xyzc"], vector["dtype"])
        offset, size = vector.get("voxel_offset", [0, 0, 0]), vector["size"]
        volume = np.zeros((*size, vector["num_channels"]), vector["dtype"])
        starts = np.subtract(written["origin_xyzc"], [*offset, 0])
        volume[tuple(slice(a, a + n) for a, n in zip(starts, data.shape, strict=True))] = data
        for name, stored in vector["files"].items():
            bounds = [tuple(map(int, axis.split("-"))) for axis in name.split("/")[1].split("_")]
            place = (slice(a - o, b - o) for (a, b), o in zip(bounds, offset, strict=True))
            expected = volume[tuple(place)].T
            np.testing.assert_array_equal(decode(bytes.fromhex(stored), expected), expected)
            assert Raw().encode(expected).hex() == stored


def test_arrays_of_any_layout_encode_alike():
    array = random_voxels((2, 9, 10, 11), "uint16")
    expected = Raw().encode(array)
    spaced = np.repeat(array, 2, axis=3)[..., ::2]
    for other in (np.asfortranarray(array), spaced, array.astype(">u2")):
        assert Raw().encode(other) == expected


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_decoding_copies_nothing(kind):
    array = random_voxels((1, 5, 9, 13), "uint32")
    data = kind(Raw().encode(array))
    decoded = decode(data, array)
    assert np.shares_memory(decoded, np.frombuffer(data, "uint8"))


@pytest.mark.parametrize("length", [0, 1, 583, 585, 1168])
def test_another_length_is_refused(length):
    like = np.empty((1, 2, 8, 9), "uint32")
    assert like.nbytes == 576
    with pytest.raises(FormatError, match=f"raw chunk is {length} bytes; expected 576"):
        decode(bytes(length), like)


def test_every_prefix_is_refused():
    like = np.empty((1, 2, 3, 4), "uint32")
    for length in range(like.nbytes):
        with pytest.raises(FormatError):
            decode(bytes(length), like)
        assert not Raw().recognises(bytes(length), shape=like.shape, dtype=like.dtype)
    assert Raw().recognises(bytes(like.nbytes), shape=like.shape, dtype=like.dtype)
