"""The table of releases that were, or are to be, countersigned."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import LargeBinary
from sqlmodel import Field, SQLModel

from memcube_registry.database import UtcDateTime, utc_now


class Countersigning(SQLModel, table=True):
    """One bundle that claims to be a release: `referrer` is the digest of the manifest that attaches it.

    A job is there until it is decided. `envelope` is the signed summary in JSON, written before it is logged,
    so that a second try states the very same; `made` is the digest of the manifest that attaches it;
    `refused` is the reason code where there is nothing to sign.
    """

    __tablename__: ClassVar[Any] = "countersigning"

    repository_id: int = Field(foreign_key="repository.id", primary_key=True)
    referrer: str = Field(max_length=160, primary_key=True)
    envelope: bytes | None = Field(default=None, sa_type=LargeBinary)
    made: str | None = Field(default=None, max_length=160)
    refused: str | None = Field(default=None, max_length=64)
    noted_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
