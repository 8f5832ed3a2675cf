"""Chunks → the bytes of a shard file, and a whole shard file → its chunks. Pure.

Specification: sharded.md, "Shard file format".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from precomputed_store.codecs import content
from precomputed_store.codecs.base import Buffer
from precomputed_store.errors import FormatError
from precomputed_store.metadata import ShardingSpec
from precomputed_store.sharding import (
    MAX_MINISHARD_INDEX_BYTES,
    ByteRange,
    MinishardIndex,
    ShardLocation,
    check_placement,
    locate_many,
    parse_minishard_index,
    parse_shard_index_entry,
    shard_index_bytes,
)

__all__ = [
    "Piece",
    "ShardAssembler",
    "ShardPlace",
    "assemble_pieces",
    "assemble_shard",
    "in_shard_order",
    "shard_places",
    "split_shard",
]

Piece: TypeAlias = Buffer | ByteRange
"""Bytes, or their place in the file that is replaced."""

ShardPlace: TypeAlias = tuple[int, int]
"""Minishard and chunk id."""

_INDEX_MARGIN_BYTES = 1 << 20
"""That gzip may make a minishard index longer."""


class ShardAssembler:
    """Puts a shard together, one chunk after another, in a single buffer or in pieces.

    The chunks of a minishard lie together, and its index lies behind them; the minishards
    follow one another. No more is held in memory than what the file will hold.

    Parameters
    ----------
    spec : ShardingSpec
    compress_level : int, optional
        Level of gzip for minishard indices that are gzipped.

    Examples
    --------
    >>> spec = ShardingSpec(hash="identity", preshift_bits=0, minishard_bits=1, shard_bits=0)
    >>> assembler = ShardAssembler(spec)
    >>> assembler.add(0, 2, b"two")
    >>> assembler.add(1, 1, b"one")
    >>> len(assembler.finish())
    86
    """

    def __init__(self, spec: ShardingSpec, *, compress_level: int | None = None) -> None:
        self._spec = spec
        self._level = compress_level
        self._header = bytearray(shard_index_bytes(spec))
        self._pieces: list[bytearray | ByteRange] = [self._header]
        self._size = len(self._header)
        self._entries = np.zeros((1 << spec.minishard_bits, 2), "<u8")
        self._minishard = -1
        self._ids: list[int] = []
        self._starts: list[int] = []
        self._sizes: list[int] = []

    @property
    def nbytes(self) -> int:
        """Bytes so far."""
        return self._size

    def add(
        self, minishard: int, chunk_id: int, data: Piece, *, before: Sequence[Piece] = ()
    ) -> None:
        """Append a chunk as it is to be stored, content encoding applied.

        Parameters
        ----------
        minishard, chunk_id : int
        data : bytes-like
        before : sequence of bytes-like
            What is to lie immediately before it, under no id of its own.

        Raises
        ------
        ValueError
            It comes before one that was added: minishards ascend, and chunk ids in them.
        """
        if minishard != self._minishard:
            if minishard < self._minishard:
                raise ValueError(f"minishard {minishard} after {self._minishard}")
            self._close_minishard()
            self._minishard = minishard
        elif self._ids and chunk_id <= self._ids[-1]:
            raise ValueError(f"chunk {chunk_id} after {self._ids[-1]} in minishard {minishard}")
        for piece in before:
            self._append(piece)
        self._ids.append(chunk_id)
        self._starts.append(self._size)
        self._append(data)
        self._sizes.append(self._size - self._starts[-1])

    def _append(self, data: Piece) -> None:
        last = self._pieces[-1]
        if isinstance(data, ByteRange):
            self._size += data.stop - data.start
            if isinstance(last, ByteRange) and last.stop == data.start:
                self._pieces[-1] = ByteRange(last.start, data.stop)
            else:
                self._pieces.append(data)
            return
        self._size += len(data)
        if isinstance(last, bytearray):
            last += data
        else:
            self._pieces.append(bytearray(data))

    def finish(self) -> bytearray:
        """The file, if all of its chunks were given as bytes. Nothing can be added any more."""
        (whole,) = self.finish_pieces()
        assert isinstance(whole, bytearray)
        return whole

    def finish_pieces(self) -> list[Piece]:
        """The file in pieces. Nothing can be added any more."""
        self._close_minishard()
        self._header[: self._entries.nbytes] = self._entries.tobytes()
        return list(self._pieces)

    def _close_minishard(self) -> None:
        if not self._ids:
            return
        base = shard_index_bytes(self._spec)
        index: bytes = _minishard_index(self._ids, self._starts, self._sizes, base=base)
        if self._spec.minishard_index_encoding == "gzip":
            index = content.apply(index, "gzip", level=self._level)
        start = self._size - base
        self._append(index)
        self._entries[self._minishard] = start, start + len(index)
        self._ids, self._starts, self._sizes = [], [], []


def _minishard_index(ids: list[int], starts: list[int], sizes: list[int], *, base: int) -> bytes:
    """The delta-coded index of one minishard, not compressed.

    Specification: sharded.md, "Minishard index format".
    """
    table = np.empty((3, len(ids)), "<u8")
    table[0] = ids
    table[1] = starts
    table[2] = sizes
    stops = table[1] + table[2]
    table[1, 1:] -= stops[:-1]
    table[1, 0] -= np.uint64(base)
    table[0, 1:] = np.diff(table[0])
    return table.tobytes()


def in_shard_order(spec: ShardingSpec, chunk_ids: Iterable[int]) -> Iterator[ShardPlace]:
    """Minishard and chunk id of chunks in the order in which a shard holds them."""
    ids = np.fromiter(chunk_ids, np.uint64)
    minishards = locate_many(spec, ids)[1]
    order = np.lexsort((ids, minishards))
    return zip(minishards[order].tolist(), ids[order].tolist(), strict=True)


def assemble_shard(
    spec: ShardingSpec, chunks: Mapping[int, Buffer], *, compress_level: int | None = None
) -> bytearray:
    """The file that holds these chunks, as they are to be stored."""
    return _filled(spec, chunks, compress_level).finish()


def assemble_pieces(
    spec: ShardingSpec, chunks: Mapping[int, Piece], *, compress_level: int | None = None
) -> list[Piece]:
    """As `assemble_shard`, of chunks that may be places in the file that is replaced."""
    return _filled(spec, chunks, compress_level).finish_pieces()


def _filled(
    spec: ShardingSpec, chunks: Mapping[int, Piece], compress_level: int | None
) -> ShardAssembler:
    assembler = ShardAssembler(spec, compress_level=compress_level)
    for minishard, chunk_id in in_shard_order(spec, chunks):
        assembler.add(minishard, chunk_id, chunks[chunk_id])
    return assembler


def split_shard(
    data: Buffer, spec: ShardingSpec, *, shard: int, num_chunks: int
) -> dict[int, memoryview]:
    """Every chunk of a shard file, as it is stored: views of `data`.

    As `shard_places`, of a file that is held in memory.
    """
    view = memoryview(data).cast("B")
    places = shard_places(
        lambda start, stop: view[start:stop],
        len(view),
        spec,
        shard=shard,
        num_chunks=num_chunks,
    )
    return {chunk_id: view[start:stop] for chunk_id, (start, stop) in places.items()}


def shard_places(
    read: Callable[[int, int], Buffer],
    size: int,
    spec: ShardingSpec,
    *,
    shard: int,
    num_chunks: int,
) -> dict[int, ByteRange]:
    """Where every chunk of a shard file lies in it.

    Parameters
    ----------
    read : callable
        Gives the bytes from a first one to the one after the last, of the file.
    size : int
        Bytes of the file.
    spec : ShardingSpec
    shard : int
        Number of the shard.
    num_chunks : int
        The most chunks that it can have.

    Returns
    -------
    dict of int to ByteRange
        Chunk id → its place, content encoding not undone.

    Raises
    ------
    FormatError
        An index is damaged, lies past the end, or names a chunk that belongs elsewhere.
    """
    if size < shard_index_bytes(spec):
        raise FormatError(
            f"the file is {size} bytes long, its shard index {shard_index_bytes(spec)}"
        )
    header = memoryview(read(0, shard_index_bytes(spec)))
    entries = np.frombuffer(header, "<u8").reshape(-1, 2)
    found: dict[int, ByteRange] = {}
    for minishard in np.flatnonzero(entries[:, 0] != entries[:, 1]).tolist():
        try:
            entry = parse_shard_index_entry(header[16 * minishard : 16 * minishard + 16], spec)
            assert entry is not None
            _check_index_place(entry, size, num_chunks=num_chunks)
            index = _parsed_index(read(*entry), size, spec, num_chunks=num_chunks)
            check_placement(index, spec, ShardLocation(shard, minishard))
        except FormatError as error:
            raise FormatError(f"minishard {minishard}: {error}") from error
        places = map(ByteRange, index.starts.tolist(), index.stops.tolist())
        found.update(zip(index.chunk_ids.tolist(), places, strict=True))
    return found


def _check_index_place(entry: ByteRange, size: int, *, num_chunks: int) -> None:
    if entry.stop > size:
        raise FormatError(f"its index ends at {entry.stop}, the file at {size}")
    most = 24 * num_chunks + _INDEX_MARGIN_BYTES
    if entry.stop - entry.start > most:
        raise FormatError(
            f"its index is {entry.stop - entry.start} bytes; expected at most {most} of "
            f"{num_chunks} chunks"
        )


def _parsed_index(
    index: Buffer, size: int, spec: ShardingSpec, *, num_chunks: int
) -> MinishardIndex:
    if spec.minishard_index_encoding == "gzip":
        limit = min(24 * num_chunks, MAX_MINISHARD_INDEX_BYTES)
        index = content.undo(index, "gzip", limit=limit, allow_zlib=True)
    parsed = parse_minishard_index(index, spec)
    if len(parsed.stops) and int(parsed.stops.max()) > size:
        raise FormatError(f"it has a chunk that ends at {parsed.stops.max()} of {size} bytes")
    return parsed
