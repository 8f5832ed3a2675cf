"""From text to plain JSON: what every metadata document goes through before it is read.

Limits come first, because a document comes from the network: its size and nesting are
checked before the parser sees it. What JSON leaves undefined (a member given twice, NaN)
is refused here with its location.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from precomputed_store.errors import MetadataError, Problem

__all__ = ["MAX_BYTES", "MAX_DEPTH", "Document", "load_document", "plain_json", "show"]

Document: TypeAlias = Mapping[str, Any] | str | bytes | bytearray | memoryview

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 64
# Python writes and reads integers of at most 4,300 digits.
_MAX_INTEGER_BITS = 14_000
_MAX_PROBLEMS = 100
_SIMPLE = frozenset({str, bool, type(None)})

# Possessive, and closed by the end of the text too: linear on any input.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_GZIP = b"\x1f\x8b"


def load_document(document: Document, *, source: str = "info") -> dict[str, Any]:
    """A metadata document as plain JSON: dict, list, str, int, float, bool, None.

    Parameters
    ----------
    document : mapping, str or bytes-like
        JSON text (bytes are UTF-8, with or without a byte order mark), or the object it
        stands for. Tuples, numpy scalars and numpy arrays in a mapping become plain.
    source : str
        Where the document comes from, for the messages.

    Returns
    -------
    dict
        A copy, independent of `document`.

    Raises
    ------
    MetadataError
        It is empty, too large, nested too deeply, not JSON, not an object, names a
        member twice, or holds what is not a JSON value.
    TypeError
        `document` is neither text nor a JSON value.
    """
    value: object
    if isinstance(document, str | bytes | bytearray | memoryview):
        value, is_plain = _parse(_text(document, source), source)
    elif isinstance(document, Mapping | list | tuple | int | float | None):
        value, is_plain = document, False
    else:
        raise TypeError(f"expected a dict, str or bytes of JSON, got {type(document).__name__}")
    if not isinstance(value, Mapping):
        raise MetadataError(f"expected a JSON object, got {show(value)}", source=source)
    if is_plain:
        return value  # type: ignore[return-value]
    problems: list[Problem] = []
    plain = plain_json(value, problems)
    if problems:
        raise MetadataError(problems, source=source)
    return plain  # type: ignore[no-any-return]


def _text(document: str | bytes | bytearray | memoryview, source: str) -> str:
    # A lone surrogate in a str becomes bytes that are not UTF-8, and is refused as such.
    data = document.encode(errors="surrogatepass") if isinstance(document, str) else document
    data = bytes(data)
    message = None
    if len(data) > MAX_BYTES:
        message = f"the document is {len(data)} bytes; expected at most {MAX_BYTES}"
    elif data.startswith(_GZIP):
        message = "expected JSON text; the document is gzip-compressed"
    elif (depth := _depth(data)) > MAX_DEPTH:
        message = f"the document is nested {depth} levels deep; expected at most {MAX_DEPTH}"
    if message is None:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            message = f"the document is not UTF-8 text: {error.reason} at byte {error.start}"
        else:
            message = None if text.strip() else "the document is empty"
    if message is not None:
        raise MetadataError(message, source=source)
    return text


def _depth(data: bytes) -> int:
    """The deepest nesting of brackets outside strings.

    Text that is not JSON may be counted wrongly, but never as less deep than the parser
    will go before it finds the fault.
    """
    brackets = _STRING.sub(b"", data).translate(None, delete=_NOT_BRACKETS)
    steps = np.frombuffer(brackets, dtype=np.uint8)
    opened = (steps == ord("[")) | (steps == ord("{"))
    levels = np.cumsum(np.where(opened, 1, -1).astype(np.int8), dtype=np.int32)
    return int(levels.max(initial=0))


def _parse(text: str, source: str) -> tuple[Any, bool]:
    """The value that `text` stands for, and whether it holds only what JSON defines."""
    doubts: list[object] = []

    def number(literal: str) -> float:
        value = float(literal)
        if not math.isfinite(value):
            doubts.append(value)
        return value

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        doubts.append(ambiguous := _AmbiguousObject(pairs))
        return ambiguous

    try:
        value = json.loads(
            text, object_pairs_hook=members, parse_constant=number, parse_float=number
        )
    except json.JSONDecodeError as error:
        hint = " (this looks like a web page)" if text.lstrip().startswith("<") else ""
        message = f"{error.msg}, line {error.lineno}, column {error.colno}"
        raise MetadataError(f"not valid JSON{hint}: {message}", source=source) from None
    except ValueError:
        # Python refuses to convert integers of thousands of digits.
        raise MetadataError(
            "the document holds an integer that is too large", source=source
        ) from None
    return value, not doubts


class _AmbiguousObject(dict[str, Any]):
    """A JSON object that names a member more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs)
        self.repeated = [name for name, count in counts.items() if count > 1]


def plain_json(
    value: object, problems: list[Problem], *, location: str = "", depth: int = 0
) -> Any:
    """A deep copy of `value` as plain JSON; what is no JSON is added to `problems`.

    `depth` is the number of levels that enclose `value` in its document.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if not isinstance(value, dict | list | tuple | Mapping):
        message = _scalar_problem(value)
    elif depth >= MAX_DEPTH:
        message = f"nested too deeply: expected at most {MAX_DEPTH} levels"
    elif isinstance(value, Mapping):
        return _plain_object(value, problems, location=location, depth=depth)
    else:
        return _plain_list(value, problems, location=location, depth=depth)
    if message is not None:
        problems.append(Problem(location, message))
    return value


def _plain_list(
    items: list[object] | tuple[object, ...],
    problems: list[Problem],
    *,
    location: str,
    depth: int,
) -> list[Any]:
    plain = []
    for i, item in enumerate(items):
        if _enough(problems):
            break
        if type(item) not in _SIMPLE:
            item = plain_json(item, problems, location=f"{location}[{i}]", depth=depth + 1)
        plain.append(item)
    return plain


def _plain_object(
    members: Mapping[Any, object], problems: list[Problem], *, location: str, depth: int
) -> dict[str, Any]:
    if isinstance(members, _AmbiguousObject):
        problems.extend(
            Problem(location, f"the member {show(name)} is given more than once")
            for name in members.repeated[:_MAX_PROBLEMS]
        )
    plain = {}
    for name, member in members.items():
        if _enough(problems):
            break
        if isinstance(name, str):
            short = name if len(name) <= 80 else f"{name[:77]}..."
            inner = f"{location}.{short}" if location else short
            plain[str(name)] = plain_json(member, problems, location=inner, depth=depth + 1)
        else:
            problems.append(Problem(location, f"expected text as a name, got {show(name)}"))
    return plain


def _enough(problems: list[Problem]) -> bool:
    """Whether to stop looking: a value that contains itself could be followed for ever."""
    return len(problems) >= _MAX_PROBLEMS


def _scalar_problem(value: object) -> str | None:
    if value is None or isinstance(value, str | bool):
        return None
    if isinstance(value, int):
        return "the integer is too large" if value.bit_length() > _MAX_INTEGER_BITS else None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"expected a finite number, got {value}"
    return f"expected a JSON value, got {type(value).__name__}"


def show(value: object) -> str:
    """A JSON value for a message: as in the document, shortened."""
    if isinstance(value, Mapping):
        return "an object" if value else "an empty object"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, list | tuple):
        if len(value) > 8 or any(isinstance(item, Mapping | list | tuple) for item in value):
            return f"an array of {len(value)}"
        return "[" + ", ".join(map(show, value)) + "]"
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."
