"""Scales and regions as words of the command line."""

from __future__ import annotations

import re
from typing import Any

import click

__all__ = ["REGION", "read_scale"]

_SPAN = re.compile(r"(-?\d+)?:(-?\d+)?", re.ASCII)


class _Region(click.ParamType[dict[str, slice]]):
    """``x0:x1,y0:y1,z0:z1``; what is left out is whole."""

    name = "X0:X1,Y0:Y1,Z0:Z1"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, slice]:
        if isinstance(value, dict):
            return value
        spans = [_SPAN.fullmatch(part.strip()) for part in str(value).split(",")]
        if len(spans) != 3 or None in spans:
            self.fail(f"{value!r}: expected {self.name}, for instance 0:64,:,10:20", param, ctx)
        return {
            axis: slice(*(None if edge is None else int(edge) for edge in span.groups()))
            for axis, span in zip("xyz", spans, strict=True)
            if span is not None
        }


REGION = _Region()


def read_scale(text: str) -> int | str:
    """An index or a key; keys such as 4_4_40 are integers to Python."""
    return int(text) if re.fullmatch(r"-?\d+", text, re.ASCII) else text
