"""The whole check. It reads only, in short transactions, and may run while the registry serves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from memcube_signing.transparency.checkpoint import NoteKey, SignedCheckpoint

from memcube_registry.checking.content import Sample, check_blobs
from memcube_registry.checking.findings import Findings, Report
from memcube_registry.checking.history import check_log
from memcube_registry.checking.leftovers import check_leftovers
from memcube_registry.checking.references import check_references
from memcube_registry.database import Database
from memcube_registry.storage.interface import BlobStore, Reader

THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class Thoroughness:
    """How much is read, by how many threads, and what the log is held against."""

    sample: Sample
    threads: int = THREADS
    log_key: NoteKey | None = None
    seen: SignedCheckpoint | None = None


def check(database: Database, store: BlobStore, how: Thoroughness, now: datetime) -> Report:
    """Check everything that `database` and `store` hold."""
    findings = _checked(database, store, how)
    check_leftovers(database, store, now, findings)
    return findings.report(how.sample.seed)


def check_copy(database: Database, store: Reader, how: Thoroughness) -> Report:
    """As `check`, for a store that holds what the database names and nothing else."""
    return _checked(database, store, how).report(how.sample.seed)


def _checked(database: Database, store: Reader, how: Thoroughness) -> Findings:
    findings = Findings()
    check_references(database, findings)
    check_log(database, how.log_key, how.seen, findings)
    check_blobs(database, store, how.sample, how.threads, findings)
    return findings
