"""An issuer of identity tokens on this machine: discovery, keys, and jobs' tokens.

It gives tokens as GitHub Actions does, too: for the asking, to who shows the job's own secret.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm


class IdentityIssuer:
    """Signs tokens with the newest of its keys; serves them all, as OpenID Connect demands."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.url = ""
        self.asked = 0
        self.job_secret = uuid4().hex
        self.claims: dict[str, Any] = {}
        """Claims of the tokens that it gives for the asking, over those of `token`."""
        self.given: list[str] = []
        self.rotate("one")

    def rotate(self, key_id: str, *, keep: bool = True) -> None:
        """Sign with a new key from now on; without `keep` the older ones are served no more."""
        known = self.keys if keep else {}
        self.keys = {**known, key_id: ec.generate_private_key(ec.SECP256R1())}

    def document(self, path: str, authorization: str | None) -> dict[str, Any] | None:
        """What it answers at `path`."""
        self.asked += 1
        route, _, query = path.partition("?")
        if route == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        if route == "/keys":
            return {"keys": [_shown(key_id, key) for key_id, key in self.keys.items()]}
        if route == "/job" and authorization == f"Bearer {self.job_secret}":
            audience = parse_qs(query)["audience"][0]
            self.given.append(self.token(audience, **self.claims))
            return {"count": 1, "value": self.given[-1]}
        return None

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a job that may ask for tokens, as GitHub Actions sets them."""
        return {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/job?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": self.job_secret,
        }

    def said(self, audience: str, **claims: Any) -> dict[str, Any]:
        """The claims of a job's identity token; those that are None are left out."""
        now = int(time.time())
        said = {
            "iss": self.url,
            "sub": "repo:alice/memories:ref:refs/heads/main",
            "aud": audience,
            "iat": now,
            "exp": now + 300,
            "jti": str(uuid4()),
            "repository": "alice/memories",
            "repository_id": "7301",
            "repository_owner_id": "42",
            "ref": "refs/heads/main",
            "sha": "0123456789abcdef0123456789abcdef01234567",
            "workflow_ref": "alice/memories/.github/workflows/release.yml@refs/heads/main",
            "run_id": "1002003",
            "actor": "alice-the-person",
            **claims,
        }
        return {name: value for name, value in said.items() if value is not None}

    def token(self, audience: str, *, key: Any = None, header: Any = None, **claims: Any) -> str:
        """A job's identity token."""
        key_id = list(self.keys)[-1]
        signer = key or self.keys[key_id]
        algorithm = "RS256" if isinstance(signer, rsa.RSAPrivateKey) else "ES256"
        headers = {"kid": key_id, **(header or {})}
        said = self.said(audience, **claims)
        return jwt.encode(said, signer, algorithm=algorithm, headers=headers)


def _shown(key_id: str, key: Any) -> dict[str, Any]:
    kind, name = (
        (RSAAlgorithm, "RS256") if isinstance(key, rsa.RSAPrivateKey) else (ECAlgorithm, "ES256")
    )
    public = kind.to_jwk(key.public_key(), as_dict=True)
    return {**public, "kid": key_id, "use": "sig", "alg": name}


@contextmanager
def identity_issuer() -> Iterator[IdentityIssuer]:
    """A running issuer."""
    issuer = IdentityIssuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = issuer.document(self.path, self.headers.get("Authorization"))
            body = json.dumps(found or {}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
