"""What a crash, or a deletion since the last collection, leaves behind: harmless, and `gc` removes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from memcube_protocol.errors import NotFoundError
from sqlalchemy import exists, func, select
from sqlmodel import col

from memcube_registry.blobs.models import Blob, BlobLink, Upload
from memcube_registry.checking.findings import Findings, Rule
from memcube_registry.database import Database
from memcube_registry.manifests.collecting import ORPHAN_AGE
from memcube_registry.storage.interface import BlobStore, Object

_AT_ONCE: Final = 200
_REST: Final = timedelta(minutes=10)
"""How long an upload must have rested: bytes that are announced may still come."""


def check_leftovers(
    database: Database, store: BlobStore, now: datetime, findings: Findings
) -> None:
    """Find objects and uploads without rows, uploads without bytes, and blobs without links.

    What is younger than the age at which `gc` takes it may belong to a push that is running.
    """
    _check_objects(database, store, now, findings)
    _check_uploads(database, store, now, findings)
    unlinked = ~exists().where(col(BlobLink.blob_id) == Blob.id)
    with database.read() as session:
        count = session.execute(select(func.count()).select_from(Blob).where(unlinked)).scalar_one()
    for _ in range(count):
        findings.add(Rule.UNLINKED_BLOB, "the database", "a blob that no repository links")


def _check_objects(database: Database, store: BlobStore, now: datetime, findings: Findings) -> None:
    old = (each for each in store.objects() if each.written_at < now - ORPHAN_AGE)
    for names in _portions(old):
        findings.count("objects", len(names))
        # A direct upload's object lies where its blob will: asked in this order, none slips between.
        underway = _known(database, names, Upload.id)
        for name in names - underway - _known(database, names, Blob.location):
            if _is_held(store, name):
                findings.add(Rule.ORPHAN_OBJECT, name, "no blob lies there")


def _check_uploads(database: Database, store: BlobStore, now: datetime, findings: Findings) -> None:
    old = (each for each in store.uploads() if each.written_at < now - ORPHAN_AGE)
    for names in _portions(old):
        for name in names - _known(database, names, Upload.id):
            findings.add(Rule.ORPHAN_UPLOAD, name, "no row knows this upload")
    with database.read() as session:
        # A direct upload announces bytes that the client puts, or never does.
        query = select(col(Upload.id), col(Upload.size_bytes)).where(
            col(Upload.used_at) < now - _REST,
            col(Upload.size_bytes) > 0,
            ~col(Upload.is_direct),
        )
        resting = session.execute(query).all()
    for upload, size in resting:
        findings.count("uploads")
        if (held := store.size(upload)) < size:
            findings.add(Rule.LOST_UPLOAD, upload, f"holds {held} of {size} bytes")


def _is_held(store: BlobStore, location: str) -> bool:
    """Whether the object is still there: a collection may have taken it since it was listed."""
    try:
        with closing(store.read(location, stop=1)):
            return True
    except NotFoundError:
        return False


def _known(database: Database, names: set[str], column: Any) -> set[str]:
    with database.read() as session:
        return set(session.execute(select(col(column)).where(col(column).in_(names))).scalars())


def _portions(objects: Iterator[Object]) -> Iterator[set[str]]:
    while names := {each.name for each in islice(objects, _AT_ONCE)}:
        yield names
