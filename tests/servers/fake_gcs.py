"""Google Cloud Storage's JSON interface, as much of it as object storage needs.

Objects with metadata and generations, preconditions, ranges, listings in pages,
transcoding of gzip, tokens. Multipart uploads must be well-formed (RFC 2387).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from .faulty import FaultyServer, Reply, Request
from .web import sliced

__all__ = ["Bucket", "FakeGcs", "StoredObject"]


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    data: bytes
    generation: int
    content_type: str = "application/octet-stream"
    content_encoding: str | None = None
    cache_control: str | None = None
    metadata: Mapping[str, str] | None = None

    def resource(self, bucket: str, name: str) -> dict[str, Any]:
        members = {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(len(self.data)),
            "generation": str(self.generation),
            "metageneration": "1",
            "contentType": self.content_type,
            "contentEncoding": self.content_encoding,
            "cacheControl": self.cache_control,
            "metadata": self.metadata,
            "md5Hash": base64.b64encode(hashlib.md5(self.data).digest()).decode(),
        }
        return {key: value for key, value in members.items() if value is not None}


@dataclass(kw_only=True)
class Bucket:
    objects: dict[str, StoredObject] = field(default_factory=dict)
    token: str | None = None
    """Bearer token that is required; None: public."""
    may_list: bool = True
    """Whether absent objects are 404 (else 403, as for the public without that permission)."""


@dataclass(kw_only=True)
class Session:
    """An upload in pieces."""

    metadata: dict[str, Any]
    size: int
    data: bytes = b""


class FakeGcs(FaultyServer):
    def __init__(self) -> None:
        super().__init__()
        self.buckets: dict[str, Bucket] = {}
        self.page_size = 1000
        self.sessions: dict[str, Session] = {}
        self.most_kept: int | None = None
        """Bytes that an upload in pieces keeps of each, where that is not all of them."""
        self._generation = 1_700_000_000_000_000
        self._lock = threading.Lock()

    def respond(self, request: Request) -> Reply:
        parts = [unquote(part) for part in urlsplit(request.target).path.strip("/").split("/")]
        if parts[0] in ("download", "upload"):
            parts = parts[1:]
        if parts[:3] != ["storage", "v1", "b"] or len(parts) < 5 or parts[4] != "o":
            return _error(404, "Not Found")
        bucket = self.buckets.get(parts[3])
        if bucket is None:
            return _error(404, "The specified bucket does not exist.")
        refused = _refuse(bucket, request)
        if refused is not None:
            return refused
        name = "/".join(parts[5:])
        with self._lock:
            return self._dispatch(request, bucket, parts[3], name)

    def _dispatch(self, request: Request, bucket: Bucket, bucket_name: str, name: str) -> Reply:
        if request.method == "POST":
            return self._upload(request, bucket, bucket_name)
        if request.method == "PUT":
            return self._resume(request, bucket, bucket_name)
        if not name:
            return self._list(request, bucket)
        found = bucket.objects.get(name)
        if found is None:
            if bucket.may_list:
                return _error(404, f"No such object: {bucket_name}/{name}")
            return _error(403, "Anonymous caller does not have storage.objects.list access")
        if not _matches(request, found):
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        if request.method == "DELETE":
            del bucket.objects[name]
            return Reply(status=204)
        if request.query.get("alt") == "media":
            return _media(request, found)
        return _json(found.resource(bucket_name, name))

    def _upload(self, request: Request, bucket: Bucket, bucket_name: str) -> Reply:
        if request.query.get("uploadType") == "resumable":
            return self._begin(request, bucket_name)
        if request.query.get("uploadType") != "multipart":
            return _error(400, "only multipart and resumable uploads are known here")
        parsed = _multipart(request)
        if parsed is None:
            return _error(400, "Missing end boundary in multipart body.")
        return self._store(request, bucket, bucket_name, *parsed)

    def _begin(self, request: Request, bucket_name: str) -> Reply:
        """Open a session for an upload in pieces."""
        size = int(request.headers["x-upload-content-length"])
        number = f"session-{len(self.sessions)}"
        self.sessions[number] = Session(metadata=json.loads(request.body), size=size)
        place = f"{self.url}/upload/storage/v1/b/{bucket_name}/o"
        headers = {"Location": f"{place}?uploadType=resumable&upload_id={number}"}
        return Reply(headers=headers, body=b"")

    def _resume(self, request: Request, bucket: Bucket, bucket_name: str) -> Reply:
        """Take a piece: multiples of 256 KiB but for the last, nothing left out."""
        session = self.sessions.get(request.query.get("upload_id", ""))
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", request.headers["content-range"])
        if session is None or match is None:
            return _error(404, "no such session")
        start, last, size = map(int, match.groups())
        kept, piece = session.data, request.body
        is_last = last + 1 == size
        if start > len(kept) or len(piece) != last + 1 - start or size != session.size:
            return _error(400, "Invalid request. Content-Range does not fit.")
        if not is_last and len(piece) % (256 << 10):
            return _error(400, "pieces have to be multiples of 256 KiB")
        session.data = kept[:start] + piece[: self.most_kept]
        if len(session.data) < size:
            headers = {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
            return Reply(status=308, headers=headers, body=b"")
        return self._store(request, bucket, bucket_name, session.metadata, "", session.data)

    def _store(
        self,
        request: Request,
        bucket: Bucket,
        bucket_name: str,
        metadata: dict[str, Any],
        content_type: str,
        data: bytes,
    ) -> Reply:
        name = metadata["name"]
        if not _matches(request, bucket.objects.get(name)):
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        self._generation += 1
        stored = StoredObject(
            data=data,
            generation=self._generation,
            content_type=metadata.get("contentType", content_type),
            content_encoding=metadata.get("contentEncoding"),
            cache_control=metadata.get("cacheControl"),
            metadata=metadata.get("metadata"),
        )
        resource = stored.resource(bucket_name, name)
        if metadata.get("md5Hash", resource["md5Hash"]) != resource["md5Hash"]:
            return _error(400, "Provided MD5 hash does not match the calculated one.")
        bucket.objects[name] = stored
        return _json(resource)

    def _list(self, request: Request, bucket: Bucket) -> Reply:
        prefix = request.query.get("prefix", "")
        delimiter = request.query.get("delimiter", "")
        entries: dict[str, dict[str, str] | None] = {}
        for name in sorted(bucket.objects):
            if not name.startswith(prefix):
                continue
            head, mark, _ = name[len(prefix) :].partition(delimiter or "\0")
            if mark and delimiter:
                entries[prefix + head + mark] = None
            else:
                size = str(len(bucket.objects[name].data))
                entries[name] = {"name": name, "size": size}
        first = int(request.query.get("pageToken", "0"))
        page = list(entries.items())[first : first + self.page_size]
        listing: dict[str, Any] = {
            "items": [item for _, item in page if item is not None],
            "prefixes": [name for name, item in page if item is None],
        }
        if first + self.page_size < len(entries):
            listing["nextPageToken"] = str(first + self.page_size)
        return _json({key: value for key, value in listing.items() if value})


def _refuse(bucket: Bucket, request: Request) -> Reply | None:
    if bucket.token is None:
        return None
    given = request.headers.get("authorization")
    if given is None:
        return _error(401, "Anonymous caller does not have storage.objects.get access")
    if given != f"Bearer {bucket.token}":
        return _error(403, "The caller does not have storage.objects.get access")
    return None


def _matches(request: Request, found: StoredObject | None) -> bool:
    wanted = request.query.get("ifGenerationMatch")
    return wanted is None or int(wanted) == (0 if found is None else found.generation)


def _media(request: Request, found: StoredObject) -> Reply:
    headers = {
        "Content-Type": found.content_type,
        "Cache-Control": found.cache_control or "private",
        "X-Goog-Generation": str(found.generation),
        "X-Goog-Stored-Content-Encoding": found.content_encoding or "identity",
    }
    if found.content_encoding is None:
        return sliced(request, found.data, headers, ranges=True)
    accepted = request.headers.get("accept-encoding", "")
    if found.content_encoding == "gzip" and "gzip" not in accepted:
        # Decompressive transcoding: Range is ignored then.
        headers["Warning"] = "214 UploadServer gunzipped"
        return Reply(headers=headers, body=gzip.decompress(found.data))
    headers["Content-Encoding"] = found.content_encoding
    return sliced(request, found.data, headers, ranges=True)


def _multipart(request: Request) -> tuple[dict[str, Any], str, bytes] | None:
    """Metadata, content type and data of a multipart upload; None if it is malformed."""
    match = re.search(r'boundary="?([^";]+)"?', request.headers.get("content-type", ""))
    if match is None:
        return None
    mark = b"--" + match[1].encode()
    body = request.body
    if not body.startswith(mark + b"\r\n") or not body.rstrip(b"\r\n").endswith(mark + b"--"):
        return None
    first, second = body[len(mark) + 2 :].split(b"\r\n" + mark, 2)[:2]
    head, _, metadata = first.partition(b"\r\n\r\n")
    media_head, _, data = second.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if b"application/json" not in head:
        return None
    kind = re.search(rb"(?i)content-type:\s*([^\r\n]+)", media_head)
    return json.loads(metadata), kind[1].decode() if kind else "", data


def _json(document: Mapping[str, Any], *, status: int = 200) -> Reply:
    headers = {"Content-Type": "application/json; charset=UTF-8"}
    return Reply(status=status, headers=headers, body=json.dumps(document).encode())


def _error(status: int, message: str) -> Reply:
    return _json({"error": {"code": status, "message": message}}, status=status)
