"""From the Authorization header of a request to its principal.

Accepted: `Bearer` with an API token or a handshake token, and `Basic` with an account's name and
one of its API tokens (RFC 6750, RFC 7617). What a principal may do is decided in `delivery`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

from memcube_protocol.errors import MemcubeError

from memcube_registry.accounts import tokens
from memcube_registry.accounts.handshake import Issuer
from memcube_registry.accounts.principal import ANONYMOUS, Principal
from memcube_registry.database import Database
from memcube_registry.http.asgi import Scope

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection

SCOPE_KEY: Final = "memcube.principal"
HEADER_BYTES: Final = 8192
LONE_TOKEN: Final = "token"
"""The user name of clients that know a token and not whose it is; no account may be called so."""


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """Who the request comes from.

    Raises:
        UnauthenticatedError: it carries credentials, and they are wrong.
        TokenExpiredError: they were right once.
    """
    return principal_in(cast(Scope, connection.scope))


def principal_in(scope: Scope) -> Principal:
    """As `principal_of`, for code that has the ASGI scope only."""
    found = scope.get(SCOPE_KEY, ANONYMOUS)
    if isinstance(found, MemcubeError):
        raise found
    assert isinstance(found, Principal), "only the gate writes this key"
    return found


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Checks credentials against the database and the handshake's key."""

    database: Database
    issuer: Issuer
    anonymous_pull: bool = True

    @property
    def anonymous(self) -> Principal:
        """Nobody, as the settings treat nobody."""
        return replace(ANONYMOUS, reads_public=self.anonymous_pull)

    def authenticate(self, authorization: bytes, *, now: datetime) -> Principal:
        """The principal whose credentials the header `authorization` holds.

        Raises:
            UnauthenticatedError: they are wrong, or of a kind that is not accepted.
            TokenExpiredError: they were right once.
        """
        kind, credentials = _split(authorization)
        if kind == "basic":
            found = self._basic(credentials, now)
        elif tokens.is_secret(credentials):
            found = self._shown(credentials, now)
        else:
            found = self._handshake(credentials, now)
        return replace(found, reads_public=self.anonymous_pull)

    def _shown(self, secret: str, now: datetime) -> Principal:
        with self.database.glance() as connection:
            found = tokens.find_shown(connection, secret, now=now)
        if found.use_is_due:
            self._record_use(found.principal, now)
        return found.principal

    def _basic(self, credentials: str, now: datetime) -> Principal:
        try:
            text = base64.b64decode(credentials, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise tokens.unknown_credentials() from None
        user, _, password = text.partition(":")
        if not tokens.is_secret(password):
            raise tokens.unknown_credentials()
        principal = self._shown(password, now)
        if user not in (principal.name, LONE_TOKEN):
            raise tokens.unknown_credentials()
        return principal

    def _handshake(self, credentials: str, now: datetime) -> Principal:
        principal = self.issuer.check(credentials, now=now)
        if principal.account_id is None:
            return principal
        if principal.token_id is None:
            raise tokens.unknown_credentials()
        with self.database.glance() as connection:
            tokens.find_issued_for(connection, principal.token_id, principal.account_id, now=now)
        return principal

    def _record_use(self, principal: Principal, now: datetime) -> None:
        token_id = principal.token_id
        assert token_id is not None, "asked only where there is a token"
        try:
            self.database.run(lambda session: tokens.record_use(session, token_id, now=now))
        except MemcubeError:
            # A busy or read-only database must not lock people out; the next request records it.
            return


def _split(authorization: bytes) -> tuple[str, str]:
    if len(authorization) > HEADER_BYTES or not authorization.isascii():
        raise tokens.unknown_credentials()
    kind, _, credentials = authorization.decode("ascii").partition(" ")
    if kind.lower() not in ("basic", "bearer"):
        raise tokens.unknown_credentials()
    return kind.lower(), credentials.strip(" ")
