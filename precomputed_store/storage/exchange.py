"""One HTTP request and its answer, checked: what web servers and Google's storage share.

Nothing is inflated, cut or believed here: bodies come as sent, of the length that was
announced, within a limit, after few redirects.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from precomputed_store.codecs.content import from_header
from precomputed_store.errors import StorageError
from precomputed_store.storage.base import Blob, Get, ObjectTooLargeError
from precomputed_store.storage.retry import (
    TRANSIENT_STATUSES,
    RetryPolicy,
    TransientError,
    retry_after,
)

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

__all__ = ["Answer", "Call", "blob_of", "exchange", "range_headers", "redirected", "timeouts"]

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_IMPERSONAL_HEADERS = frozenset({"Accept-Encoding", "Range"})
_LARGEST_MESSAGE = 64 * 1024
# A server that ignores Range sends the object from its start: taken if it is not long.
_LARGEST_WHOLE = 64 * 1024 * 1024
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


class Answer(NamedTuple):
    """A final answer: anything but a redirect or a status that another try may cure."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP request.

    Attributes
    ----------
    options : mapping
        Further arguments of aiohttp's ``ClientSession.request``, from the user.
    final : set of int
        Statuses that are answers, whatever they mean elsewhere.
    cross_origin : bool
        Whether a redirect may lead to another host.
    """

    method: str
    url: URL
    headers: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    data: bytes | None = None
    request: Get | None = None
    final: frozenset[int] = frozenset()
    cross_origin: bool = False


async def exchange(
    session: aiohttp.ClientSession, call: Call, *, timeout: aiohttp.ClientTimeout | None
) -> Answer:
    """Send a request and read the whole answer.

    Raises
    ------
    TransientError
        No connection, a broken or stalled one, a short body, a server's passing trouble.
    StorageError
        Anything else that is not an answer.
    """
    import aiohttp

    options = dict(call.options)
    if timeout is not None:
        options.setdefault("timeout", timeout)
    try:
        return await _follow(session, call, options)
    except aiohttp.ClientConnectorCertificateError as error:
        raise StorageError(f"{call.url}: {error}") from error
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise TransientError(f"no connection: {error}", unreachable=True) from error
    except TimeoutError as error:
        raise TransientError("no byte came for too long") from error
    except (aiohttp.InvalidURL, aiohttp.ClientResponseError) as error:
        raise StorageError(f"{call.url}: not a usable HTTP answer: {error!r}") from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise TransientError(f"broken connection ({type(error).__name__})") from error
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise TransientError(f"broken connection ({error!r})") from error


async def _follow(
    session: aiohttp.ClientSession,
    call: Call,
    options: dict[str, Any],
    *,
    redirects: int = _MAX_REDIRECTS,
) -> Answer:
    async with session.request(
        call.method,
        call.url,
        headers=call.headers,
        # From a file, as it were: the loop does other things while much is sent.
        data=None if call.data is None else io.BytesIO(call.data),
        allow_redirects=False,
        auto_decompress=False,
        **options,
    ) as response:
        if response.status not in _REDIRECTS or "Location" not in response.headers:
            return await _answer(response, call)
        target = redirected(call.url, response.headers["Location"], call)
    if not redirects:
        raise StorageError(f"{call.url}: more than {_MAX_REDIRECTS} redirects")
    following = replace(call, url=target)
    options.pop("params", None)
    if _same_origin(call.url, target):
        return await _follow(session, following, options, redirects=redirects - 1)
    # What identifies the user at one server is not for another's eyes.
    headers = {name: value for name, value in call.headers.items() if name in _IMPERSONAL_HEADERS}
    kept = {name: value for name, value in options.items() if name not in ("auth", "cookies")}
    async with _stranger(session) as stranger:
        return await _follow(
            stranger, replace(following, headers=headers), kept, redirects=redirects - 1
        )


def _stranger(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """A session on the same connections without the user's headers, cookies and logins."""
    import aiohttp

    return aiohttp.ClientSession(
        connector=session.connector, connector_owner=False, trust_env=session.trust_env
    )


def redirected(url: URL, location: str, call: Call) -> URL:
    """Where a ``Location`` header leads, if it may be followed."""
    from yarl import URL

    try:
        target = url.join(URL(location))
        origin = target.origin()
    except ValueError as error:
        raise StorageError(f"{call.url}: redirected to {location!r}, not a URL") from error
    if call.method not in ("GET", "HEAD"):
        raise StorageError(f"{call.url}: {call.method} was redirected to {target}")
    if url.scheme == "https" and target.scheme != "https":
        raise StorageError(f"{call.url}: redirected to {target}, which is not encrypted")
    if target.scheme not in ("http", "https"):
        raise StorageError(f"{call.url}: redirected to {target}")
    if not (call.cross_origin or _same_origin(url, target)):
        raise StorageError(
            f"{call.url}: redirected to another server, {origin}. If you trust it, open the layer "
            "there"
        )
    return target


def _same_origin(one: URL, other: URL) -> bool:
    """Whether two URLs are of one server; from HTTP to HTTPS counts as the same."""
    if one.host == other.host and one.is_default_port() and other.is_default_port():
        return (one.scheme, other.scheme) != ("https", "http")
    return one.origin() == other.origin()


async def _answer(response: aiohttp.ClientResponse, call: Call) -> Answer:
    status, reason = response.status, response.reason or ""
    if status in TRANSIENT_STATUSES and status not in call.final:
        wait_s = retry_after(response.headers)
        raise TransientError(f"{status} {reason}".rstrip(), status=status, wait_s=wait_s)
    body = await _body(response, call)
    return Answer(status, reason, response.headers, body)


async def _body(response: aiohttp.ClientResponse, call: Call) -> bytes:
    """The whole body if the answer is a success, else the beginning of a message."""
    url, declared, get = str(call.url), response.content_length, call.request
    if response.status >= 300:
        return await _message(response)
    if call.method == "HEAD":
        return b""
    limit = None if get is None else get.max_bytes
    if get is not None and get.byte_range is not None:
        limit = get.byte_range[1] - get.byte_range[0]
        if response.status == 200:
            limit = max(_LARGEST_WHOLE, limit)
    if limit is not None and declared is not None and declared > limit:
        raise _too_long(response.status, get, declared, url)
    if limit is None or declared is not None:
        return await response.read()
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > limit:
            raise _too_long(response.status, get, size, url)
        parts.append(part)
    return b"".join(parts)


async def _message(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of what a server says of a refusal: all of it, if it is no longer than usual.

    A message that breaks off is a broken connection: its status may not be what was meant.
    """
    message = bytearray()
    async for part in response.content.iter_any():
        message += part
        if len(message) >= _LARGEST_MESSAGE:
            break
    return bytes(message[:_LARGEST_MESSAGE])


def _too_long(status: int, get: Get | None, size: int, url: str) -> StorageError:
    if get is None or get.byte_range is None:
        most = None if get is None else get.max_bytes
        return ObjectTooLargeError(f"{url}: {size} bytes or more; expected at most {most}")
    start, stop = get.byte_range
    if status == 200:
        return StorageError(
            f"{url}: the server ignores Range and sends all of its {size} bytes or more where "
            f"{start} to {stop} were asked for; sharded data needs a server with Range"
        )
    return StorageError(f"{url}: {size} bytes came; expected the {stop - start} asked for")


def timeouts(policy: RetryPolicy, stall_s: float) -> aiohttp.ClientTimeout:
    """Limits on silence, not on duration: a slow body is fine as long as it comes."""
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=policy.connect_s, sock_read=stall_s)


def range_headers(get: Get) -> dict[str, str]:
    """Headers of a read. A range is asked for without compression: it is of the plain bytes."""
    if get.byte_range is None:
        # The one compression that can be undone whatever is installed.
        return {"Accept-Encoding": "gzip"}
    start, stop = get.byte_range
    return {"Accept-Encoding": "identity", "Range": f"bytes={start}-{stop - 1}"}


def blob_of(answer: Answer, get: Get, url: str) -> Blob:
    """The bytes that were asked for, out of a success (or 416).

    Raises
    ------
    StorageError
        The answer holds something else.
    """
    if answer.status == 416:
        raise get.past_end(_total(answer), url)
    media = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media in ("text/html", "application/xhtml+xml"):
        raise StorageError(
            f"{url}: the server answered with a web page ({media}), not with the object; "
            "is this a login page, or the address of a viewer?"
        )
    encoding = from_header(answer.headers.get("Content-Encoding"))
    if get.byte_range is None:
        if answer.status != 200:
            raise StorageError(
                f"{url}: the server answered {answer.status} {answer.reason}; expected 200",
                status=answer.status,
            )
        get.check_size(len(answer.body), url)
        return Blob(answer.body, encoding, version=_version(answer))
    if encoding is not None:
        raise get.compressed(encoding, url)
    data = _ranged(answer, get, get.byte_range, url)
    return Blob(data, None, version=_version(answer))


def _version(answer: Answer) -> str | None:
    """What tells this object from others that were, or will be, under its name."""
    for header in ("X-Goog-Generation", "ETag", "Last-Modified"):
        if header in answer.headers:
            return answer.headers[header]
    return None


def _ranged(answer: Answer, get: Get, asked: tuple[int, int], url: str) -> bytes:
    start, stop = asked
    if answer.status == 200:
        if len(answer.body) < stop:
            raise get.past_end(len(answer.body), url)
        return answer.body[start:stop]
    if answer.status != 206:
        raise StorageError(
            f"{url}: the server answered {answer.status} {answer.reason}; expected 206",
            status=answer.status,
        )
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if match is not None and match[1] is not None and int(match[1]) != start:
        raise StorageError(f"{url}: bytes from {match[1]} came; expected those from {start}")
    if len(answer.body) != stop - start:
        total = _total(answer)
        if total is not None and total < stop:
            raise get.past_end(total, url)
        raise StorageError(
            f"{url}: {len(answer.body)} bytes came; expected the {stop - start} asked for"
        )
    return answer.body


def _total(answer: Answer) -> int | None:
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return int(match[3]) if match is not None and match[3] != "*" else None
