"""Identity tokens of CI jobs: OpenID Connect (Core 1.0, Discovery 1.0), from issuers that the operator names.

Only asymmetric signatures count, only keys that the issuer itself serves over https (or on this machine),
and only tokens made for this registry: its name is their audience.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
import urllib3
from memcube_protocol import canonical_json
from memcube_protocol.errors import (
    InvalidError,
    InvalidSettingError,
    LimitExceededError,
    UnauthenticatedError,
    UnavailableError,
)

ALGORITHMS: Final = ("RS256", "ES256", "PS256", "EdDSA")
TOKEN_CHARS: Final = 16 * 1024
_DOCUMENT_BYTES: Final = 256 * 1024
_KEYS_FRESH: Final = timedelta(hours=1)
_ASK_EVERY: Final = timedelta(minutes=1)
_CLOCK_SKEW_S: Final = 60
_TIMEOUT: Final = urllib3.Timeout(connect=5, read=5)
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_REQUIRED: Final = ("iss", "sub", "aud", "exp", "iat", "jti")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token says its holder is: `claims` are those that are text."""

    issuer: str
    subject: str
    token_id: str
    expires_at: datetime
    claims: Mapping[str, str]


@dataclass(slots=True)
class _Keys:
    """What an issuer served last."""

    keys: Mapping[str, jwt.PyJWK] = field(default_factory=dict[str, jwt.PyJWK])
    asked_at: datetime | None = None


class IdentityTokens:
    """Checks identity tokens of `issuers` (URLs divided by commas) for the registry `audience`."""

    def __init__(self, issuers: str, audience: str) -> None:
        names = [word.strip().rstrip("/") for word in issuers.split(",") if word.strip()]
        for name in names:
            _require_safe(name)
        self._audience = audience
        self._known = {name: _Keys() for name in names}
        self._lock = threading.Lock()
        self._http = urllib3.PoolManager(num_pools=4, retries=False, timeout=_TIMEOUT)

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuers whose tokens are taken."""
        return tuple(self._known)

    def check(self, token: str, *, now: datetime) -> Identity:
        """Who the holder of `token` is.

        Raises:
            UnauthenticatedError: another issuer, another audience, a wrong signature, expired.
            UnavailableError: the issuer does not show its keys now.
        """
        if len(token) > TOKEN_CHARS:
            raise _refused("it is too long")
        try:
            header = jwt.get_unverified_header(token)
            unverified = jwt.decode(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise _refused("it is not a JSON Web Token") from None
        issuer, algorithm = unverified.get("iss"), header.get("alg")
        if not isinstance(issuer, str) or issuer.rstrip("/") not in self._known:
            raise _refused("its issuer is not one that this registry trusts")
        if algorithm not in ALGORITHMS:
            raise _refused(f"the algorithm {str(algorithm)[:20]!r} is not accepted")
        key = self._key(issuer.rstrip("/"), str(header.get("kid", "")), now)
        return self._verified(token, issuer, key, now)

    def _verified(self, token: str, issuer: str, key: jwt.PyJWK, now: datetime) -> Identity:
        options: Any = {
            "require": list(_REQUIRED),
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
        }
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._audience,
                issuer=issuer,
                options=options,
            )
            ends, begins = float(claims["exp"]), float(claims.get("nbf", claims["iat"]))
            alone = claims["aud"] in (self._audience, [self._audience])
        except (jwt.PyJWTError, TypeError, ValueError):
            raise _refused("its signature, audience or claims are wrong") from None
        if not alone:
            raise _refused("it is for others as well, who could have shown it here")
        if not begins - _CLOCK_SKEW_S <= now.timestamp() < ends + _CLOCK_SKEW_S:
            raise _refused("it has expired, or is not valid yet")
        texts = {name: value for name, value in claims.items() if isinstance(value, str)}
        return Identity(
            issuer.rstrip("/"),
            str(claims["sub"]),
            str(claims["jti"]),
            datetime.fromtimestamp(ends + _CLOCK_SKEW_S, now.tzinfo),
            texts,
        )

    def _key(self, issuer: str, key_id: str, now: datetime) -> jwt.PyJWK:
        """The issuer's key of that id; asked for again when unknown, at most once a minute."""
        with self._lock:
            known = self._known[issuer]
            age = now - known.asked_at if known.asked_at else None
            unknown = key_id not in known.keys and (age is None or age >= _ASK_EVERY)
            if age is None or age >= _KEYS_FRESH or unknown:
                known.keys, known.asked_at = self._fetch(issuer), now
            if key_id not in known.keys:
                raise _refused("its issuer shows no such key")
            return known.keys[key_id]

    def _fetch(self, issuer: str) -> Mapping[str, jwt.PyJWK]:
        document = self._get(f"{issuer}/.well-known/openid-configuration")
        if str(document.get("issuer", "")).rstrip("/") != issuer:
            raise _unavailable(issuer, "its configuration names another issuer")
        url = str(document.get("jwks_uri", ""))
        _require_safe(url)
        try:
            found = jwt.PyJWKSet.from_dict(dict(self._get(url)))
        except jwt.PyJWTError:
            raise _unavailable(issuer, "its keys cannot be read") from None
        return {key.key_id or "": key for key in found.keys if key.key_type != "oct"}

    def _get(self, url: str) -> Mapping[str, Any]:
        try:
            response = self._http.request("GET", url, preload_content=False, redirect=False)
            try:
                content = response.read(_DOCUMENT_BYTES + 1)
            finally:
                response.release_conn()
            if response.status != 200 or len(content) > _DOCUMENT_BYTES:
                raise _unavailable(url, f"it answers {response.status}")
            return canonical_json.parse_object(content, what="identity document")
        except urllib3.exceptions.HTTPError as error:
            raise _unavailable(url, type(error).__name__) from None
        except (InvalidError, LimitExceededError):
            raise _unavailable(url, "it answers no JSON") from None


def _require_safe(url: str) -> None:
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not parts.hostname or not (parts.scheme == "https" or local) or parts.username:
        raise InvalidSettingError(
            f"{url[:200]!r} cannot be an issuer of identity tokens",
            hint="name issuers by their https URL, divided by commas",
        )


def _refused(why: str) -> UnauthenticatedError:
    return UnauthenticatedError(
        f"the identity token is not accepted: {why}",
        hint="ask your CI for a token whose audience is this registry; see docs/guide/trusted-publishing.md",
    )


def _unavailable(issuer: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"the issuer {issuer[:200]} does not show its keys: {why}", hint="try again in a minute"
    )
