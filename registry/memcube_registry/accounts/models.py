"""The tables of accounts, memberships and API tokens.

An account's name is its namespace: the first component of every cube it owns.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Text
from sqlmodel import Field, SQLModel

from memcube_registry.database import UtcDateTime, choice, utc_now


class AccountKind(StrEnum):
    """What an account stands for. Only people have tokens; organisations act through members."""

    PERSON = "person"
    ORGANISATION = "organisation"


class Role(StrEnum):
    """What a member may do in an organisation; each role includes those before it."""

    READER = "reader"
    WRITER = "writer"
    MAINTAINER = "maintainer"
    OWNER = "owner"


class Account(SQLModel, table=True):
    """A person or an organisation. `skeleton` is the name with confusable characters folded."""

    id: int = Field(default=None, primary_key=True)
    name: str = Field(max_length=64, unique=True)
    skeleton: str = Field(max_length=64, unique=True)
    kind: AccountKind = Field(default=AccountKind.PERSON, sa_type=choice(AccountKind))
    is_operator: bool = False
    quota_bytes: int | None = Field(default=None, sa_type=BigInteger)
    """Storage the account may use; None: without limit."""
    used_bytes: int = Field(default=0, sa_type=BigInteger)
    """Bytes of the account's manifests, and of blobs linked to its repositories, each counted once."""
    disabled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    creator_id: int | None = Field(default=None, foreign_key="account.id", index=True)
    """The person who made this organisation by the API; None: an operator did, or it is a person."""
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class Membership(SQLModel, table=True):
    """That one person belongs to one organisation, in one role."""

    organisation_id: int = Field(foreign_key="account.id", primary_key=True)
    member_id: int = Field(foreign_key="account.id", primary_key=True, index=True)
    role: Role = Field(sa_type=choice(Role))
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class ApiToken(SQLModel, table=True):
    """A secret that stands for its account. Only the SHA-256 of the secret is kept.

    The secret has 256 random bits, so a fast hash is enough: there is nothing to guess.
    """

    __tablename__: ClassVar[Any] = "api_token"
    # Handshake tokens name this one by its number: SQLite must not give it to another once it is gone.
    __table_args__: ClassVar[Any] = {"sqlite_autoincrement": True}

    id: int = Field(default=None, primary_key=True)
    account_id: int = Field(foreign_key="account.id", index=True)
    name: str = Field(max_length=128)
    secret_sha256: str = Field(max_length=64, unique=True)
    scopes: str = Field(max_length=2048)
    """Scopes as `accounts.scopes.Scope` writes them, divided by spaces."""
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    job: str | None = Field(default=None, sa_type=Text)
    """The CI job whose identity token bought this one, as releases name it: a JSON object."""


class TrustedPublisher(SQLModel, table=True):
    """That CI jobs with certain claims may push to one repository, in the name of a member."""

    __tablename__: ClassVar[Any] = "trusted_publisher"

    id: int = Field(default=None, primary_key=True)
    repository: str = Field(max_length=255, index=True)
    member_id: int = Field(foreign_key="account.id")
    issuer: str = Field(max_length=255)
    claims: str = Field(max_length=16384)
    """Claims that an identity token must have, as `JobPattern` compares them: a JSON object."""
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class SpentIdentity(SQLModel, table=True):
    """An identity token that was exchanged, until it expires by itself."""

    __tablename__: ClassVar[Any] = "spent_identity"

    token_sha256: str = Field(max_length=64, primary_key=True)
    expires_at: datetime = Field(sa_type=UtcDateTime)
