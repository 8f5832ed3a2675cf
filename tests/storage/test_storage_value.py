"""A storage is a value: equal, hashable, picklable, silent about secrets."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from precomputed_store.errors import MetadataError, UnsupportedError
from precomputed_store.storage import Blob, Storage, open_storage

OPTIONS = {"key": "k", "client_kwargs": {"region_name": "x", "list": [1, {"a": 2}]}}


def test_equal_addresses_and_options_make_equal_storages() -> None:
    one = open_storage("s3://bucket/layer/info", storage_options=OPTIONS)
    two = Storage(url="s3://bucket/layer", storage_options=OPTIONS)
    assert one == two
    assert hash(one) == hash(two)
    assert one != dataclasses.replace(two, missing_statuses=(404, 403))
    assert one != dataclasses.replace(two, storage_options={"key": "other"})
    assert len({one, two}) == 1


def test_a_storage_survives_pickling_after_use(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    storage.put("a", b"1", content_type="text/plain")
    again = pickle.loads(pickle.dumps(storage))
    assert again == storage
    assert again.get("a") == Blob(b"1", None)
    assert len(pickle.dumps(storage)) < 1000


def test_options_are_a_copy_and_come_back_unchanged() -> None:
    given = {"client_kwargs": {"headers": ["a"]}}
    storage = open_storage("memory://x", storage_options=given)
    given["client_kwargs"]["headers"].append("b")
    assert storage.storage_options["client_kwargs"] == {"headers": ["a"]}
    storage.storage_options["client_kwargs"]["headers"].append("c")
    assert dict(storage.storage_options) == {"client_kwargs": {"headers": ["a"]}}


def test_options_may_hold_values_that_have_no_hash() -> None:
    one = open_storage("memory://x", storage_options={"ids": {3, 4}})
    assert hash(one) == hash(pickle.loads(pickle.dumps(one)))


def test_secrets_are_not_shown() -> None:
    storage = open_storage("s3://bucket", storage_options={"secret": "hunter2"})
    assert "hunter2" not in repr(storage)
    assert "secret" in repr(storage)


def test_dask_gives_equal_tokens_in_two_processes() -> None:
    code = (
        "from dask.base import tokenize; from precomputed_store.storage import open_storage;"
        "s = open_storage('s3://b/l', storage_options={'a': {'b': [1]}}); print(tokenize(s))"
    )
    tokens = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        for _ in range(2)
    }
    assert len(tokens) == 1
    assert tokens != {""}


def test_making_a_storage_opens_nothing() -> None:
    code = (
        "import sys; from precomputed_store.storage import open_storage;"
        "[open_storage(u) for u in ('s3://b/l', 'gs://b/l', 'https://h/l', '/tmp')];"
        "assert not {'s3fs', 'gcsfs', 'aiohttp', 'fsspec', 'tenacity'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("address", "module", "extra"),
    [
        ("s3://bucket/layer", "s3fs", "s3"),
        ("gs://bucket/layer", "gcsfs", "gcs"),
        ("https://example.org/layer", "aiohttp", "http"),
    ],
)
def test_a_missing_library_names_its_extra(address: str, module: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from precomputed_store.storage import open_storage\n"
        "from precomputed_store.errors import UnsupportedError\n"
        f"try: open_storage({address!r}, storage_options={{'anon': True}} "
        f"if {module!r} == 's3fs' else None).get('info')\n"
        "except UnsupportedError as error: print(error)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"pip install 'precomputed-store[{extra}]'" in shown.stdout, shown.stderr


def test_a_storage_itself_takes_urls_only() -> None:
    with pytest.raises(ValueError, match="see open_storage"):
        Storage(url="/data/layer")


def test_the_wrong_type_of_statuses_is_refused() -> None:
    with pytest.raises(TypeError, match=r"such as \(404, 403\)"):
        open_storage("memory://x", missing_statuses=403)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [("403",), (500,), (200,), (404, None)])
def test_statuses_of_failing_servers_never_mean_missing(wrong: Any) -> None:
    with pytest.raises(ValueError, match="from 400 to 499"):
        open_storage("memory://x", missing_statuses=wrong)


def test_options_are_a_mapping() -> None:
    with pytest.raises(TypeError, match="storage_options is a str"):
        open_storage("memory://x", storage_options="anon")  # type: ignore[arg-type]


@pytest.mark.parametrize("byte_range", [(5, 5), (-1, 5), (6, 5)])
def test_an_impossible_range_is_refused(byte_range: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="0 <= start < stop"):
        open_storage("memory://x").get("a", byte_range)


def test_an_unknown_content_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match="gzip, br, zstd, xz, bz2"):
        open_storage("memory://x").put("a", b"", content_type="", content_encoding="lz4")


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a/", "a/..", "..", "../../../x", "a\0", "."])
def test_keys_that_name_no_object_in_the_layer_are_refused(key: str, tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "layer")
    for call in (storage.get, storage.exists, storage.delete):
        with pytest.raises(MetadataError):
            call(key)
    with pytest.raises(MetadataError):
        storage.put(key, b"", content_type="")


def test_keys_may_go_through_the_parent_folder(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "layer")
    storage.put("../other/8_8_8/a", b"1", content_type="")
    assert (tmp_path / "other" / "8_8_8" / "a").read_bytes() == b"1"
    assert storage.get("../other/./8_8_8//a") == Blob(b"1", None)
    assert storage.child("../other").get("8_8_8/a") == Blob(b"1", None)
    assert list(storage.list_names("../other/8_8_8")) == ["a"]
    # A child has the same bounds as the layer that it belongs to.
    with pytest.raises(MetadataError):
        storage.child("../other").get("../../x")


def test_only_local_storage_has_anything_to_sweep() -> None:
    assert open_storage("memory://x").sweep() == 0


def test_a_web_server_cannot_be_written_to_or_listed() -> None:
    storage = open_storage("http://127.0.0.1:1/layer")
    for call in (
        lambda: storage.put("a", b"", content_type=""),
        lambda: storage.delete("a"),
        lambda: list(storage.list_names()),
        storage.first_child,
    ):
        with pytest.raises(UnsupportedError):
            call()


def test_blobs_are_equal_whatever_their_versions() -> None:
    one, other = Blob(b"a", None, version=1), Blob(b"a", None, version=2)
    assert one == other
    assert not one != other  # noqa: SIM202
    assert hash(one) == hash(other)
    assert one != Blob(b"b", None, version=1)
