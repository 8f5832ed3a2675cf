"""A web server that holds a few objects in memory."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .faulty import FaultyServer, Reply, Request

__all__ = ["Page", "WebServer", "sliced"]


@dataclass(kw_only=True)
class Page:
    """An object and the headers that it is sent with."""

    data: bytes
    headers: dict[str, str] = field(default_factory=dict)


class WebServer(FaultyServer):
    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[str, Page] = {}
        self.ranges = True
        """Whether the server knows Range."""
        self.knows_head = True

    def add(self, path: str, data: bytes, **headers: str) -> None:
        named = {name.replace("_", "-").title(): value for name, value in headers.items()}
        self.pages[path] = Page(data=data, headers=named)

    def respond(self, request: Request) -> Reply:
        if request.method == "HEAD" and not self.knows_head:
            return Reply(status=405)
        page = self.pages.get(request.path)
        if page is None:
            return Reply(
                status=404, headers={"Content-Type": "text/html"}, body=b"<html>no</html>"
            )
        if "Location" in page.headers:
            return Reply(status=302, headers=page.headers)
        headers = {"Content-Type": "application/octet-stream", **page.headers}
        return sliced(request, page.data, headers, ranges=self.ranges)


def sliced(request: Request, data: bytes, headers: dict[str, str], *, ranges: bool) -> Reply:
    """The whole of `data`, or the part that a Range header asks for."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if match is None or not ranges:
        return Reply(headers=headers, body=data)
    start, stop = int(match[1]), min(int(match[2] or len(data)) + 1, len(data))
    if start >= len(data):
        return Reply(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
    span = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
    return Reply(status=206, headers={**headers, **span}, body=data[start:stop])
