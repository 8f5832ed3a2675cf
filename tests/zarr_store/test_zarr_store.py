"""The store itself: lazy, comparable, picklable; few requests; what is missing or corrupt."""

from __future__ import annotations

import pickle
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from dask.base import tokenize
from servers.web import WebServer

import precomputed_store as ps
from precomputed_store.codecs.base import Codec
from tests.oracles import make_info

from .conftest import Layer, MakeLayer


def opened(folder: Path, **options: Any) -> Any:
    return zarr.open_group(ps.PrecomputedStore(folder, **options), mode="r")["0"]


def test_nothing_is_read_before_it_is_needed(tmp_path: Path, requests: Counter[str]) -> None:
    store = ps.PrecomputedStore(tmp_path / "not there")
    assert pickle.loads(pickle.dumps(store)) == store
    assert not requests


def test_opening_a_group_costs_one_request(make_layer: MakeLayer, requests: Counter[str]) -> None:
    layer = make_layer()
    requests.clear()
    group = zarr.open_group(ps.PrecomputedStore(layer.folder), mode="r")
    assert [name for name, _ in group.members()] == ["0"]
    assert group["0"].shape == (2, 17, 35, 25)
    assert "1" not in group
    assert requests == {"get info": 1}


def test_reading_costs_one_request_for_each_chunk(
    make_layer: MakeLayer, requests: Counter[str]
) -> None:
    array = opened(make_layer().folder)
    requests.clear()
    array[0, 5, 9, 7]
    assert requests == {"get 8_8_8/-7-1_3-13_11-17": 1}
    requests.clear()
    array[...]
    assert requests.total() == 48


def test_a_pickled_array_takes_its_metadata_along(
    make_layer: MakeLayer, requests: Counter[str]
) -> None:
    layer = make_layer()
    pickled = pickle.dumps(opened(layer.folder))
    requests.clear()
    copy = pickle.loads(pickled)
    np.testing.assert_array_equal(copy[...], layer.expected)
    assert "get info" not in requests
    assert len(pickled) < 4000


def test_tokens_are_equal_for_equal_arrays(make_layer: MakeLayer) -> None:
    folder = make_layer().folder
    one, two = opened(folder), opened(folder)
    assert tokenize(one) == tokenize(two) == tokenize(pickle.loads(pickle.dumps(one)))
    assert tokenize(one) != tokenize(opened(make_layer().folder))


def test_stores_are_equal_if_they_show_the_same(tmp_path: Path) -> None:
    store = ps.PrecomputedStore(tmp_path)
    assert store == ps.PrecomputedStore(f"file://{tmp_path}/")
    assert hash(store) == hash(ps.PrecomputedStore(str(tmp_path)))
    others: list[dict[str, Any]] = [
        {"read_only": True},
        {"mode": "decoded"},
        {"missing": "raise"},
        {"scale": 1},
        {"storage_options": {"anon": True}},
        {"missing_statuses": (404, 403)},
        {"compress": "gzip"},
    ]
    for options in others:
        assert store != ps.PrecomputedStore(tmp_path, **options)


@pytest.mark.parametrize("wrong", [1.5, object()])
def test_a_scale_is_an_index_a_key_or_a_resolution(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected an index, a key or a resolution"):
        ps.PrecomputedStore(tmp_path, scale=wrong)


def test_a_scale_may_be_given_in_any_form(tmp_path: Path) -> None:
    pairs: list[tuple[Any, Any]] = [((8, 8, 8), np.array([8, 8, 8])), (1, np.int64(1))]
    for selectors in pairs:
        one, two = (ps.PrecomputedStore(tmp_path, scale=scale) for scale in selectors)
        assert one == two
        assert hash(one) == hash(two)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "raw"}, "expected 'native' or 'decoded'"),
        ({"missing": "ignore"}, "expected 'fill' or 'raise'"),
        ({"compress": "lzma"}, "expected 'auto'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ps.PrecomputedStore("memory://x", **options)


def test_no_layer_is_said_in_our_own_words(tmp_path: Path) -> None:
    with pytest.raises(ps.VolumeNotFoundError, match="no Precomputed volume here"):
        zarr.open_group(ps.PrecomputedStore(tmp_path), mode="r")


def test_unknown_keys_are_answered_without_asking(
    make_layer: MakeLayer, requests: Counter[str]
) -> None:
    store = ps.PrecomputedStore(make_layer().folder)
    assert store.layer.info.num_channels == 2
    requests.clear()
    for key in (".zarray", ".zattrs", "0/.zarray", "1/zarr.json", "0/c/0/9/9/9", "info", "8_8_8"):
        assert store.get_sync(key) is None
    assert not requests


def test_blocking_methods_are_offered_where_they_are_faster(
    make_layer: MakeLayer, web_server: WebServer
) -> None:
    layer = make_layer()
    assert ps.PrecomputedStore(layer.folder)._supports_sync_io
    web_server.add("/em/info", (layer.folder / "info").read_bytes())
    assert not ps.PrecomputedStore(f"{web_server.url}/em")._supports_sync_io


def remove(layer: Layer, *names: str) -> None:
    for name in names or layer.files():
        (layer.folder / "8_8_8" / name).unlink()


def test_a_missing_chunk_is_the_fill_value(make_layer: MakeLayer) -> None:
    layer = make_layer()
    remove(layer, "-7-1_3-13_11-17")
    layer.expected[:, :6, :10, :8] = 0
    np.testing.assert_array_equal(opened(layer.folder)[...], layer.expected)


def test_a_missing_chunk_is_an_error_where_asked(make_layer: MakeLayer) -> None:
    layer = make_layer()
    remove(layer, "-7-1_3-13_11-17")
    array = opened(layer.folder, missing="raise")
    with pytest.raises(ps.MissingChunkError, match=r"-7-1_3-13_11-17.*\[-7:1, 3:13, 11:17\]"):
        array[0, 0, 0, 0]
    assert array[0, 6, 0, 0] == layer.expected[0, 6, 0, 0]


def test_a_scale_without_any_chunk_warns_once(make_layer: MakeLayer) -> None:
    layer = make_layer()
    remove(layer)
    with pytest.warns(ps.MissingDataWarning, match="none of the 1 chunks"):
        assert not opened(layer.folder)[...].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not opened(layer.folder)[...].any()


def test_a_sparse_scale_does_not_warn_however_often_it_is_opened(make_layer: MakeLayer) -> None:
    layer = make_layer()
    remove(layer, *sorted(layer.files())[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            assert not opened(layer.folder)[:, :, 10:, 8:].any()


def test_an_empty_layer_that_is_written_to_does_not_warn(make_layer: MakeLayer) -> None:
    layer = make_layer(empty=True)
    array = zarr.open_group(ps.PrecomputedStore(layer.folder), mode="r+")["0"]
    assert not array[...].any()


@pytest.mark.parametrize("mode", ["native", "decoded"])
def test_a_corrupt_chunk_is_an_error_that_names_it(make_layer: MakeLayer, mode: Any) -> None:
    layer = make_layer()
    path = layer.folder / "8_8_8" / "-7-1_3-13_11-17"
    path.write_bytes(b"too short")
    with pytest.raises(ps.ChunkError, match=r"-7-1_3-13_11-17.*9 bytes; expected 960") as caught:
        opened(layer.folder, mode=mode)[0, 0, 0, 0]
    assert str(caught.value.box) == "[-7:1, 3:13, 11:17]"
    path.write_bytes(b"")
    with pytest.raises(ps.ChunkError, match=r"-7-1_3-13_11-17.*empty \(0 bytes\)"):
        opened(layer.folder, mode=mode)[0, 0, 0, 0]


@pytest.mark.parametrize("mode", ["native", "decoded"])
def test_bytes_that_crash_their_decoder_are_an_error(make_layer: MakeLayer, mode: Any) -> None:
    layer = make_layer(dtype="uint64", num_channels=1, encoding="compresso")
    array = opened(layer.folder, mode=mode)
    np.testing.assert_array_equal(array[...], layer.expected)
    path = layer.folder / "8_8_8" / "-7-1_3-13_11-17"
    sound = path.read_bytes()
    path.write_bytes(sound[:40] + b"\xff" * (len(sound) - 40))
    with pytest.raises(ps.ChunkError, match="-7-1_3-13_11-17"):
        array[0, 0, 0, 0]
    assert array[0, 6, 0, 0] == layer.expected[0, 6, 0, 0]


def test_compressed_files_are_read(make_layer: MakeLayer) -> None:
    layer = make_layer(empty=True)
    layer.expected[...] = np.arange(25)
    volume = ps.open_volume(layer.folder, mode="r+", compress="gzip")
    volume[...] = layer.expected.transpose()
    assert all(name.endswith(".gz") for name in layer.files())
    np.testing.assert_array_equal(opened(layer.folder)[...], layer.expected)
    assert opened(layer.folder).nchunks_initialized == 48


def test_nested_folders_are_read_and_listed(make_layer: MakeLayer) -> None:
    layer = make_layer()
    for path in list((layer.folder / "8_8_8").iterdir()):
        nested = path.parent.joinpath(*path.name.split("_"))
        nested.parent.mkdir(parents=True, exist_ok=True)
        path.rename(nested)
    array = opened(layer.folder)
    np.testing.assert_array_equal(array[...], layer.expected)
    assert array.nchunks_initialized == 48


@pytest.mark.parity
def test_shards_are_read(make_layer: MakeLayer, tmp_path: Path) -> None:
    from tests.oracles import tensorstore_write

    sharding = {"preshift_bits": 1, "minishard_bits": 1, "shard_bits": 1, "hash": "identity"}
    info = make_info(
        size=(25, 35, 17),
        chunk_size=(8, 10, 6),
        sharding={**sharding, "minishard_index_encoding": "gzip", "data_encoding": "gzip"},
    )
    data = np.random.default_rng(0).integers(1, 255, (25, 35, 17, 1), dtype=np.uint8)
    tensorstore_write(tmp_path / "sharded", info, data)
    array = opened(tmp_path / "sharded")
    np.testing.assert_array_equal(array[...], data.transpose())
    np.testing.assert_array_equal(
        opened(tmp_path / "sharded", mode="decoded")[...], data.transpose()
    )
    assert array.store.get_sync("0/c/0/0/0/0").to_bytes() == data[:8, :10, :6].tobytes("F")


def test_stored_bytes_are_counted_cropped(make_layer: MakeLayer) -> None:
    array = opened(make_layer().folder)
    metadata = len(array.store.get_sync("0/zarr.json"))
    assert array.nbytes_stored() == array.nbytes + metadata


class TestDecoded:
    def test_it_reads_the_same(self, layer: Layer) -> None:
        np.testing.assert_array_equal(opened(layer.folder, mode="decoded")[...], layer.expected)

    def test_chunks_are_padded_little_endian_voxels(self, make_layer: MakeLayer) -> None:
        layer = make_layer("compressed_segmentation")
        store = ps.PrecomputedStore(layer.folder, mode="decoded")
        value = store.get_sync("0/c/0/2/3/3")
        assert value is not None
        whole = np.frombuffer(value.to_bytes(), "<u4").reshape(2, 6, 10, 8)
        np.testing.assert_array_equal(whole[:, :5, :5, :1], layer.expected[:, 12:, 30:, 24:])
        assert np.count_nonzero(whole) == 2 * 5 * 5

    def test_sizes_are_known_without_reading(
        self, make_layer: MakeLayer, requests: Counter[str]
    ) -> None:
        array = opened(make_layer("png").folder, mode="decoded")
        requests.clear()
        assert array.nbytes_stored() > 48 * 3 * 8 * 10 * 6
        assert not any(request.startswith("get") for request in requests)

    def test_it_is_read_only(self, make_layer: MakeLayer) -> None:
        store = ps.PrecomputedStore(make_layer().folder, mode="decoded")
        assert store.read_only
        with pytest.raises(ValueError, match="read-only"):
            zarr.open_group(store, mode="r+")
        with pytest.raises(ps.UnsupportedError, match="read-only"):
            store.with_read_only(False)


class TestDask:
    def test_from_zarr(self, layer: Layer) -> None:
        array = da.from_zarr(opened(layer.folder))
        assert array.chunks[3] == (8, 8, 8, 1)
        with dask.config.set(scheduler="threads"):
            np.testing.assert_array_equal(array[..., 3:].compute(), layer.expected[..., 3:])

    def test_a_huge_volume_is_a_small_array(self, tmp_path: Path) -> None:
        ps.create(tmp_path, make_info(size=(250_000, 250_000, 25_000), chunk_size=(512, 512, 64)))
        assert len(pickle.dumps(opened(tmp_path))) < 4000

    def test_to_zarr_writes_whole_chunks(self, make_layer: MakeLayer) -> None:
        layer = make_layer(empty=True)
        layer.expected[...] = np.arange(25)
        target = zarr.open_group(ps.PrecomputedStore(layer.folder), mode="r+")["0"]
        source = da.from_array(layer.expected, chunks=(1, 5, 10, 8))
        # dask rechunks to whole chunks of zarr's, of about this size.
        with dask.config.set({"scheduler": "threads", "array.chunk-size": 2 * 6 * 10 * 8}):
            da.to_zarr(source, target)
        np.testing.assert_array_equal(target[...], layer.expected)


class TestXarray:
    def test_open_zarr(self, layer: Layer) -> None:
        dataset = xr.open_zarr(ps.PrecomputedStore(layer.folder), consolidated=False)
        assert dataset["0"].dims == ("channel", "z", "y", "x")
        np.testing.assert_array_equal(dataset["0"].values, layer.expected)
        assert dataset["0"].attrs["voxel_offset"] == [-7, 3, 11]

    def test_open_zarr_by_its_defaults_does_not_warn(self, make_layer: MakeLayer) -> None:
        layer = make_layer()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dataset = xr.open_zarr(ps.PrecomputedStore(layer.folder))
        np.testing.assert_array_equal(dataset["0"].values, layer.expected)

    def test_one_scale_of_several(self, tmp_path: Path) -> None:
        info = make_info(size=(20, 20, 20))
        coarse = {**info["scales"][0], "key": "c", "size": [10, 10, 10], "resolution": [16] * 3}
        info["scales"].append(coarse)
        ps.create(tmp_path, info)
        store = ps.PrecomputedStore(tmp_path, scale=-1, read_only=True)
        assert list(xr.open_zarr(store).data_vars) == ["1"]


def test_ome_attributes_are_in_the_group(make_layer: MakeLayer) -> None:
    group = zarr.open_group(ps.PrecomputedStore(make_layer().folder), mode="r")
    ome: Any = group.attrs["ome"]
    assert ome["version"] == "0.5"
    (multiscale,) = ome["multiscales"]
    for dataset in multiscale["datasets"]:
        array: Any = group[dataset["path"]]
        names = [axis["name"] for axis in multiscale["axes"]]
        assert list(array.metadata.dimension_names) == names
        kinds = [change["type"] for change in dataset["coordinateTransformations"]]
        assert kinds == ["scale", "translation"]


def test_every_data_type_is_read(tmp_path: Path) -> None:
    from precomputed_store.codecs.raw import Raw

    with warnings.catch_warnings():
        # Neuroglancer cannot show some of them.
        warnings.simplefilter("ignore", ps.CompatibilityWarning)
        for data_type in Raw.data_types:
            folder = tmp_path / data_type
            ps.create(folder, make_info(size=(3, 3, 3), dtype=data_type))
            value = np.arange(27).reshape(3, 3, 3, 1).astype(data_type)
            ps.open_volume(folder, mode="r+")[...] = value
            for mode in ("native", "decoded"):
                array = opened(folder, mode=mode)
                assert array.dtype == np.dtype(data_type)
                np.testing.assert_array_equal(array[...], value.transpose())


def test_the_codec_leaves_the_parameters_of_the_encoding_alone(make_layer: MakeLayer) -> None:
    array = opened(make_layer("compressed_segmentation").folder)
    (codec,) = array.metadata.codecs
    assert isinstance(codec.codec, Codec)
    assert codec.codec.to_parameters() == {"compressed_segmentation_block_size": [8, 8, 8]}
