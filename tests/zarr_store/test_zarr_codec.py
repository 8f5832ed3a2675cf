"""The codec by itself: its configuration, other stores, chunks without a key."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.core.buffer import cpu
from zarr.storage import MemoryStore

import precomputed_store as ps
from precomputed_store.codecs.png import Png
from precomputed_store.codecs.raw import Raw
from precomputed_store.grid import ChunkGrid
from precomputed_store.zarr_codec import PrecomputedCodec

from .conftest import MakeLayer

GRID = ChunkGrid(size=(25, 35, 17), voxel_offset=(-7, 3, 11), chunk_size=(8, 10, 6))


def configured(**members: Any) -> dict[str, Any]:
    configuration = {"encoding": "raw", "size": [25, 35, 17], "chunk_size": [8, 10, 6], **members}
    return {"name": "precomputed", "configuration": configuration}


def test_the_configuration_comes_back() -> None:
    codec = PrecomputedCodec(codec=Png(png_level=3), grid=GRID)
    assert codec.to_dict()["configuration"]["png_level"] == 3
    assert PrecomputedCodec.from_dict(json.loads(json.dumps(codec.to_dict()))) == codec
    assert pickle.loads(pickle.dumps(codec)) == codec


def test_the_offset_may_be_left_out() -> None:
    codec = PrecomputedCodec.from_dict(configured())
    assert codec == PrecomputedCodec(
        codec=Raw(),
        grid=ChunkGrid(size=(25, 35, 17), voxel_offset=(0, 0, 0), chunk_size=(8, 10, 6)),
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "bytes"}, "expected a codec 'precomputed'"),
        ({"name": "precomputed"}, "with a configuration"),
        (configured(encoding="mystery"), "unknown encoding 'mystery'"),
        (configured(encoding=7), "unknown encoding 7"),
        (configured(png_level=3), r"raw has no parameters \['png_level'\]"),
        (configured(encoding="png", png_level=99), "png_level"),
        (configured(encoding="compressed_segmentation"), "compressed_segmentation_block_size"),
        (configured(size=[1, 2]), r"size is \[1, 2\]; expected \[x, y, z\]"),
        (configured(chunk_size=[8, 0, 8]), "chunk_size"),
        (configured(chunk_size=None), "chunk_size"),
        (configured(voxel_offset=[0.5, 0, 0]), "voxel_offset"),
    ],
)
def test_a_wrong_configuration_is_refused(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrecomputedCodec.from_dict(data)


def create(store: Any, codec: PrecomputedCodec, **changes: Any) -> Any:
    arguments = {"shape": (2, 17, 35, 25), "chunks": (2, 6, 10, 8), "dtype": "uint8", **changes}
    return zarr.create_array(
        store, serializer=codec, compressors=None, filters=None, fill_value=0, **arguments
    )


def test_it_works_in_any_store() -> None:
    """As with references that kerchunk or icechunk keep: all that counts is the key."""
    array = create(MemoryStore(), PrecomputedCodec(codec=Raw(), grid=GRID), name="em/fine")
    expected = np.arange(array.size).reshape(array.shape).astype(np.uint8)
    array[...] = expected
    array[:, 5:13, 9:31, 7:25] = expected[:, 5:13, 9:31, 7:25] = 3
    again = zarr.open_array(array.store, path="em/fine", mode="r")
    np.testing.assert_array_equal(again[...], expected)
    corner = array.store._store_dict["em/fine/c/0/2/3/3"]
    assert corner.to_bytes() == expected[:, 12:, 30:, 24:].tobytes()


def test_the_bytes_may_be_those_of_a_layer(make_layer: MakeLayer) -> None:
    layer = make_layer("png")
    store = ps.PrecomputedStore(layer.folder)
    keys = [f"0/c/0/{z}/{y}/{x}" for z in range(3) for y in range(4) for x in range(4)]
    copied = {key: store.get_sync(key) for key in ["0/zarr.json", *keys]}
    array = zarr.open_array(MemoryStore(copied), path="0", mode="r")
    np.testing.assert_array_equal(array[...], layer.expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (2, 18, 35, 25)}, "cannot differ from its layer's size"),
        ({"chunks": (2, 6, 10, 9)}, "cannot differ from its layer's: all channels"),
        ({"chunks": (1, 6, 10, 8)}, "cannot differ from its layer's: all channels"),
        ({"dtype": "complex64"}, "complex64"),
    ],
)
def test_an_array_that_it_cannot_hold_is_refused(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create(MemoryStore(), PrecomputedCodec(codec=Raw(), grid=GRID), **changes)


def test_an_encoding_that_cannot_hold_the_channels_is_refused() -> None:
    grid = ChunkGrid(size=(8, 8, 8), voxel_offset=(0, 0, 0), chunk_size=(8, 8, 8))
    with pytest.raises(ValueError, match="holds 1 or 2 or 3 or 4 channels"):
        create(
            MemoryStore(),
            PrecomputedCodec(codec=Png(), grid=grid),
            shape=(5, 8, 8, 8),
            chunks=(5, 8, 8, 8),
        )


def test_sizes_of_encoded_chunks_are_not_foretold() -> None:
    codec = PrecomputedCodec(codec=Raw(), grid=GRID)
    with pytest.raises(NotImplementedError, match="sizes differ"):
        codec.compute_encoded_size(100, None)  # type: ignore[arg-type]


class TestWithoutAKey:
    """Under another codec, zarr gives this one the bytes alone."""

    def array(self, size: tuple[int, int, int], tmp_path: Path) -> Any:
        grid = ChunkGrid(size=size, voxel_offset=(0, 0, 0), chunk_size=(8, 8, 8))
        return zarr.create_array(
            tmp_path / "array",
            shape=(1, *reversed(size)),
            chunks=(1, 8, 8, 8),
            dtype="uint8",
            serializer=PrecomputedCodec(codec=Raw(), grid=grid),
            compressors=zarr.codecs.GzipCodec(),
            filters=None,
            fill_value=0,
        )

    def test_whole_chunks_work(self, tmp_path: Path) -> None:
        array = self.array((16, 8, 8), tmp_path)
        array[...] = expected = np.arange(array.size, dtype=np.uint8).reshape(array.shape)
        np.testing.assert_array_equal(array[...], expected)

    def test_cropped_chunks_are_refused(self, tmp_path: Path) -> None:
        array = self.array((17, 8, 8), tmp_path)
        with pytest.raises(ps.UnsupportedError, match="must be the only one of its array"):
            array[...] = 1

    def test_bytes_that_are_no_chunk_are_an_error(self, tmp_path: Path) -> None:
        codec = PrecomputedCodec(
            codec=Raw(), grid=ChunkGrid(size=(8,) * 3, voxel_offset=(0,) * 3, chunk_size=(8,) * 3)
        )
        array = create(MemoryStore(), codec, shape=(1, 8, 8, 8), chunks=(1, 8, 8, 8), name="a")
        array.store._store_dict["a/c/0/0/0/0"] = cpu.Buffer.from_bytes(b"short")
        with pytest.raises(ps.ChunkError, match=r"\[0:8, 0:8, 0:8\].*5 bytes; expected 512"):
            array[...]
