"""Objects on their way into a folder: a few at a time, and in a temporary file."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, NamedTuple

from precomputed_store.codecs.base import Buffer
from precomputed_store.keyed_reader import check_id

__all__ = ["Keyed", "Spool", "check_twice", "groups"]

_GROUP = 64


class Keyed(NamedTuple):
    """What is to be stored under an id.

    Attributes
    ----------
    data : bytes-like
        Not compressed: the writer does that.
    before : sequence of bytes-like
        Only in shards: what is to lie immediately before `data` there, as it is. The
        fragments of a mesh.
    """

    data: Buffer
    before: Sequence[Buffer] = ()


class Spool:
    """Objects on their way into shards."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._end = 0
        self.places: dict[int, tuple[int, int, int]] = {}

    def add(self, object_id: int, keyed: Keyed) -> None:
        before = sum(self._file.write(piece) for piece in keyed.before)
        size = self._file.write(keyed.data)
        self.places[object_id] = (self._end, before, size)
        self._end += before + size

    def read(self, object_id: int) -> Keyed:
        start, before, size = self.places[object_id]
        self._file.seek(start)
        data = self._file.read(before + size)
        if len(data) != before + size:
            raise OSError(f"a temporary file in {tempfile.gettempdir()} was cut short")
        view = memoryview(data)
        return Keyed(view[before:], (view[:before],) if before else ())


def groups(objects: Iterable[tuple[int, Keyed]]) -> Iterator[list[tuple[int, Keyed]]]:
    """Objects, a few at a time, their ids checked."""
    remaining = iter(objects)
    while group := [(check_id(i), keyed) for i, keyed in itertools.islice(remaining, _GROUP)]:
        yield group


def check_twice(ids: Sequence[int], seen: set[int]) -> None:
    """Add ids to those seen before, and refuse one that is among them."""
    for object_id in ids:
        if object_id in seen:
            raise ValueError(f"id {object_id} is given twice")
        seen.add(object_id)
