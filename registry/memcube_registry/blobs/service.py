"""Blobs per repository: who may see, mount and delete them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError, MemcubeError, NotFoundError
from sqlalchemy import ColumnElement, Connection, bindparam, exists, func
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, or_, select

from memcube_registry.accounts.models import Membership
from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.service import add_usage, take_room
from memcube_registry.blobs.models import Blob, BlobLink
from memcube_registry.catalog.models import Repository, Visibility
from memcube_registry.database import Database, table_of
from memcube_registry.delivery.service import READABLE, Act, Form, authorize, read, require_allowed
from memcube_registry.manifests.models import Manifest as ManifestRow
from memcube_registry.manifests.models import ManifestBlob

STALE: Final = timedelta(minutes=10)
"""How old the last use of something unreferenced may be before looking at it renews it."""
_MOUNT_SOURCES: Final = 16


_BLOB: Final = table_of(Blob).c
_LINK: Final = table_of(BlobLink).c
# Made once: putting a statement together takes longer than running it.
_CUBE: Final = table_of(Repository)
_LINKED: Final = READABLE.add_columns(
    _BLOB.id, _BLOB.size_bytes, _BLOB.location, _BLOB.lost_at, _LINK.form
).select_from(
    _CUBE.outerjoin(table_of(Blob), _BLOB.digest == bindparam("digest")).outerjoin(
        table_of(BlobLink), (_LINK.blob_id == _BLOB.id) & (_LINK.repository_id == _CUBE.c.id)
    )
)


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob that the caller may have, where it lies, and the key of its link."""

    digest: Digest
    size_bytes: int
    location: str
    link: tuple[int, int]
    form: Form = Form.OPEN


def find(connection: Connection, principal: Principal, name: str, digest: Digest) -> StoredBlob:
    """The blob of that digest in repository `name`, once the caller may read it.

    Raises:
        NotFoundError: no such blob in this repository, or none that the caller may know of, or its
            bytes are known to be lost.
        UnauthenticatedError, ForbiddenError, PaymentRequiredError: see `authorize`.
    """
    values = {"digest": str(digest)}
    row = read(connection, principal, name, _LINKED, values, digest=digest)
    if row.form is None:
        raise unknown_blob(digest)
    if row.lost_at is not None:
        raise lost_blob(digest)
    link = (row.repository_id, row.id)
    return StoredBlob(digest, row.size_bytes, row.location, link, row.form)


def look(
    database: Database, principal: Principal, name: str, digest: Digest, now: datetime
) -> StoredBlob:
    """As `find`, for a HEAD: whoever hears that the blob exists may rely on it for a while."""
    with database.read() as session:
        blob = find(session.connection(), principal, name, digest)
        fading = session.execute(
            select(BlobLink.blob_id).where(_is(blob.link), _is_fading(now))
        ).one_or_none()
    if fading is None:
        return blob

    def renew(session: Session) -> StoredBlob:
        again = find(session.connection(), principal, name, digest)
        touch(session, again.link, now)
        return again

    return database.run(renew)


def mount(
    session: Session,
    principal: Principal,
    name: str,
    digest: Digest,
    source: str | None,
    now: datetime,
) -> StoredBlob | None:
    """Link a blob of `source` to `name`, or of any repository the caller may read where none is named.

    None where the caller may not read it anywhere: then it has to be uploaded.

    Raises:
        UnauthenticatedError, ForbiddenError, NotFoundError: the caller may not write to `name`.
        QuotaExceededError: the account's storage is full.
    """
    # Nothing is made for a blob that comes from nowhere: its upload may yet be refused.
    require_allowed(session, principal, name, Act.WRITE, digest=digest)
    sources = [source] if source is not None else _holders(session, principal, digest)
    for candidate in sources:
        try:
            blob = find(session.connection(), principal, candidate, digest)
        except MemcubeError:
            # Refused, hidden and absent must look alike, or a mount would tell them apart.
            continue
        if blob.form is not Form.OPEN:
            continue
        row = session.get_one(Blob, blob.link[1])
        target = authorize(session, principal, name, Act.WRITE, digest=digest)
        link(session, target, row, now)
        return blob
    return None


def delete(session: Session, principal: Principal, name: str, digest: Digest) -> None:
    """Take the blob out of the repository; its bytes go when no repository links them.

    Raises:
        NotFoundError: no such blob in this repository.
        ConflictError: a manifest of the repository needs it.
        UnauthenticatedError: see `authorize`.
    """
    repository = authorize(session, principal, name, Act.DELETE, digest=digest)
    row = session.exec(
        select(Blob)
        .join(BlobLink, col(BlobLink.blob_id) == Blob.id)
        .where(BlobLink.repository_id == repository.id, Blob.digest == str(digest))
    ).one_or_none()
    if row is None:
        raise unknown_blob(digest)
    if session.execute(select(is_named_by_a_manifest(repository.id, row.id))).scalar_one():
        raise ConflictError(
            f"a manifest of {name} needs the blob {digest}",
            hint="delete the manifest first; garbage collection then takes the blob by itself",
        )
    unlink(session, repository, row)


def link(
    session: Session, repository: Repository, blob: Blob, now: datetime, form: Form = Form.OPEN
) -> None:
    """Make `blob` visible in `repository`, and count it for the account if it is its first link.

    Raises:
        QuotaExceededError: the account's storage is full.
    """
    key = (require_id(repository), require_id(blob))
    if session.get(BlobLink, key) is not None:
        touch(session, key, now)
        return
    held = _account_holds(session, repository, blob)
    session.add(BlobLink(repository_id=key[0], blob_id=key[1], form=form, used_at=now))
    session.flush()
    if not held:
        # Last, for others wait for this row, or have to begin anew: it is the one that all pushes change.
        take_room(session, repository.account_id, blob.size_bytes)


def unlink(session: Session, repository: Repository, blob: Blob) -> None:
    """Hide `blob` from `repository`, and stop counting it if that was the account's last link."""
    row = session.get_one(BlobLink, (repository.id, blob.id))
    session.delete(row)
    session.flush()
    if not _account_holds(session, repository, blob):
        add_usage(session, repository.account_id, -blob.size_bytes)


def unlink_all(session: Session, repository: Repository) -> None:
    """`unlink` for every blob of the repository, in few statements: there may be any number."""
    beside, elsewhere = aliased(BlobLink), aliased(Repository)
    still_held = exists().where(
        col(beside.blob_id) == BlobLink.blob_id,
        col(elsewhere.id) == beside.repository_id,
        col(elsewhere.account_id) == repository.account_id,
        col(elsewhere.id) != repository.id,
    )
    here = col(BlobLink.repository_id) == repository.id
    freed = (
        select(func.coalesce(func.sum(Blob.size_bytes), 0))
        .join(BlobLink, col(BlobLink.blob_id) == Blob.id)
        .where(here, ~still_held)
    )
    freed_bytes = int(session.exec(freed).one())
    session.execute(delete_rows(BlobLink).where(here))
    add_usage(session, repository.account_id, -freed_bytes)


def touch(session: Session, key: tuple[int, int], now: datetime) -> None:
    """Note that a push relies on a link: it is no longer condemned, if it was."""
    row = session.get_one(BlobLink, key)
    row.used_at, row.condemned_at = now, None
    session.add(row)


def is_named_by_a_manifest(repository_id: Any, blob_id: Any) -> ColumnElement[bool]:
    """Condition: a manifest of the repository names the blob. Takes keys or columns."""
    return exists().where(
        col(ManifestBlob.blob_id) == blob_id,
        col(ManifestBlob.manifest_id) == ManifestRow.id,
        col(ManifestRow.repository_id) == repository_id,
    )


def unknown_blob(digest: Digest) -> NotFoundError:
    """The error of a blob that a repository does not hold."""
    return NotFoundError(f"this repository holds no blob {digest}", hint="push it first")


def lost_blob(digest: Digest) -> NotFoundError:
    """The error of a blob whose bytes a check found to be lost."""
    return NotFoundError(f"the bytes of blob {digest} are lost", hint="push the blob again")


def require_id(row: Repository | Blob) -> int:
    """The key of a row that was read from the database."""
    assert row.id is not None, "the row was never written"
    return row.id


def _is(key: tuple[int, int]) -> ColumnElement[bool]:
    return (col(BlobLink.repository_id) == key[0]) & (col(BlobLink.blob_id) == key[1])


def _is_fading(now: datetime) -> ColumnElement[bool]:
    unnamed = ~is_named_by_a_manifest(col(BlobLink.repository_id), col(BlobLink.blob_id))
    return col(BlobLink.condemned_at).is_not(None) | (
        (col(BlobLink.used_at) < now - STALE) & unnamed
    )


def _account_holds(session: Session, repository: Repository, blob: Blob) -> bool:
    held = (
        select(BlobLink.blob_id)
        .join(Repository, col(Repository.id) == BlobLink.repository_id)
        .where(BlobLink.blob_id == blob.id, Repository.account_id == repository.account_id)
        .limit(1)
    )
    return session.execute(held).first() is not None


def _holders(session: Session, principal: Principal, digest: Digest) -> list[str]:
    """Some repositories that link the blob and the caller may know of, the caller's own first.

    To ask others and be refused would take time, by which a stranger learns that somebody holds the blob.
    """
    joined = select(Membership.organisation_id).where(Membership.member_id == principal.account_id)
    owner = col(Repository.account_id)
    is_known = or_(
        col(Repository.visibility) == Visibility.PUBLIC,
        owner == principal.account_id,
        owner.in_(joined),
    )
    query = (
        select(Repository.name)
        .join(BlobLink, col(BlobLink.repository_id) == Repository.id)
        .join(Blob, col(Blob.id) == BlobLink.blob_id)
        .where(Blob.digest == str(digest), BlobLink.form == Form.OPEN, is_known)
        .order_by(
            (col(Repository.account_id) != principal.account_id),
            col(Repository.visibility).desc(),
            col(Repository.id),
        )
        .limit(_MOUNT_SOURCES)
    )
    return list(session.exec(query))
