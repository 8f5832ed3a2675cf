"""The same objects behind a web server, S3 and Google's storage, with faults on demand."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from servers.fake_gcs import Bucket, FakeGcs, StoredObject
from servers.faulty import FaultyServer
from servers.moto import MotoServer
from servers.proxy import FaultyProxy
from servers.web import WebServer

__all__ = ["REMOTE", "RemotePlace", "remote_place"]

REMOTE = ("http", "s3", "gcs")


@dataclass
class RemotePlace:
    """A layer's folder, seen from outside and through a server that can fail."""

    kind: str
    server: FaultyServer
    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    client: Any = None
    bucket: str = ""

    def add(self, key: str, data: bytes) -> None:
        if self.kind == "s3":
            self.client.put_object(Bucket=self.bucket, Key=f"layer/{key}", Body=data)
        elif self.kind == "gcs":
            stored = StoredObject(data=data, generation=len(self._objects) + 1)
            self._objects[f"layer/{key}"] = stored
        else:
            assert isinstance(self.server, WebServer)
            self.server.add(f"/layer/{key}", data)

    def look(self, key: str) -> bytes:
        """What is stored, without asking the server that can fail."""
        if self.kind == "s3":
            answer = self.client.get_object(Bucket=self.bucket, Key=f"layer/{key}")
            data: bytes = answer["Body"].read()
            return data
        return self._objects[f"layer/{key}"].data

    @property
    def _objects(self) -> dict[str, StoredObject]:
        assert isinstance(self.server, FakeGcs)
        return self.server.buckets["bucket"].objects


@contextmanager
def remote_place(kind: str, moto: MotoServer | None) -> Iterator[RemotePlace]:
    if kind == "http":
        with WebServer() as server:
            yield RemotePlace(kind, server, f"{server.url}/layer")
    elif kind == "gcs":
        with FakeGcs() as server:
            assert isinstance(server, FakeGcs)
            server.buckets["bucket"] = Bucket()
            options = {"endpoint_url": server.url, "token": "anon"}
            yield RemotePlace(kind, server, "gs://bucket/layer", options)
    else:
        assert moto is not None
        bucket = moto.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
        with FaultyProxy(moto.url) as proxy:
            options = {**moto.storage_options, "endpoint_url": proxy.url}
            yield RemotePlace(kind, proxy, f"s3://{bucket}/layer", options, moto.client(), bucket)
