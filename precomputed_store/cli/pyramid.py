"""Options of every command that makes coarser scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from precomputed_store.cli.options import JsonOrText
from precomputed_store.metadata import ShardingSpec

__all__ = ["method_option", "pyramid_option", "read_sharding", "sharding_option"]

Function = TypeVar("Function", bound=Callable[..., Any])


def pyramid_option(*, default: str | None) -> Callable[[Function], Function]:
    """``--pyramid``: which scales follow."""
    return click.option(
        "--pyramid",
        type=JsonOrText(),
        metavar="WHICH",
        default=default,
        show_default=default is not None,
        help="Coarser scales: auto (the finest axes are halved until a scale fits into a chunk), "
        "a number of such steps, a factor such as 2x2x1, or JSON such as [[2,2,1],[2,2,2]].",
    )


def method_option(function: Function) -> Function:
    """``--method``: how coarser voxels are made."""
    return click.option(
        "--method",
        type=click.Choice(["auto", "mean", "mode", "min", "max", "stride"]),
        default="auto",
        help="How coarser voxels are made. Default: mean for images, mode for segmentations.",
    )(function)


def sharding_option(*, default: str | None, more: str = "") -> Callable[[Function], Function]:
    """``--sharding``, for `read_sharding`."""
    return click.option(
        "--sharding",
        type=JsonOrText(),
        metavar="HOW",
        default=default,
        show_default=default is not None,
        help=f"Many chunks in one object: {more}auto, or the parameters of a shard as JSON.",
    )


def read_sharding(given: Any) -> Any:
    """``auto`` and the like, or the members of `sharding` in `info` as JSON."""
    if given == "none":
        return None
    if not isinstance(given, dict):
        return given
    return ShardingSpec.from_json(given, source="--sharding")
