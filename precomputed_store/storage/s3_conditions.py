"""Writes and removals on condition, as S3 servers understand them.

Not all do, and some ignore what they do not understand, which would lose data without a
word. So every server is asked once per process and bucket: a write that must be refused,
of an object that nobody uses.

A write whose answer is lost is sent again, and refused because of itself. A number of
its own in the object's metadata tells that from the write of somebody else.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from precomputed_store.errors import StorageError, UnsupportedError
from precomputed_store.storage.base import ABSENT, WRITE_ID, Delete, Put, Version, changed
from precomputed_store.storage.bridge import shared
from precomputed_store.storage.retry import retry_async
from precomputed_store.storage.temporaries import temporary_name

if TYPE_CHECKING:
    from precomputed_store.storage.s3 import S3Backend

__all__ = ["S3Conditions"]

_NEVER = '"00000000000000000000000000000000"'
_REFUSED = frozenset({404, 409, 412})
_NOT_KNOWN = frozenset({400, 405, 501})


@dataclass(kw_only=True)
class _Server:
    """What is known of how a server treats the objects of one bucket."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    writes: bool | None = None
    """Whether writes heed conditions; None: not asked yet."""
    removals: bool | None = None
    quoted: bool = True
    """Whether entity tags are compared with their quotation marks; Ceph does without."""


class S3Conditions:
    def __init__(self, backend: S3Backend, server: str, bucket: str) -> None:
        self._backend = backend
        self._server = shared(("S3 conditions", server, bucket), _Server)

    async def put(self, request: Put, arguments: Mapping[str, Any]) -> None:
        """Store an object if it is at the version that is expected."""
        await self._check_writes(request.key)
        expected = request.expected or ABSENT
        write_id = uuid.uuid4().hex
        metadata = {**arguments.get("Metadata", {}), WRITE_ID: write_id}
        for _ in range(2):
            quoted = self._server.quoted
            given = {**arguments, "Metadata": metadata, **_condition(expected, quoted=quoted)}
            status = await self._status("put_object", given, request.key)
            if status is None:
                return
            found = await self._backend.head(request.key)
            if found is not None and found.get("Metadata", {}).get(WRITE_ID) == write_id:
                return
            if status != 412 or found is None or found["ETag"] != expected.token:
                break
            # It is refused although nothing has changed: the tag was not understood.
            self._server.quoted = not quoted
        raise changed(self._backend.object_url(request.key))

    async def delete(self, request: Delete) -> None:
        """Remove an object if it is at the version that is expected."""
        url = self._backend.object_url(request.key)
        if request.expected in (None, ABSENT):
            if await self._backend.head(request.key) is not None:
                raise changed(url)
            return
        await self._check_removals(request.key)
        given = {
            "Key": self._backend.object_key(request.key),
            **_condition(request.expected or ABSENT, quoted=self._server.quoted),
        }
        tries: list[float] = []
        if await self._status("delete_object", given, request.key, tries=tries) is None:
            return
        # What a first try has removed is gone when a second one looks for it.
        if len(tries) == 1 or await self._backend.head(request.key) is not None:
            raise changed(url)

    async def _check_writes(self, key: str) -> None:
        async with self._server.lock:
            if self._server.writes is None:
                self._server.writes = await self._heeds("put_object", self._beside(key))
        if not self._server.writes:
            raise UnsupportedError(
                f"{self._backend.object_url(key)}: this server ignores If-Match (or botocore is "
                "older than 1.36), so what another writer stores meanwhile would be lost. Write "
                "whole objects, or, if nobody else writes there, say so: unaligned="
                '"unsafe-read-modify-write" for volumes, unconditional="allow" for updates'
            )

    async def _check_removals(self, key: str) -> None:
        async with self._server.lock:
            if self._server.removals is None:
                beside = self._beside(key)
                await self._backend.call("put_object", {"Key": beside, "Body": b""}, key)
                self._server.removals = await self._heeds("delete_object", beside)
        if not self._server.removals:
            raise UnsupportedError(
                f"{self._backend.object_url(key)}: this server removes objects without looking "
                "at If-Match, so what another writer stores meanwhile would be lost. Store an "
                "object that means the same (a chunk of zeros) in its place"
            )

    async def _heeds(self, method: str, probe: str) -> bool:
        """Whether a request is refused whose condition cannot hold; leaves nothing behind."""
        try:
            await self._backend.call(method, {"Key": probe, "IfMatch": _NEVER}, probe)
        except StorageError as error:
            if error.status not in _REFUSED | _NOT_KNOWN:
                raise
            heeds = error.status in _REFUSED
        else:
            heeds = False
        if method == "delete_object" or not heeds:
            await self._backend.call("delete_object", {"Key": probe}, probe)
        return heeds

    async def _status(
        self,
        method: str,
        arguments: Mapping[str, Any],
        key: str,
        *,
        tries: list[float] | None = None,
    ) -> int | None:
        """None for a success, else the status that says that the condition did not hold."""
        url = self._backend.object_url(key)

        async def attempt(stall_s: float) -> None:
            if tries is not None:
                tries.append(stall_s)
            await self._backend.attempt(method, arguments, url)

        try:
            await retry_async(attempt, policy=self._backend.retry, url=url)
        except StorageError as error:
            if error.status not in _REFUSED or "NoSuchBucket" in str(error):
                raise
            return error.status
        return None

    def _beside(self, key: str) -> str:
        folder, slash, _ = self._backend.object_key(key).rpartition("/")
        return f"{folder}{slash}{temporary_name()}"


def _condition(expected: Version, *, quoted: bool) -> dict[str, str]:
    if expected.token is None:
        return {"IfNoneMatch": "*"}
    return {"IfMatch": expected.token if quoted else expected.token.strip('"')}
