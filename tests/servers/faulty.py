"""The ground of our HTTP servers: one thread per connection, and faults on demand."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["FaultyServer", "Reply", "Request"]


@dataclass(frozen=True, kw_only=True)
class Request:
    method: str
    target: str
    """As sent, with the query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


@dataclass(frozen=True, kw_only=True)
class Reply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class FaultyServer:
    """Answers requests with `respond`, or with the next fault in `faults`.

    A fault is a status (``"503"``; ``"503:2"`` asks to come back after 2 s) or one of

    - ``"refuse"``: the connection is closed without an answer;
    - ``"reset"``: reset in the middle of the body;
    - ``"short"``: closed in the middle of the body;
    - ``"stall"``: nothing more after half of the body, until the server stops;
    - ``"drip"``: the right body in six parts, a tenth of a second apart;
    - ``"endless"``: a body that does not end;
    - ``"html"``: a login page with status 200;
    - ``"garbage"``: not HTTP;
    - ``"ok"``: no fault.
    """

    def __init__(self) -> None:
        self.faults: deque[str] = deque()
        self.requests: list[Request] = []
        self.pick_fault: Callable[[Request], str] = self._next_fault
        self.stopped = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    def respond(self, request: Request) -> Reply:
        raise NotImplementedError

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FaultyServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _next_fault(self, request: Request) -> str:
        return self.faults.popleft() if self.faults else "ok"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, owner: FaultyServer) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        # Clients that hang up in the middle are part of the plan.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle_any(self) -> None:
        owner = self.server.owner
        length = int(self.headers.get("Content-Length") or 0)
        request = Request(
            method=self.command,
            target=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self._chunked() if self._is_chunked() else self.rfile.read(length),
        )
        owner.requests.append(request)
        fault = owner.pick_fault(request)
        if fault == "ok":
            self._send(owner.respond(request))
        else:
            self._fail(fault, request)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

    def _is_chunked(self) -> bool:
        return self.headers.get("Transfer-Encoding", "").lower() == "chunked"

    def _chunked(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, reply: Reply) -> None:
        lines = [f"HTTP/1.1 {reply.status} {responses.get(reply.status, '')}"]
        headers = dict(reply.headers)
        if reply.status not in (204, 304):
            headers.setdefault("Content-Length", str(len(reply.body)))
        lines += [f"{name}: {value}" for name, value in headers.items()]
        body = b"" if self.command == "HEAD" else reply.body
        self.wfile.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    def _fail(self, fault: str, request: Request) -> None:
        name, _, detail = fault.partition(":")
        if name.isdecimal():
            headers = {"Retry-After": detail} if detail else {}
            self._send(Reply(status=int(name), headers=headers, body=b"a fault"))
        elif name == "html":
            page = b"<!DOCTYPE html><title>Please log in</title>"
            kind = {"Content-Type": "text/html; charset=utf-8"}
            self._send(Reply(headers=kind, body=page))
        else:
            self.close_connection = True
            self._break(name, self.server.owner.respond(request))

    def _break(self, fault: str, reply: Reply) -> None:
        if fault == "garbage":
            self.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            return
        if fault == "endless":
            self._send_endless()
            return
        if fault == "refuse":
            return
        if fault == "drip":
            self._drip(reply)
            return
        half = reply.body[: len(reply.body) // 2]
        length = {"Content-Length": str(len(reply.body))}
        self._send(Reply(status=reply.status, headers={**reply.headers, **length}, body=half))
        if fault == "stall":
            self.server.owner.stopped.wait(60)
        elif fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
        elif fault != "short":
            raise ValueError(f"unknown fault {fault!r}")

    def _drip(self, reply: Reply) -> None:
        length = {"Content-Length": str(len(reply.body))}
        self._send(Reply(headers={**reply.headers, **length}))
        size = -(-len(reply.body) // 6)
        for start in range(0, len(reply.body), size):
            self.server.owner.stopped.wait(0.1)
            self.wfile.write(reply.body[start : start + size])

    def _send_endless(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        part = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        try:
            while not self.server.owner.stopped.is_set():
                self.wfile.write(part)
        except OSError:
            return

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:
        return
