"""Options that every command with a URL takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from precomputed_store.indexed_source import IndexedSource

__all__ = [
    "JsonOrText",
    "Numbers",
    "box_options",
    "json_option",
    "key_value_option",
    "queried_ids",
    "root_option",
    "storage_option",
    "url_options",
]

Function = TypeVar("Function", bound=Callable[..., Any])


class _KeyValue(click.ParamType[tuple[str, Any]]):
    """``key=value``; the value is JSON where it is valid JSON, and text otherwise."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r}: expected key=value, for instance token=anon", param, ctx)
        return key, _json_or_text(text)


class JsonOrText(click.ParamType[Any]):
    """A value that is JSON where it is valid JSON, and text otherwise."""

    name = "value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return _json_or_text(value) if isinstance(value, str) else value


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers between commas, as many as there are names: ``8,8,40``.

    Parameters
    ----------
    names : str
        What they are, between commas: ``"X,Y,Z"``.
    whole : bool
        Whether they have to be integers.
    alone : bool
        Whether one number may stand for all.
    """

    def __init__(self, names: str, *, whole: bool = False, alone: bool = False) -> None:
        self.name = names
        self._count = names.count(",") + 1
        self._whole, self._alone = whole, alone

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        try:
            numbers = tuple(int(p) if self._whole else float(p) for p in parts)
        except ValueError:
            numbers = ()
        if not (len(numbers) == self._count or (self._alone and len(numbers) == 1)):
            kind = "integers" if self._whole else "numbers"
            one = ", or one for all" if self._alone else ""
            self.fail(f"{value!r}: expected the {kind} {self.name}{one}", param, ctx)
        return numbers


def _as_dict(
    _: click.Context, __: click.Parameter, pairs: tuple[tuple[str, Any], ...]
) -> dict[str, Any]:
    return dict(pairs)


def _with_404(_: click.Context, __: click.Parameter, statuses: tuple[int, ...]) -> tuple[int, ...]:
    return (404, *statuses)


def key_value_option(option: str, name: str, *, help: str) -> Callable[[Function], Function]:
    """An option ``KEY=VALUE`` that may be repeated, as a dictionary."""
    return click.option(
        option,
        name,
        type=_KeyValue(),
        multiple=True,
        callback=_as_dict,
        metavar="KEY=VALUE",
        help=f"{help}; values are JSON or text. May be repeated.",
    )


storage_option = key_value_option(
    "--storage-option",
    "storage_options",
    help="Option of the file system, for instance token=anon or "
    "endpoint_url=http://localhost:9000",
)
"""Gives a command the parameter `storage_options`."""


root_option = click.option(
    "--root",
    metavar="FOLDER",
    help="Folder above the layer's that keys with '..', links and redirects may not lead out of. "
    "Default: the one above a local layer, else the bucket or web server.",
)
"""Gives a command the parameter `root`."""


def url_options(function: Function) -> Function:
    """Give a command `url`, `storage_options`, `missing_statuses` and `root`."""
    for decorate in (
        root_option,
        click.option(
            "--missing-status",
            "missing_statuses",
            type=click.IntRange(400, 499),
            multiple=True,
            callback=_with_404,
            metavar="STATUS",
            help="HTTP status that means 'not stored', besides 404; some sparse public buckets "
            "answer 403. May be repeated.",
        ),
        storage_option,
        click.argument("url"),
    ):
        function = decorate(function)
    return function


def box_options(function: Function) -> Function:
    """Give a command the parameters `box` and `index`, for queries of a spatial index."""
    for decorate in (
        click.option(
            "--index",
            metavar="DATABASE",
            help="Ask this database, made by 'index', rather than the files of the index.",
        ),
        click.option(
            "--box",
            type=Numbers("X0,Y0,Z0,X1,Y1,Z1"),
            help="Only those that meet this box in nm, by the spatial index.",
        ),
    ):
        function = decorate(function)
    return function


def queried_ids(source: IndexedSource, box: Any, index: str | None) -> list[int] | None:
    """Ids by the options of `box_options`; None without a box."""
    if box is not None:
        return source.query_ids([box[:3], box[3:]], index=index)
    if index is not None:
        raise click.UsageError("--index is for queries by --box")
    return None


def json_option(function: Function) -> Function:
    """Give a command the parameter `as_json`."""
    decorate = click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document for programs."
    )
    return decorate(function)
