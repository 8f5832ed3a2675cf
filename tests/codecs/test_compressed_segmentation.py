import itertools
import pickle
import sys
import types

import numpy as np
import pytest
from image_peers import frozen, mutants, read_whatever
from segmentation_peers import (
    TensorStoreChunk,
    cells,
    cloudvolume_decode,
    cloudvolume_encode,
    noise,
)

from precomputed_store._native import segmentation as native
from precomputed_store.codecs import _segmentation_blocks as blocks
from precomputed_store.codecs.compressed_segmentation import CompressedSegmentation
from precomputed_store.errors import FormatError, UnsupportedError

FROZEN = frozen("compressed_segmentation")
NAMES = [name for name, _, _ in FROZEN]
frozen_chunks = pytest.mark.parametrize(("name", "data", "expected"), FROZEN, ids=NAMES)


def codec(x: int, y: int, z: int) -> CompressedSegmentation:
    return CompressedSegmentation(compressed_segmentation_block_size=(x, y, z))


def codec_of(name: str) -> CompressedSegmentation:
    """The codec of a frozen chunk: its block size is in its name."""
    x, y, z = map(int, name.split("_")[-3:])
    return codec(x, y, z)


def chunk(*words: int) -> bytes:
    return np.array(words, "<u4").tobytes()


def decode(data, block_size, shape, dtype="uint64"):
    return codec(*block_size).decode(data, shape=shape, dtype=np.dtype(dtype))


@pytest.fixture(autouse=True, params=["kernel", "library"])
def means(request, monkeypatch):
    """With the compiled kernel, and as where it could not be compiled."""
    if request.param == "library":
        monkeypatch.setattr(native, "_library", lambda: None)
    elif not native.is_available():
        pytest.skip("the package was installed without a compiler")


# Specification and frozen bytes


@frozen_chunks
def test_frozen_chunks_decode_exactly(name, data, expected):
    decoded = codec_of(name).decode(data, shape=expected.shape, dtype=expected.dtype)
    assert decoded.dtype == expected.dtype
    np.testing.assert_array_equal(decoded, expected)


@frozen_chunks
def test_the_same_voxels_encode_to_the_frozen_bytes(name, data, expected):
    encoded = codec_of(name).encode(expected)
    assert len(encoded) == len(data)
    if name.startswith("tensorstore"):
        assert encoded == data


def test_single_blocks_of_the_vectors_decode_to_their_input(vectors):
    for vector in vectors["compressed_segmentation"]["encode_block"]:
        shape, block = vector["input_shape_zyx"], vector["block_shape_zyx"]
        header = (vector["table_offset"] + 2 | vector["encoded_bits"] << 24, 2)
        decoded = decode(chunk(1, *header, *vector["words"]), block[::-1], (1, *shape))
        assert decoded.ravel().tolist() == vector["input"]


def test_channels_of_the_vectors_decode_to_their_input(vectors):
    for vector in vectors["compressed_segmentation"]["encode_channel"]:
        data = chunk(1) + bytes.fromhex(vector["bytes"])
        shape, block = (1, *vector["input_shape_zyx"]), vector["block_shape_zyx"][::-1]
        assert decode(data, block, shape, vector["dtype"]).ravel().tolist() == vector["input"]
        array = np.array(vector["input"], vector["dtype"]).reshape(shape)
        assert codec(*block).encode(array) == data


def test_whole_chunks_of_the_vectors_decode_to_their_input(vectors):
    for vector in vectors["compressed_segmentation"]["encode_channels"]:
        shape, block = vector["input_shape_czyx"], vector["block_shape_zyx"][::-1]
        decoded = decode(bytes.fromhex(vector["bytes"]), block, tuple(shape))
        assert decoded.ravel().tolist() == vector["input"]


def test_chunk_files_of_the_vectors_hold_what_was_written(vectors):
    for vector in vectors["compressed_segmentation"]["volume_chunks"]:
        written = np.array(vector["written_zyx_from_origin"], vector["dtype"])
        for name, data in vector["files"].items():
            bounds = [tuple(map(int, axis.split("-"))) for axis in name.split("/")[1].split("_")]
            place = tuple(slice(*axis) for axis in reversed(bounds))
            array = np.zeros((1, *(stop - start for start, stop in reversed(bounds))), "u8")
            part = written[place]
            array[0, : part.shape[0], : part.shape[1], : part.shape[2]] = part
            array = array.astype(vector["dtype"])
            encoder = codec(*vector["block_size_xyz"])
            decoded = encoder.decode(bytes.fromhex(data), shape=array.shape, dtype=array.dtype)
            np.testing.assert_array_equal(decoded, array)
            assert encoder.encode(array).hex() == data


def test_corrupt_channels_of_the_vectors_are_refused(vectors):
    for vector in vectors["compressed_segmentation"]["decode_channel_errors"]:
        data = chunk(1) + bytes.fromhex(vector["bytes"])
        with pytest.raises(FormatError):
            decode(data, vector["block_shape_zyx"][::-1], (1, *vector["output_shape_zyx"]))


# Other programs

SHAPES = [(1, 1, 1, 1), (1, 8, 8, 8), (1, 9, 10, 11), (3, 5, 17, 6), (2, 1, 1, 30)]
BLOCK_SIZES = [(8, 8, 8), (5, 7, 3), (1, 1, 1), (64, 32, 16)]


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_chunks_pass_between_tensorstore_and_us(shape, block_size, dtype):
    peer = TensorStoreChunk(shape=shape, dtype=dtype, block_size=block_size)
    for array in (cells(shape, 6, dtype), noise(shape, 2, dtype), noise(shape, 700, dtype)):
        if not array.any():
            continue  # TensorStore does not store it
        encoded = codec(*block_size).encode(array)
        np.testing.assert_array_equal(peer.decode(encoded), array)
        decoded = decode(peer.encode(array), block_size, shape, dtype)
        np.testing.assert_array_equal(decoded, array)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_chunks_pass_between_cloudvolume_and_us(block_size, dtype):
    for shape in SHAPES:
        if shape[0] > 1:
            continue  # CloudVolume has one channel only
        array = cells(shape, 6, dtype)
        encoded = codec(*block_size).encode(array)
        theirs = cloudvolume_decode(
            encoded, "compressed_segmentation", like=array, block_size=block_size
        )
        np.testing.assert_array_equal(theirs, array)
        data = cloudvolume_encode(array, "compressed_segmentation", block_size=block_size)
        np.testing.assert_array_equal(decode(data, block_size, shape, dtype), array)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
def test_blocks_of_more_than_65536_labels_pass_between_tensorstore_and_us(dtype):
    array = noise((2, 42, 41, 40), 2**31, dtype)
    array[1, :20] = 7
    block_size = (42, 42, 21)
    assert len(np.unique(array[0])) > 1 << 16
    peer = TensorStoreChunk(shape=array.shape, dtype=dtype, block_size=(64, 64, 64))
    np.testing.assert_array_equal(peer.decode(codec(64, 64, 64).encode(array)), array)
    data = peer.encode(array)
    np.testing.assert_array_equal(decode(data, (64, 64, 64), array.shape, dtype), array)
    mixed = codec(*block_size).encode(array)
    np.testing.assert_array_equal(decode(mixed, block_size, array.shape, dtype), array)


def test_real_chunks_come_back(real_data):
    with np.load(real_data / "fib25_250.npz") as volumes:
        for name in ("bodies", "supervoxels"):
            array = volumes[name][np.newaxis, 186:250, 64:128, :50]
            encoded = codec(8, 8, 8).encode(array)
            assert len(encoded) < array.nbytes / 3
            decoded = decode(encoded, (8, 8, 8), array.shape, array.dtype)
            np.testing.assert_array_equal(decoded, array)


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 256, 257])
@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
def test_the_encoder_for_large_blocks_writes_what_the_library_writes(count, dtype):
    labels = noise((1, 9, 21, 10), count, dtype)
    geometry = blocks.block_geometry((9, 21, 10), (7, 9, 10))
    by_library = codec(10, 9, 7).encode(labels)
    by_us = chunk(1) + blocks.encode_channel(labels[0], geometry)
    assert by_us == by_library


# Arrays of any kind


def test_decoded_chunks_are_c_contiguous():
    array = cells((3, 9, 10, 11), 6, "uint64")
    decoded = decode(codec(8, 8, 8).encode(array), (8, 8, 8), array.shape)
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
def test_arrays_of_any_layout_encode_alike(dtype):
    array = cells((2, 9, 10, 11), 6, dtype)
    expected = codec(8, 8, 8).encode(array)
    read_only = array.copy()
    read_only.flags.writeable = False
    spaced = np.repeat(array, 2, axis=3)[..., ::2]
    reversed_twice = np.ascontiguousarray(array[:, ::-1])[:, ::-1]
    swapped = array.astype(array.dtype.newbyteorder(">"))
    for other in (np.asfortranarray(array), read_only, spaced, reversed_twice, swapped):
        assert codec(8, 8, 8).encode(other) == expected


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_decodes(kind):
    _, data, expected = FROZEN[0]
    decoded = decode(kind(data), (8, 8, 8), expected.shape, expected.dtype)
    np.testing.assert_array_equal(decoded, expected)


def test_other_data_types_are_refused():
    with pytest.raises(FormatError, match="holds uint32, uint64, not int64"):
        codec(8, 8, 8).encode(np.zeros((1, 2, 2, 2), "int64"))


# Bytes that are not to be trusted


@frozen_chunks
def test_every_prefix_is_refused_or_lost_nothing(name, data, expected):
    refused = 0
    for length in range(len(data)):
        decoded = read_whatever(codec_of(name), data[:length], expected)
        refused += decoded is None
        assert decoded is None or np.array_equal(decoded, expected), length
    assert refused > len(data) * 0.99


@pytest.mark.parametrize("name", NAMES[:4])
def test_damaged_bytes_are_refused_or_decode_the_same_each_time(name):
    _, data, expected = FROZEN[NAMES.index(name)]
    outcomes = []
    for mutant in mutants(data, 500):
        first = read_whatever(codec_of(name), mutant, expected)
        again = read_whatever(codec_of(name), mutant, expected)
        assert (first is None) == (again is None)
        assert first is None or np.array_equal(first, again)
        outcomes.append(first is None)
    assert 0 < sum(outcomes) < len(outcomes)


@pytest.mark.parity
@frozen_chunks
def test_damaged_bytes_that_tensorstore_accepts_read_the_same(name, data, expected):
    block_size = codec_of(name).compressed_segmentation_block_size
    peer = TensorStoreChunk(shape=expected.shape, dtype=expected.dtype, block_size=block_size)
    compared = 0
    for mutant in mutants(data, 200, seed=1):
        ours, theirs = read_whatever(codec_of(name), mutant, expected), peer.decode(mutant)
        if ours is not None and theirs is not None:
            compared += 1
            np.testing.assert_array_equal(ours, theirs)
    assert compared


def test_bytes_are_checked_before_the_library_sees_them(monkeypatch):
    def decompress(*_arguments, **_options):
        raise AssertionError

    library = types.SimpleNamespace(decompress=decompress)
    monkeypatch.setitem(sys.modules, "compressed_segmentation", library)
    for garbage in (b"", b"\0", b"\1\0\0\0", b"\xff" * 400, bytes(400), b"\x1f\x8b" * 100):
        with pytest.raises(FormatError):
            decode(garbage, (8, 8, 8), (1, 16, 16, 16))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((2, 2, 3, 5, 0), "expected the offsets of 1 channels, the first being 1"),
        ((1, 2), r"has 1 words; expected at least 2"),
        ((1, 3 << 24 | 2, 2, 5, 0), "has 3 bits per value"),
        ((1, 33 << 24 | 2, 2, 5, 0), "has 33 bits per value"),
        ((1, 3, 2, 5, 0), "table entry in word 4; the channel has 4"),
        ((1, 1 << 24 | 3, 5, 0, 5, 0), r"block \(0, 0, 0\) has its values in words 5 to 6"),
        ((1, 1 << 24 | 3, 2**32 - 1, 0, 5, 0), "words 4294967295 to 4294967296"),
        ((1, 1 << 24 | 3, 2, 0b10, 5, 0), "table entry in word 6; the channel has 5"),
        ((1, 32 << 24 | 4, 2, 0, 1, 0, 0), "table entry in word 7"),
    ],
)
def test_what_is_wrong_with_a_block_is_said(words, message):
    with pytest.raises(FormatError, match=message):
        decode(chunk(*words), (2, 1, 1), (1, 1, 1, 2))


def test_a_channel_past_the_end_is_refused():
    with pytest.raises(FormatError, match="begins at word 9"):
        decode(chunk(2, 9, 2, 2, 5, 0), (2, 1, 1), (2, 1, 1, 2))


def test_channels_may_share_their_bytes():
    decoded = decode(chunk(2, 2, 2, 2, 5, 1), (2, 1, 1), (2, 1, 1, 2))
    assert decoded.ravel().tolist() == [2**32 + 5] * 4


def test_a_block_of_one_label_may_have_its_values_anywhere():
    decoded = decode(chunk(1, 2, 2**32 - 1, 5, 0), (2, 1, 1), (1, 1, 1, 2))
    assert decoded.ravel().tolist() == [5, 5]


def test_indices_outside_the_chunk_are_not_looked_at():
    values = 0b11111110  # of eight voxels, one of them in the chunk
    decoded = decode(chunk(1, 1 << 24 | 3, 2, values, 5, 0), (2, 2, 2), (1, 1, 1, 1))
    assert decoded.item() == 5


def test_the_last_entry_of_a_table_may_end_the_chunk():
    decoded = decode(chunk(1, 2 << 24 | 3, 2, 0b1001, 5, 0, 6, 0, 7, 0), (2, 1, 1), (1, 1, 1, 2))
    assert decoded.ravel().tolist() == [6, 7]


# Limits


def test_a_channel_beyond_24_bit_offsets_is_refused(monkeypatch):
    monkeypatch.setattr(blocks, "MAX_CHANNEL_WORDS", 100)
    with pytest.raises(FormatError, match="use a smaller chunk size"):
        codec(4, 4, 4).encode(noise((1, 16, 16, 16), 1000, "uint64"))
    with pytest.raises(FormatError, match="use a smaller chunk size"):
        codec(64, 64, 64).encode(noise((1, 42, 41, 40), 1000, "uint64"))


def test_the_overflow_that_the_library_reports_is_a_format_error(monkeypatch):
    monkeypatch.setattr(native, "_library", lambda: None)

    def compress(*_arguments, **_options):
        raise OverflowError

    library = types.SimpleNamespace(compress=compress)
    monkeypatch.setitem(sys.modules, "compressed_segmentation", library)
    with pytest.raises(FormatError, match="64 MiB"):
        codec(8, 8, 8).encode(np.zeros((1, 8, 8, 8), "uint64"))


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_no_chunk_exceeds_the_bound(block_size):
    for shape, dtype in itertools.product(SHAPES, ("uint32", "uint64")):
        array = noise(shape, 2**31, dtype)
        encoded = codec(*block_size).encode(array)
        bound = codec(*block_size).max_encoded_bytes(shape=shape, dtype=array.dtype)
        assert len(encoded) <= bound


def test_chunks_are_recognised_by_their_first_word_and_length():
    for name, data, expected in FROZEN:
        like = {"shape": expected.shape, "dtype": expected.dtype}
        assert codec_of(name).recognises(data, **like)
        assert not codec_of(name).recognises(data[:-1], **like)
        assert not codec_of(name).recognises(b"\x1f\x8b\x08\x00" + data[4:], **like)
        assert not codec_of(name).recognises(data[:8], **like)


@pytest.mark.parametrize(
    "value", [None, 8, "8", [8, 8], [8, 8, 0], [8, 8, -1], [8, 8, 1.5], [8, True, 8], [512] * 3]
)
def test_other_block_sizes_are_refused(value):
    parameters = {"compressed_segmentation_block_size": value}
    with pytest.raises(ValueError) as caught:
        CompressedSegmentation.from_parameters(parameters)
    ((member, _message),) = caught.value.args
    assert member == "compressed_segmentation_block_size"


def test_parameters_round_trip():
    parameters = {"compressed_segmentation_block_size": [8, 4, 2.0]}
    read = CompressedSegmentation.from_parameters(parameters)
    assert read == codec(8, 4, 2)
    assert read.to_parameters() == {"compressed_segmentation_block_size": [8, 4, 2]}
    assert pickle.loads(pickle.dumps(read)) == read
    assert hash(read) == hash(codec(8, 4, 2))


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(native, "_library", lambda: None)
    monkeypatch.setitem(sys.modules, "compressed_segmentation", None)
    name, data, expected = FROZEN[0]
    with pytest.raises(UnsupportedError, match="pip install"):
        codec_of(name).decode(data, shape=expected.shape, dtype=expected.dtype)
