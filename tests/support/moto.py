"""moto's S3 server, in this process: it takes any body and checks no signature, which a careless store would."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

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
    from moto.s3.exceptions import NoSuchUpload
    from moto.s3.models import S3Backend
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    known = S3Backend.upload_part

    def upload_part(self: S3Backend, bucket_name: str, multipart_id: str, *more: Any) -> Any:
        if multipart_id not in self.get_bucket(bucket_name).multiparts:
            raise NoSuchUpload(upload_id=multipart_id)
        return known(self, bucket_name, multipart_id, *more)

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    # Of an upload that has ended, moto's server answers 500, and S3 that there is none.
    patched = mock.patch.object(S3Backend, "upload_part", upload_part)
    patched.start()
    try:
        host, port = server.get_host_and_port()
        yield MotoServer(f"http://{host}:{port}")
    finally:
        patched.stop()
        server.stop()
