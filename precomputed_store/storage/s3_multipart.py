"""A file → an object on S3, in parts: it is there when all of them are, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

from precomputed_store.concurrency import bounded
from precomputed_store.errors import StorageError
from precomputed_store.storage.pieces import PutFile
from precomputed_store.storage.update import write_id

__all__ = ["MARK", "upload_file"]

MARK = "precomputed-store-write"
"""Metadata by which a write whose answer was lost is known again."""

_PART_BYTES = 8 << 20
_MOST_PARTS = 10_000
_AT_ONCE = 4


class Call(Protocol):
    """A request by its name in boto; None if its status is in `missing`."""

    def __call__(
        self,
        method: str,
        arguments: Mapping[str, Any],
        key: str,
        *,
        missing: frozenset[int] = ...,
    ) -> Awaitable[dict[str, Any] | None]: ...


async def upload_file(call: Call, request: PutFile, described: Mapping[str, Any]) -> None:
    """Store a file as one object.

    Parameters
    ----------
    call : callable
        See `Call`.
    request : PutFile
    described : mapping
        What the object is to be: key, content type and so on, as boto calls them.
    """
    mark = write_id()
    begun = await call(
        "create_multipart_upload", {**described, "Metadata": {MARK: mark}}, request.key
    )
    assert begun is not None
    upload = {"Key": described["Key"], "UploadId": begun["UploadId"]}
    try:
        parts = await _upload_parts(call, request, upload)
        await _complete(call, request, {**upload, "MultipartUpload": {"Parts": parts}}, mark)
    except BaseException:
        # Parts that were uploaded are paid for until they are removed.
        with contextlib.suppress(StorageError):
            await call("abort_multipart_upload", upload, request.key, missing=frozenset({404}))
        raise


async def _upload_parts(
    call: Call, request: PutFile, upload: Mapping[str, Any]
) -> list[dict[str, Any]]:
    size = request.file.size
    length = max(_PART_BYTES, -(-size // _MOST_PARTS))
    parts: dict[int, dict[str, Any]] = {}

    async def send(number: int) -> None:
        start = (number - 1) * length
        data = await asyncio.to_thread(request.file.read, start, min(start + length, size))
        answer = await call(
            "upload_part", {**upload, "PartNumber": number, "Body": data}, request.key
        )
        assert answer is not None
        # Servers that check sums want them again when the parts are put together.
        sums = {
            name: value
            for name, value in answer.items()
            if name.startswith("Checksum") and name != "ChecksumType"
        }
        parts[number] = {"PartNumber": number, "ETag": answer["ETag"], **sums}

    await bounded(_AT_ONCE)(range(1, -(-size // length) + 1), send)
    return [parts[number] for number in sorted(parts)]


async def _complete(call: Call, request: PutFile, arguments: Mapping[str, Any], mark: str) -> None:
    missing = frozenset({404})
    answer = await call("complete_multipart_upload", arguments, request.key, missing=missing)
    if answer is not None:
        return
    # The upload is gone: completed by a try whose answer was lost?
    found = await call("head_object", {"Key": arguments["Key"]}, request.key, missing=missing)
    if found is None or found.get("Metadata", {}).get(MARK) != mark:
        raise StorageError(f"{request.key}: the upload was ended by somebody else")
