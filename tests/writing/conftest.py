"""Servers for the tests of writing."""

from __future__ import annotations

from servers.fixtures import gcs_server, s3_server

__all__ = ["gcs_server", "s3_server"]
