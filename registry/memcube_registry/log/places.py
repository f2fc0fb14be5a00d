"""Where statements about a cube stand in the log."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select

from memcube_registry.log.models import LogEntry


@dataclass(frozen=True, slots=True)
class Place:
    """Where a statement stands in the log, counted from 0, and since when."""

    number: int
    logged_at: datetime


def places(session: Session, repository: str, signed_sha256: Collection[str]) -> dict[str, Place]:
    """The first places of statements about a cube, by the SHA-256 in hex of their signed bytes."""
    query = (
        select(LogEntry.statement, LogEntry.number, LogEntry.logged_at)
        .where(col(LogEntry.statement).in_(signed_sha256), LogEntry.repository == repository)
        .order_by(col(LogEntry.number).desc())
    )
    return {statement: Place(number, at) for statement, number, at in session.exec(query)}
