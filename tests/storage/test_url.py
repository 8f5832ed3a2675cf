"""Addresses that users type, and relative keys that metadata holds."""

from __future__ import annotations

import ntpath
import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from precomputed_store import url as url_module
from precomputed_store.errors import MetadataError
from precomputed_store.url import (
    contains,
    default_root,
    follow,
    join,
    local_path,
    parse_url,
    same_server,
    split_url,
)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("gs://bucket/layer", "gs://bucket/layer"),
        ("gs://bucket/layer/", "gs://bucket/layer"),
        ("gs://bucket/layer/info", "gs://bucket/layer"),
        ("gs://bucket/info/", "gs://bucket/info"),
        ("gcs://bucket/layer", "gs://bucket/layer"),
        ("S3://bucket/Layer", "s3://bucket/Layer"),
        ("s3a://bucket/layer", "s3://bucket/layer"),
        ("precomputed://gs://bucket/layer", "gs://bucket/layer"),
        ("precomputed::gs://bucket/layer", "gs://bucket/layer"),
        ("precomputed://https://example.org/a/info", "https://example.org/a"),
        ("https://example.org/a/|neuroglancer-precomputed:", "https://example.org/a"),
        ("gs://bucket/layer|neuroglancer-precomputed:/", "gs://bucket/layer"),
        (" s3://bucket/layer\n", "s3://bucket/layer"),
        ("https://example.org/a/info?token=x", "https://example.org/a?token=x"),
        ("https://example.org/a/#!fragment", "https://example.org/a"),
        ("memory://a/b", "memory://a/b"),
        ("memory:///a/b/", "memory://a/b"),
        ("mem://a", "memory://a"),
        ("file:///data/layer/info", "file:///data/layer"),
        ("/data/./x/../layer/", "file:///data/layer"),
        ("/data/a::b", "file:///data/a::b"),
        ("precomputed:///data/layer", "file:///data/layer"),
        ("simplecache::gs://bucket/layer/info", "simplecache::gs://bucket/layer"),
        ("filecache::https://example.org/a/", "filecache::https://example.org/a"),
        ("zip://layer/::s3://bucket/v.zip", "zip://layer::s3://bucket/v.zip"),
        ("zip://layer::/data/v.zip", "zip://layer::file:///data/v.zip"),
        ("sftp://host/data/layer", "sftp://host/data/layer"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="POSIX paths")
def test_an_address_is_normalised(address: str, expected: str) -> None:
    assert parse_url(address) == expected


def test_a_normalised_address_stays_as_it_is() -> None:
    for url in ("file:///data/a::b", "gs://b/l", "https://h/l?x=1", "simplecache::s3://b/l"):
        assert parse_url(url) == url


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("USERPROFILE", "/home/someone")
    assert parse_url("~/layer").endswith("/home/someone/layer")
    assert parse_url("file://~/layer") == parse_url("~/layer")
    assert parse_url("precomputed://~/layer") == parse_url("~/layer")


def test_a_relative_path_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path(parse_url("a/layer")) == str(Path.cwd() / "a" / "layer")
    assert parse_url("file://a/layer") == parse_url("a/layer") == parse_url(Path("a/layer"))
    assert parse_url(".") == parse_url(tmp_path)


@pytest.mark.parametrize("address", ["C:\\data\\layer", "C:/data/layer", "file:///C:/data/layer"])
def test_a_windows_drive_is_not_a_protocol(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Windows:
        name = "nt"
        path = ntpath
        fspath = os.fspath

    monkeypatch.setattr(url_module, "os", Windows)
    url = parse_url(address)
    assert url == "file:///C:/data/layer"
    assert local_path(url) == "C:/data/layer"
    assert join(url, "../other") == "file:///C:/data/other"
    for relative in ("..\\..\\secret", "C:secret", "a\\b"):
        with pytest.raises(MetadataError, match="backslash"):
            join(url, relative)


@pytest.mark.parametrize("address", ["", "  ", "precomputed://", "|neuroglancer-precomputed:"])
def test_an_empty_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        parse_url(address)


def test_an_unknown_protocol_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown protocol 'gopher'.*gs://.*https://.*s3://"):
        parse_url("gopher://host/layer")


def test_an_endpoint_in_the_address_says_where_it_belongs() -> None:
    with pytest.raises(ValueError, match="endpoint_url"):
        parse_url("s3://https://minio.example.org/bucket/layer")


def test_other_neuroglancer_pipelines_are_refused() -> None:
    with pytest.raises(ValueError, match="zip://folder::"):
        parse_url("gs://bucket/x.zip|zip:layer/|neuroglancer-precomputed:")


def test_a_path_object_is_always_local() -> None:
    assert parse_url(Path("/data") / "zip::x") == "file:///data/zip::x"


@pytest.mark.parametrize(
    ("url", "relative", "expected"),
    [
        ("file:///data/layer", "8_8_8", "file:///data/layer/8_8_8"),
        ("file:///data/layer", "../other/8_8_8", "file:///data/other/8_8_8"),
        ("file:///data/layer", "a//b/./c/", "file:///data/layer/a/b/c"),
        ("file:///data/layer", "", "file:///data/layer"),
        ("file:///layer", "../other", "file:///other"),
        ("file:///data/a::b", "8", "file:///data/a::b/8"),
        ("gs://bucket/a/b/layer", "../../../x", "gs://bucket/x"),
        ("s3://bucket", "8_8_8", "s3://bucket/8_8_8"),
        ("s3://bucket/a//b", "8", "s3://bucket/a//b/8"),
        ("memory://layer", "../other", "memory://other"),
        ("memory://", "a", "memory://a"),
        ("https://h:8080/a/layer", "../x y#?%", "https://h:8080/a/x%20y%23%3F%25"),
        ("https://h/layer?token=1", "8_8_8", "https://h/layer/8_8_8?token=1"),
        ("https://h", "8_8_8", "https://h/8_8_8"),
        ("simplecache::gs://bucket/layer", "8", "simplecache::gs://bucket/layer/8"),
        ("zip://layer::s3://bucket/v.zip", "../8", "zip://8::s3://bucket/v.zip"),
        ("zip://::s3://bucket/v.zip", "8", "zip://8::s3://bucket/v.zip"),
    ],
)
def test_a_relative_key_is_joined(url: str, relative: str, expected: str) -> None:
    assert join(url, relative) == expected


@pytest.mark.parametrize(
    ("url", "relative"),
    [
        ("file:///data/a/layer", "../../secret"),
        ("file:///data/a/layer", "8/../../../secret"),
        ("file:///data/a/layer", "../../../../../etc/passwd"),
        ("file:///layer", "../../etc"),
        ("file:///data/a/layer", "/etc/passwd"),
        ("file:///data/a/layer", "a\0b"),
        ("file:///data/a/layer", "http://example.org/x"),
        ("file:///data/a/layer", "x::http://example.org/x"),
        ("gs://bucket/layer", "../../other-bucket/x"),
        ("gs://bucket/layer", "/x"),
        ("s3://bucket", "../x"),
        ("memory://layer", "../../x"),
        ("https://h/layer", "../../x"),
        ("simplecache::s3://bucket/layer", "../../x"),
        ("zip://layer::s3://bucket/v.zip", "../../x"),
    ],
)
def test_a_key_that_escapes_is_refused(url: str, relative: str) -> None:
    with pytest.raises(MetadataError) as caught:
        join(url, relative)
    assert repr(relative) in str(caught.value)
    assert url in str(caught.value)


def test_the_root_widens_and_narrows_where_keys_may_go() -> None:
    layer = "file:///data/a/layer"
    assert join(layer, "../../b", root="file:///data") == "file:///data/b"
    assert join(layer, "../../../b", root="file:///") == "file:///b"
    with pytest.raises(MetadataError):
        join(layer, "../b", root=layer)
    with pytest.raises(MetadataError):
        join("gs://bucket/a/layer", "../b", root="gs://bucket/a/layer")


def test_a_sibling_with_the_same_beginning_is_outside() -> None:
    assert not contains("file:///data/layer", "file:///data/layer2")
    assert contains("file:///data/layer", "file:///data/layer/8")
    assert not contains("gs://bucket", "gs://bucket2/x")
    assert not contains("gs://bucket", "s3://bucket/x")


parts = st.sampled_from(["..", ".", "", "a", "b c", "8_8_8", "...", "..a"])


@given(st.lists(parts, max_size=12))
def test_no_key_leaves_the_root(pieces: list[str]) -> None:
    url = "s3://bucket/x/layer"
    relative = "/".join(pieces)
    try:
        joined = join(url, relative)
    except MetadataError:
        return
    assert contains(default_root(url), joined)
    assert not {"..", ".", ""} & set(split_url(joined).path.split("/"))


class TestRedirects:
    @pytest.mark.parametrize(
        ("url", "target", "expected"),
        [
            ("https://a.org/old", "precomputed://gs://bucket/new", "gs://bucket/new"),
            ("gs://bucket/old", "https://a.org/new/info", "https://a.org/new"),
            ("simplecache::gs://b/old", "gs://b/new|neuroglancer-precomputed:", "gs://b/new"),
            ("file:///data/old", "https://a.org/new", "https://a.org/new"),
            ("file:///data/old", "file:///data/new", "file:///data/new"),
            ("memory://old", "memory://new", "memory://new"),
            ("file:///data/old", "simplecache::gs://b/new", "simplecache::gs://b/new"),
        ],
    )
    def test_they_are_followed_to_a_full_address(
        self, url: str, target: str, expected: str
    ) -> None:
        assert follow(url, target) == expected

    @pytest.mark.parametrize("target", ["../new", "new", "~/new", "", "precomputed://new"])
    @pytest.mark.parametrize("url", ["https://a.org/old", "file:///data/old"])
    def test_relative_ones_are_refused(self, url: str, target: str) -> None:
        with pytest.raises(MetadataError, match=r"^\S+old/info: redirects to .*full address"):
            follow(url, target)

    @pytest.mark.parametrize(
        "target",
        [
            "file:///home/someone/private",
            "precomputed://file:///home/someone/private",
            "local:///home/someone/private",
            "memory://private",
            "zip://layer::file:///home/someone/private.zip",
            "simplecache::file:///home/someone/private",
        ],
    )
    @pytest.mark.parametrize("url", ["https://a.org/old", "gs://b/old", "simplecache::s3://b/old"])
    def test_a_network_does_not_send_its_reader_to_local_files(
        self, url: str, target: str
    ) -> None:
        with pytest.raises(MetadataError, match="on a network only"):
            follow(url, target)

    def test_unknown_protocols_are_the_fault_of_the_layer(self) -> None:
        with pytest.raises(MetadataError, match="unknown protocol 'nope'"):
            follow("https://a.org/old", "nope://b/new")

    @pytest.mark.parametrize(
        ("a", "b", "expected"),
        [
            ("https://a.org/x", "https://a.org/y", True),
            ("https://a.org/x", "https://b.org/x", False),
            ("https://a.org/x", "https://a.org.evil.org/x", False),
            ("https://a.org/x", "https://a.org:8080/x", False),
            ("https://a.org/x", "http://a.org/x", False),
            ("s3://a/x", "s3://b/x", True),
            ("s3://a/x", "gs://a/x", False),
            ("simplecache::s3://a/x", "s3://a/x", False),
        ],
    )
    def test_who_serves_both_is_known(self, a: str, b: str, expected: bool) -> None:
        assert same_server(a, b) is expected
