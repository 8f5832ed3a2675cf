import dataclasses
import pickle

import numpy as np
import pytest

from precomputed_store.codecs import ENCODINGS, codec_class

CODECS = [codec_class(name) for name in ENCODINGS]
IN_NEUROGLANCER = {"raw", "jpeg", "png", "jxl", "compressed_segmentation", "compresso"}
UNSAFE_LIBRARIES = {"compresso", "crackle", "fpzip", "kempressed"}
MUCH_MEMORY = {"zfpc"}


def build(codec):
    required = "compressed_segmentation_block_size"
    names = {field.name for field in dataclasses.fields(codec)}
    return codec.from_parameters({required: [8, 8, 8]} if required in names else {})


@pytest.mark.parametrize("name", ENCODINGS)
def test_the_registry_leads_to_the_codec_of_that_name(name):
    assert codec_class(name).name == name
    assert name == name.lower()


def test_an_unknown_encoding_has_no_codec():
    assert codec_class("webp") is None


@pytest.mark.parity
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_headers_are_those_that_cloudvolume_sets(codec):
    common = pytest.importorskip("cloudvolume.datasource.precomputed.common")
    assert codec.content_type == common.content_type(codec.name)
    compressed = common.should_compress(codec.name, None, None)
    assert codec.compressible == (compressed == "gzip")


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_what_neuroglancer_decodes_is_known(codec):
    assert codec.in_neuroglancer == (codec.name in IN_NEUROGLANCER)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_only_unsafe_libraries_and_those_that_take_much_memory_run_in_a_worker(codec):
    assert (codec.place == "worker") == (codec.name in UNSAFE_LIBRARIES | MUCH_MEMORY)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_codecs_are_small_immutable_values(codec):
    built = build(codec)
    assert pickle.loads(pickle.dumps(built)) == built
    assert hash(built) == hash(build(codec))
    assert codec.from_parameters(built.to_parameters()) == built
    assert not hasattr(built, "__dict__")


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_data_types_are_names_of_numpy(codec):
    for data_type in codec.data_types:
        assert np.dtype(data_type).name == data_type
