"""Removing bytes: after the transaction that hid them, as a job that this transaction leaves behind."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from sqlmodel import Session, col, select

from memcube_registry.blobs.models import Blob
from memcube_registry.database import Database
from memcube_registry.jobs.service import enqueue
from memcube_registry.jobs.worker import Handler, Task
from memcube_registry.storage import BlobStore

KIND: Final = "remove-bytes"


def remove_later(
    session: Session, now: datetime, *, objects: Iterable[str] = (), uploads: Iterable[str] = ()
) -> None:
    """Have the objects at these locations removed, and these uploads forgotten, once this is committed."""
    payload = {"objects": list(objects), "uploads": list(uploads)}
    if any(payload.values()):
        enqueue(session, KIND, uuid.uuid4().hex, now, payload)


def remover(database: Database, store: BlobStore) -> Handler:
    """What does it, again where it was cut off: the absence of bytes is no error."""

    def remove(task: Task) -> None:
        for upload in task.texts("uploads"):
            task.check()
            store.abort(upload)
        objects = task.texts("objects")
        with database.read() as session:
            # A store may give the same bytes the same location again.
            used = set(session.exec(select(Blob.location).where(col(Blob.location).in_(objects))))
        for location in objects:
            task.check()
            if location not in used:
                store.delete(location)

    return remove
