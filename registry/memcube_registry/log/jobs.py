"""A release that names a CI job is logged for that very job alone: so the log vouches for the name."""

from __future__ import annotations

from collections.abc import Sequence

from memcube_protocol.errors import ForbiddenError, MemcubeError
from sqlmodel import Session, select

from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.publishers import require_own_job
from memcube_registry.database import Database
from memcube_registry.log.models import LogEntry
from memcube_registry.log.submission import Submission


def of_their_jobs(
    database: Database, principals: Sequence[Principal], found: Sequence[Submission | MemcubeError]
) -> list[Submission | MemcubeError]:
    """`found`, submitted by `principals`, where each release that names another job is refused."""
    if not any(isinstance(one, Submission) and one.release for one in found):
        return list(found)
    with database.read() as session:
        return [
            _refusal(session, principal, one) or one if isinstance(one, Submission) else one
            for principal, one in zip(principals, found, strict=True)
        ]


def _refusal(session: Session, principal: Principal, wanted: Submission) -> MemcubeError | None:
    if wanted.release is None:
        return None
    try:
        require_own_job(session, principal, wanted.release.job)
    except ForbiddenError as error:
        return None if _is_cosigned(session, wanted) else error
    return None


def _is_cosigned(session: Session, wanted: Submission) -> bool:
    """Whether the very same statement was logged for its job before: others may sign it as well."""
    query = select(LogEntry.number).where(LogEntry.statement == wanted.signed_sha256)
    return session.exec(query.limit(1)).first() is not None
