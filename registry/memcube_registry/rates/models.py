"""The table of rate limits that replicas share."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlmodel import Field, SQLModel

from memcube_registry.database import PASSING, UtcDateTime, utc_now


class RateBucket(SQLModel, table=True):
    """One token bucket: what it held at `at`, and what the last who asked was granted.

    `key` is an HMAC: addresses of people do not stand in the database. Lost in a crash of PostgreSQL
    (an unlogged table) and left out of backups: a bucket that is not there is full. Unused on SQLite.
    """

    __tablename__: ClassVar[Any] = "rate_bucket"
    __table_args__ = PASSING

    key: str = Field(max_length=32, primary_key=True)
    tokens: float
    granted: int
    per_s: float
    burst: float
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
