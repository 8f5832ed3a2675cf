"""A proxy that adds faults to another server."""

from __future__ import annotations

import contextlib
import http.client
import threading
from urllib.parse import urlsplit

from .faulty import FaultyServer, Reply, Request

__all__ = ["FaultyProxy"]

_OWN = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})


class FaultyProxy(FaultyServer):
    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = urlsplit(target).netloc
        # moto looks at If-Match and stores without a lock: of two writers at once, both can win.
        self._writing = threading.Lock()

    def respond(self, request: Request) -> Reply:
        reads = request.method in ("GET", "HEAD")
        with contextlib.nullcontext() if reads else self._writing:
            return self._forward(request)

    def _forward(self, request: Request) -> Reply:
        connection = http.client.HTTPConnection(self._target, timeout=30)
        try:
            # The signature covers the host that the client named.
            headers = {k: v for k, v in request.headers.items() if k not in _OWN}
            headers["content-length"] = str(len(request.body))
            connection.request(request.method, request.target, body=request.body, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in _OWN}
            if request.method == "HEAD":
                kept["Content-Length"] = answer.getheader("Content-Length") or "0"
            return Reply(status=answer.status, headers=kept, body=body)
        finally:
            connection.close()
