"""Layers on a web server: read only, without listing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from precomputed_store.codecs.content import from_header
from precomputed_store.errors import UnsupportedError
from precomputed_store.storage.base import AsyncBackend, Blob, Get, Page, Place, Put, Stat, refusal
from precomputed_store.storage.exchange import (
    Answer,
    Call,
    blob_of,
    exchange,
    range_headers,
    timeouts,
)
from precomputed_store.storage.retry import retry_async

if TYPE_CHECKING:
    from yarl import URL

    from precomputed_store.storage.update import Update

__all__ = ["HttpBackend"]

_PATH_SAFE = "/-._~!$&'()*+,;=:@"
_QUERY_SAFE = _PATH_SAFE + "?%"


class HttpBackend(AsyncBackend):
    def __init__(self, place: Place, filesystem: Any) -> None:
        self._place = place
        self._fs = filesystem
        address, mark, query = place.url.partition("?")
        # Signatures in a query do not outlive a rewriting.
        self._query = mark + quote(query, safe=_QUERY_SAFE)
        self._base = str(filesystem.encode_url(address)).rstrip("/")
        options = dict(filesystem.kwargs)
        self._headers = dict(options.pop("headers", None) or {})
        self._options = options
        # A limit that the user set on the session is not overruled.
        self._timed = "timeout" in options or "timeout" in filesystem.client_kwargs

    async def get(self, request: Get) -> Blob | None:
        url = self._url(request.key)
        headers = {**self._headers, **range_headers(request)}
        answer = await self._exchange("GET", url, headers, request)
        if answer.status in self._place.missing_statuses:
            return None
        if answer.status >= 300 and answer.status != 416:
            raise self._refusal(url, answer)
        return blob_of(answer, request, str(url))

    async def exists(self, key: str) -> bool:
        return await self.stat(key) is not None

    async def stat(self, key: str) -> Stat | None:
        url = self._url(key)
        # What a server would compress for the way is not how it is stored.
        headers = {**self._headers, "Accept-Encoding": "identity"}
        answer = await self._exchange("HEAD", url, headers, None)
        if answer.status in (400, 405, 501):
            # The server does not know HEAD.
            blob = await self.get(Get(key=key))
            return None if blob is None else Stat(len(blob.data), blob.content_encoding)
        if answer.status in self._place.missing_statuses:
            return None
        if answer.status >= 300:
            raise self._refusal(url, answer)
        size = answer.headers.get("Content-Length", "")
        encoding = from_header(answer.headers.get("Content-Encoding"))
        return Stat(int(size) if size.isdecimal() else None, encoding)

    async def put(self, request: Put) -> None:
        raise self._read_only()

    async def delete(self, key: str) -> None:
        raise self._read_only()

    async def update(self, request: Update) -> None:
        raise self._read_only()

    async def page(self, token: str | None) -> Page:
        raise UnsupportedError(f"{self._place.url}: a web server has no listing of its objects")

    def _url(self, key: str) -> URL:
        from yarl import URL

        return URL(f"{self._base}/{quote(key, safe=_PATH_SAFE)}{self._query}", encoded=True)

    async def _exchange(
        self, method: str, url: URL, headers: dict[str, str], request: Get | None
    ) -> Answer:
        policy = self._place.retry
        session = await self._fs.set_session()
        call = Call(
            method=method,
            url=url,
            headers=headers,
            options=self._options,
            request=request,
            final=self._place.missing_statuses,
            cross_origin=self._place.cross_origin,
        )

        async def attempt(stall_s: float) -> Answer:
            timeout = None if self._timed else timeouts(policy, stall_s)
            return await exchange(session, call, timeout=timeout)

        return await retry_async(attempt, policy=policy, url=str(url))

    @staticmethod
    def _refusal(url: URL, answer: Answer) -> Exception:
        return refusal(str(url), status=answer.status, reason=answer.reason, anonymous=None)

    def _read_only(self) -> UnsupportedError:
        return UnsupportedError(
            f"{self._place.url}: a web server is read only here; write to a local folder, s3:// "
            "or gs://"
        )
