"""The table of jobs: a transactional outbox."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import JSON, Index, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

from memcube_registry.database import UtcDateTime, choice, utc_now


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DEAD = "dead"


class Job(SQLModel, table=True):
    """One piece of work: `kind` says which handler does it, `subject` on what; there is one of each pair.

    `wanted` counts how often it was asked for, so that what is asked for while it runs is not lost.
    `attempts` counts how often it was begun since it last succeeded. `every_s` is the time between two
    runs of a periodic job. `lease` names the process that runs it, which has it until `leased_until`.
    """

    __tablename__: ClassVar[Any] = "job"
    __table_args__ = (UniqueConstraint("kind", "subject"), Index("ix_job_due", "state", "due_at"))

    id: int | None = Field(default=None, primary_key=True)
    kind: str = Field(max_length=64)
    subject: str = Field(max_length=255)
    payload: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    state: State = Field(default=State.QUEUED, sa_type=choice(State))
    wanted: int = 1
    attempts: int = 0
    due_at: datetime = Field(sa_type=UtcDateTime)
    every_s: int | None = None
    lease: str | None = Field(default=None, max_length=128)
    leased_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    error: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
