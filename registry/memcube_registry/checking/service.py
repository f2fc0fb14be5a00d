"""The whole check, in short transactions, which may run while the registry serves.

It reads only, unless it is to mark what is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from memcube_signing.transparency.checkpoint import NoteKey, SignedCheckpoint

from memcube_registry.checking.content import Note, Sample, StoredBlob, check_blobs
from memcube_registry.checking.findings import Findings, Report
from memcube_registry.checking.history import check_log
from memcube_registry.checking.leftovers import check_leftovers
from memcube_registry.checking.marking import Marker
from memcube_registry.checking.references import check_references
from memcube_registry.database import Database
from memcube_registry.storage.interface import BlobStore, Reader

THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class Thoroughness:
    """How much is read, by how many threads, and what the log is held against.

    `marks`: blobs whose bytes are lost are marked, so that pushing them again heals them.
    """

    sample: Sample
    threads: int = THREADS
    log_key: NoteKey | None = None
    seen: SignedCheckpoint | None = None
    marks: bool = False


def check(database: Database, store: BlobStore, how: Thoroughness, now: datetime) -> Report:
    """Check everything that `database` and `store` hold."""
    findings = Findings()
    note = Marker(database, findings, now) if how.marks else _ignore
    seed = _check(database, store, how, findings, note)
    check_leftovers(database, store, now, findings)
    return findings.report(seed)


def check_copy(database: Database, store: Reader, how: Thoroughness) -> Report:
    """As `check`, for a store that holds what the database names and nothing else."""
    findings = Findings()
    seed = _check(database, store, how, findings, _ignore)
    return findings.report(seed)


def _check(
    database: Database, store: Reader, how: Thoroughness, findings: Findings, note: Note
) -> int | None:
    """The whole check but for leftovers; see `check_blobs`."""
    check_references(database, findings)
    check_log(database, how.log_key, how.seen, findings)
    return check_blobs(database, store, how.sample, how.threads, findings, note)


def _ignore(_blob: StoredBlob, _is_lost: bool) -> None:
    """Nothing is marked."""
