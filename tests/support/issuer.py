"""An issuer of identity tokens on this machine: discovery, keys, and jobs' tokens."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm


class IdentityIssuer:
    """Signs tokens with one key on P-256, which it serves as OpenID Connect demands."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.url = ""
        self.asked = 0

    def document(self, path: str) -> dict[str, Any] | None:
        """What it answers at `path`."""
        self.asked += 1
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        if path == "/keys":
            public = ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            return {"keys": [{**public, "kid": "one", "use": "sig", "alg": "ES256"}]}
        return None

    def token(self, audience: str, *, key: Any = None, header: Any = None, **claims: Any) -> str:
        """A job's identity token."""
        now = int(time.time())
        said = {
            "iss": self.url,
            "sub": "repo:alice/memories:ref:refs/heads/main",
            "aud": audience,
            "iat": now,
            "exp": now + 300,
            "jti": str(uuid4()),
            "repository": "alice/memories",
            **claims,
        }
        headers = {"kid": "one", **(header or {})}
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(said, key or self.key, algorithm="ES256", headers=headers)


@contextmanager
def identity_issuer() -> Iterator[IdentityIssuer]:
    """A running issuer."""
    issuer = IdentityIssuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = issuer.document(self.path)
            body = json.dumps(found or {}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
