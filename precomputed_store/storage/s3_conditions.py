"""Whether, and how, an S3 server writes under conditions: found out, as it is not announced.

A condition that is dropped on the way loses data without a word. Some servers ignore them,
some know one of the two, and botocore before 1.35.70 leaves ``If-Match`` out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from precomputed_store.errors import StorageError
from precomputed_store.storage.update import write_id

__all__ = ["S3Conditions", "condition"]

Call: TypeAlias = Callable[[str, Mapping[str, Any], str], Awaitable[object]]
"""Makes a request: method of the client, its arguments, key for messages."""

_NEVER = '"00000000000000000000000000000000"'
_REFUSED = frozenset({409, 412})
_NOT_IMPLEMENTED = frozenset({400, 405, 501})


@dataclass(kw_only=True)
class S3Conditions:
    """What this process knows of the conditions of one bucket.

    Attributes
    ----------
    bare : bool
        Whether entity tags are sent without their quotation marks, as Ceph wants them.
    """

    bare: bool = False
    _heeded: bool | None = None
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def are_heeded(self, call: Call, prefix: str) -> bool:
        """Whether both conditions are: tried once, on an object made for it below `prefix`."""
        async with self._asking:
            if self._heeded is None:
                key = f"{prefix}.precomputed-{write_id()}.tmp"
                self._heeded = await _try_out(call, {"Key": key, "Body": b""})
            return self._heeded


def condition(tag: str | None, *, bare: bool) -> dict[str, str]:
    """Arguments of a write over the object with this tag, or over nothing."""
    if tag is None:
        return {"IfNoneMatch": "*"}
    return {"IfMatch": tag.strip('"') if bare else tag}


async def _try_out(call: Call, probe: Mapping[str, Any]) -> bool:
    key = probe["Key"]
    await call("put_object", probe, key)
    try:
        for refused in ({"IfNoneMatch": "*"}, {"IfMatch": _NEVER}):
            if not await _is_refused(call, {**probe, **refused}):
                return False
        return True
    finally:
        await call("delete_object", {"Key": key}, key)


async def _is_refused(call: Call, arguments: Mapping[str, Any]) -> bool:
    try:
        await call("put_object", arguments, arguments["Key"])
    except StorageError as error:
        if error.status in _REFUSED:
            return True
        if error.status not in _NOT_IMPLEMENTED:
            raise
    return False
