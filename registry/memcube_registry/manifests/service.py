"""Manifests: pushed whole or not at all, kept byte for byte, found by tag or digest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    DigestMismatchError,
    InvalidManifestError,
    MissingContentError,
    NotFoundError,
)
from sqlalchemy import BindParameter, Column, Connection, Row, Select, bindparam, insert, update
from sqlalchemy import delete as delete_rows
from sqlmodel import Session, col, select

from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.service import add_usage, require_quota
from memcube_registry.blobs.models import Blob, BlobLink
from memcube_registry.blobs.service import STALE
from memcube_registry.catalog.models import Repository
from memcube_registry.countersigning.queue import note
from memcube_registry.database import Database, table_of
from memcube_registry.delivery.service import READABLE, Act, Part, authorize, read
from memcube_registry.manifests import tags
from memcube_registry.manifests.models import (
    COMMIT_CHARS,
    Manifest,
    ManifestBlob,
    ManifestChild,
    Tag,
    commit_of,
)
from memcube_registry.manifests.tags import ANYTHING, Expectation

Key = TypeVar("Key", int, str)

ABSENT_BLOBS: Final = ("nondistributable", ".foreign.")
"""Layers whose media type holds one of these lie elsewhere (image specification, "layers")."""
_KEYS_AT_ONCE: Final = 500
_NAMED: Final = 3


_M: Final = table_of(Manifest).c


class _ByReference(NamedTuple):
    """Two statements for `read` and the same columns. Made once, for that takes longer than running them."""

    by_digest: Select[Any]
    by_tag: Select[Any]

    @classmethod
    def of(cls, *columns: Column[Any]) -> _ByReference:
        cube, manifest, tag = table_of(Repository), table_of(Manifest), table_of(Tag)
        reference: BindParameter[str] = bindparam("reference")
        has_digest = (_M.repository_id == cube.c.id) & (_M.digest == reference)
        has_name = (tag.c.repository_id == cube.c.id) & (tag.c.name == reference)
        tagged = cube.outerjoin(tag, has_name).outerjoin(manifest, _M.id == tag.c.manifest_id)
        wanted = READABLE.add_columns(*columns)
        return cls(
            wanted.select_from(cube.outerjoin(manifest, has_digest)), wanted.select_from(tagged)
        )


_CONTENT: Final = _ByReference.of(_M.digest, _M.media_type, _M.size_bytes, _M.content)
_STATE: Final = _ByReference.of(
    _M.digest, _M.media_type, _M.size_bytes, _M.id, _M.used_at, _M.condemned_at
)


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it was pushed. `content` is empty where only its size was asked for."""

    digest: str
    media_type: str
    size_bytes: int
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Push:
    """A manifest that was parsed and whose digest was checked: what is left is the repository."""

    digest: Digest
    manifest: oci.Manifest | oci.Index
    tag_names: tuple[str, ...] = ()
    expected: Expectation = ANYTHING

    @property
    def subject(self) -> Digest | None:
        """What it refers to."""
        return self.manifest.subject.digest if self.manifest.subject else None


def read_push(
    raw: bytes,
    media_type: str | None,
    digest: Digest | None,
    names: Iterable[str],
    expected: Expectation = ANYTHING,
) -> Push:
    """The push of `raw` under `digest`, or under its SHA-256 digest where none is given.

    Raises:
        DigestMismatchError: `raw` has another digest.
        LimitExceededError, InvalidJsonError, InvalidManifestError, InvalidDigestError: see `oci.parse`.
    """
    actual = Digest.of(raw, digest.algorithm if digest else "sha256")
    if digest and actual != digest:
        raise DigestMismatchError(
            f"the manifest has digest {actual}, not {digest}",
            hint="push the exact bytes that the digest was taken over",
        )
    return Push(actual, oci.parse(raw, media_type), tuple(dict.fromkeys(names)), expected)


def push_again(
    session: Session,
    principal: Principal,
    name: str,
    digest: Digest,
    names: Iterable[str],
    expected: Expectation = ANYTHING,
) -> Push:
    """The push of a manifest that the repository holds: for tags without its bytes.

    Raises:
        NotFoundError: it holds none under `digest`, or the caller may not read it.
    """
    held = get(session.connection(), principal, name, digest)
    return read_push(held.content, held.media_type, digest, names, expected)


def put(session: Session, principal: Principal, name: str, push: Push, now: datetime) -> int | None:
    """Make the manifest visible in the repository, and its tags point to it, in one transaction.

    The repository's key where the registry's countersignature is due for it; else None.

    Raises:
        MissingContentError: the repository lacks a blob or manifest that it names.
        InvalidManifestError: it gives a blob another size than it has.
        ConflictError: a tag is immutable, or not where the push expects it; or another manifest has the
            same `commit`.
        QuotaExceededError: the account's storage is full.
        UnauthenticatedError, ForbiddenError, NotFoundError: see `authorize`.
    """
    repository = authorize(
        session, principal, name, Act.WRITE, digest=push.digest, part=Part.DESCRIPTION
    )
    assert principal.account_id is not None, "nobody may push without an account"
    return keep(session, repository, principal.account_id, push, now)


def keep(
    session: Session, repository: Repository, account_id: int, push: Push, now: datetime
) -> int | None:
    """As `put`, for the account `account_id`, whose right to do so is not asked for.

    Raises:
        MissingContentError, InvalidManifestError, ConflictError, QuotaExceededError: as `put`.
    """
    assert repository.id is not None
    blobs = _require_blobs(session, repository.id, push.manifest)
    children = _require_children(session, repository.id, push.manifest)
    row = _row(session, repository.id, str(push.digest))
    is_new = row is None
    if row is None:
        _require_own_commit(session, repository.id, push.digest)
        require_quota(session, repository.account_id, len(push.manifest.raw))
        row = _insert(session, account_id, repository.id, push, now)
        add_usage(session, repository.account_id, row.size_bytes)
        _refer(session, row, blobs, children)
    row.used_at, row.condemned_at = now, None
    _renew_links(session, repository.id, blobs, now)
    for tag in push.tag_names:
        tags.point(session, repository.id, tag, row, push.expected, now)
    is_due = note(session, repository.id, push.digest, push.manifest, now, is_new=is_new)
    session.flush()
    return repository.id if is_due else None


def get(
    connection: Connection, principal: Principal, name: str, reference: Digest | str
) -> StoredManifest:
    """The manifest that a digest or tag names.

    Raises:
        NotFoundError: there is none, or none that the caller may know of.
        UnauthenticatedError, ForbiddenError: see `authorize`.
    """
    row = _looked_up(connection, principal, name, reference, _CONTENT)
    return StoredManifest(row.digest, row.media_type, row.size_bytes, row.content)


def look(
    database: Database, principal: Principal, name: str, reference: Digest | str, now: datetime
) -> StoredManifest:
    """As `get`, for a HEAD: without content; who hears that it exists may rely on it for a while."""
    with database.glance() as connection:
        row = _looked_up(connection, principal, name, reference, _STATE)
    fading = isinstance(reference, Digest) and row.used_at < now - STALE
    if row.condemned_at is not None or fading:
        database.run(lambda session: _renew(session, row.id, row.digest, now))
    return StoredManifest(row.digest, row.media_type, row.size_bytes)


def delete(
    session: Session, principal: Principal, name: str, digest: Digest, now: datetime
) -> None:
    """Remove a manifest and every tag that points to it.

    Raises:
        NotFoundError: no such manifest.
        ConflictError: an index of the repository names it.
        UnauthenticatedError, ForbiddenError: see `authorize`.
    """
    repository = authorize(session, principal, name, Act.DELETE, digest=digest)
    assert repository.id is not None
    row = _row(session, repository.id, str(digest))
    if row is None:
        raise unknown_manifest(digest)
    parent = session.execute(
        select(Manifest.digest)
        .join(ManifestChild, col(ManifestChild.manifest_id) == Manifest.id)
        .where(Manifest.repository_id == repository.id, ManifestChild.child_digest == str(digest))
        .limit(1)
    ).scalar_one_or_none()
    if parent is not None:
        raise ConflictError(
            f"the index {parent} needs the manifest {digest}", hint="delete the index first"
        )
    tags.remove_all(session, row, now)
    remove(session, row, now)


def remove(session: Session, row: Manifest, now: datetime) -> None:
    """Remove an untagged manifest. Its blobs stay for a grace period: a push may be about to use them."""
    blobs = select(ManifestBlob.blob_id).where(ManifestBlob.manifest_id == row.id)
    session.execute(
        update(BlobLink)
        .where(col(BlobLink.repository_id) == row.repository_id, col(BlobLink.blob_id).in_(blobs))
        .values(used_at=now)
    )
    session.execute(delete_rows(ManifestBlob).where(col(ManifestBlob.manifest_id) == row.id))
    session.execute(delete_rows(ManifestChild).where(col(ManifestChild.manifest_id) == row.id))
    owner = session.get_one(Repository, row.repository_id).account_id
    add_usage(session, owner, -row.size_bytes)
    session.delete(row)
    session.flush()


def unknown_manifest(reference: Digest | str) -> NotFoundError:
    """The error of a manifest that a repository does not hold."""
    return NotFoundError(
        f"this repository holds no manifest {reference}",
        hint="check the tag or digest: `memcube ls NAME` lists what there is",
    )


def _looked_up(
    connection: Connection,
    principal: Principal,
    name: str,
    reference: Digest | str,
    statements: _ByReference,
) -> Row[Any]:
    digest = reference if isinstance(reference, Digest) else None
    statement = statements.by_digest if digest else statements.by_tag
    values = {"reference": str(reference)}
    row = read(connection, principal, name, statement, values, digest=digest, part=Part.DESCRIPTION)
    if row.digest is None:
        raise unknown_manifest(reference)
    return row


def _row(session: Session, repository_id: int, digest: str) -> Manifest | None:
    return session.exec(
        select(Manifest).where(Manifest.repository_id == repository_id, Manifest.digest == digest)
    ).one_or_none()


def _require_own_commit(session: Session, repository_id: int, digest: Digest) -> None:
    query = select(Manifest.digest).where(
        Manifest.repository_id == repository_id, Manifest.commit == commit_of(digest)
    )
    other = session.execute(query).scalar_one_or_none()
    if other is not None:
        raise ConflictError(
            f"the manifest {other} begins with the same {COMMIT_CHARS} hex digits as {digest}",
            hint="change anything in the manifest: both would be the same commit to Git's users",
        )


def _renew(session: Session, manifest_id: int, digest: str, now: datetime) -> None:
    row = session.get(Manifest, manifest_id)
    if row is None:
        raise unknown_manifest(digest)
    row.used_at, row.condemned_at = now, None
    session.add(row)


def _insert(
    session: Session, account_id: int, repository_id: int, push: Push, now: datetime
) -> Manifest:
    row = Manifest(
        repository_id=repository_id,
        digest=str(push.digest),
        commit=commit_of(push.digest),
        media_type=push.manifest.media_type,
        artifact_type=push.manifest.effective_artifact_type,
        annotations=dict(push.manifest.annotations),
        size_bytes=len(push.manifest.raw),
        content=push.manifest.raw,
        subject_digest=str(push.subject) if push.subject else None,
        account_id=account_id,
        created_at=now,
        used_at=now,
    )
    session.add(row)
    session.flush()
    return row


def _refer(session: Session, row: Manifest, blobs: Sequence[int], children: Sequence[str]) -> None:
    if blobs:
        session.execute(
            insert(ManifestBlob), [{"manifest_id": row.id, "blob_id": blob} for blob in blobs]
        )
    if children:
        session.execute(
            insert(ManifestChild),
            [{"manifest_id": row.id, "child_digest": child} for child in children],
        )


def _require_blobs(
    session: Session, repository_id: int, manifest: oci.Manifest | oci.Index
) -> list[int]:
    """Keys of the blobs that the manifest names and the repository must hold."""
    if isinstance(manifest, oci.Index):
        return []
    sizes = {
        str(blob.digest): blob.size
        for blob in manifest.blobs
        if not any(kind in blob.media_type for kind in ABSENT_BLOBS)
    }
    found: dict[str, tuple[int, int]] = {}
    for digests in _portions(list(sizes)):
        query = (
            select(Blob.digest, Blob.id, Blob.size_bytes)
            .join(BlobLink, col(BlobLink.blob_id) == Blob.id)
            .where(
                BlobLink.repository_id == repository_id,
                col(Blob.digest).in_(digests),
                col(Blob.lost_at).is_(None),
            )
        )
        found.update({row[0]: (row[1], row[2]) for row in session.execute(query)})
    _require_all("blobs", sizes, found)
    for digest, size in sizes.items():
        if found[digest][1] != size:
            raise InvalidManifestError(
                f"the manifest gives blob {digest} {size} bytes, it has {found[digest][1]}",
                hint="write the blob's true size into its descriptor",
            )
    return [key for key, _ in found.values()]


def _require_children(
    session: Session, repository_id: int, manifest: oci.Manifest | oci.Index
) -> list[str]:
    """Digests of the manifests that an index names and the repository must hold."""
    if isinstance(manifest, oci.Manifest):
        return []
    wanted = list(dict.fromkeys(str(child.digest) for child in manifest.manifests))
    found: set[str] = set()
    for digests in _portions(wanted):
        query = select(Manifest.digest).where(
            Manifest.repository_id == repository_id, col(Manifest.digest).in_(digests)
        )
        found.update(session.exec(query))
    _require_all("manifests", wanted, found)
    return wanted


def _require_all(what: str, wanted: Iterable[str], found: Iterable[str]) -> None:
    held = set(found)
    missing = [digest for digest in wanted if digest not in held]
    if missing:
        shown = ", ".join(missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
        raise MissingContentError(
            f"the repository lacks {len(missing)} {what} that the manifest names: {shown}",
            hint=f"push the {what} to this repository first",
        )


def _renew_links(session: Session, repository_id: int, blobs: Sequence[int], now: datetime) -> None:
    for keys in _portions(blobs):
        session.execute(
            update(BlobLink)
            .where(col(BlobLink.repository_id) == repository_id, col(BlobLink.blob_id).in_(keys))
            .values(used_at=now, condemned_at=None)
        )


def _portions(items: Sequence[Key]) -> Iterable[Sequence[Key]]:
    return (items[at : at + _KEYS_AT_ONCE] for at in range(0, len(items), _KEYS_AT_ONCE))
