"""moto's S3 server, in this process: it takes any body and checks no signature, which a careless store would."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from support.swift import s3_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class MotoServer:
    """A running server; every bucket is empty at first."""

    endpoint_url: str

    def client(self) -> S3Client:
        return s3_client(self.endpoint_url)

    def bucket(self) -> str:
        """The name of a fresh bucket."""
        name = f"bucket-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name


@contextmanager
def moto_server() -> Iterator[MotoServer]:
    """A server on a free port of loopback; skips the test where Flask is not installed."""
    pytest.importorskip("flask_cors", reason="moto's server needs flask and flask-cors")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield MotoServer(f"http://{host}:{port}")
    finally:
        server.stop()
