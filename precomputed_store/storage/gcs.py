"""Layers on Google Cloud Storage: its JSON interface, with gcsfs's session and credentials.

gcsfs itself would inflate, retry and cache as it likes; here bodies come as stored,
with their ``Content-Encoding``, and retries are made in one place.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from precomputed_store.codecs.base import Buffer
from precomputed_store.codecs.content import from_header
from precomputed_store.errors import StorageError
from precomputed_store.storage.base import AsyncBackend, Blob, Get, Page, Place, Put, Stat, refusal
from precomputed_store.storage.exchange import (
    Answer,
    Call,
    blob_of,
    exchange,
    range_headers,
    timeouts,
)
from precomputed_store.storage.gcs_resumable import Send, send_pieces
from precomputed_store.storage.pieces import PutFile
from precomputed_store.storage.retry import retry_async
from precomputed_store.storage.update import Update, changed, no_conditions, tries, write_id
from precomputed_store.url import split_url

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["GcsBackend", "with_default_token"]

_ANONYMOUS = "{'token': 'anon'}"
_MARK = "precomputed-store-write"


def with_default_token(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for gcsfs: anonymous where neither they nor the machine hold credentials.

    gcsfs would find out too, after up to half a minute of asking the network.
    """
    if options.get("token") is not None or _has_credentials():
        return dict(options)
    return {**options, "token": "anon"}


def _has_credentials() -> bool:
    variables = ("GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST", "GCE_METADATA_ROOT")
    if any(os.environ.get(name) for name in variables):
        return True
    config = os.environ.get("CLOUDSDK_CONFIG") or (
        os.path.join(os.environ.get("APPDATA", ""), "gcloud")
        if os.name == "nt"
        else os.path.expanduser("~/.config/gcloud")
    )
    files = (
        os.path.join(config, "application_default_credentials.json"),
        os.path.expanduser("~/.gcs_tokens"),
    )
    return any(os.path.exists(file) for file in files) or _on_google_machine()


def _on_google_machine() -> bool:
    try:
        with open("/sys/class/dmi/id/product_name") as product:
            return product.read().startswith("Google")
    except OSError:
        return False


class GcsBackend(AsyncBackend):
    has_headers = True

    def __init__(self, place: Place, filesystem: Any) -> None:
        self._place = place
        self._fs = filesystem
        self._bucket, _, prefix = split_url(place.url).path.partition("/")
        self._prefix = f"{prefix}/" if prefix else ""

    async def get(self, request: Get) -> Blob | None:
        answer = await self._exchange(
            "GET",
            f"download/storage/v1/{self._object(request.key)}",
            {"alt": "media"},
            key=request.key,
            headers=range_headers(request),
            request=request,
        )
        if self._absent(answer, request.key, also=(416,)):
            return None
        return blob_of(answer, request, f"{self._place.url}/{request.key}")

    async def put(self, request: Put) -> None:
        answer = await self._upload(request, {}, {})
        if answer.status >= 300:
            raise self._refusal(answer, request.key)

    async def put_file(self, request: PutFile) -> None:
        digest = await asyncio.to_thread(request.md5)
        described = self._resource(request.put(b""), digest, {})
        answer = await self._exchange(
            "POST",
            f"upload/storage/v1/b/{quote(self._bucket, safe='')}/o",
            {"uploadType": "resumable"},
            key=request.key,
            headers={
                "Content-Type": "application/json; charset=UTF-8",
                "X-Upload-Content-Type": request.content_type,
                "X-Upload-Content-Length": str(request.file.size),
            },
            data=json.dumps(described).encode(),
        )
        if answer.status < 300:
            answer = await send_pieces(self._sender(answer, request.key), request)
        if answer.status >= 300:
            raise self._refusal(answer, request.key)

    def _sender(self, begun: Answer, key: str) -> Send:
        """What sends a piece of a file to the session that the server has opened for it."""
        from yarl import URL

        session = URL(begun.headers["Location"], encoded=True)
        # The address of a session is its permission: no other server gets the user's.
        own = session.origin() == URL(self._fs._location).origin()

        async def send(headers: Mapping[str, str], data: bytes) -> Answer:
            return await self._request("PUT", session, key, headers, data=data, signed=own)

        return send

    async def update(self, request: Update) -> None:
        url = f"{self._place.url}/{request.key}"
        for wait_s in tries(url):
            await asyncio.sleep(wait_s)
            blob = await self.get(request.get())
            if blob is not None and blob.version is None:
                raise no_conditions(url)
            new = await changed(request, blob)
            generation = "0" if blob is None else str(blob.version)
            if await self._store_if(request, new, generation):
                return

    async def _store_if(self, request: Update, new: Buffer | None, generation: str) -> bool:
        """Store, or remove, if nobody else did; whether that is done."""
        condition = {"ifGenerationMatch": generation}
        if new is None:
            if generation == "0":
                return True
            path = f"storage/v1/{self._object(request.key)}"
            answer = await self._exchange("DELETE", path, condition, key=request.key)
            if answer.status == 404:
                return True
        else:
            mark = write_id()
            answer = await self._upload(request.put(new), condition, {_MARK: mark})
            if answer.status == 412 and await self._mark(request.key) == mark:
                # Stored by a try whose answer was lost.
                return True
        if answer.status == 412:
            return False
        if answer.status >= 300:
            raise self._refusal(answer, request.key)
        return True

    async def _mark(self, key: str) -> str | None:
        """The mark of the write that stored an object."""
        path = f"storage/v1/{self._object(key)}"
        answer = await self._exchange("GET", path, {"fields": "metadata"}, key=key)
        if self._absent(answer, key):
            return None
        found = (json.loads(answer.body).get("metadata") or {}).get(_MARK)
        return None if found is None else str(found)

    async def _upload(
        self, request: Put, condition: Mapping[str, str], metadata: Mapping[str, str]
    ) -> Answer:
        boundary = f"=={os.urandom(16).hex()}=="
        digest = hashlib.md5(request.data, usedforsecurity=False).digest()
        described = json.dumps(self._resource(request, digest, metadata))
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{described}\r\n"
            f"--{boundary}\r\nContent-Type: {request.content_type}\r\n\r\n"
        )
        return await self._exchange(
            "POST",
            f"upload/storage/v1/b/{quote(self._bucket, safe='')}/o",
            {"uploadType": "multipart", **condition},
            key=request.key,
            headers={"Content-Type": f"multipart/related; boundary={boundary}"},
            data=b"".join((head.encode(), request.data, f"\r\n--{boundary}--\r\n".encode())),
        )

    def _resource(
        self, request: Put, digest: bytes, metadata: Mapping[str, str]
    ) -> dict[str, Any]:
        """What an object is to be; the server refuses a body that does not match the digest."""
        resource = {
            "name": self._prefix + request.key,
            "contentType": request.content_type,
            "contentEncoding": request.content_encoding,
            "cacheControl": request.cache_control,
            "metadata": dict(metadata),
            "md5Hash": base64.b64encode(digest).decode(),
        }
        return {name: value for name, value in resource.items() if value}

    async def delete(self, key: str) -> None:
        path = f"storage/v1/{self._object(key)}"
        answer = await self._exchange("DELETE", path, {}, key=key)
        if answer.status >= 300 and answer.status != 404:
            raise self._refusal(answer, key)

    async def exists(self, key: str) -> bool:
        return await self.stat(key) is not None

    async def stat(self, key: str) -> Stat | None:
        path = f"storage/v1/{self._object(key)}"
        answer = await self._exchange("GET", path, {"fields": "size,contentEncoding"}, key=key)
        if self._absent(answer, key):
            return None
        found = json.loads(answer.body)
        return Stat(int(found["size"]), from_header(found.get("contentEncoding")))

    async def page(self, token: str | None) -> Page:
        parameters = {
            "prefix": self._prefix,
            "delimiter": "/",
            "fields": "items(name,size),prefixes,nextPageToken",
        }
        if token is not None:
            parameters["pageToken"] = token
        path = f"storage/v1/b/{quote(self._bucket, safe='')}/o"
        answer = await self._exchange("GET", path, parameters, key="")
        if answer.status >= 300:
            raise self._refusal(answer, "")
        listing = json.loads(answer.body)
        sizes = {
            item["name"][len(self._prefix) :]: int(item["size"])
            for item in listing.get("items", ())
            if "size" in item
        }
        paths = [item["name"] for item in listing.get("items", ())]
        paths += [path.rstrip("/") for path in listing.get("prefixes", ())]
        names = [path[len(self._prefix) :] for path in paths if path != self._prefix]
        return Page(names, listing.get("nextPageToken"), sizes)

    def _object(self, key: str) -> str:
        name = quote(self._prefix + key, safe="")
        return f"b/{quote(self._bucket, safe='')}/o/{name}"

    async def _exchange(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        *,
        key: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        request: Get | None = None,
    ) -> Answer:
        from yarl import URL

        await self._fs._set_session()
        query = urlencode({**self._fs._get_params({}), **parameters})
        target = URL(f"{self._fs._location}/{path}?{query}", encoded=True)
        return await self._request(method, target, key, headers or {}, data=data, request=request)

    async def _request(
        self,
        method: str,
        target: URL,
        key: str,
        headers: Mapping[str, str],
        *,
        data: bytes | None = None,
        request: Get | None = None,
        signed: bool = True,
    ) -> Answer:
        policy = self._place.retry
        session = await self._fs._set_session()
        own_limit = getattr(self._fs, "requests_timeout", None)
        options = {} if own_limit is None else {"timeout": own_limit}

        async def attempt(stall_s: float) -> Answer:
            call = Call(
                method=method,
                url=target,
                headers=self._signed(headers) if signed else headers,
                options=options,
                data=data,
                request=request,
                final=self._place.missing_statuses,
            )
            return await exchange(session, call, timeout=timeouts(policy, stall_s))

        return await retry_async(attempt, policy=policy, url=f"{self._place.url}/{key}")

    def _signed(self, headers: Mapping[str, str]) -> dict[str, str]:
        try:
            signed: dict[str, str] = self._fs._get_headers(dict(headers))
        except Exception as error:
            raise StorageError(
                f"{self._place.url}: Google credentials are not usable: {error}. For a public "
                f"bucket try storage_options={_ANONYMOUS}"
            ) from error
        return signed

    def _absent(self, answer: Answer, key: str, *, also: tuple[int, ...] = ()) -> bool:
        if answer.status in self._place.missing_statuses:
            return True
        if answer.status >= 300 and answer.status not in also:
            raise self._refusal(answer, key)
        return False

    def _refusal(self, answer: Answer, key: str) -> StorageError:
        anonymous = None if self._fs.credentials.credentials is None else _ANONYMOUS
        return refusal(
            f"{self._place.url}/{key}",
            status=answer.status,
            reason=_message(answer),
            anonymous=anonymous,
        )


def _message(answer: Answer) -> str:
    """What Google says of its refusal, in one line."""
    try:
        message = json.loads(answer.body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.body[:200].decode("utf-8", "replace") or answer.reason
    return str(message).strip().rstrip(".")
