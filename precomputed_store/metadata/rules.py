"""The rules that members of metadata documents are checked by.

A rule takes a value as JSON or Python gave it, returns it in its proper type, or
records what is wrong and returns None: so one pass finds every problem.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, TypeVar

import numpy as np

from precomputed_store.errors import MetadataError, Problem
from precomputed_store.grid import XYZ
from precomputed_store.metadata.document import plain_json, show

__all__ = ["ABSENT", "MAX_ENTRIES", "Report", "path_problem"]

MAX_ENTRIES = 4096
"""Longest list of scales or chunk sizes: far above any real one, to bound the work."""

_EXACT_FLOATS = 2**53
_SMALL = 1000
_T = TypeVar("_T")


class _Absent:
    """The type of `ABSENT`."""


ABSENT: Final = _Absent()
"""Stands for a member that the document does not have."""


class Report:
    """What is found wrong (problems) or risky (notes) while a document is read.

    Parameters
    ----------
    location : str
        Where in the document the members lie that will be read with this report.
    """

    __slots__ = ("location", "notes", "problems")

    def __init__(self, location: str = "") -> None:
        self.location = location
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []

    def at(self, where: str) -> Report:
        """A report of its own for the members below `where`; see `include`."""
        return Report(self._locate(where))

    def include(self, other: Report) -> None:
        self.problems += other.problems
        self.notes += other.notes

    def problem(self, where: str, message: str) -> None:
        self.problems.append(Problem(self._locate(where), message))

    def note(self, where: str, message: str) -> None:
        self.notes.append(Problem(self._locate(where), message))

    def raise_problems(self, *, source: str) -> None:
        if self.problems:
            raise MetadataError(self.problems, source=source)

    def _locate(self, where: str) -> str:
        joint = "." if self.location and where and not where.startswith("[") else ""
        return f"{self.location}{joint}{where}"

    def wrong(self, where: str, value: object, expected: str) -> None:
        """Record that `value` is not what was `expected`."""
        missing = isinstance(value, _Absent)
        got = "" if missing else f", got {show(value)}"
        self.problem(where, f"{'missing: ' if missing else ''}expected {expected}{got}")

    def present(self, members: Mapping[str, Any], name: str) -> bool:
        """Whether an optional member is there; null counts as absent."""
        if name in members and members[name] is None:
            self.note(name, "null: Neuroglancer expects the member to be left out")
        return members.get(name) is not None

    def integer(self, value: object, where: str, *, minimum: int, maximum: int) -> int | None:
        """A whole number within bounds; JSON may also write it as 64.0, which is noted."""
        value = _builtin(value)
        if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_FLOATS:
            self.note(where, f"{value} is not written as an integer")
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
            return int(value)
        if maximum < _SMALL:
            bounds = f"from {minimum} to {maximum}"
        else:
            too_large = isinstance(value, int) and value > maximum
            bounds = f"<= {maximum}" if too_large else f">= {minimum}"
        self.wrong(where, value, f"an integer {bounds}")
        return None

    def integers(self, value: object, where: str, *, minimum: int, maximum: int) -> XYZ | None:
        """Three integers along x, y, z."""
        items = self._three(value, where, "integers")
        parts = [
            self.integer(item, f"{where}[{i}]", minimum=minimum, maximum=maximum)
            for i, item in enumerate(items)
        ]
        return _triple(parts)

    def lengths(self, value: object, where: str) -> tuple[float, float, float] | None:
        """Three positive finite numbers along x, y, z; integers stay integers."""
        items = self._three(value, where, "positive numbers")
        parts = [self._length(item, f"{where}[{i}]") for i, item in enumerate(items)]
        return _triple(parts)

    def _length(self, value: object, where: str) -> float | None:
        value = _builtin(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                if value > 0 and math.isfinite(value):
                    return value
            except OverflowError:
                pass
        self.wrong(where, value, "a positive finite number")
        return None

    def _three(self, value: object, where: str, what: str) -> list[Any]:
        items = _listed(value)
        if items is None or len(items) != 3:
            self.wrong(where, value, f"3 {what} [x, y, z]")
            return []
        return items

    def entries(self, value: object, where: str, what: str) -> list[Any]:
        """The entries of a list that must have at least one."""
        items = _listed(value)
        if not items:
            self.wrong(where, value, f"a list of at least one {what}")
            return []
        if len(items) > MAX_ENTRIES:
            self.problem(where, f"expected at most {MAX_ENTRIES} entries, got {len(items)}")
            return []
        return items

    def choice(self, value: object, where: str, choices: Collection[str]) -> str | None:
        """One of a closed set of names, in any case; returned in lower case."""
        # Not `lower()` alone: it maps some letters outside ASCII onto ASCII ones.
        if isinstance(value, str) and value.isascii() and value.lower() in choices:
            if value != value.lower():
                self.note(where, f"{show(value)}: other readers expect lower case")
            return value.lower()
        names = map(show, choices)
        few = len(choices) < 4
        self.wrong(where, value, " or ".join(names) if few else "one of " + ", ".join(names))
        return None

    def boolean(self, value: object, where: str) -> bool:
        value = _builtin(value)
        if not isinstance(value, bool):
            self.wrong(where, value, "true or false")
        return bool(value)

    def path(self, value: object, where: str) -> str | None:
        """A path relative to the folder of the document; it may contain ``..``."""
        if not isinstance(value, str):
            self.wrong(where, value, "a relative path")
        elif message := path_problem(value):
            self.problem(where, message)
        else:
            return str(value)
        return None

    def extra(
        self, members: Mapping[str, Any], *, known: Iterable[str], depth: int
    ) -> dict[str, Any]:
        """A plain copy of members that the specification does not name."""
        if not isinstance(members, Mapping):
            raise TypeError(f"extra: expected a mapping, got {type(members).__name__}")
        for name in sorted(set(known).intersection(members)):
            self.problem("extra", f"{show(name)} is a member of its own, not an extra one")
        return plain_json(members, self.problems, location="extra", depth=depth)  # type: ignore[no-any-return]


def path_problem(path: str) -> str | None:
    """Why `path` cannot lead to a folder relative to another one, or None."""
    reasons = {
        "is empty": not path,
        "is absolute": path.startswith("/"),
        "is a URL": "://" in path,
        "begins with a drive letter": path[1:2] == ":" and path[:1].isalpha(),
        "contains a backslash": "\\" in path,
        "contains a control character": any(
            ord(letter) < 32 or ord(letter) == 127 for letter in path
        ),
        "is not valid Unicode": any("\ud800" <= letter <= "\udfff" for letter in path),
    }
    found = [reason for reason, applies in reasons.items() if applies]
    return f"expected a relative path; {show(path)} {' and '.join(found)}" if found else None


def _builtin(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _listed(value: object) -> list[Any] | None:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else None


def _triple(parts: list[_T | None]) -> tuple[_T, _T, _T] | None:
    found = [part for part in parts if part is not None]
    if len(found) < 3:
        return None
    x, y, z = found
    return x, y, z
