"""Writing through zarr: the same result as numpy, and files as other programs expect them."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.errors import ContainsGroupError

import precomputed_store as ps
from tests.oracles import tensorstore_read

from .conftest import KINDS, Layer, LayerInMemory, MakeLayer
from .test_zarr_indexing import MASK_X, MASK_Y, MASK_Z, PIPELINES, outer


def opened(layer: Layer | LayerInMemory) -> Any:
    return zarr.open_array(ps.PrecomputedStore(layer.url), path="0", mode="r+")


def value_for(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Distinct values of any shape, so that nothing can be mixed up."""
    return np.asarray((np.arange(np.prod(shape, dtype=int)) * 7 % 199 + 1).reshape(shape), dtype)


BASIC = [
    ...,
    (slice(None), slice(0, 6), slice(0, 10), slice(0, 8)),
    (slice(None), slice(12, 17), slice(30, 35), slice(24, 25)),
    (slice(None), slice(5, 13), slice(9, 31), slice(7, 25)),
    (slice(None), slice(1, 17, 5), slice(0, 35, 7), slice(3, None, 11)),
    (slice(None), 16, 34, 24),
    (0, slice(None), -1),
    (0, 0, 0, 0),
    (slice(None), slice(4, 4)),
]

OUTER = [
    (slice(None), [0, 5, 16], slice(None), slice(None)),
    (slice(None), slice(None), slice(None), MASK_X),
    (slice(None), MASK_Z, MASK_Y, MASK_X),
    (0, [2, 16], slice(3, 30, 4), [0, 8, 24]),
    ([0], 3, MASK_Y, slice(None)),
    (0, 3, MASK_Y, 24),
]

POINTS = ([0, 0, 0, 0], [0, 16, 5, 5], [34, 0, 10, 11], [24, 8, 7, 7])


@pytest.fixture(params=PIPELINES)
def pipeline(request: pytest.FixtureRequest) -> Any:
    path = f"zarr.core.codec_pipeline.{request.param}"
    with zarr.config.set({"codec_pipeline.path": path}):
        yield


@pytest.mark.usefixtures("pipeline")
class TestWhatNumpyDoes:
    @pytest.mark.parametrize("selection", BASIC, ids=repr)
    def test_basic_selections(self, memory_layer: LayerInMemory, selection: Any) -> None:
        layer = memory_layer
        value = value_for(layer.expected[selection].shape, layer.expected.dtype)
        opened(layer)[selection] = value
        layer.expected[selection] = value
        np.testing.assert_array_equal(opened(layer)[...], layer.expected)

    @pytest.mark.parametrize("selection", BASIC[3:7], ids=repr)
    def test_one_value_for_a_selection(self, memory_layer: LayerInMemory, selection: Any) -> None:
        layer = memory_layer
        opened(layer)[selection] = 9
        layer.expected[selection] = 9
        np.testing.assert_array_equal(opened(layer)[...], layer.expected)

    @pytest.mark.parametrize("selection", OUTER, ids=range(len(OUTER)))
    def test_orthogonal_selections(self, memory_layer: LayerInMemory, selection: Any) -> None:
        layer = memory_layer
        index, dropped = outer(selection, layer.expected.shape)
        value = value_for(layer.expected[index].shape, layer.expected.dtype)
        opened(layer).oindex[selection] = value.squeeze(axis=dropped)
        layer.expected[index] = value
        np.testing.assert_array_equal(opened(layer)[...], layer.expected)

    def test_scattered_points(self, memory_layer: LayerInMemory) -> None:
        layer = memory_layer
        value = value_for((4,), layer.expected.dtype)
        opened(layer).vindex[POINTS] = value
        layer.expected[POINTS] = value
        np.testing.assert_array_equal(opened(layer)[...], layer.expected)

    def test_a_mask(self, memory_layer: LayerInMemory) -> None:
        layer = memory_layer
        mask = layer.expected % 5 == 0
        opened(layer).vindex[mask] = 3
        layer.expected[mask] = 3
        np.testing.assert_array_equal(opened(layer)[...], layer.expected)


@pytest.mark.parity
@pytest.mark.parametrize("kind", KINDS)
def test_tensorstore_reads_what_zarr_wrote(make_layer: MakeLayer, kind: str) -> None:
    layer = make_layer(kind, empty=True)
    array = opened(layer)
    everything = value_for(layer.expected.shape, layer.expected.dtype)
    array[...] = everything
    array[:, 5:13, 9:31, 7:25] = 9
    everything[:, 5:13, 9:31, 7:25] = 9
    array[:, :6, :10, :8] = 0
    everything[:, :6, :10, :8] = 0
    np.testing.assert_array_equal(tensorstore_read(layer.folder), everything.transpose())
    assert len(layer.files()) == 4 * 4 * 3 - 1


def test_edge_chunks_are_cropped_on_disk(make_layer: MakeLayer) -> None:
    layer = make_layer(empty=True)
    opened(layer)[...] = 5
    sizes = layer.files()
    assert sizes["-7-1_3-13_11-17"] == 2 * 8 * 10 * 6
    assert sizes["17-18_33-38_23-28"] == 2 * 1 * 5 * 5
    assert len(sizes) == 4 * 4 * 3


def test_the_bytes_are_those_of_the_numpy_door(make_layer: MakeLayer) -> None:
    layer, other = make_layer("png"), make_layer("png", empty=True)
    opened(other)[...] = layer.expected
    for path in (layer.folder / "8_8_8").iterdir():
        assert path.read_bytes() == (other.folder / "8_8_8" / path.name).read_bytes()


def test_a_whole_chunk_is_written_without_reading_it(
    make_layer: MakeLayer, requests: Counter[str]
) -> None:
    array = opened(make_layer())
    array[0, 0, 0, 0] = 1  # asks once whether chunks are in nested folders
    requests.clear()
    array[:, 12:17, 30:35, 24:25] = 1
    assert requests == {"put 8_8_8/17-18_33-38_23-28": 1}
    requests.clear()
    array[:, 12:17, 30:35, 23:25] = 1
    assert requests == {
        "put 8_8_8/17-18_33-38_23-28": 1,
        "get 8_8_8/9-17_33-38_23-28": 1,
        "put 8_8_8/9-17_33-38_23-28": 1,
    }


@pytest.mark.usefixtures("pipeline")
def test_chunks_of_zeros_are_removed_unless_they_are_wanted(make_layer: MakeLayer) -> None:
    layer = make_layer()
    opened(layer)[0, :, :10, :8] = 0
    assert len(layer.files()) == 48
    opened(layer)[1, :, :10, :8] = 0
    assert len(layer.files()) == 45
    with zarr.config.set({"array.write_empty_chunks": True}):
        opened(layer)[:, :, :10, :8] = 0
    assert len(layer.files()) == 48


def test_negative_zero_is_not_the_fill_value(make_layer: MakeLayer) -> None:
    layer = make_layer("raw-float32", empty=True)
    opened(layer)[...] = -0.0
    assert np.signbit(opened(layer)[...]).all()


def test_a_missing_chunk_is_written_in_part_where_missing_is_an_error(
    make_layer: MakeLayer,
) -> None:
    layer = make_layer(empty=True)
    store = ps.PrecomputedStore(layer.folder, missing="raise")
    zarr.open_array(store, path="0", mode="r+")[0, 0, 0, 0] = 7
    assert opened(layer)[0, 0, 0, :2].tolist() == [7, 0]


def test_values_that_the_encoding_cannot_hold_are_an_error_that_names_the_chunk(
    make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make_layer("png")

    def refuse(self: object, array: object) -> bytes:
        raise ps.FormatError("too colourful")

    monkeypatch.setattr("precomputed_store.codecs.png.Png.encode", refuse)
    expected = r"0/c/0/0/0/0: chunk \[-7:1, 3:13, 11:17\] \('-7-1_3-13_11-17', png\): too col"
    with pytest.raises(ps.ChunkError, match=expected):
        opened(layer)[0, 0, 0, 0] = 1


def test_a_compression_is_applied_where_it_is_asked_for(make_layer: MakeLayer) -> None:
    layer = make_layer()
    store = ps.PrecomputedStore(layer.folder, compress="gzip", compress_level=9)
    array = zarr.open_array(store, path="0", mode="r+")
    array[:, :6, :10, :8] = layer.expected[:, :6, :10, :8]
    names = layer.files()
    assert "-7-1_3-13_11-17.gz" in names
    assert "-7-1_3-13_11-17" not in names
    np.testing.assert_array_equal(array[...], layer.expected)


SHARDINGS = {
    "boxes": {"preshift_bits": 1, "minishard_bits": 1, "shard_bits": 9, "hash": "identity"},
    "scattered": {
        "preshift_bits": 0, "minishard_bits": 1, "shard_bits": 1, "hash": "murmurhash3_x86_128",
    },
}  # fmt: skip


@pytest.mark.parametrize("data_encoding", ["raw", "gzip"])
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_shards_are_written_whole_in_part_and_with_zeros(
    make_layer: MakeLayer, sharding: str, data_encoding: str
) -> None:
    layer = make_layer(
        empty=True, sharding={**SHARDINGS[sharding], "data_encoding": data_encoding}
    )
    array = opened(layer)
    shape = array.shape
    expected = np.random.default_rng(4).integers(1, 200, shape).astype(array.dtype)
    array[...] = expected
    np.testing.assert_array_equal(opened(layer)[...], expected)
    expected[:, 2:7, 1:11, 3:12] = 7
    array[:, 2:7, 1:11, 3:12] = 7
    expected[:, :, :, 5:] = 0
    array[:, :, :, 5:] = 0
    np.testing.assert_array_equal(opened(layer)[...], expected)
    theirs = tensorstore_read(layer.folder)
    np.testing.assert_array_equal(theirs.transpose(), expected)
    array[...] = 0
    assert not [name for name in layer.files() if name.endswith(".shard")]


def test_chunks_of_a_shard_that_come_together_are_stored_together(
    make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from precomputed_store.shard_writer import ShardWriter

    sizes: list[int] = []
    original = ShardWriter.store_chunks

    def slow(self: ShardWriter, shard: int, chunks: Any, *, whole: bool) -> None:
        sizes.append(len(chunks))
        time.sleep(0.05)
        original(self, shard, chunks, whole=whole)

    monkeypatch.setattr(ShardWriter, "store_chunks", slow)
    one = {"preshift_bits": 20, "minishard_bits": 0, "shard_bits": 0, "hash": "identity"}
    layer = make_layer(empty=True, sharding=one)
    array = opened(layer)
    array[...] = 3
    assert (array[...] == 3).all()
    assert len(sizes) < sum(sizes) == array.nchunks


class TestWhatCannotBeWritten:
    @pytest.fixture
    def layer(self, make_layer: MakeLayer) -> Layer:
        return make_layer()

    @pytest.fixture(autouse=True)
    def nothing_changes(self, layer: Layer) -> Any:
        info, files = (layer.folder / "info").read_bytes(), layer.files()
        yield
        assert (layer.folder / "info").read_bytes() == info
        assert layer.files() == files

    def group(self, layer: Layer) -> Any:
        return zarr.open_group(ps.PrecomputedStore(layer.folder), mode="r+")

    def test_a_read_only_array(self, layer: Layer) -> None:
        array = zarr.open_group(ps.PrecomputedStore(layer.folder), mode="r")["0"]
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1

    def test_a_read_only_store(self, layer: Layer) -> None:
        store = ps.PrecomputedStore(layer.folder, read_only=True)
        with pytest.raises(ValueError, match="read-only"):
            zarr.open_group(store, mode="r+")

    def test_attributes(self, layer: Layer) -> None:
        with pytest.raises(ps.UnsupportedError, match="attributes, new arrays and groups cannot"):
            self.group(layer)["0"].attrs["note"] = "mine"
        with pytest.raises(ps.UnsupportedError, match="attributes"):
            self.group(layer).attrs["note"] = "mine"

    def test_new_nodes(self, layer: Layer) -> None:
        with pytest.raises(ps.UnsupportedError, match=r"precomputed_store\.create"):
            self.group(layer).create_array("1", shape=(4,), dtype="u1")
        with pytest.raises(ps.UnsupportedError, match=r"precomputed_store\.create"):
            self.group(layer).create_group("labels")

    def test_another_size(self, layer: Layer) -> None:
        with pytest.raises(ValueError, match="cannot differ from its layer's size"):
            self.group(layer)["0"].resize((2, 8, 35, 25))
        with pytest.raises(ValueError, match="cannot differ from its layer's size"):
            self.group(layer)["0"].append(layer.expected, axis=1)

    def test_another_hierarchy_in_its_place(self, layer: Layer) -> None:
        store = ps.PrecomputedStore(layer.folder)
        with pytest.raises(ps.UnsupportedError):
            zarr.open_group(store, mode="w")
        with pytest.raises(ps.UnsupportedError):
            zarr.create_group(store, overwrite=True)
        with pytest.raises(ps.UnsupportedError):
            zarr.create_array(store, name="0", shape=(4,), dtype="u1", overwrite=True)
        with pytest.raises(FileExistsError):
            zarr.open_group(store, mode="w-")
        with pytest.raises(ContainsGroupError):
            zarr.create_group(store)

    def test_removing_an_array(self, layer: Layer) -> None:
        with pytest.raises(ps.UnsupportedError, match="not removed or replaced"):
            del self.group(layer)["0"]

    def test_no_bytes_as_a_chunk(self, layer: Layer) -> None:
        from zarr.core.buffer import cpu

        with pytest.raises(ValueError, match="0 bytes are not an encoded chunk"):
            ps.PrecomputedStore(layer.folder).set_sync("0/c/0/0/0/0", cpu.Buffer.from_bytes(b""))


def test_metadata_that_says_the_same_is_no_change(make_layer: MakeLayer) -> None:
    group = zarr.open_group(ps.PrecomputedStore(make_layer().folder), mode="a")
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(group.store)
    assert list(group.array_keys()) == ["0"]
