"""What the errors say, what they are besides, and that they survive the way between processes."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from precomputed_store import errors
from precomputed_store.errors import (
    ChunkError,
    CompatibilityWarning,
    FormatError,
    MetadataError,
    MissingChunkError,
    MissingDataWarning,
    ObjectError,
    PrecomputedError,
    PrecomputedWarning,
    Problem,
    StorageError,
    UnsupportedError,
    VolumeNotFoundError,
    warn_caller,
)
from precomputed_store.grid import Box

BOX = Box((0, 0, 0), (64, 64, 64))

EXAMPLES: list[Exception] = [
    PrecomputedError("something"),
    MetadataError("one thing"),
    MetadataError([Problem("a.b", "first"), Problem("c[1]", "second")], source="gs://b/info"),
    FormatError("8_8_8/0-64_0-64_0-64: raw chunk is 3 bytes; expected 4"),
    StorageError("403 Forbidden", status=403),
    StorageError("disk full"),
    ChunkError("chunk is damaged", key="8_8_8/0-64_0-64_0-64", box=BOX),
    MissingChunkError("chunk is not stored", key="8_8_8/0-64_0-64_0-64", box=BOX),
    ObjectError("skeleton 5 is damaged", key="skeletons/5"),
    UnsupportedError("jxl needs imagecodecs"),
    VolumeNotFoundError("no info at /nowhere"),
    CompatibilityWarning("float64"),
    MissingDataWarning("all chunks are missing"),
]


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (MetadataError, ValueError),
        (FormatError, ValueError),
        (StorageError, OSError),
        (ChunkError, OSError),
        (MissingChunkError, KeyError),
        (MissingChunkError, ChunkError),
        (ObjectError, OSError),
        (UnsupportedError, ValueError),
        (UnsupportedError, NotImplementedError),
        (VolumeNotFoundError, FileNotFoundError),
    ],
)
def test_each_error_is_also_the_builtin_that_python_programs_expect(
    error: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(error, PrecomputedError)
    assert issubclass(error, builtin)


def test_every_public_class_has_an_example_in_this_file() -> None:
    public = {getattr(errors, name) for name in errors.__all__ if name[0].isupper()}
    assert public - {type(example) for example in EXAMPLES} == {Problem, PrecomputedWarning}


@pytest.mark.parametrize("warning", [CompatibilityWarning, MissingDataWarning])
def test_every_warning_can_be_filtered_by_the_base_class(warning: type[Warning]) -> None:
    assert issubclass(warning, PrecomputedWarning)
    assert issubclass(warning, UserWarning)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_a_pickled_error_is_the_same_error(error: Exception) -> None:
    error.add_note("while reading chunk 3")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert copy.__notes__ == ["while reading chunk 3"]


def test_a_subclass_survives_pickling_too() -> None:
    copy = pickle.loads(pickle.dumps(_OwnError([Problem("a", "b")], source="here")))
    assert type(copy) is _OwnError
    assert copy.problems == (Problem("a", "b"),)


class _OwnError(MetadataError):
    pass


def test_a_metadata_error_with_one_problem_is_one_line() -> None:
    error = MetadataError([Problem("scales[0].size", "expected 3 integers")], source="/data/info")
    assert str(error) == "/data/info: scales[0].size: expected 3 integers"


def test_a_metadata_error_lists_every_problem_on_its_line() -> None:
    error = MetadataError([Problem("type", "missing"), Problem("", "not good")])
    assert str(error) == "info:\n  - type: missing\n  - not good"
    assert [problem.location for problem in error.problems] == ["type", ""]


def test_a_metadata_error_shows_fifty_problems_and_keeps_all() -> None:
    error = MetadataError([Problem(f"scales[{i}]", "damaged") for i in range(60)])
    assert len(error.problems) == 60
    assert "scales[49]" in str(error)
    assert "scales[50]" not in str(error)
    assert str(error).endswith("… and 10 more")


def test_a_problem_given_as_text_has_no_location() -> None:
    assert MetadataError("the document is empty").problems == (
        Problem("", "the document is empty"),
    )


def test_a_storage_error_carries_the_http_status() -> None:
    assert StorageError("Forbidden", status=403).status == 403
    assert StorageError("disk full").status is None


def test_a_chunk_error_carries_key_and_box() -> None:
    error = ChunkError("bad", key="8_8_8/0.shard", box=BOX)
    assert (error.key, error.box) == ("8_8_8/0.shard", BOX)


def test_a_missing_chunk_error_is_not_quoted_like_other_key_errors() -> None:
    assert str(MissingChunkError("chunk 0-64 is not stored")) == "chunk 0-64 is not stored"


def test_a_warning_is_about_the_line_of_the_caller() -> None:
    inner: dict[str, Any] = {"__name__": "precomputed_store.inner", "warn_caller": warn_caller}
    exec("def act(): warn_caller('careful', UserWarning)", inner)
    outer: dict[str, Any] = {"__name__": "xarray.backends", "act": inner["act"]}
    exec("def open_dataset(): act()", outer)
    with pytest.warns(UserWarning, match="careful") as caught:
        outer["open_dataset"]()
    assert caught[0].filename == __file__
