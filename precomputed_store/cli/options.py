"""Options that every command with a URL takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["json_option", "url_options"]

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
        try:
            return key, json.loads(text)
        except ValueError:
            return key, text


def _as_dict(
    _: click.Context, __: click.Parameter, pairs: tuple[tuple[str, Any], ...]
) -> dict[str, Any]:
    return dict(pairs)


def _with_404(_: click.Context, __: click.Parameter, statuses: tuple[int, ...]) -> tuple[int, ...]:
    return (404, *statuses)


def url_options(function: Function) -> Function:
    """Give a command the parameters `url`, `storage_options` and `missing_statuses`."""
    for decorate in (
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
        click.option(
            "--storage-option",
            "storage_options",
            type=_KeyValue(),
            multiple=True,
            callback=_as_dict,
            metavar="KEY=VALUE",
            help="Option of the file system, for instance token=anon or "
            "endpoint_url=http://localhost:9000; values are JSON or text. May be repeated.",
        ),
        click.argument("url"),
    ):
        function = decorate(function)
    return function


def json_option(function: Function) -> Function:
    """Give a command the parameter `as_json`."""
    decorate = click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document for programs."
    )
    return decorate(function)
