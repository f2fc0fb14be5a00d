"""Attaching a statement of the registry's own: bytes into the store, then one transaction shows all of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime

from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError
from sqlmodel import Session, col, select

from memcube_registry.blobs import uploading
from memcube_registry.blobs.models import Blob, Upload
from memcube_registry.blobs.service import link
from memcube_registry.blobs.uploading import NewBlob
from memcube_registry.catalog.models import Repository
from memcube_registry.countersigning.models import Countersigning
from memcube_registry.countersigning.queue import Key
from memcube_registry.database import Database
from memcube_registry.manifests import service as manifests
from memcube_registry.manifests.models import Manifest
from memcube_registry.manifests.service import Push
from memcube_registry.storage import BlobStore


def attach(
    database: Database,
    store: BlobStore,
    key: Key,
    manifest: oci.Manifest,
    contents: Mapping[Digest, bytes],
    now: datetime,
) -> bool:
    """Make `manifest` and its blobs visible, and the countersigning of `key` made; False: it was already.

    Killed before the transaction, it leaves bytes that nobody knows, which garbage collection sweeps.

    Raises:
        QuotaExceededError, StorageError, ConflictError, UnavailableError: not now.
    """
    uploads = database.run(lambda session: _begun(session, key[0], contents, now))
    locations = {
        digest: _written(store, upload, contents[digest]) for digest, upload in uploads.items()
    }

    def show(session: Session) -> set[Digest]:
        row = session.get(Countersigning, key)
        _end(session, uploads.values())
        if row is None or is_made(session, row):
            return set()
        repository = session.get_one(Repository, key[0])
        used = {
            digest
            for digest, content in contents.items()
            if _link(session, repository, digest, locations.get(digest), len(content), now)
        }
        push = Push(manifest.digest, manifest)
        manifests.keep(session, repository, repository.account_id, push, now)
        row.made, row.refused = str(manifest.digest), None
        session.add(row)
        return used | {manifest.digest}

    used = database.run(show)
    for digest in locations.keys() - used:
        store.delete(locations[digest])
    return bool(used)


def is_made(session: Session, row: Countersigning) -> bool:
    """Whether the repository holds the manifest that was made for `row`."""
    query = select(col(Manifest.id)).where(
        Manifest.repository_id == row.repository_id, Manifest.digest == row.made
    )
    return row.made is not None and session.exec(query).first() is not None


def _is_held(session: Session, digest: Digest) -> bool:
    query = select(Blob.id).where(Blob.digest == str(digest), col(Blob.lost_at).is_(None))
    return session.exec(query).first() is not None


def _begun(
    session: Session, repository_id: int, contents: Iterable[Digest], now: datetime
) -> dict[Digest, str]:
    """Uploads of what is not stored yet: rows that keep its bytes from being taken for orphans."""
    account_id = session.get_one(Repository, repository_id).account_id
    uploads = {digest: uuid.uuid4().hex for digest in contents if not _is_held(session, digest)}
    for upload in uploads.values():
        session.add(
            Upload(
                id=upload,
                repository_id=repository_id,
                account_id=account_id,
                created_at=now,
                used_at=now,
            )
        )
    session.flush()
    return uploads


def _end(session: Session, uploads: Iterable[str]) -> None:
    for upload in uploads:
        row = session.get(Upload, upload)
        if row is None:
            raise ConflictError("an upload of the registry's own expired", hint="it tries again")
        session.delete(row)


def _written(store: BlobStore, upload: str, content: bytes) -> str:
    sink = store.open(upload, size=0)
    try:
        sink.write([content])
    finally:
        sink.close()
    return store.finish(upload, size=len(content))


def _link(
    session: Session,
    repository: Repository,
    digest: Digest,
    location: str | None,
    size_bytes: int,
    now: datetime,
) -> bool:
    """Let the repository hold the blob; whether `location` is where it lies from now on."""
    if location is None and not _is_held(session, digest):
        raise ConflictError(f"the blob {digest} has just been collected", hint="try again")
    row = uploading.keep(session, NewBlob(digest, size_bytes, location or ""), now)
    link(session, repository, row, now)
    return row.location == location
