"""Strings that open in zarr, xarray and dask: ``precomputed::`` in front of an address."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from dask.base import tokenize
from zarr.registry import register_codec

import precomputed_store as ps
from precomputed_store.fsspec_filesystem import PrecomputedFileSystem
from precomputed_store.storage import Storage
from precomputed_store.zarr_codec import PrecomputedCodec
from tests.oracles import make_info


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    """As the entry points do, for a checkout that is not installed."""
    fsspec.register_implementation("precomputed", PrecomputedFileSystem, clobber=True)
    register_codec("precomputed", PrecomputedCodec)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scales; the finer is full, of the coarser one chunk is stored."""
    folder = tmp_path_factory.mktemp("layers") / "layer"
    info = make_info(size=(20, 13, 9), chunk_size=(8, 8, 8), voxel_offset=(-3, 0, 5))
    coarse = {**info["scales"][0], "key": "16_16_16", "resolution": [16, 16, 16]}
    info["scales"].append({**coarse, "size": [10, 7, 5], "voxel_offset": [-2, 0, 2]})
    ps.create(folder, info)
    ps.open_volume(folder, mode="r+")[...] = values().transpose()
    ps.open_volume(folder, scale=1, mode="r+")[-2:6, 0:7, 2:7] = np.uint8(7)
    return folder


def values() -> np.ndarray:
    return (np.arange(9 * 13 * 20) % 250 + 1).astype(np.uint8).reshape(1, 9, 13, 20)


@pytest.fixture(scope="module")
def in_memory(folder: Path) -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            memory.pipe_file(f"/fs-test/{path.relative_to(folder)}", path.read_bytes())
    yield "memory://fs-test"
    memory.rm("/fs-test", recursive=True)


@pytest.fixture(scope="module")
def zipped(folder: Path) -> str:
    archive = folder.parent / "volumes.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in folder.rglob("*"):
            if path.is_file():
                opened.write(path, f"em/{path.relative_to(folder)}")
    return f"zip://em::file://{archive}"


@pytest.fixture(params=["path", "file", "memory", "zip", "cache"])
def address(request: pytest.FixtureRequest, folder: Path) -> str:
    if request.param == "memory":
        return str(request.getfixturevalue("in_memory"))
    if request.param == "zip":
        return str(request.getfixturevalue("zipped"))
    return {
        "path": str(folder),
        "file": f"file://{folder}",
        "cache": f"simplecache::file://{folder}",
    }[request.param]


class TestEveryAddress:
    def test_opens_in_zarr(self, address: str) -> None:
        group = zarr.open_group(f"precomputed::{address}", mode="r")
        assert sorted(name for name, _ in group.members()) == ["0", "1"]
        array: Any = group["0"]
        np.testing.assert_array_equal(array[...], values())
        np.testing.assert_array_equal(array[0, ::3, 12, -4:], values()[0, ::3, 12, -4:])

    def test_opens_in_dask(self, address: str) -> None:
        array = da.from_zarr(f"precomputed::{address}", component="0")
        np.testing.assert_array_equal(array.compute(scheduler="threads"), values())

    def test_opens_in_xarray(self, address: str) -> None:
        dataset = xr.open_zarr(
            f"precomputed::{address}", consolidated=False, storage_options={"scale": 0}
        )
        assert dataset["0"].dims == ("channel", "z", "y", "x")
        np.testing.assert_array_equal(dataset["0"].values, values())


def test_the_protocol_may_be_a_prefix(in_memory: str, folder: Path) -> None:
    for address in (in_memory, str(folder), f"file://{folder}"):
        array = zarr.open_array(f"precomputed://{address}", path="0", mode="r")
        np.testing.assert_array_equal(array[...], values())


def test_xarray_opens_it_by_its_zarr_engine(in_memory: str) -> None:
    dataset = xr.open_dataset(
        f"precomputed::{in_memory}",
        engine="zarr",
        chunks={},
        backend_kwargs={"storage_options": {"scale": 0}},
    )
    assert dataset["0"].chunks == ((1,), (8, 1), (8, 5), (8, 8, 4))
    np.testing.assert_array_equal(dataset["0"].values, values())


def test_opening_a_group_costs_one_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    original = Storage.get

    def get(self: Storage, key: str, *args: Any, **options: Any) -> Any:
        asked.append(key)
        return original(self, key, *args, **options)

    monkeypatch.setattr(Storage, "get", get)
    group = zarr.open_group(f"precomputed::file://{folder}", mode="r")
    array: Any = group["0"]
    assert asked == ["info"]
    copy = pickle.loads(pickle.dumps(array))
    copy[0, 0, 0, 0]
    assert asked == ["info", "8_8_8/-3-5_0-8_5-13"]


def test_a_rewritten_layer_is_seen(tmp_path: Path) -> None:
    for size in ((4, 4, 4), (8, 8, 8)):
        ps.create(tmp_path, make_info(size=size), overwrite=True)
        array: Any = zarr.open_group(f"precomputed::file://{tmp_path}", mode="r")["0"]
        assert array.shape == (1, *size)


def test_tokens_are_equal_for_equal_arrays(in_memory: str, folder: Path) -> None:
    def token(address: str) -> str:
        return tokenize(zarr.open_group(f"precomputed::{address}", mode="r")["0"])

    assert token(in_memory) == token(in_memory)
    assert token(in_memory) != token(str(folder))


def test_decoded_chunks_need_no_codec_of_ours(in_memory: str) -> None:
    filesystem, _ = fsspec.url_to_fs(f"precomputed::{in_memory}", decoded=True)
    (codec,) = json.loads(filesystem.cat_file("0/zarr.json"))["codecs"]
    assert codec["name"] == "bytes"
    whole = np.frombuffer(filesystem.cat_file("0/c/0/1/1/2"), np.uint8).reshape(8, 8, 8)
    np.testing.assert_array_equal(whole[:1, :5, :4], values()[0, 8:, 8:, 16:])
    assert np.count_nonzero(whole) == 1 * 5 * 4


class TestFileSystem:
    """What the hierarchy is to users of fsspec."""

    @pytest.fixture
    def filesystem(self, in_memory: str) -> Any:
        filesystem, path = fsspec.url_to_fs(f"precomputed::{in_memory}")
        assert path == ""
        return filesystem

    def test_folders_are_listed(self, filesystem: Any) -> None:
        assert filesystem.ls("", detail=False) == ["zarr.json", "0", "1"]
        assert filesystem.ls("1", detail=False) == ["1/zarr.json", "1/c"]
        assert sorted(filesystem.ls("0/c/0", detail=False)) == ["0/c/0/0", "0/c/0/1"]
        assert filesystem.ls("1/c/0/0/0", detail=False) == ["1/c/0/0/0/0"]
        kinds = {entry["name"]: entry["type"] for entry in filesystem.ls("0")}
        assert kinds == {"0/zarr.json": "file", "0/c": "directory"}

    def test_files_are_found(self, filesystem: Any) -> None:
        assert filesystem.find("1") == ["1/c/0/0/0/0", "1/zarr.json"]
        assert filesystem.find("1/zarr.json") == ["1/zarr.json"]
        assert filesystem.find("2") == []
        assert len(filesystem.find("")) == 1 + 2 + 12 + 1
        assert filesystem.glob("*/zarr.json") == ["0/zarr.json", "1/zarr.json"]
        found = filesystem.find("1", detail=True)
        assert list(found) == ["1/c/0/0/0/0", "1/zarr.json"]

    def test_sizes_are_those_of_the_bytes(self, filesystem: Any) -> None:
        for path in ("zarr.json", "0/zarr.json", "0/c/0/1/1/2"):
            assert filesystem.info(path)["size"] == len(filesystem.cat_file(path))
        assert filesystem.info("0/c")["type"] == "directory"
        assert filesystem.isdir("0/c/0/1")
        assert filesystem.isfile("0/c/0/1/1/2")

    def test_what_is_not_there_is_not_found(self, filesystem: Any) -> None:
        for path in ("1/c/0/0/0/1", "0/c/0/9/9/9", ".zgroup", "info"):
            assert not filesystem.exists(path)
            with pytest.raises(FileNotFoundError):
                filesystem.cat_file(path)
            with pytest.raises(FileNotFoundError):
                filesystem.info(path)

    def test_parts_of_files_are_read(self, filesystem: Any) -> None:
        whole = filesystem.cat_file("0/c/0/0/0/0")
        assert whole == values()[0, :8, :8, :8].tobytes()
        assert filesystem.cat_file("0/c/0/0/0/0", start=5, end=9) == whole[5:9]
        assert filesystem.cat_file("0/c/0/0/0/0", start=-4) == whole[-4:]
        with filesystem.open("0/c/0/0/0/0") as opened:
            assert opened.read(3) == whole[:3]

    def test_it_is_a_mapping(self, in_memory: str) -> None:
        mapper = fsspec.get_mapper(f"precomputed::{in_memory}")
        assert len(mapper) == 16
        assert json.loads(mapper["zarr.json"])["node_type"] == "group"
        group = zarr.open_group(mapper, mode="r")
        np.testing.assert_array_equal(group["0"][...], values())

    def test_it_is_read_only(self, filesystem: Any, in_memory: str) -> None:
        expected = rf"read-only.*PrecomputedStore\('{in_memory}'\)"
        with pytest.raises(ps.UnsupportedError, match=expected):
            filesystem.pipe_file("0/c/0/0/0/0", b"x")
        with pytest.raises(ps.UnsupportedError, match=expected):
            filesystem.rm("0/c/0/0/0/0")
        with pytest.raises(ps.UnsupportedError, match=expected):
            filesystem.open("zarr.json", "wb")
        array: Any = zarr.open_group(f"precomputed::{in_memory}", mode="r+")["0"]
        with pytest.raises(ps.UnsupportedError, match=expected):
            array[...] = 1

    def test_equal_ones_are_equal(self, filesystem: Any, in_memory: str, folder: Path) -> None:
        again, _ = fsspec.url_to_fs(f"precomputed::{in_memory}")
        other, _ = fsspec.url_to_fs(f"precomputed::{folder}")
        assert filesystem == again == pickle.loads(pickle.dumps(filesystem))
        assert hash(filesystem) == hash(again)
        assert filesystem != other


class TestOptions:
    def address(self, url: str, **options: Any) -> Any:
        return fsspec.url_to_fs(url, **options)[0]._address

    def test_those_of_a_chain_reach_its_protocols(self) -> None:
        found = self.address(
            "precomputed::simplecache::s3://bucket/em",
            s3={"anon": True},
            simplecache={"cache_storage": "/cache"},
        )
        assert found.url == "simplecache::s3://bucket/em"
        assert found.storage_options == {"s3": {"anon": True}, "cache_storage": "/cache"}

    def test_those_of_one_protocol_are_its_own(self) -> None:
        found = self.address("precomputed::s3://bucket/em", s3={"anon": True})
        assert (found.url, found.storage_options) == ("s3://bucket/em", {"anon": True})

    def test_they_may_stand_under_the_protocol_behind_a_prefix(self) -> None:
        found = self.address("precomputed://s3://bucket/em", s3={"anon": True})
        assert (found.url, found.storage_options) == ("s3://bucket/em", {"s3": {"anon": True}})

    @pytest.mark.parametrize(
        "url",
        [
            "s3://bucket/em",
            "file:///data/em",
            "memory://em",
            "https://host/em",
            "simplecache::s3://bucket/em",
        ],
    )
    @pytest.mark.parametrize("again", ["precomputed://", "precomputed::"])
    def test_our_name_may_be_said_twice(self, url: str, again: str) -> None:
        found = self.address(f"precomputed::{again}{url}")
        assert (found.url, found.storage_options) == (url, {})

    def test_a_local_path_may_follow_the_prefix(self) -> None:
        assert self.address("precomputed::precomputed:///data/em").url == "file:///data/em"

    def test_our_own_are_understood(self) -> None:
        found = self.address(
            "precomputed::https://host/em", scale=(8, 8, 8), missing="raise", max_redirects=0
        )
        assert found.url == "https://host/em"
        assert (found.scale, found.missing, found.max_redirects) == ((8, 8, 8), "raise", 0)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"anon": True}, r"unknown option 'anon'.*storage_options=\{'s3': \{'anon': True\}\}"),
            ({"scael": 0}, "did you mean 'scale'"),
        ],
    )
    def test_unknown_ones_are_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(TypeError, match=message):
            fsspec.url_to_fs("precomputed::s3://bucket/em", **options)

    def test_no_address_is_refused(self) -> None:
        with pytest.raises(ValueError, match="write its address behind 'precomputed::'"):
            fsspec.filesystem("precomputed")


def test_no_layer_is_said_in_our_own_words(tmp_path: Path) -> None:
    with pytest.raises(ps.StorageError, match="no Precomputed volume here"):
        zarr.open_group(f"precomputed::file://{tmp_path}", mode="r")
    filesystem, _ = fsspec.url_to_fs(f"precomputed::file://{tmp_path}")
    with pytest.raises(ps.VolumeNotFoundError, match="no Precomputed volume here"):
        filesystem.ls("")
