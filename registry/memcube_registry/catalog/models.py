"""The table of repositories: one row a cube."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlmodel import Field, SQLModel

from memcube_registry.database import UtcDateTime, choice, utc_now


class Visibility(StrEnum):
    """Who may read a repository's content: everybody, or those with a right to it."""

    PUBLIC = "public"
    PRIVATE = "private"


class Repository(SQLModel, table=True):
    """A cube's place on this registry. `name` is `namespace/name`, the namespace an account's name."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=255, unique=True)
    account_id: int = Field(foreign_key="account.id", index=True)
    visibility: Visibility = Field(default=Visibility.PRIVATE, sa_type=choice(Visibility))
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
