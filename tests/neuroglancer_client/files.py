"""A web server of plain files that lets pages of every origin read them."""

from __future__ import annotations

from pathlib import Path

from tests.servers.faulty import FaultyServer, Reply, Request
from tests.servers.web import sliced

__all__ = ["FileServer"]

_ANY_ORIGIN = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Range",
    "Access-Control-Expose-Headers": "Content-Range",
}


class FileServer(FaultyServer):
    """Serves the files below `root` as they are: no ``name.gz`` stands in for ``name``."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root.resolve()

    def __enter__(self) -> FileServer:
        super().__enter__()
        return self

    def url_of(self, path: Path) -> str:
        return f"{self.url}/{path.resolve().relative_to(self.root).as_posix()}"

    def not_found(self, folder: Path) -> set[str]:
        """Paths below a folder that were asked for in vain."""
        start = self.url_of(folder).removeprefix(self.url) + "/"
        paths = {request.path for request in self.requests if request.path.startswith(start)}
        return {path.removeprefix(start) for path in paths if self._file(path) is None}

    def respond(self, request: Request) -> Reply:
        path = self._file(request.path)
        if path is None:
            return Reply(status=404, headers=_ANY_ORIGIN)
        headers = {"Content-Type": "application/octet-stream", **_ANY_ORIGIN}
        return sliced(request, path.read_bytes(), headers, ranges=True)

    def _file(self, path: str) -> Path | None:
        found = (self.root / path.lstrip("/")).resolve()
        return found if found.is_relative_to(self.root) and found.is_file() else None
