"""Text → plain JSON: limits, encodings, and what JSON leaves undefined."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest
from info_builders import info_json, locations, message, read, scale_json

from precomputed_store.errors import MetadataError
from precomputed_store.metadata import VolumeInfo, load_document, redirect_target

TEXT = json.dumps(info_json())


@pytest.mark.parametrize(
    "document",
    [
        TEXT,
        "\ufeff" + TEXT,
        "\n\t " + TEXT + " \r\n",
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        bytearray(TEXT.encode()),
        memoryview(TEXT.encode()),
    ],
    ids=["str", "str with BOM", "white space", "bytes", "BOM", "bytearray", "memoryview"],
)
def test_every_form_of_text_is_read_like_the_object(document: Any) -> None:
    assert read(document) == read(info_json())


def test_tuples_and_numpy_values_in_a_mapping_are_read_like_their_json() -> None:
    scale = scale_json(
        size=np.array([100, 200, 300]),
        resolution=(np.float64(8), 8, np.int16(8)),
        voxel_offset=(np.int64(1), -2, 3),
        chunk_sizes=[np.array([64, 32, 16], dtype=np.uint16)],
        notes={"matrix": np.eye(2)},
    )
    info = read(info_json(scale))
    assert info.scales[0].size == (100, 200, 300)  # type: ignore[union-attr]
    assert json.loads(info.to_bytes())["scales"][0]["notes"] == {"matrix": [[1, 0], [0, 1]]}


def test_the_document_is_copied() -> None:
    document = info_json(notes={"list": [1, 2]})
    info = read(document)
    document["notes"]["list"].append(3)
    assert info.extra == {"notes": {"list": [1, 2]}}
    info.to_json()["notes"]["list"].append(3)
    assert info.extra == {"notes": {"list": [1, 2]}}


@pytest.mark.parametrize("document", ["", b"", " \n\t", "\ufeff", b"\xef\xbb\xbf  "])
def test_an_empty_document_is_called_empty(document: Any) -> None:
    assert message(document) == "info: the document is empty"


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ("null", "null"),
        ("[]", "[]"),
        ("[[1], 2]", "an array of 2"),
        ('"text"', '"text"'),
        ("3", "3"),
        ("true", "true"),
        (None, "null"),
        ([], "[]"),
        (7, "7"),
    ],
)
def test_a_document_that_is_no_object_is_refused(document: Any, found: str) -> None:
    assert message(document) == f"info: expected a JSON object, got {found}"


@pytest.mark.parametrize("document", [object(), {1, 2}, 1j], ids=["object", "set", "complex"])
def test_what_is_neither_text_nor_json_is_a_type_error(document: Any) -> None:
    with pytest.raises(TypeError, match="expected a dict, str or bytes of JSON"):
        VolumeInfo.from_json(document)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ('{"type": "image",', "not valid JSON: Expecting property name.*line 1, column 18"),
        ("{'type': 1}", "not valid JSON"),
        (TEXT + "x", "not valid JSON: Extra data"),
        ('{"a": 01}', "not valid JSON"),
        ("<!DOCTYPE html><html></html>", "this looks like a web page"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8 text: invalid start byte at byte 0"),
        (b'{"a": "\xe9"}', "not UTF-8 text"),
        ('{"a": "\ud800"}', "not UTF-8 text"),
        (gzip.compress(TEXT.encode()), "gzip-compressed"),
        pytest.param('{"a": ' + "9" * 5000 + "}", "integer that is too large", id="5000 digits"),
    ],
)
def test_text_that_is_not_json_is_refused(document: Any, words: str) -> None:
    with pytest.raises(MetadataError, match=words):
        read(document)


def test_16_mib_are_read_and_one_byte_more_is_refused() -> None:
    room = 16 * 2**20 - len(TEXT)
    assert read(TEXT + " " * room) == read(TEXT)
    assert message(TEXT + " " * (room + 1)) == (
        "info: the document is 16777217 bytes; expected at most 16777216"
    )


def nested(levels: int) -> str:
    """A document of so many levels: the object itself is one."""
    arrays = levels - 1
    return TEXT[:-1] + ', "deep": ' + "[" * arrays + "]" * arrays + "}"


def test_64_levels_are_read_and_65_refused_before_the_parser_sees_them() -> None:
    assert "deep" in read(nested(64)).extra
    assert message(nested(65)) == (
        "info: the document is nested 65 levels deep; expected at most 64"
    )


def test_64_levels_of_a_mapping_are_read_and_65_refused() -> None:
    assert "deep" in read(json.loads(nested(64))).extra
    assert "nested too deeply: expected at most 64 levels" in message(json.loads(nested(65)))


@pytest.mark.parametrize(
    "text",
    ["[" * 150_000, '{"a":' * 150_000, nested(150_000)],
    ids=["arrays", "objects", "closed"],
)
def test_150_000_levels_are_an_error_like_any_other(text: str) -> None:
    assert "levels deep; expected at most 64" in message(text)


def test_brackets_in_text_are_not_nesting() -> None:
    text = '"' + "[" * 1000 + r"\"{\\" + '"'
    assert read(TEXT[:-1] + f', "note": {text}}}').extra["note"].startswith("[[[")


@pytest.mark.parametrize(
    "text",
    [r'"\"\"\"', '"' + r"\"" * 200_000, "\\" * 200_000, '"\\'],
    ids=["short", "escaped quotes", "backslashes", "one backslash"],
)
def test_unfinished_text_is_refused_in_linear_time(text: str) -> None:
    assert "not valid JSON" in message('{"a": ' + text)


def test_a_mapping_that_contains_itself_is_refused() -> None:
    document = info_json()
    document["self"] = {"a": document, "b": document}
    assert "nested too deeply" in message(document)


def test_members_given_twice_are_refused_with_their_names_and_places() -> None:
    text = '{"type": "image", "scales": [{"size": 1, "key": "a", "size": 2}], "type": "image"}'
    assert message(text) == (
        'info:\n  - the member "type" is given more than once'
        '\n  - scales[0]: the member "size" is given more than once'
    )


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_not_finite_are_refused_with_their_place(number: str) -> None:
    assert locations(f'{{"a": [0, {{"b": {number}}}]}}') == ["a[1].b"]


@pytest.mark.parametrize(
    ("member", "location"),
    [
        ({"a": [object()]}, "x.a[0]"),
        ({"a": {1, 2}}, "x.a"),
        ({1: "one"}, "x"),
        (b"bytes", "x"),
        (float("nan"), "x"),
        (np.array([1.0, np.inf]), "x[1]"),
        pytest.param(10**5000, "x", id="5000 digits"),
        (1j, "x"),
    ],
)
def test_a_mapping_may_hold_only_what_json_can_hold(member: Any, location: str) -> None:
    assert locations(info_json(x=member)) == [location]


def test_long_names_are_shortened_in_messages() -> None:
    assert locations({"x" * 1000: float("nan")}) == ["x" * 77 + "..."]


def test_a_hundred_such_problems_are_enough() -> None:
    assert len(locations('{"a": [' + "NaN," * 10_000 + "1]}")) == 100


def test_the_source_stands_in_front_of_the_message() -> None:
    with pytest.raises(MetadataError, match=r"^gs://bucket/layer/info: the document is empty$"):
        VolumeInfo.from_json("", source="gs://bucket/layer/info")
    with pytest.raises(MetadataError, match=r"^gs://bucket/layer/info:\n  - type: missing"):
        VolumeInfo.from_json("{}", source="gs://bucket/layer/info")


def test_load_document_gives_plain_json() -> None:
    assert load_document('{"a": [1, 2.5, null, true, "x"]}') == {"a": [1, 2.5, None, True, "x"]}


class TestRedirect:
    @pytest.mark.parametrize("document", [info_json(), {}, {"redirect": None}, {"redirect": ""}])
    def test_is_none_where_the_layer_is_here(self, document: Any) -> None:
        assert redirect_target(document) is None

    @pytest.mark.parametrize("form", [dict, json.dumps, lambda d: json.dumps(d).encode()])
    def test_is_found_before_anything_else_is_looked_at(self, form: Any) -> None:
        document = {"redirect": "gs://other/layer", "@type": "unheard of", "scales": 7}
        assert redirect_target(form(document)) == "gs://other/layer"

    @pytest.mark.parametrize("target", [1, True, ["gs://other"], {}])
    def test_that_is_no_text_is_refused(self, target: Any) -> None:
        with pytest.raises(MetadataError, match=r"^here: redirect: expected the URL"):
            redirect_target({"redirect": target}, source="here")

    def test_is_kept_in_a_document_that_is_complete(self) -> None:
        document = info_json(redirect="gs://other/layer")
        assert read(document).to_json()["redirect"] == "gs://other/layer"
        assert "redirect" not in read(info_json(redirect=None)).to_json()
