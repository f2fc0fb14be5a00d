"""Proves a snapshot by building the registry from it: every row is loaded, every check of `fsck` made."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from memcube_protocol.errors import IntegrityError
from memcube_signing.transparency.checkpoint import SignedCheckpoint

from memcube_registry.backups.snapshot import Snapshot
from memcube_registry.backups.tables import load
from memcube_registry.checking.content import Sample
from memcube_registry.checking.findings import Report
from memcube_registry.checking.history import log_key
from memcube_registry.checking.service import Thoroughness, check_copy
from memcube_registry.database import Database
from memcube_registry.storage.interface import Reader

_PREFIX: Final = ".proof-"
_NAMED: Final = 3


def prove(
    scratch: Path,
    snapshot: Snapshot,
    blobs: Reader,
    sample: Sample,
    seen: SignedCheckpoint | None = None,
) -> Report:
    """What `fsck` says of the registry that `snapshot` makes, built in an SQLite file below `scratch`.

    What a run that was killed left there is removed first: nobody else proves anything there.

    `blobs` reads the backup's own copies by digest, or the registry's store where there are none.

    Raises:
        IntegrityError: the snapshot is damaged, or what it makes would be.
    """
    snapshot.require_intact()
    change = {"blob": _by_digest} if snapshot.description.blobs_copied else {}
    for left in scratch.glob(f"{_PREFIX}*"):
        shutil.rmtree(left)
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX, dir=scratch) as folder,
        closing(Database(f"sqlite:///{folder}/registry.db")) as database,
    ):
        database.migrate()
        load(database, snapshot.tables, change)
        key = log_key(snapshot.keys / "log.key", database)
        report = check_copy(database, blobs, Thoroughness(sample, log_key=key, seen=seen))
    require_whole(report, f"the snapshot {snapshot.folder.name}")
    return report


def require_whole(report: Report, what: str) -> None:
    """Refuse what has damage.

    Raises:
        IntegrityError: naming the first findings.
    """
    if report.damage:
        first = "; ".join(
            f"{one.rule}: {one.what}: {one.detail}" for one in report.findings[:_NAMED]
        )
        raise IntegrityError(
            f"{what} is damaged (findings: {report.damage}): {first}",
            hint="see docs/guide/check-and-back-up.md for each rule",
        )


def _by_digest(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "location": row["digest"]}
