"""Trusted publishers: CI jobs that may push to one repository without a stored secret.

A member of the namespace binds an issuer and claims to a repository. A job whose identity token has these
claims gets a token of that member for fifteen minutes, for that repository alone. What the member may not
do, or not any more, the job may not either. The token remembers the job: a release that it is used for
has to name that very job (`require_own_job`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from memcube_protocol.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    InvalidStatementError,
    NotFoundError,
    UnauthenticatedError,
)
from memcube_signing.job import Job, JobPattern
from sqlalchemy import delete
from sqlmodel import Session, col, select

from memcube_registry.accounts import tokens
from memcube_registry.accounts.identity_tokens import Identity
from memcube_registry.accounts.models import Account, ApiToken, SpentIdentity, TrustedPublisher
from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import Act, Scope
from memcube_registry.delivery.service import authorize, require_allowed, role_in

LIFETIME: Final = timedelta(minutes=15)
MAX_PER_REPOSITORY: Final = 50
_CLAIMS: Final = 16
_NAME: Final = "trusted publisher: "
_EVERYBODYS: Final = frozenset({"iss", "aud", "exp", "iat", "nbf", "jti"})
"""Claims that tell nobody from anybody else."""
_LASTING: Final = ("repository_id", "repository_owner_id", "project_id", "namespace_id")
"""Ids that an issuer gives once, while names can be given up and taken by somebody else."""


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
        InvalidRequestError: no claim that tells one job from another, or a malformed one.
        ConflictError: the repository has too many.
    """
    _require_admin(principal, repository)
    authorize(session, principal, repository, Act.WRITE)
    _require_claims(issuer, claims)
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
    """The trusted publishers of `repository`, for those who may write there. Makes no repository.

    Raises:
        UnauthenticatedError, ForbiddenError, NotFoundError: see `authorize`.
    """
    require_allowed(session, principal, repository, Act.WRITE)
    return _publishers(session, repository)


def remove_publisher(
    session: Session, principal: Principal, publisher_id: int, *, now: datetime
) -> None:
    """Trust a publisher no more, and end the tokens that it has.

    Raises:
        NotFoundError: there is none, or one of a cube that the caller may not know of.
        ForbiddenError: it is not for the caller to remove.
    """
    row = session.get(TrustedPublisher, publisher_id)
    # Its number says nothing, but a refusal would name its cube, which may be private.
    if row is None or not _knows(session, principal, row.repository):
        raise _no_publisher(publisher_id)
    require_allowed(session, principal, row.repository, Act.WRITE)
    _require_admin(principal, row.repository)
    for token in session.exec(select(ApiToken).where(col(ApiToken.name) == _token_name(row))):
        token.revoked_at = token.revoked_at or now
    session.delete(row)


def exchange(
    session: Session, identity: Identity, repository: str, *, now: datetime
) -> tuple[str, ApiToken, Job]:
    """A short token for the job that `identity` stands for; each identity token buys one.

    The first one binds the publisher to the lasting ids of its source, so that whoever takes over a
    name that was given up is somebody else.

    Raises:
        UnauthenticatedError: no publisher of the repository has these claims, or it was used before.
    """
    _spend(session, identity, now)
    job = _job(identity)
    for row in _publishers(session, repository):
        wanted: dict[str, str] = json.loads(row.claims)
        if not JobPattern(row.issuer, tuple(wanted.items())).fits(identity.issuer, identity.claims):
            continue
        lasting = {name: identity.claims[name] for name in _LASTING if name in identity.claims}
        row.claims = json.dumps(lasting | wanted, sort_keys=True)
        member = session.get_one(Account, row.member_id)
        scopes = (Scope(Act.WRITE, repository),)
        secret, token = tokens.create_token(
            session, member, _token_name(row), scopes, now=now, lifetime=LIFETIME
        )
        token.job = json.dumps(job.to_json())
        return secret, token, job
    # The same answer whether the repository exists or not.
    raise UnauthenticatedError(
        f"no trusted publisher of {repository[:255]} has the claims of this identity token",
        hint="let its owner trust this job first: memcube publisher add",
    )


def require_own_job(session: Session, principal: Principal, job: Job | None) -> None:
    """That a release may name `job`: exactly the one that `principal` is a job's token of, or none.

    Raises:
        ForbiddenError: it names another, or one although a person pushes, or none although a job does.
    """
    token = session.get(ApiToken, principal.token_id) if principal.token_id else None
    own = Job.from_json(json.loads(token.job)) if token and token.job else None
    if job == own:
        return
    if own is None:
        raise ForbiddenError(
            "the release names a CI job, and was not pushed by one",
            hint="push it from the job itself (docs/guide/trusted-publishing.md)",
        )
    raise ForbiddenError(
        f"the release does not name the job that pushes it, {own.subject}",
        hint="let `memcube push` exchange the identity token itself; do not set MEMCUBE_TOKEN",
    )


def _job(identity: Identity) -> Job:
    try:
        return Job.of_claims(identity.issuer, identity.subject, identity.claims)
    except InvalidStatementError as error:
        raise UnauthenticatedError(
            f"this identity token names no job that could be recorded: {error}",
            hint="ask your CI for a subject of at most 512 printable characters",
        ) from None


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


def _publishers(session: Session, repository: str) -> list[TrustedPublisher]:
    query = select(TrustedPublisher).where(col(TrustedPublisher.repository) == repository)
    return list(session.exec(query.order_by(col(TrustedPublisher.id))))


def _token_name(row: TrustedPublisher) -> str:
    return f"{_NAME}{row.id}"


def _knows(session: Session, principal: Principal, repository: str) -> bool:
    """Whether the caller is one of the namespace's people, by a token that reaches the cube."""
    role = role_in(session, principal, repository.partition("/")[0])
    return role is not None and principal.may_try(Act.READ, repository)


def _require_admin(principal: Principal, repository: str) -> None:
    """Who binds a job gives away the right to push for good: that takes more than a push token."""
    needed = Scope(Act.ADMIN, repository)
    if not any(held.includes(needed) for held in principal.scopes):
        raise ForbiddenError(
            f"the token's scopes do not include {needed}", hint="use a token of scope admin"
        )


def _require_claims(issuer: str, claims: Mapping[str, str]) -> None:
    try:
        JobPattern(issuer, tuple(claims.items()))
    except InvalidStatementError as error:
        raise InvalidRequestError(
            f"this is no trusted publisher: {error}",
            hint="a claim is equal, or ends in * after / : or @, as in refs/tags/*",
        ) from None
    if len(claims) > _CLAIMS or claims.keys() & _EVERYBODYS:
        raise InvalidRequestError(
            "a trusted publisher needs claims that tell its job from others",
            hint="such as sub, or repository and workflow_ref",
        )


def _no_publisher(publisher_id: int) -> NotFoundError:
    return NotFoundError(
        f"there is no trusted publisher {publisher_id}", hint="GET /api/v1/publishers lists yours"
    )
