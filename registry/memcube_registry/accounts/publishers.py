"""Trusted publishers: CI jobs that may push to one repository without a stored secret.

A member of the namespace binds an issuer and claims to a repository. A job whose identity token has these
claims gets a token of that member for fifteen minutes, for that repository alone. What the member may not
do, or not any more, the job may not either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from memcube_protocol.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    UnauthenticatedError,
)
from sqlalchemy import delete
from sqlmodel import Session, col, select

from memcube_registry.accounts import tokens
from memcube_registry.accounts.identity_tokens import Identity
from memcube_registry.accounts.models import Account, ApiToken, SpentIdentity, TrustedPublisher
from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import Act, Scope
from memcube_registry.delivery.service import authorize

LIFETIME: Final = timedelta(minutes=15)
MAX_PER_REPOSITORY: Final = 50
_CLAIMS: Final = 16
_CHARS: Final = 512
_NAME: Final = "trusted publisher: "
_EVERYBODYS: Final = frozenset({"iss", "aud", "exp", "iat", "nbf", "jti"})
"""Claims that tell nobody from anybody else."""


def add_publisher(
    session: Session,
    principal: Principal,
    repository: str,
    issuer: str,
    claims: Mapping[str, str],
    *,
    now: datetime,
) -> TrustedPublisher:
    """Let jobs with these claims push to `repository` in the name of the caller.

    Raises:
        UnauthenticatedError, ForbiddenError, NotFoundError: see `authorize`.
        InvalidRequestError: no claim that tells one job from another.
        ConflictError: the repository has too many.
    """
    authorize(session, principal, repository, Act.WRITE)
    _require_claims(claims)
    if len(_publishers(session, repository)) >= MAX_PER_REPOSITORY:
        raise ConflictError(
            f"{repository} has {MAX_PER_REPOSITORY} trusted publishers", hint="remove one first"
        )
    assert principal.account_id is not None, "authorize lets nobody write anonymously"
    row = TrustedPublisher(
        repository=repository,
        member_id=principal.account_id,
        issuer=issuer,
        claims=json.dumps(dict(claims), sort_keys=True),
        created_at=now,
    )
    session.add(row)
    session.flush()
    return row


def publishers_of(
    session: Session, principal: Principal, repository: str
) -> list[TrustedPublisher]:
    """The trusted publishers of `repository`, for those who may write there.

    Raises:
        UnauthenticatedError, ForbiddenError, NotFoundError: see `authorize`.
    """
    authorize(session, principal, repository, Act.WRITE)
    return _publishers(session, repository)


def remove_publisher(
    session: Session, principal: Principal, publisher_id: int, *, now: datetime
) -> None:
    """Trust a publisher no more, and end the tokens that it has.

    Raises:
        NotFoundError: there is none, or not for the caller.
    """
    row = session.get(TrustedPublisher, publisher_id)
    if row is None:
        raise _no_publisher(publisher_id)
    authorize(session, principal, row.repository, Act.WRITE)
    for token in session.exec(select(ApiToken).where(col(ApiToken.name) == _token_name(row))):
        token.revoked_at = token.revoked_at or now
    session.delete(row)


def exchange(
    session: Session, identity: Identity, repository: str, *, now: datetime
) -> tuple[str, ApiToken]:
    """A short token for the job that `identity` stands for; each identity token buys one.

    Raises:
        UnauthenticatedError: no publisher of the repository has these claims, or it was used before.
    """
    _spend(session, identity, now)
    for row in _publishers(session, repository):
        wanted: dict[str, str] = json.loads(row.claims)
        if row.issuer == identity.issuer and wanted.items() <= dict(identity.claims).items():
            member = session.get_one(Account, row.member_id)
            _forget_expired(session, member, now)
            scopes = (Scope(Act.WRITE, repository),)
            return tokens.create_token(
                session, member, _token_name(row), scopes, now=now, lifetime=LIFETIME
            )
    # The same answer whether the repository exists or not.
    raise UnauthenticatedError(
        f"no trusted publisher of {repository[:255]} has the claims of this identity token",
        hint="bind issuer and claims to the repository first: POST /api/v1/publishers",
    )


def _spend(session: Session, identity: Identity, now: datetime) -> None:
    """Note that this identity token was shown: a stolen copy buys nothing later."""
    session.execute(delete(SpentIdentity).where(col(SpentIdentity.expires_at) < now))
    shown = hashlib.sha256(f"{identity.issuer}\n{identity.token_id}".encode()).hexdigest()
    if session.get(SpentIdentity, shown) is not None:
        raise UnauthenticatedError(
            "this identity token was used before", hint="ask your CI for a new one"
        )
    session.add(SpentIdentity(token_sha256=shown, expires_at=identity.expires_at))
    session.flush()


def _forget_expired(session: Session, member: Account, now: datetime) -> None:
    """Tokens of past jobs would fill the number that an account may have."""
    session.execute(
        delete(ApiToken).where(
            col(ApiToken.account_id) == member.id,
            col(ApiToken.name).startswith(_NAME, autoescape=True),
            col(ApiToken.expires_at) < now,
        )
    )


def _publishers(session: Session, repository: str) -> list[TrustedPublisher]:
    query = select(TrustedPublisher).where(col(TrustedPublisher.repository) == repository)
    return list(session.exec(query.order_by(col(TrustedPublisher.id))))


def _token_name(row: TrustedPublisher) -> str:
    return f"{_NAME}{row.id}"


def _require_claims(claims: Mapping[str, str]) -> None:
    telling = claims.keys() - _EVERYBODYS
    fits = all(1 <= len(name) <= 64 and 1 <= len(value) <= _CHARS for name, value in claims.items())
    if not telling or telling != claims.keys() or len(claims) > _CLAIMS or not fits:
        raise InvalidRequestError(
            "a trusted publisher needs claims that tell its job from others",
            hint="such as sub, or repository and workflow_ref; each must be equal",
        )


def _no_publisher(publisher_id: int) -> NotFoundError:
    return NotFoundError(
        f"there is no trusted publisher {publisher_id}", hint="GET /api/v1/publishers lists yours"
    )
