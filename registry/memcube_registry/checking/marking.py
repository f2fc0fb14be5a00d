"""Noting which blobs have lost their bytes: from then on nobody is told that they are there.

So whoever pushes such a blob sends its bytes again, and a push that brings them mends it (`uploading.keep`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import update
from sqlmodel import col

from memcube_registry.blobs.models import Blob
from memcube_registry.checking.content import StoredBlob
from memcube_registry.checking.findings import Findings
from memcube_registry.database import Database


@dataclass(frozen=True, slots=True)
class Marker:
    """Marks blobs whose bytes are lost, and takes the mark from those whose bytes are back; a `content.Note`."""

    database: Database
    findings: Findings
    now: datetime

    def __call__(self, blob: StoredBlob, is_lost: bool) -> None:
        """Note what was found of `blob`, unless somebody has healed it meanwhile."""
        if is_lost is blob.is_lost:
            return
        change = (
            update(Blob)
            .where(col(Blob.id) == blob.id, col(Blob.location) == blob.location)
            .values(lost_at=self.now if is_lost else None)
        )
        changed = self.database.run(lambda session: session.execute(change))
        if changed.rowcount:  # type: ignore[attr-defined]
            self.findings.count("marked_as_lost" if is_lost else "found_again")
