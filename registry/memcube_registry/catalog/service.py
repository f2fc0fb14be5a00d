"""Cubes as a catalogue shows them: who sees which, their visibility, their end."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from typing import Final, NamedTuple

from memcube_protocol.errors import NotFoundError
from sqlalchemy import ColumnElement, delete, exists, func
from sqlalchemy import select as select_columns
from sqlmodel import Session, SQLModel, col, or_, select

from memcube_registry.accounts.models import Membership
from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import Act
from memcube_registry.accounts.service import add_usage
from memcube_registry.blobs import service as blobs
from memcube_registry.blobs.models import BlobLink, Upload
from memcube_registry.blobs.removing import remove_later
from memcube_registry.catalog.models import Repository, Visibility
from memcube_registry.countersigning.models import Countersigning
from memcube_registry.database import table_of
from memcube_registry.delivery.service import authorize
from memcube_registry.manifests.models import Manifest, ManifestBlob, ManifestChild, RetiredTag, Tag
from memcube_registry.manifests.tags import retire

PAGE_MAX: Final = 200
TAGS_MAX: Final = 10_000
"""Tags of one answer: they cost no storage, so that a cube can have any number."""


class TagPlace(NamedTuple):
    """A tag, the digest that it points to, and since when."""

    name: str
    digest: str
    updated_at: datetime


def visible_cubes(
    session: Session, principal: Principal, *, prefix: str, after: str, limit: int
) -> list[Repository]:
    """Cubes whose name starts with `prefix`, by name, `limit` at most, those after `after`."""
    name = col(Repository.name)
    query = select(Repository).where(name > after, _is_visible(principal)).order_by(name)
    if prefix:
        query = query.where(name.startswith(prefix, autoescape=True))
    found: list[Repository] = []
    # Closed here: PostgreSQL keeps a cursor open for rows that nobody asked for.
    with closing(session.exec(query.execution_options(yield_per=PAGE_MAX))) as rows:
        for row in rows:
            if _is_in_scope(principal, row):
                found.append(row)
            if len(found) == limit:
                break
    return found


def set_visibility(
    session: Session, principal: Principal, name: str, visibility: Visibility
) -> Repository:
    """The cube with that visibility, made if it is absent.

    Who may push may also publish; to hide what others rely on needs the right to delete.

    Raises:
        UnauthenticatedError, ForbiddenError, NotFoundError: see `authorize`.
    """
    row = authorize(session, principal, name, Act.WRITE)
    if row.visibility is Visibility.PUBLIC and visibility is Visibility.PRIVATE:
        authorize(session, principal, name, Act.DELETE)
    row.visibility = visibility
    session.add(row)
    session.flush()
    return row


def tags_of(
    session: Session, principal: Principal, name: str, *, after: str, limit: int
) -> list[TagPlace]:
    """The cube's tags with the digests they point to, by name, `limit` at most, those after `after`.

    Raises:
        UnauthenticatedError, NotFoundError: see `authorize`.
    """
    row = authorize(session, principal, name, Act.READ)
    query = (
        select(col(Tag.name), col(Manifest.digest), col(Tag.updated_at))
        .join(Manifest, col(Manifest.id) == Tag.manifest_id)
        .where(Tag.repository_id == row.id, col(Tag.name) > after)
        .order_by(col(Tag.name))
        .limit(limit)
    )
    return [TagPlace(*found) for found in session.exec(query)]


def delete_cube(session: Session, principal: Principal, name: str, now: datetime) -> None:
    """Remove every version of a cube, and what was uploaded for it.

    The name stays with its account, and a version that was published never comes back as another.

    Raises:
        UnauthenticatedError, ForbiddenError, NotFoundError: see `authorize`.
    """
    row = authorize(session, principal, name, Act.DELETE)
    if is_empty(session, row):
        raise NotFoundError(f"{name} holds nothing", hint="push to it, or leave it")
    _retire_tags(session, row, now)
    manifests = select(Manifest.id).where(Manifest.repository_id == row.id)
    for table in (ManifestBlob, ManifestChild):
        session.execute(delete(table).where(col(table.manifest_id).in_(manifests)))
    sizes = select(func.coalesce(func.sum(Manifest.size_bytes), 0))
    described = session.exec(sizes.where(Manifest.repository_id == row.id)).one()
    add_usage(session, row.account_id, -int(described))
    session.execute(delete(Manifest).where(col(Manifest.repository_id) == row.id))
    blobs.unlink_all(session, row)
    session.execute(delete(Countersigning).where(col(Countersigning.repository_id) == row.id))
    uploads = list(session.exec(select(Upload.id).where(Upload.repository_id == row.id)))
    session.execute(delete(Upload).where(col(Upload.repository_id) == row.id))
    remove_later(session, now, uploads=uploads)
    row.visibility = Visibility.PRIVATE
    session.add(row)
    session.flush()


def forget_if_unused(session: Session, repository_id: int) -> None:
    """Remove a cube's row where nothing was ever pushed to it, and nobody has made it public."""
    row = session.get_one(Repository, repository_id)
    lasting = (RetiredTag, Countersigning)
    if row.visibility is Visibility.PRIVATE and is_empty(session, row, *lasting):
        session.delete(row)
        session.flush()


def is_empty(session: Session, row: Repository, *further: type[SQLModel]) -> bool:
    """Whether the cube has neither manifests nor blobs nor uploads, nor anything in `further` tables."""
    tables: list[type[SQLModel]] = [Manifest, BlobLink, Upload, *further]
    keys = [table_of(table).c.repository_id for table in tables]
    return not any(
        session.execute(select_columns(exists().where(key == row.id))).scalar_one() for key in keys
    )


def _retire_tags(session: Session, row: Repository, now: datetime) -> None:
    assert row.id is not None
    query = (
        select(Tag.name, Manifest.digest)
        .join(Manifest, col(Manifest.id) == Tag.manifest_id)
        .where(Tag.repository_id == row.id)
    )
    retire(session, row.id, dict(session.exec(query).all()), now)


def _is_visible(principal: Principal) -> ColumnElement[bool]:
    public = col(Repository.visibility) == Visibility.PUBLIC
    if principal.is_anonymous:
        return public
    organisations = select(Membership.organisation_id).where(
        Membership.member_id == principal.account_id
    )
    owner = col(Repository.account_id)
    return or_(public, owner == principal.account_id, owner.in_(organisations))


def _is_in_scope(principal: Principal, row: Repository) -> bool:
    is_open = row.visibility is Visibility.PUBLIC and principal.reads_public
    return is_open or principal.may_try(Act.READ, row.name)
