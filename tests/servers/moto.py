"""An S3 server: moto's, as a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

__all__ = ["KEY", "SECRET", "MotoServer", "moto_server"]

KEY, SECRET = "testing-key", "testing-secret"


class MotoServer:
    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def storage_options(self) -> dict[str, Any]:
        """For s3fs, with credentials."""
        return {"key": KEY, "secret": SECRET, "endpoint_url": self.url}

    def client(self) -> Any:
        """A boto3 client, to look at objects from outside."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    def create_bucket(self, name: str, *, public: bool = False) -> str:
        self.client().create_bucket(Bucket=name, ACL="public-read-write" if public else "private")
        return name

    @contextmanager
    def checked_credentials(self) -> Iterator[None]:
        """Within, requests with unknown access keys are refused."""
        self._post("reset-auth", b"0")
        try:
            yield
        finally:
            self._post("reset-auth", b"inf")

    def _post(self, action: str, body: bytes) -> None:
        kind = {"Content-Type": "text/plain"}
        request = Request(f"{self.url}/moto-api/{action}", data=body, headers=kind, method="POST")
        with urlopen(request, timeout=10) as answer:
            answer.read()


@contextmanager
def moto_server() -> Iterator[MotoServer]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(1 << 24)},
    )
    try:
        server = MotoServer(f"http://127.0.0.1:{port}")
        _wait_for(server.url, process)
        yield server
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"moto ended with status {process.returncode}")
        try:
            with urlopen(f"{url}/moto-api/", timeout=1):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError("moto did not start within 30 s")
