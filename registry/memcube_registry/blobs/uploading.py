"""Upload sessions: bound to a repository and an account, alive across restarts, counted from the start.

Order of a push, so that a crash between any two steps leaves nothing half visible:
bytes in the store → file and folder durable → one transaction makes the blob visible and ends the
session. What a crash leaves behind is swept by `manifests.collecting`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    DiskFullError,
    MemcubeError,
    NotFoundError,
    QuotaExceededError,
    StorageError,
    UnavailableError,
)
from sqlalchemy import Connection, delete, func, update
from sqlmodel import Session, col, select

from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.service import require_quota
from memcube_registry.blobs.models import Blob, Upload
from memcube_registry.blobs.removing import remove_later
from memcube_registry.blobs.service import link
from memcube_registry.catalog.models import Repository
from memcube_registry.catalog.service import forget_if_unused
from memcube_registry.database import Database
from memcube_registry.delivery.service import Act, authorize, require_allowed
from memcube_registry.storage import BlobStore, size_at

BLOB_BYTES: Final = 5000 << 30
"""The largest blob: sums of what many announce stay far below what a column holds."""
OPEN_MAX: Final = 1000
"""How many uploads one account may have begun and not ended: each costs a row and a file."""


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """An upload that the caller may continue, with the bytes it already has."""

    id: str
    repository: str
    repository_id: int
    owner_id: int
    """The account whose storage it counts against: the namespace's."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class NewBlob:
    """A finished object that no row names yet: durable in the store, known to have `digest`."""

    digest: Digest
    size_bytes: int
    location: str


def begin(session: Session, principal: Principal, name: str, now: datetime) -> OpenUpload:
    """A new upload to repository `name`, which is created if the caller may do so.

    Raises:
        UnauthenticatedError, ForbiddenError, NotFoundError: see `authorize`.
        QuotaExceededError: the account's storage is full already.
    """
    repository = authorize(session, principal, name, Act.WRITE)
    assert repository.id is not None
    assert principal.account_id is not None, "nobody may push without an account"
    require_quota(session, repository.account_id, 0)
    row = Upload(
        id=uuid.uuid4().hex,
        repository_id=repository.id,
        account_id=principal.account_id,
        created_at=now,
        used_at=now,
    )
    session.add(row)
    session.flush()
    return OpenUpload(row.id, name, repository.id, repository.account_id, 0)


def has_few_open(connection: Connection, principal: Principal) -> bool:
    """Whether the caller may begin another upload; asked before, not while, beginning.

    Serialisable transactions that count what the others add would all but one be run again.
    """
    count = select(func.count()).where(Upload.account_id == principal.account_id)
    found: int = connection.execute(count).scalar_one()
    return found < OPEN_MAX


def too_many_open() -> QuotaExceededError:
    """The refusal of an upload too many."""
    return QuotaExceededError(
        f"you have {OPEN_MAX} uploads open",
        hint="finish or cancel some of them; those that nobody uses end by themselves",
    )


def resume(
    database: Database, store: BlobStore, principal: Principal, name: str, upload_id: str
) -> OpenUpload:
    """The upload as it stands, for the account that began it.

    Raises:
        NotFoundError: no such upload by this account to this repository.
        UnauthenticatedError, ForbiddenError: see `authorize`.
    """
    with database.read() as session:
        upload = _own(session, principal, name, upload_id)
    return replace(upload, size_bytes=store.size(upload_id))


def _own(session: Session, principal: Principal, name: str, upload_id: str) -> OpenUpload:
    # A cube that nothing was pushed to goes with its last upload: none is made to look for one.
    repository = require_allowed(session, principal, name, Act.WRITE)
    row = session.get(Upload, upload_id)
    mine = row is not None and row.account_id == principal.account_id
    if repository is None or row is None or row.repository_id != repository.id:
        raise unknown_upload(upload_id)
    if row.is_direct or not mine:
        raise unknown_upload(upload_id)
    return OpenUpload(row.id, name, row.repository_id, repository.account_id, row.size_bytes)


def unknown_upload(upload_id: str) -> NotFoundError:
    """The error of an upload that is over, was never begun, or is somebody else's."""
    return NotFoundError(
        f"there is no upload {upload_id[:32]!r} of yours here", hint="start a new upload"
    )


def require_room(session: Session, upload: OpenUpload, extra_bytes: int) -> None:
    """Refuse `extra_bytes` more of this upload if the account's storage cannot take them.

    What its other uploads hold or have announced counts as if it were stored.

    Raises:
        QuotaExceededError: they do not fit.
    """
    others = session.execute(
        select(func.coalesce(func.sum(Upload.size_bytes), 0))
        .join(Repository, col(Repository.id) == Upload.repository_id)
        .where(Repository.account_id == upload.owner_id, Upload.id != upload.id)
    ).scalar_one()
    require_quota(session, upload.owner_id, int(others) + upload.size_bytes + extra_bytes)


def announce(session: Session, upload: OpenUpload, extra_bytes: int, now: datetime) -> None:
    """Reserve room for `extra_bytes` more of this upload before they are read.

    Raises:
        QuotaExceededError: they do not fit.
        LimitExceededError: no blob may have so many.
    """
    limits.require_at_most("blob", upload.size_bytes + extra_bytes, BLOB_BYTES)
    require_room(session, upload, extra_bytes)
    record(session, upload.id, upload.size_bytes + extra_bytes, now)


def record(session: Session, upload_id: str, size_bytes: int, now: datetime) -> None:
    """Note how many bytes an upload holds, or is about to."""
    session.execute(
        update(Upload).where(col(Upload.id) == upload_id).values(size_bytes=size_bytes, used_at=now)
    )


def end(session: Session, upload_id: str) -> bool:
    """End an upload that came to nothing, and with it a cube that it alone was for; whether it was there."""
    row = session.get(Upload, upload_id)
    if row is None:
        return False
    session.delete(row)
    session.flush()
    forget_if_unused(session, row.repository_id)
    return True


def cancel(
    database: Database, store: BlobStore, principal: Principal, name: str, upload_id: str
) -> None:
    """Forget an upload and its bytes: they go last, after the transaction that forgets it.

    Raises:
        NotFoundError: no such upload by this account to this repository.
    """

    def forget(session: Session) -> None:
        upload = _own(session, principal, name, upload_id)
        end(session, upload.id)

    database.run(forget)
    store.abort(upload_id)


def complete(
    database: Database,
    store: BlobStore,
    principal: Principal,
    upload: OpenUpload,
    blob: NewBlob,
    now: datetime,
) -> None:
    """Make an upload's finished object a blob of its repository, and end the upload.

    Where the same blob is known already its bytes stay, unless they are lost: then these take their place.

    Raises:
        ConflictError: the upload was ended by somebody else meanwhile.
        QuotaExceededError: the account's storage is full.
        UnauthenticatedError, ForbiddenError, NotFoundError: see `authorize`.
    """

    def publish(session: Session, lost: str | None, *, is_sure: bool) -> bool | Blob:
        held = _held(session, blob.digest)
        if held is not None and held.lost_at is None and not is_sure:
            return held
        repository = authorize(session, principal, upload.repository, Act.WRITE, digest=blob.digest)
        ended = session.execute(delete(Upload).where(col(Upload.id) == upload.id))
        if not ended.rowcount:  # type: ignore[attr-defined]
            raise ConflictError("the upload has just ended", hint="start a new upload")
        row = _kept(session, held, blob, now, lost)
        link(session, repository, row, now)
        return row.location == blob.location

    def run(lost: str | None, *, is_sure: bool) -> bool | Blob:
        return database.run(lambda s: publish(s, lost, is_sure=is_sure), lane=upload.owner_id)

    try:
        kept = run(None, is_sure=False)
        if isinstance(kept, Blob):
            # Nothing was changed yet: the store may take its time, and the upload's row holds the bytes.
            kept = run(kept.location if _is_lost(store, kept) else None, is_sure=True)
    except (ConflictError, UnavailableError, DiskFullError):
        # Whether the commit was reached is not known: the sweep of orphans finds out.
        raise
    except MemcubeError:
        discard(database, store, upload.id, blob.location)
        raise
    if not kept:
        store.delete(blob.location)


def keep(session: Session, blob: NewBlob, now: datetime) -> Blob:
    """The row of the blob: a new one, or the one that is there, with the new bytes if its own are marked as lost."""
    return _kept(session, _held(session, blob.digest), blob, now)


def _held(session: Session, digest: Digest) -> Blob | None:
    return session.exec(select(Blob).where(Blob.digest == str(digest))).one_or_none()


def _kept(
    session: Session, row: Blob | None, blob: NewBlob, now: datetime, lost: str | None = None
) -> Blob:
    """As `keep`, of the row that is there; its bytes are missing as well if they should lie at `lost`."""
    if row is None:
        row = Blob(
            digest=str(blob.digest),
            size_bytes=blob.size_bytes,
            location=blob.location,
            created_at=now,
        )
    elif row.lost_at is not None or row.location == lost:
        if row.location != blob.location:
            remove_later(session, now, objects=[row.location])
        row.location, row.lost_at = blob.location, None
    session.add(row)
    session.flush()
    return row


def _is_lost(store: BlobStore, row: Blob) -> bool:
    """Whether the store is known not to have the blob, or not whole."""
    try:
        return size_at(store, row.location, row.size_bytes) != row.size_bytes
    except NotFoundError:
        return True
    except (StorageError, UnavailableError):
        return False  # nobody knows; a check finds out


def discard(database: Database, store: BlobStore, upload_id: str, location: str) -> None:
    """End an upload that came to nothing, with what was made of it at `location`.

    Only whoever ends it removes the bytes: another request may have made them a blob a moment ago, and
    none does once the row is gone.
    """
    if database.run(lambda session: end(session, upload_id)):
        store.abort(upload_id)
        store.delete(location)
