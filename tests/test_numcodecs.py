import json
import pickle
import subprocess
import sys

import numcodecs
import numpy as np
import pytest
import zarr

from precomputed_store import numcodecs_codecs
from precomputed_store.codecs import ENCODINGS, codec_class
from precomputed_store.numcodecs_codecs import PrecomputedNumcodecsCodec

SHAPE = (1, 4, 5, 6)

REQUIRED = {"compressed_segmentation": {"compressed_segmentation_block_size": [8, 8, 8]}}


def class_of(encoding: str) -> type[PrecomputedNumcodecsCodec]:
    _, name = ENCODINGS[encoding]
    found = getattr(numcodecs_codecs, name)
    assert issubclass(found, PrecomputedNumcodecsCodec)
    return found


def build(encoding: str, **options) -> PrecomputedNumcodecsCodec:
    dtype = codec_class(encoding).data_types[0]
    parameters = REQUIRED.get(encoding)
    return class_of(encoding)(
        **{"shape": SHAPE, "dtype": dtype, "parameters": parameters} | options
    )


@pytest.fixture
def registered():
    """Every class in the registry, as the entry points put it there, and out again."""
    before = dict(numcodecs.registry.codec_registry)
    for encoding in ENCODINGS:
        numcodecs.register_codec(class_of(encoding))
    yield
    numcodecs.registry.codec_registry.clear()
    numcodecs.registry.codec_registry.update(before)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_goes_through_json_and_the_registry(encoding, registered):
    codec = build(encoding)
    config = json.loads(json.dumps(codec.get_config()))
    assert config["id"] == f"precomputed.{encoding}"
    again = numcodecs.get_codec(config)
    assert again == codec
    assert type(again) is type(codec)
    assert pickle.loads(pickle.dumps(codec)) == codec


def test_configuration_tells_codecs_apart():
    codec = build("jpeg")
    assert codec != build("jpeg", shape=(1, 4, 5, 7))
    assert codec != build("jpeg", parameters={"jpeg_quality": 90})
    assert codec != build("png")
    assert repr(build("jpeg", parameters={"jpeg_quality": 90})) == (
        "Jpeg(dtype='uint8', parameters={'jpeg_quality': 90}, shape=(1, 4, 5, 6))"
    )


@pytest.mark.parametrize(
    ("encoding", "shape", "dtype", "parameters"),
    [
        ("raw", SHAPE, "float32", {}),
        ("png", (3, 4, 5, 6), "uint16", {"png_level": 3}),
        ("jxl", (3, 4, 5, 6), "uint8", {"jxl_quality": 100}),
        (
            "compressed_segmentation",
            (2, 4, 5, 6),
            "uint64",
            {"compressed_segmentation_block_size": [4, 4, 4]},
        ),
    ],
)
class TestRoundTrip:
    @pytest.fixture
    def codec(self, encoding, shape, dtype, parameters):
        if encoding == "jxl" or (encoding, dtype) == ("png", "uint16"):
            pytest.importorskip("imagecodecs")
        return class_of(encoding)(shape=shape, dtype=dtype, parameters=parameters)

    @pytest.fixture
    def array(self, shape, dtype):
        return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)

    def test_bytes_are_those_of_the_pure_codec(self, codec, array, encoding, parameters):
        pure = codec_class(encoding).from_parameters(parameters)
        assert codec.encode(array) == pure.encode(array)

    def test_any_array_like_of_the_shape_is_encoded(self, codec, array):
        data = codec.encode(array)
        assert codec.encode(np.asfortranarray(array)) == data
        assert codec.encode(array.tobytes()) == data
        assert codec.encode(memoryview(array)) == data

    def test_decoding_is_contiguous_whatever_the_buffer(self, codec, array):
        data = codec.encode(array)
        for buffer in (data, bytearray(data), np.frombuffer(data, np.uint8)):
            decoded = codec.decode(buffer)
            assert decoded.flags.c_contiguous
            assert decoded.dtype == array.dtype
            np.testing.assert_array_equal(decoded, array)

    def test_out_is_filled_and_returned(self, codec, array):
        for out in (np.empty_like(array), np.empty(array.nbytes, np.uint8)):
            assert codec.decode(codec.encode(array), out=out) is out
            assert out.tobytes() == array.tobytes()

    @pytest.mark.parametrize("role", ["compressor", "filter"])
    def test_zarr_format_2_arrays_use_it(self, codec, array, role, registered):
        channels, *zyx = array.shape
        store: dict[str, object] = {}
        options = (
            {"compressors": codec}
            if role == "compressor"
            else {"filters": [codec], "compressors": numcodecs.Zlib()}
        )
        written = zarr.create_array(
            store,
            shape=(channels, *(2 * side for side in zyx)),
            chunks=array.shape,
            dtype=array.dtype,
            zarr_format=2,
            **options,
        )
        whole = np.tile(array, (1, 2, 2, 2))
        whole[..., -1] += 1
        written[:] = whole
        read = zarr.open_array(store, mode="r")
        np.testing.assert_array_equal(read[:], whole)
        np.testing.assert_array_equal(read[:, 1:5, :, 3:7], whole[:, 1:5, :, 3:7])
        if role == "compressor":
            corner = bytes(store["0.0.0.0"].to_bytes())
            assert corner == codec.encode(whole[:, : zyx[0], : zyx[1], : zyx[2]])


def test_arrays_of_another_shape_or_type_are_refused():
    codec = build("png", dtype="uint8")
    for array in (np.zeros((1, 6, 5, 4), "u1"), np.zeros(SHAPE, "u2"), np.zeros(10, "u1")):
        with pytest.raises(ValueError, match=r"expected uint8 of shape \(1, 4, 5, 6\)"):
            codec.encode(array)


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 4, 5, 0), (1, 4, 5, 6, 7), ()])
def test_shape_is_four_positive_integers(shape):
    with pytest.raises(ValueError, match="four positive integers"):
        build("raw", shape=shape)


def test_shape_of_floats_is_refused():
    with pytest.raises(TypeError):
        build("raw", shape=(1, 4.5, 5, 6))


def test_unknown_parameter_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'jpeg_quality'"):
        build("jpeg", parameters={"jpeg_qualty": 90})


def test_wrong_parameter_is_named_in_plain_words():
    with pytest.raises(ValueError, match=r"^jpeg_quality: expected an integer from 0 to 100"):
        build("jpeg", parameters={"jpeg_quality": 900})


def test_importing_the_classes_loads_no_native_library():
    program = (
        "import sys, precomputed_store.numcodecs_codecs as module;"
        "module.Jpeg(shape=(1, 1, 1, 1), dtype='uint8');"
        "print([name for name in sys.modules if name in "
        "('simplejpeg', 'imagecodecs', 'pyspng', 'compressed_segmentation', 'zarr')])"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"
