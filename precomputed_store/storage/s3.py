"""Layers on S3 and what speaks like it: s3fs's client and credentials, requests of our own.

s3fs's calls would retry by rules of their own, and its reads hide the header
``Content-Encoding``; so the client is called directly.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from precomputed_store.codecs.content import from_header
from precomputed_store.errors import StorageError, UnsupportedError
from precomputed_store.storage.base import (
    AsyncBackend,
    Blob,
    Get,
    Page,
    Place,
    Put,
    Stat,
    refusal,
)
from precomputed_store.storage.bridge import shared
from precomputed_store.storage.pieces import PutFile
from precomputed_store.storage.retry import (
    TRANSIENT_STATUSES,
    RetryPolicy,
    TransientError,
    retry_after,
    retry_async,
)
from precomputed_store.storage.s3_conditions import S3Conditions, condition
from precomputed_store.storage.s3_multipart import MARK, upload_file
from precomputed_store.storage.update import (
    Update,
    changed,
    no_conditions,
    tries,
    unguarded_async,
    write_id,
)

__all__ = ["S3Backend", "with_default_credentials", "with_limits"]

_EXPLICIT = ("anon", "key", "secret", "token", "username", "password", "profile", "session")
_TRANSIENT_CODES = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "InternalError",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "XAmzContentSHA256Mismatch",
    }
)
_REMEMBERED_S = 10.0
_PART = 1 << 20
_PAGE_NAMES = 1000


def with_default_credentials(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for s3fs: anonymous where neither they nor the machine hold credentials."""
    client = options.get("client_kwargs") or {}
    if any(options.get(name) is not None for name in _EXPLICIT):
        return dict(options)
    if client.get("aws_access_key_id"):
        return dict(options)
    variables = tuple(item for item in sorted(os.environ.items()) if item[0].startswith("AWS_"))
    if _configured(variables, int(time.monotonic() / _REMEMBERED_S)) or _machine_has_role():
        return dict(options)
    return {**options, "anon": True}


@lru_cache(maxsize=8)
def _configured(variables: tuple[tuple[str, str], ...], period: int) -> bool:
    """Whether the environment or a file of the user holds credentials.

    The arguments bound how long the answer is remembered: it takes 10 ms to find out.
    """
    import botocore.session  # type: ignore[import-untyped]
    from botocore.credentials import create_credential_resolver  # type: ignore[import-untyped]

    resolver = create_credential_resolver(botocore.session.Session())
    # Asked once per process, below: it waits for a network that may not be there.
    resolver.remove("iam-role")
    return resolver.load_credentials() is not None


@cache
def _machine_has_role() -> bool:
    import botocore.session

    return botocore.session.Session().get_credentials() is not None


def with_limits(
    options: Mapping[str, Any], policy: RetryPolicy, concurrency: int
) -> dict[str, Any]:
    """Options for s3fs with our limits, where the user has set none: retries are made here."""
    config = {
        "max_pool_connections": concurrency,
        "connect_timeout": policy.connect_s,
        "read_timeout": policy.stall_s,
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        **(options.get("config_kwargs") or {}),
    }
    return {**options, "config_kwargs": config}


class S3Backend(AsyncBackend):
    has_headers = True
    # Few servers take a condition for it.
    can_delete_if = False

    def __init__(self, place: Place, filesystem: Any) -> None:
        self._place = place
        self._fs = filesystem
        self._bucket, prefix, _ = filesystem.split_path(place.url)
        self._prefix = f"{prefix.rstrip('/')}/" if prefix else ""

    async def get(self, request: Get) -> Blob | None:
        url = f"{self._place.url}/{request.key}"
        arguments = {"Key": self._prefix + request.key}
        if request.byte_range is not None:
            start, stop = request.byte_range
            arguments["Range"] = f"bytes={start}-{stop - 1}"

        async def attempt(stall_s: float) -> Blob | None:
            try:
                answer = await self._try(
                    "get_object", arguments, url, self._place.missing_statuses, limit_s=stall_s
                )
            except StorageError as error:
                if error.status == 416:
                    raise request.past_end(None, url) from error
                raise
            return None if answer is None else await self._read(answer, request, url, stall_s)

        return await retry_async(attempt, policy=self._place.retry, url=url)

    async def put(self, request: Put) -> None:
        await self._call("put_object", self._described(request), request.key)

    async def put_file(self, request: PutFile) -> None:
        described = self._described(request.put(b""))
        del described["Body"]
        await upload_file(self._call, request, described)

    def _described(self, request: Put) -> dict[str, Any]:
        arguments = {
            "Key": self._prefix + request.key,
            "Body": bytes(request.data),
            "ContentType": request.content_type,
            "ContentEncoding": request.content_encoding,
            "CacheControl": request.cache_control,
        }
        return {name: value for name, value in arguments.items() if value is not None}

    async def update(self, request: Update) -> None:
        url = f"{self._place.url}/{request.key}"
        conditions = self._conditions
        if not await conditions.are_heeded(self._call, self._prefix):
            await unguarded_async(self, request, request.get(), url)
            return
        failed: str | None = None
        for wait_s in tries(url):
            await asyncio.sleep(wait_s)
            blob = await self.get(request.get())
            tag = None if blob is None else str(blob.version or "")
            if tag == "":
                raise no_conditions(url)
            new = await changed(request, blob)
            if new is None and blob is None:
                return
            if new is None:
                raise UnsupportedError(f"{url}: S3 does not remove an object under a condition")
            bare = conditions.bare
            if failed is not None and failed == tag:
                # It did not change, and yet the write was refused: some want bare tags.
                bare = conditions.bare = not bare
            if await self._put_if(request.put(new), tag, bare=bare):
                return
            failed = tag

    async def _put_if(self, request: Put, tag: str | None, *, bare: bool) -> bool:
        """Store an object if nobody else did; whether that is done."""
        mark = write_id()
        arguments = {
            **self._described(request),
            **condition(tag, bare=bare),
            "Metadata": {MARK: mark},
        }
        # 409: another conditional write was under way. 404: it was removed meanwhile.
        refused = frozenset({412, 409, *((404,) if tag is not None else ())})
        answer = await self._call("put_object", arguments, request.key, missing=refused)
        if answer is not None:
            return True
        found = await self._call(
            "head_object", {"Key": arguments["Key"]}, request.key, missing=frozenset({404})
        )
        # Stored by a try whose answer was lost?
        return found is not None and found.get("Metadata", {}).get(MARK) == mark

    @property
    def _conditions(self) -> S3Conditions:
        return shared(("S3 conditions", self._fs, self._bucket), S3Conditions)

    async def delete(self, key: str) -> None:
        arguments = {"Key": self._prefix + key}
        await self._call("delete_object", arguments, key, missing=frozenset({404}))

    async def exists(self, key: str) -> bool:
        return await self.stat(key) is not None

    async def stat(self, key: str) -> Stat | None:
        arguments = {"Key": self._prefix + key}
        missing = self._place.missing_statuses
        found = await self._call("head_object", arguments, key, missing=missing)
        if found is None:
            return None
        return Stat(found.get("ContentLength"), from_header(found.get("ContentEncoding")))

    async def page(self, token: str | None) -> Page:
        arguments: dict[str, Any] = {
            "Prefix": self._prefix,
            "Delimiter": "/",
            "MaxKeys": _PAGE_NAMES,
        }
        if token is not None:
            arguments["ContinuationToken"] = token
        answer = await self._call("list_objects_v2", arguments, "", missing=frozenset()) or {}
        sizes = {
            item["Key"][len(self._prefix) :]: item["Size"] for item in answer.get("Contents", ())
        }
        paths = [item["Key"] for item in answer.get("Contents", ())]
        paths += [item["Prefix"].rstrip("/") for item in answer.get("CommonPrefixes", ())]
        names = [path[len(self._prefix) :] for path in paths if path != self._prefix]
        return Page(names, answer.get("NextContinuationToken"), sizes)

    async def _call(
        self,
        method: str,
        arguments: Mapping[str, Any],
        key: str,
        *,
        missing: frozenset[int] = frozenset(),
    ) -> dict[str, Any] | None:
        """The answer to a request, or None if its status is in `missing`."""
        url = f"{self._place.url}/{key}"

        async def attempt(stall_s: float) -> dict[str, Any] | None:
            return await self._try(method, arguments, url, missing)

        return await retry_async(attempt, policy=self._place.retry, url=url)

    async def _try(
        self,
        method: str,
        arguments: Mapping[str, Any],
        url: str,
        missing: frozenset[int],
        *,
        limit_s: float | None = None,
    ) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        try:
            await self._fs.set_session()
            function = getattr(await self._fs.get_s3(self._bucket), method)
            given = self._fs._get_s3_method_kwargs(function, Bucket=self._bucket, **arguments)
            async with asyncio.timeout(limit_s):
                answer: dict[str, Any] = await function(**given)
                return answer
        except ClientError as error:
            if _status(error) in missing:
                return None
            raise self._refused(error, url) from error
        except Exception as error:
            raise _broken(error, url) from error

    async def _read(
        self, answer: Mapping[str, Any], request: Get, url: str, stall_s: float
    ) -> Blob:
        declared = answer.get("ContentLength")
        if declared is not None:
            self._check_declared(declared, answer, request, url)
        encoding = from_header(answer.get("ContentEncoding"))
        if request.byte_range is not None and encoding is not None:
            raise request.compressed(encoding, url)
        body = answer["Body"]
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                async with asyncio.timeout(stall_s):
                    part = await body.read(_PART)
                if not part:
                    break
                parts.append(part)
                size += len(part)
                request.check_size(size, url)
        except StorageError:
            raise
        except Exception as error:
            raise _broken(error, url) from error
        finally:
            body.close()
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if declared is not None and size != declared:
            raise TransientError(f"short body ({size} of {declared} bytes)")
        return Blob(data, encoding, version=answer.get("ETag"))

    @staticmethod
    def _check_declared(declared: int, answer: Mapping[str, Any], request: Get, url: str) -> None:
        """Refuse a body of another length than asked for before reading it."""
        if request.byte_range is None:
            request.check_size(declared, url)
            return
        start, stop = request.byte_range
        total = str(answer.get("ContentRange") or "").rpartition("/")[2]
        if total.isdecimal() and int(total) < stop:
            raise request.past_end(int(total), url)
        if declared != stop - start:
            raise StorageError(
                f"{url}: {declared} bytes came; expected the {stop - start} asked for. "
                "Does this server ignore Range?"
            )

    def _refused(self, error: Any, url: str) -> Exception:
        """What an error that the server sent means."""
        status, detail = _status(error), error.response.get("Error", {})
        code = str(detail.get("Code", ""))
        if status in TRANSIENT_STATUSES or code in _TRANSIENT_CODES:
            headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            reason = f"{status} {code}"
            return TransientError(reason, status=status, wait_s=retry_after(headers))
        message = str(detail.get("Message", "")).strip().rstrip(".")
        named = code not in ("", str(status))  # answers to HEAD have no body to name it
        return refusal(
            url,
            status=status,
            reason=f"{code} ({message})" if named else message,
            anonymous=None if self._fs.anon else "{'anon': True}",
        )


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _broken(error: Exception, url: str) -> Exception:
    """What an exception of the client means: worth another try, or not."""
    import aiohttp
    from botocore import exceptions
    from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

    if isinstance(error, exceptions.SSLError | exceptions.ProxyConnectionError):
        return StorageError(f"{url}: {error}")
    if isinstance(error, exceptions.EndpointConnectionError):
        cause = getattr(error, "kwargs", {}).get("error")
        unreachable = isinstance(cause, aiohttp.ClientConnectorError)
        return TransientError(f"no connection ({cause or error})", unreachable=unreachable)
    passing = (
        exceptions.HTTPClientError,
        exceptions.ConnectionError,
        exceptions.IncompleteReadError,
        exceptions.ChecksumError,
        exceptions.FlexibleChecksumError,
        ResponseParserError,
        aiohttp.ClientError,
        TimeoutError,
        ConnectionError,
    )
    if isinstance(error, passing):
        unreachable = isinstance(error, exceptions.ConnectTimeoutError)
        reason = f"broken connection ({type(error).__name__})"
        return TransientError(reason, unreachable=unreachable)
    hint = ""
    if isinstance(error, exceptions.BotoCoreError):
        hint = ". For a public bucket try storage_options={'anon': True}"
    return StorageError(f"{url}: {error}{hint}")
