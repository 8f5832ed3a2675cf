"""A file → an object on Google Cloud Storage, piece by piece: there when all of it is.

Specification: Google's "Resumable uploads" of the JSON interface.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from precomputed_store.errors import StorageError
from precomputed_store.storage.exchange import Answer
from precomputed_store.storage.pieces import PutFile

__all__ = ["Send", "send_pieces"]

Send: TypeAlias = Callable[[Mapping[str, str], bytes], Awaitable[Answer]]
"""Headers and a piece of the file → the server's answer."""

_PIECE_BYTES = 8 << 20
"""A multiple of 256 KiB, as is asked for."""

_INCOMPLETE = 308
_RANGE = re.compile(r"bytes=0-(\d+)")
_MOST_STANDSTILLS = 5


async def send_pieces(send: Send, request: PutFile) -> Answer:
    """Send a file; the last answer. What a server has got already, it does not mind again.

    Raises
    ------
    StorageError
        The server keeps nothing of what it is sent.
    """
    start, size, standstills = 0, request.file.size, 0
    while True:
        stop = min(start + _PIECE_BYTES, size)
        data = await asyncio.to_thread(request.file.read, start, stop)
        answer = await send({"Content-Range": f"bytes {start}-{stop - 1}/{size}"}, data)
        if answer.status != _INCOMPLETE:
            return answer
        # It may have kept less than it was sent.
        kept = _RANGE.fullmatch(answer.headers.get("Range", ""))
        reached = int(kept[1]) + 1 if kept else 0
        standstills = 0 if reached > start else standstills + 1
        if standstills > _MOST_STANDSTILLS or not 0 <= reached < size:
            raise StorageError(
                f"{request.key}: the upload stands still at {reached} of {size} bytes"
            )
        start = reached
