"""Whether the rows of the database fit each other: manifests, tags, links, and what accounts use.

Every portion is read in one transaction, so what is pushed and deleted meanwhile is no finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError
from sqlalchemy import Select, exists, func, select, text, union_all
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from memcube_registry.accounts.models import Account
from memcube_registry.blobs.models import Blob, BlobLink
from memcube_registry.catalog.models import Repository
from memcube_registry.checking.findings import Findings, Rule
from memcube_registry.database import Database
from memcube_registry.manifests.models import Manifest, ManifestBlob, ManifestChild, Tag, commit_of
from memcube_registry.manifests.service import ABSENT_BLOBS

_Blobs: TypeAlias = dict[str, tuple[int, bool]]
_Children: TypeAlias = dict[str, bool]
_MANIFESTS: Final = 32
"""At once: a manifest may have megabytes."""


def check_references(database: Database, findings: Findings) -> None:
    """Check every row that refers to another."""
    _check_database(database, findings)
    last = 0
    while (found := _check_page(database, last, findings)) is not None:
        last = found
    _check_tags(database, findings)
    _check_usage(database, findings)


def _check_database(database: Database, findings: Findings) -> None:
    """SQLite's own check of its file. PostgreSQL checks its pages itself, where they have checksums."""
    if not database.is_sqlite:
        return
    with database.read() as session:
        connection = session.connection()
        for row in connection.execute(text("PRAGMA quick_check(100)")):
            if row[0] != "ok":
                findings.add(Rule.DATABASE, "SQLite", str(row[0]))
        for row in connection.execute(text("PRAGMA foreign_key_check")):
            findings.add(Rule.DATABASE, f"{row[0]} row {row[1]}", f"names no row of {row[2]}")


def _check_page(database: Database, after: int, findings: Findings) -> int | None:
    """Check some manifests; the key of the last one, None where there were no more."""
    query = (
        select(Manifest, col(Repository.name))
        .join(Repository, col(Repository.id) == Manifest.repository_id)
        .where(col(Manifest.id) > after)
        .order_by(col(Manifest.id))
        .limit(_MANIFESTS)
    )
    with database.read() as session:
        page = session.execute(query).all()
        keys = [row.id for row, _ in page]
        blobs, children = _noted_blobs(session, keys), _noted_children(session, keys)
    for row, name in page:
        findings.count("manifests")
        what = f"{name}@{row.digest}"
        parsed = _check_bytes(row, what, findings)
        if parsed is not None:
            _check_blobs(parsed, blobs.get(row.id, {}), what, findings)
            _check_children(parsed, children.get(row.id, {}), what, findings)
    return keys[-1] if keys else None


def _noted_blobs(session: Session, manifests: Sequence[int]) -> dict[int, _Blobs]:
    """By manifest, the blobs noted for it: their sizes, and whether its repository links them."""
    linked = exists().where(
        col(BlobLink.blob_id) == Blob.id, col(BlobLink.repository_id) == Manifest.repository_id
    )
    query = (
        select(col(ManifestBlob.manifest_id), col(Blob.digest), col(Blob.size_bytes), linked)
        .join(Blob, col(Blob.id) == ManifestBlob.blob_id)
        .join(Manifest, col(Manifest.id) == ManifestBlob.manifest_id)
        .where(col(ManifestBlob.manifest_id).in_(manifests))
    )
    found: dict[int, _Blobs] = {}
    for key, digest, size, is_linked in session.execute(query):
        found.setdefault(key, {})[digest] = (size, bool(is_linked))
    return found


def _noted_children(session: Session, manifests: Sequence[int]) -> dict[int, _Children]:
    """By index, the manifests noted as its children, and whether its repository holds them."""
    child = aliased(Manifest)
    held = exists().where(
        col(child.repository_id) == Manifest.repository_id,
        col(child.digest) == ManifestChild.child_digest,
    )
    query = (
        select(col(ManifestChild.manifest_id), col(ManifestChild.child_digest), held)
        .join(Manifest, col(Manifest.id) == ManifestChild.manifest_id)
        .where(col(ManifestChild.manifest_id).in_(manifests))
    )
    found: dict[int, _Children] = {}
    for key, digest, is_held in session.execute(query):
        found.setdefault(key, {})[digest] = bool(is_held)
    return found


def _check_bytes(row: Manifest, what: str, findings: Findings) -> oci.Manifest | oci.Index | None:
    """What the manifest's bytes say, if they are those of its digest."""
    try:
        expected = Digest.parse(row.digest)
        actual = Digest.of(row.content, expected.algorithm)
        parsed = oci.parse(row.content, row.media_type)
    except MemcubeError as error:
        findings.add(Rule.MANIFEST_BYTES, what, str(error))
        return None
    if actual != expected:
        findings.add(Rule.MANIFEST_BYTES, what, f"its bytes have digest {actual}")
        return None
    subject = str(parsed.subject.digest) if parsed.subject else None
    noted, true = (
        (row.size_bytes, row.subject_digest, row.commit),
        (len(row.content), subject, commit_of(actual)),
    )
    if noted != true:
        findings.add(Rule.MANIFEST_FIELDS, what, "its row gives another size, subject or commit")
    return parsed


def _check_blobs(
    parsed: oci.Manifest | oci.Index, found: _Blobs, what: str, findings: Findings
) -> None:
    """Its blobs have rows of the right size, linked to its repository and noted as its own."""
    blobs = parsed.blobs if isinstance(parsed, oci.Manifest) else ()
    wanted = {
        str(blob.digest): blob.size
        for blob in blobs
        if not any(kind in blob.media_type for kind in ABSENT_BLOBS)
    }
    for digest in wanted.keys() ^ found.keys():
        side = "is not noted for it" if digest in wanted else "is noted for it by mistake"
        findings.add(Rule.MANIFEST_BLOBS, what, f"blob {digest} {side}")
    for digest in wanted.keys() & found.keys():
        size, is_linked = found[digest]
        if not is_linked:
            findings.add(Rule.MANIFEST_BLOBS, what, f"blob {digest} is not in its repository")
        if size != wanted[digest]:
            findings.add(Rule.MANIFEST_BLOBS, what, f"blob {digest} has {size} bytes")


def _check_children(
    parsed: oci.Manifest | oci.Index, found: _Children, what: str, findings: Findings
) -> None:
    """The manifests that an index names are in its repository, and noted as its children."""
    children = parsed.manifests if isinstance(parsed, oci.Index) else ()
    wanted = {str(child.digest) for child in children}
    for digest in wanted ^ found.keys():
        findings.add(Rule.MANIFEST_CHILDREN, what, f"manifest {digest} is not noted alike")
    for digest in (digest for digest, is_held in found.items() if not is_held):
        findings.add(Rule.MANIFEST_CHILDREN, what, f"its repository lacks manifest {digest}")


def _check_tags(database: Database, findings: Findings) -> None:
    """Every tag leads to a manifest of its own repository."""
    strays = (
        select(col(Repository.name), col(Tag.name))
        .outerjoin(Manifest, col(Manifest.id) == Tag.manifest_id)
        .join(Repository, col(Repository.id) == Tag.repository_id)
        .where(col(Manifest.id).is_(None) | (col(Manifest.repository_id) != col(Tag.repository_id)))
    )
    with database.read() as session:
        findings.count("tags", session.execute(select(func.count()).select_from(Tag)).scalar_one())
        for repository, tag in session.execute(strays):
            findings.add(Rule.TAG, f"{repository}:{tag}", "leads to no manifest of its repository")


def _check_usage(database: Database, findings: Findings) -> None:
    """What an account is said to use is what its manifests and blobs have."""
    with database.read() as session:
        stored = dict(_stored_bytes(session))
        accounts = session.execute(
            select(col(Account.id), col(Account.name), col(Account.used_bytes))
        )
        for key, name, used in accounts:
            findings.count("accounts")
            if used != stored.get(key, 0):
                detail = f"is said to use {used} bytes, but stores {stored.get(key, 0)}"
                findings.add(Rule.USAGE, name, detail)


def _stored_bytes(session: Session) -> Iterable[tuple[int, int]]:
    """Bytes by account: of its manifests, and of each blob linked to its repositories, once."""
    manifests: Select[Any] = select(
        col(Repository.account_id).label("account"), col(Manifest.size_bytes).label("size")
    ).join(Manifest, col(Manifest.repository_id) == Repository.id)  # type: ignore[assignment]
    linked = (
        select(col(Repository.account_id).label("account"), col(BlobLink.blob_id).label("blob"))
        .join(BlobLink, col(BlobLink.repository_id) == Repository.id)
        .distinct()
        .subquery()
    )
    blobs = select(linked.c.account, col(Blob.size_bytes).label("size")).join(
        Blob, col(Blob.id) == linked.c.blob
    )
    both = union_all(manifests, blobs).subquery()
    total = select(both.c.account, func.sum(both.c.size)).group_by(both.c.account)
    return [(account, int(size)) for account, size in session.execute(total)]
