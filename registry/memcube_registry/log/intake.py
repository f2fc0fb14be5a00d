"""Submissions as they arrive: read, verified and admitted in batches, before anything is locked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memcube_protocol.errors import MemcubeError, NotFoundError

from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import Act
from memcube_registry.database import Database
from memcube_registry.delivery.service import require_allowed
from memcube_registry.log import submission
from memcube_registry.log.jobs import of_their_jobs
from memcube_registry.log.submission import Submission


@dataclass(frozen=True, slots=True)
class Arrival:
    """The body of a request, and whose it is."""

    principal: Principal
    raw: bytes


def admitted(database: Database, batch: Sequence[Arrival]) -> list[Submission | MemcubeError]:
    """For each of `batch` what it submits, or why it may not."""
    read = [_read(one.raw) for one in batch]
    asked = {
        (one.principal, what.repository)
        for one, what in zip(batch, read, strict=True)
        if isinstance(what, Submission)
    }
    refused = _refused(database, asked)
    allowed = [
        refused.get((one.principal, what.repository)) or what
        if isinstance(what, Submission)
        else what
        for one, what in zip(batch, read, strict=True)
    ]
    return of_their_jobs(database, [one.principal for one in batch], allowed)


def _read(raw: bytes) -> Submission | MemcubeError:
    try:
        return submission.parse(raw)
    except MemcubeError as error:
        return error


def _refused(
    database: Database, asked: set[tuple[Principal, str]]
) -> dict[tuple[Principal, str], MemcubeError]:
    """Who of `asked` may not push to the cube beside them, and why."""
    refused: dict[tuple[Principal, str], MemcubeError] = {}
    with database.read() as session:
        for principal, name in asked:
            try:
                if require_allowed(session, principal, name, Act.WRITE) is None:
                    hint = "push it first"
                    refused[principal, name] = NotFoundError(
                        f"there is no cube {name} yet", hint=hint
                    )
            except MemcubeError as error:
                refused[principal, name] = error
    return refused
