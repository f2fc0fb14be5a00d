"""Referrers: the manifests of a repository whose subject is a given digest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import NotFoundError
from memcube_protocol.reference import is_name
from sqlalchemy import select
from sqlmodel import Session, col

from memcube_registry.accounts.principal import Principal
from memcube_registry.delivery.service import Act, Part, authorize, role_in
from memcube_registry.manifests.models import Manifest

PAGE: Final = 1000
_PAGE_BYTES: Final = 4 * limits.MIB
_ROWS_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Page:
    """Descriptors of some referrers, oldest first; `next_after` is where the next page begins."""

    descriptors: tuple[dict[str, Any], ...]
    next_after: int | None = None


class Attachment(NamedTuple):
    """A referrer before it is read: its content may have megabytes, and be one of many."""

    id: int
    digest: str
    size_bytes: int

    def content(self, session: Session) -> bytes:
        """Its bytes."""
        raw: bytes = session.execute(
            select(col(Manifest.content)).where(col(Manifest.id) == self.id)
        ).scalar_one()
        return raw


def attachments(
    session: Session, repository_id: int | None, subject: Digest, artifact_type: str, at_most: int
) -> list[Attachment]:
    """The oldest referrers of a type to `subject`, nothing of which is in memory yet."""
    query = (
        select(col(Manifest.id), col(Manifest.digest), col(Manifest.size_bytes))
        .where(
            col(Manifest.repository_id) == repository_id,
            col(Manifest.subject_digest) == str(subject),
            col(Manifest.artifact_type) == artifact_type,
        )
        .order_by(col(Manifest.id))
        .limit(at_most)
    )
    return [Attachment(*row) for row in session.execute(query)]


def page(
    session: Session,
    principal: Principal,
    repository: str,
    subject: Digest,
    *,
    artifact_type: str | None = None,
    after: int = 0,
) -> Page:
    """Referrers to `subject`, filtered by their artifact type if one is given.

    The namespace's own people get an empty page for a repository that does not exist yet.

    Raises:
        NotFoundError: no such repository, or none that the caller may know of.
        UnauthenticatedError, ForbiddenError: see `authorize`.
    """
    try:
        owner = authorize(
            session, principal, repository, Act.READ, digest=subject, part=Part.DESCRIPTION
        )
    except NotFoundError:
        if is_name(repository) and role_in(session, principal, repository.partition("/")[0]):
            return Page(())
        raise
    query = (
        select(
            col(Manifest.id),
            col(Manifest.media_type),
            col(Manifest.digest),
            col(Manifest.size_bytes),
            col(Manifest.artifact_type),
            col(Manifest.annotations),
        )
        .where(
            col(Manifest.repository_id) == owner.id,
            col(Manifest.subject_digest) == str(subject),
            col(Manifest.id) > after,
        )
        .order_by(col(Manifest.id))
        .limit(PAGE + 1)
    )
    if artifact_type is not None:
        query = query.where(col(Manifest.artifact_type) == artifact_type)
    return _fill(session.execute(query.execution_options(yield_per=_ROWS_AT_ONCE)))


def _fill(rows: Any) -> Page:
    """As many of `rows` as fit on a page: at least one, whatever its annotations weigh."""
    descriptors: list[dict[str, Any]] = []
    last, size = 0, 0
    for key, media_type, digest, size_bytes, artifact_type, notes in rows:
        size += sum(len(name) + len(text) for name, text in notes.items())
        if descriptors and (len(descriptors) == PAGE or size > _PAGE_BYTES):
            rows.close()
            return Page(tuple(descriptors), last)
        descriptor = {"mediaType": media_type, "digest": digest, "size": size_bytes}
        if artifact_type:
            descriptor["artifactType"] = artifact_type
        if notes:
            descriptor["annotations"] = notes
        descriptors.append(descriptor)
        last = key
    return Page(tuple(descriptors))
