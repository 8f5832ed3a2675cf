"""A server that answers with whatever bytes it was given, HTTP or not."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TypeAlias

__all__ = ["RawServer", "answer"]

Answer: TypeAlias = bytes | Callable[[], Iterable[bytes]]


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """An answer as it is on the wire."""
    lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class RawServer:
    """Answers every request by its path, closes, and keeps a list of what was asked for."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self._answers = answers
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/layer"

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Closing alone does not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                part = connection.recv(65536)
                if not part:
                    return
                request += part
            path = request.split()[1].decode().removeprefix("/layer/")
            self.asked.append(path)
            found = self._answers.get(path, answer(b"", status="404 Not Found"))
            if request.startswith(b"HEAD") and isinstance(found, bytes):
                found = found.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            for part in found() if callable(found) else [found]:
                connection.sendall(part)
