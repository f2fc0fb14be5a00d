"""API tokens: `mct_` and 43 characters that hold 256 random bits. Only their SHA-256 is kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from memcube_protocol.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    TokenExpiredError,
    UnauthenticatedError,
)
from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, delete, func, select
from sqlmodel import Session, col

from memcube_registry.accounts.models import Account, AccountKind, ApiToken
from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import Scope, format_scopes, parse_scopes

PREFIX: Final = "mct_"
MAX_PER_ACCOUNT: Final = 200
ENDED_KEPT: Final = 200
"""So many of an account's ended tokens can still be listed; each was a row that costs it nothing."""
_SECRET: Final = re.compile(r"mct_[A-Za-z0-9_-]{43}")
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
_USE_RECORDED_EVERY: Final = timedelta(hours=1)

# Every authenticated request asks one of these. Columns, not objects, and built once: either costs
# as much as asking SQLite.
_COLUMNS: Final[tuple[Any, ...]] = (
    col(ApiToken.id),
    col(ApiToken.account_id),
    col(ApiToken.secret_sha256),
    col(ApiToken.scopes),
    col(ApiToken.expires_at),
    col(ApiToken.revoked_at),
    col(ApiToken.last_used_at),
    col(Account.name).label("account_name"),
    col(Account.disabled_at),
)
_WITH_ACCOUNT: Final[Select[*tuple[Any, ...]]] = select(*_COLUMNS).join(
    Account, col(Account.id) == ApiToken.account_id
)
_BY_HASH: Final = _WITH_ACCOUNT.where(col(ApiToken.secret_sha256) == bindparam("presented"))
_BY_ID: Final = _WITH_ACCOUNT.where(col(ApiToken.id) == bindparam("token_id"))
_parsed: Final = lru_cache(maxsize=4096)(parse_scopes)


@dataclass(frozen=True, slots=True)
class LiveToken:
    """A token that is valid now: who it stands for, and whether its use should be written down."""

    principal: Principal
    use_is_due: bool


def is_secret(text: str) -> bool:
    """Whether `text` has the form of an API token."""
    return _SECRET.fullmatch(text) is not None


def create_token(
    session: Session,
    account: Account,
    name: str,
    scopes: Iterable[Scope],
    *,
    now: datetime,
    lifetime: timedelta | None = None,
) -> tuple[str, ApiToken]:
    """The secret, which cannot be shown again, and the row of a new token.

    Raises:
        InvalidRequestError: a bad name, no scope, a lifetime that is over, an organisation's token.
        ConflictError: the account has too many.
    """
    scopes = tuple(scopes)
    _require_creatable(account, name, scopes, lifetime)
    _require_room(session, account, now)
    _forget_ended(session, account.id, now)
    secret = PREFIX + secrets.token_urlsafe(32)
    token = ApiToken(
        account_id=account.id,
        name=name,
        secret_sha256=_hash(secret),
        scopes=format_scopes(scopes),
        created_at=now,
        expires_at=now + lifetime if lifetime else None,
    )
    session.add(token)
    session.flush()
    return secret, token


def principal_of_secret(session: Session, secret: str, *, now: datetime) -> Principal:
    """Who the API token `secret` stands for.

    Raises:
        UnauthenticatedError: nobody.
        TokenExpiredError: it expired or was revoked, or its account is disabled.
    """
    return find_shown(session.connection(), secret, now=now).principal


def find_shown(connection: Connection, secret: str, *, now: datetime) -> LiveToken:
    """The token whose secret was shown.

    Raises:
        UnauthenticatedError: there is none.
        TokenExpiredError: it expired or was revoked, or its account is disabled.
    """
    presented = _hash(secret)
    row = connection.execute(_BY_HASH, {"presented": presented}).one_or_none()
    if row is None or not hmac.compare_digest(row.secret_sha256, presented):
        raise unknown_credentials()
    return _require_live(row, now)


def find_issued_for(
    connection: Connection, token_id: int, account_id: int, *, now: datetime
) -> LiveToken:
    """The token that a handshake token was issued for.

    Raises:
        UnauthenticatedError: it is not that account's.
        TokenExpiredError: it expired or was revoked meanwhile, or its account is disabled.
    """
    row = connection.execute(_BY_ID, {"token_id": token_id}).one_or_none()
    if row is None or row.account_id != account_id:
        raise unknown_credentials()
    return _require_live(row, now)


def record_use(session: Session, token_id: int, *, now: datetime) -> None:
    """Note that the token was used."""
    row = session.get(ApiToken, token_id)
    if row is not None:
        row.last_used_at = now


def tokens_of(session: Session, account_id: int) -> list[ApiToken]:
    """The account's tokens, newest first, and `ENDED_KEPT` or a few more that have ended."""
    query = select(ApiToken).where(col(ApiToken.account_id) == account_id)
    return list(session.execute(query.order_by(col(ApiToken.id).desc())).scalars())


def revoke_token(session: Session, account_id: int, token_id: int, *, now: datetime) -> None:
    """End a token at once, and with it the handshake tokens issued for it.

    Raises:
        NotFoundError: the account has no such token.
    """
    row = session.get(ApiToken, token_id)
    if row is None or row.account_id != account_id:
        raise NotFoundError(
            f"the account has no token {token_id}",
            hint="memcube-registry token list NAME, or GET /api/v1/tokens, shows their numbers",
        )
    row.revoked_at = row.revoked_at or now


def unknown_credentials() -> UnauthenticatedError:
    """The one answer to every kind of wrong credentials."""
    return UnauthenticatedError(
        "the credentials are wrong",
        hint="run `memcube login` with the name of your account and one of its API tokens",
    )


def _require_live(row: Row[*tuple[Any, ...]], now: datetime) -> LiveToken:
    if row.revoked_at is not None or row.disabled_at is not None:
        raise _ended("the token was revoked")
    if row.expires_at is not None and row.expires_at <= now:
        raise _ended("the token has expired")
    principal = Principal(row.account_id, row.account_name, _parsed(row.scopes), row.id)
    last = row.last_used_at
    return LiveToken(principal, use_is_due=last is None or now - last >= _USE_RECORDED_EVERY)


def _require_creatable(
    account: Account,
    name: str,
    scopes: tuple[Scope, ...],
    lifetime: timedelta | None,
) -> None:
    if account.kind is not AccountKind.PERSON:
        raise InvalidRequestError(
            f"{account.name} is an organisation and has no tokens of its own",
            hint="create a token of one of its members, scoped as in push:" + account.name,
        )
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            "a token's name has 1 to 128 printable characters",
            hint="name it after the machine or the job that will use it",
        )
    if not scopes or (lifetime is not None and lifetime <= timedelta()):
        raise InvalidRequestError(
            "a token needs a scope and a lifetime above zero",
            hint="use pull, push, delete or admin, and a number of days",
        )


def _require_room(session: Session, account: Account, now: datetime) -> None:
    live = select(func.count()).where(col(ApiToken.account_id) == account.id, ~_has_ended(now))
    if session.execute(live).scalar_one() >= MAX_PER_ACCOUNT:
        raise ConflictError(
            f"{account.name} has {MAX_PER_ACCOUNT} tokens already", hint="revoke one of them first"
        )


def _forget_ended(session: Session, account_id: int, now: datetime) -> None:
    """Remove the ended tokens of the account but for the last `ENDED_KEPT`."""
    ended = (col(ApiToken.account_id) == account_id) & _has_ended(now)
    newest = select(col(ApiToken.id)).where(ended).order_by(col(ApiToken.id).desc())
    last = session.execute(newest.offset(ENDED_KEPT).limit(1)).scalar_one_or_none()
    if last is not None:
        session.execute(delete(ApiToken).where(ended, col(ApiToken.id) <= last))


def _has_ended(now: datetime) -> ColumnElement[bool]:
    expires_at = col(ApiToken.expires_at)
    is_over = expires_at.is_not(None) & (expires_at <= now)
    return col(ApiToken.revoked_at).is_not(None) | is_over


def _ended(why: str) -> TokenExpiredError:
    return TokenExpiredError(why, hint="create a new token, then run `memcube login`")


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
