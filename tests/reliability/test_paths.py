"""Where a layer may lead its reader: nowhere outside of what the reader opened."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from servers.web import WebServer

import precomputed_store as ps
from precomputed_store.storage import open_storage
from precomputed_store.url import join
from tests.oracles import make_info

SIZE = (8, 8, 8)
NAME = "0-8_0-8_0-8"
SECRET = bytes(range(256)) * 2


def write_layer(folder: Path, key: str = "8_8_8") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    info = make_info(size=SIZE, chunk_size=SIZE)
    info["scales"][0]["key"] = key
    (folder / "info").write_text(json.dumps(info))
    return folder


def write_chunk(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_bytes(SECRET)
    return folder


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A chunk outside of everything that the layer at ``a/b/layer`` may refer to."""
    return write_chunk(tmp_path / "secret")


def escapes(secret: Path) -> dict[str, str]:
    return {
        "two up": "../../../secret",
        "down and up": "8_8_8/../../../../secret",
        "dots and slashes": "./.././/../../secret",
        "many up": "../" * 30 + str(secret).lstrip("/"),
        "absolute": str(secret),
        "absolute with dots": "/../" + str(secret).lstrip("/"),
        "doubled slash": "//" + str(secret).lstrip("/"),
        "file URL": f"file://{secret}",
        "local URL": f"local://{secret}",
        "HTTP URL": "http://127.0.0.1:1/secret",
        "S3 URL": "s3://bucket/secret",
        "chain": f"simplecache::file://{secret}",
        "archive": f"zip://x::file://{secret}.zip",
        "NUL": "8_8_8\0/secret",
        "NUL and up": "../../..\0/secret",
        "up at the end": "x/../../../..",
    }


@pytest.mark.parametrize("name", escapes(Path("/nowhere")))
def test_a_key_that_leads_out_is_refused(name: str, secret: Path) -> None:
    layer = write_layer(secret.parent / "a" / "b" / "layer", escapes(secret)[name])
    with pytest.raises(ps.PrecomputedError):
        ps.open_volume(layer)[...]


@pytest.mark.parametrize("key", ["C:/secret", "C:\\secret", "..\\..\\secret", "a:b"])
def test_drives_and_backslashes_lead_nowhere(
    key: str, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mere names here, if they are taken at all; refused where they mean something."""
    layer = write_layer(secret.parent / "a" / "b" / "layer", key)
    with pytest.raises(ps.PrecomputedError):
        ps.open_volume(layer, missing="raise")[...]
    monkeypatch.setattr("precomputed_store.url.os", SimpleNamespace(name="nt"))
    with pytest.raises(ps.MetadataError, match="a colon"):
        join("gs://bucket/layer", key)


def link_to_folder(layer: Path, secret: Path) -> None:
    (layer / "8_8_8").symlink_to(secret)


def link_to_chunk(layer: Path, secret: Path) -> None:
    (layer / "8_8_8").mkdir()
    (layer / "8_8_8" / NAME).symlink_to(secret / NAME)


def link_to_compressed_chunk(layer: Path, secret: Path) -> None:
    (secret / NAME).rename(secret / f"{NAME}.gz")
    (layer / "8_8_8").mkdir()
    (layer / "8_8_8" / f"{NAME}.gz").symlink_to(secret / f"{NAME}.gz")


def link_of_links(layer: Path, secret: Path) -> None:
    (layer / "one").symlink_to(secret)
    (layer / "two").symlink_to("one")
    (layer / "8_8_8").symlink_to("two")


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
@pytest.mark.parametrize(
    "link", [link_to_folder, link_to_chunk, link_to_compressed_chunk, link_of_links]
)
def test_a_link_that_leads_out_is_refused_for_reading_and_writing(
    link: Callable[[Path, Path], None], secret: Path
) -> None:
    layer = write_layer(secret.parent / "a" / "b" / "layer")
    link(layer, secret)
    with pytest.raises(ps.StorageError, match="symbolic link"):
        ps.open_volume(layer)[...]
    before = {path.name: path.read_bytes() for path in secret.iterdir()}
    with contextlib.suppress(ps.StorageError):
        ps.open_volume(layer, mode="r+")[...] = np.uint8(7)
    # A link to a file is replaced by the chunk; what it led to is as it was.
    assert {path.name: path.read_bytes() for path in secret.iterdir()} == before


def dataset(url: Any, **options: Any) -> Any:
    return xr.open_dataset(url, engine="precomputed", **options)["image"].values


def datatree(url: Any, **options: Any) -> Any:
    return xr.open_datatree(url, engine="precomputed", **options)["0"]["image"].values


def group(url: Any, **options: Any) -> Any:
    return zarr.open_group(ps.PrecomputedStore(url, **options), mode="r")["0"][...]  # type: ignore[index]


def chain(url: Any, **options: Any) -> Any:
    url = str(url) if "://" in str(url) else f"file://{url}"
    found = zarr.open_group(
        f"precomputed::{url}",
        mode="r",
        storage_options={"precomputed": options} if options else None,
    )
    return found["0"][...]  # type: ignore[index]


DOORS: dict[str, Callable[..., Any]] = {
    "volume": lambda url, **options: ps.open_volume(url, **options)[...].T,
    "layer": lambda url, **options: ps.open_layer(url, **options).array().read_chunk((0, 0, 0)),
    "dask": lambda url, **options: ps.open_dask(url, **options).compute(),
    "dataset": dataset,
    "datatree": datatree,
    "zarr": group,
    "zarr by a string": chain,
}


@pytest.mark.parametrize("door", DOORS)
def test_a_wider_root_lets_keys_go_further_and_a_narrower_one_less_far(
    door: str, secret: Path
) -> None:
    read = DOORS[door]
    layer = write_layer(secret.parent / "a" / "layer", "../../secret")
    with pytest.raises(ps.PrecomputedError, match="wider root"):
        read(layer)
    assert bytes(np.asarray(read(layer, root=secret.parent))) == SECRET
    write_chunk(layer.parent / "beside")
    write_layer(layer, "../beside")
    assert bytes(np.asarray(read(layer))) == SECRET
    with pytest.raises(ps.PrecomputedError, match="wider root"):
        read(layer, root=layer)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_root_bounds_links_too(secret: Path) -> None:
    layer = write_layer(secret.parent / "a" / "layer")
    (layer / "8_8_8").symlink_to(secret)
    with pytest.raises(ps.StorageError, match="symbolic link"):
        ps.open_volume(layer)[...]
    assert ps.open_volume(layer, root=secret.parent)[...].any()


def test_a_root_bounds_the_redirects_of_info(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "first", write_layer(tmp_path / "b" / "second")
    first.mkdir(parents=True)
    (first / "info").write_text(json.dumps({"redirect": f"file://{second}"}))
    assert ps.open_layer(first).storage.url.endswith("second")
    with pytest.raises(ps.MetadataError, match="outside of the root"):
        ps.open_layer(first, root=first.parent)
    assert ps.open_layer(first, root=tmp_path).storage.root == f"file://{tmp_path}"


def test_a_root_that_does_not_hold_the_layer_is_the_callers_mistake(tmp_path: Path) -> None:
    write_layer(tmp_path / "layer")
    with pytest.raises(ValueError, match="is not within the root"):
        ps.open_layer(tmp_path / "layer", root=tmp_path / "other")
    with pytest.raises(ValueError, match="is not within the root"):
        open_storage("s3://bucket/layer", root="s3://bucket/lay")


def test_a_root_stays_with_copies_and_tells_layers_apart(tmp_path: Path) -> None:
    layer = write_layer(tmp_path / "layer")
    store = ps.PrecomputedStore(layer, root=tmp_path)
    assert pickle.loads(pickle.dumps(store)) == store != ps.PrecomputedStore(layer)
    assert store.layer.storage.root == f"file://{tmp_path}"
    assert ps.open_dask(layer, root=tmp_path).name != ps.open_dask(layer).name


@pytest.mark.parametrize("door", DOORS)
def test_another_server_is_followed_where_that_is_allowed(
    door: str, web_server: WebServer, tmp_path: Path
) -> None:
    with WebServer() as other:
        assert isinstance(other, WebServer)
        layer = write_layer(tmp_path / "layer")
        web_server.add("/layer/info", (layer / "info").read_bytes())
        web_server.add(f"/layer/8_8_8/{NAME}", b"", Location=f"{other.url}/secret")
        other.add("/secret", SECRET)
        url = f"{web_server.url}/layer"
        with pytest.raises(ps.StorageError, match="redirected to another server"):
            DOORS[door](url)
        assert not other.requests
        assert bytes(np.asarray(DOORS[door](url, cross_origin=True))) == SECRET


def test_redirects_end_after_five(web_server: WebServer) -> None:
    web_server.add("/layer/info", b"", Location="info")
    with pytest.raises(ps.StorageError, match="more than 5 redirects"):
        ps.open_layer(f"{web_server.url}/layer")
    assert len(web_server.requests) == 6
