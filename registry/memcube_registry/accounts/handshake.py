"""The Docker token handshake: short tokens that carry an identity and scopes, never rights.

A handshake token is a JWT, HS256 with the registry's own key; no other algorithm is accepted. It
names the API token it was issued for, so that revoking that one ends this one too.
(distribution specification, "Token authentication"; RFC 7519)
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import jwt
from memcube_protocol.errors import (
    InvalidRequestError,
    InvalidSettingError,
    StorageError,
    TokenExpiredError,
)
from memcube_protocol.reference import is_name

from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import Act, Scope
from memcube_registry.accounts.tokens import unknown_credentials

ALGORITHM: Final = "HS256"
KEY_BYTES: Final = 32
SCOPES_MAX: Final = 64
_CLOCK_SKEW: Final = timedelta(seconds=30)
_ACTS: Final = (Act.READ, Act.WRITE, Act.DELETE)
_REQUIRED_CLAIMS: Final = ["iss", "aud", "sub", "exp", "nbf", "iat", "jti"]


@dataclass(frozen=True, slots=True)
class Issuer:
    """Issues and checks the handshake tokens of one registry. `service` is its name in them."""

    key: bytes
    service: str
    lifetime: timedelta

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise InvalidSettingError(
                f"the token key has {len(self.key)} bytes, expected {KEY_BYTES}",
                hint="delete the file named by the setting token_key_file: a new one is made",
            )

    def issue(self, principal: Principal, scopes: Iterable[Scope], *, now: datetime) -> str:
        """A token for `principal` narrowed to `scopes`."""
        claims: dict[str, Any] = {
            "iss": self.service,
            "aud": self.service,
            "sub": principal.name or "",
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int((now + self.lifetime).timestamp()),
            "jti": secrets.token_hex(16),
            "access": _to_access(scopes),
        }
        if not principal.is_anonymous:
            claims |= {"account": principal.account_id, "token": principal.token_id}
        return jwt.encode(claims, self.key, algorithm=ALGORITHM)

    def check(self, token: str, *, now: datetime) -> Principal:
        """The principal a token was issued for; whether that one is still valid is not asked here.

        Raises:
            TokenExpiredError: it was right once.
            UnauthenticatedError: it is not one of ours.
        """
        try:
            claims = jwt.decode(
                token,
                self.key,
                algorithms=[ALGORITHM],
                audience=self.service,
                issuer=self.service,
                options={
                    "require": _REQUIRED_CLAIMS,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            starts, ends = float(claims["nbf"]), float(claims["exp"])
            principal = _to_principal(claims)
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, InvalidRequestError):
            raise unknown_credentials() from None
        if now.timestamp() + _CLOCK_SKEW.total_seconds() < starts:
            raise unknown_credentials()
        if now.timestamp() >= ends:
            raise TokenExpiredError("the token has expired", hint="ask for a new one and retry")
        return principal


def parse_requested(texts: Iterable[str]) -> tuple[tuple[str, frozenset[Act]], ...]:
    """Repositories and acts of scopes such as `repository:alice/notes:pull,push`.

    Several may stand in one text, divided by spaces. Other types of resource are ignored.

    Raises:
        InvalidRequestError: a repository scope is malformed, or there are too many.
    """
    words = [word for text in texts for word in text.split()]
    if len(words) > SCOPES_MAX:
        raise InvalidRequestError(
            f"{len(words)} scopes are asked for, the limit is {SCOPES_MAX}",
            hint="ask for fewer scopes at once",
        )
    return tuple(
        _parse_one(word) for word in words if word.startswith(("repository:", "repository("))
    )


def grant(
    principal: Principal, requested: Iterable[tuple[str, frozenset[Act]]]
) -> tuple[Scope, ...]:
    """What of `requested` the principal's own scopes cover; a right is checked when it is used."""
    return tuple(
        Scope(act, name)
        for name, acts in requested
        for act in _ACTS
        if act in acts and principal.may_try(act, name)
    )


def load_key(path: Path) -> bytes:
    """The key in `path`; made there at the first start, readable by its owner only.

    Raises:
        InvalidSettingError: others can read it.
        StorageError: it can be neither read nor made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make_key(path)
        if path.stat().st_mode & 0o007:
            raise InvalidSettingError(
                f"everybody on this machine can read the key {path}",
                hint=f"run `chmod 600 {path}`",
            )
        return path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"the key {path} cannot be read or made: {error}",
            hint="set token_key_file, log_key_file or countersigning_key_file to a file it may read",
        ) from error


def _make_key(path: Path) -> None:
    # Written beside and linked, so that two processes that start together end up with one whole key.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _parse_one(word: str) -> tuple[str, frozenset[Act]]:
    _, _, rest = word.partition(":")
    name, _, actions = rest.rpartition(":")
    if not is_name(name):
        raise InvalidRequestError(
            f"{word[:100]!r} is not a scope", hint="use repository:NAME:pull,push"
        )
    words = set(actions.split(","))
    acts = frozenset(act for act in _ACTS if act.value in words or "*" in words)
    return name, acts


def _to_access(scopes: Iterable[Scope]) -> list[dict[str, Any]]:
    by_name: dict[str, list[str]] = {}
    for scope in scopes:
        by_name.setdefault(scope.within, []).append(scope.act.value)
    return [
        {"type": "repository", "name": name, "actions": sorted(actions)}
        for name, actions in sorted(by_name.items())
    ]


def _to_principal(claims: dict[str, Any]) -> Principal:
    scopes = tuple(
        Scope(Act(action), str(entry["name"]))
        for entry in claims["access"]
        for action in entry["actions"]
    )
    account_id, name = claims.get("account"), str(claims["sub"]) or None
    if (account_id is None) != (name is None) or not isinstance(account_id, int | None):
        raise ValueError("the token names half an account")
    return Principal(account_id, name, scopes, claims.get("token"), came_by_handshake=True)
