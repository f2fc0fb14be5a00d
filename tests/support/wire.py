"""An HTTP client that sends exactly what it is told: no normalised paths, no followed redirects."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Reply:
    """One HTTP response, read whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def header(self, name: str) -> str | None:
        return self.headers.get(name)

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error_codes(self) -> list[str]:
        """Codes of the OCI error document in the body."""
        return [error["code"] for error in self.json()["errors"]]

    def __str__(self) -> str:
        return f"{self.status} {dict(self.headers.items())} {self.body[:400]!r}"


@dataclass(frozen=True)
class Wire:
    """A server's base URL with the credentials that each request carries."""

    url: str
    authorization: str | None = None

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        return parts.hostname, parts.port or 80

    @property
    def netloc(self) -> str:
        return urlsplit(self.url).netloc

    def basic(self, username: str, password: str) -> Wire:
        encoded = base64.b64encode(f"{username}:{password}".encode()).decode()
        return Wire(self.url, f"Basic {encoded}")

    def bearer(self, token: str) -> Wire:
        return Wire(self.url, f"Bearer {token}")

    def anonymous(self) -> Wire:
        return Wire(self.url)

    def send(
        self,
        method: str,
        target: str,
        *,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        timeout_s: float = TIMEOUT_S,
    ) -> Reply:
        """Send one request; `target` goes on the wire as it is. An iterable body is sent chunked."""
        connection = http.client.HTTPConnection(*self.address, timeout=timeout_s)
        try:
            connection.putrequest(method, self._origin_form(target), skip_accept_encoding=True)
            pairs = headers.items() if isinstance(headers, Mapping) else headers
            given = [(name, value) for name, value in pairs]
            for name, value in self._framing(method, body, given) + given:
                connection.putheader(name, value)
            chunked = body is not None and not isinstance(body, bytes)
            connection.endheaders(body, encode_chunked=chunked)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def _framing(
        self, method: str, body: object, given: list[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        names = {name.lower() for name, _ in given}
        framing: list[tuple[str, str]] = []
        if self.authorization is not None and "authorization" not in names:
            framing.append(("Authorization", self.authorization))
        if isinstance(body, bytes):
            if "content-length" not in names:
                framing.append(("Content-Length", str(len(body))))
        elif body is not None:
            framing.append(("Transfer-Encoding", "chunked"))
        elif method in {"POST", "PUT", "PATCH"}:
            framing.append(("Content-Length", "0"))
        return framing

    def _origin_form(self, target: str) -> str:
        """`target` as path and query; an absolute URL must point at this server."""
        if target.startswith("/"):
            return target
        parts = urlsplit(urljoin(self.url, target))
        assert parts.netloc == self.netloc, f"{target} leaves {self.url}"
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    def get(self, target: str, **options: Any) -> Reply:
        return self.send("GET", target, **options)

    def head(self, target: str, **options: Any) -> Reply:
        return self.send("HEAD", target, **options)

    def post(self, target: str, **options: Any) -> Reply:
        return self.send("POST", target, **options)

    def put(self, target: str, **options: Any) -> Reply:
        return self.send("PUT", target, **options)

    def patch(self, target: str, **options: Any) -> Reply:
        return self.send("PATCH", target, **options)

    def delete(self, target: str, **options: Any) -> Reply:
        return self.send("DELETE", target, **options)

    def connect(self, timeout_s: float = TIMEOUT_S) -> socket.socket:
        """A bare connection, for requests that no client library would send."""
        return socket.create_connection(self.address, timeout=timeout_s)

    def exchange(self, request: bytes, timeout_s: float = TIMEOUT_S) -> bytes:
        """All bytes the server answers to `request` until it closes or falls silent."""
        received = bytearray()
        with self.connect(timeout_s) as connection:
            connection.sendall(request)
            try:
                while block := connection.recv(65536):
                    received += block
            except (TimeoutError, ConnectionResetError):
                pass
        return bytes(received)
