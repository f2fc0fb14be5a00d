"""Makes a backup while the registry serves.

Blobs are copied first, then the tables are read at one moment, then the blobs that came between are
copied. If one of those was collected meanwhile, the tables are read again: a snapshot is kept only
when the backup holds every blob that its tables name. A run that is killed leaves whole blobs, which
the next one does not copy again, and nothing that looks like a snapshot.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

from memcube_protocol.errors import ConflictError, IntegrityError, NotFoundError, UnavailableError

from memcube_registry.backups import proving
from memcube_registry.backups import snapshot as snapshots
from memcube_registry.backups.pool import Pool
from memcube_registry.backups.snapshot import Description, Snapshot
from memcube_registry.backups.tables import dump, rows_of
from memcube_registry.checking.content import Sample, StoredBlob, is_known, pages
from memcube_registry.checking.findings import Report
from memcube_registry.database import Database
from memcube_registry.database.migrating import newest_revision
from memcube_registry.settings import Settings
from memcube_registry.storage.interface import BlobStore
from memcube_registry.storage.local import sync_folder, translated

MARK: Final = "memcube-backup.json"
KEY_FILES: Final = {
    "token.key": "token_key_file",
    "log.key": "log_key_file",
    "countersigning.key": "countersigning_key_file",
}
"""Names of the keys in a snapshot, and the settings that say where the registry has them."""
_PARTIAL: Final = ".partial-"
_ATTEMPTS: Final = 5
_PORTION: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a backup takes along, and how it is proven."""

    blobs: bool = True
    keys: bool = True
    threads: int = 4
    sample: Sample


@dataclass(frozen=True, slots=True)
class Made:
    """A snapshot that was made: what the check of it says, and what was copied for it."""

    snapshot: Snapshot
    report: Report
    blobs_copied: int
    bytes_copied: int


def make_backup(
    settings: Settings, database: Database, store: BlobStore, root: Path, plan: Plan, now: datetime
) -> Made:
    """Add a snapshot to the backup in `root`, which is begun if it is absent.

    Raises:
        ConflictError: another backup runs there, or `root` holds something else.
        IntegrityError: the registry is damaged: there is no backup of that.
        UnavailableError: blobs were removed as fast as they were copied.
        DiskFullError, ReadOnlyError, StorageError: the folder cannot be written.
    """
    with held(root):
        pool = Pool(root / "blobs")
        pool.prepare()
        copier = _Copier(database, store, pool)
        if plan.blobs:
            for page in pages(database):
                copier.copy(page, plan.threads)
        partial = _partial(root, now)
        rows = _dump_whole(database, partial, copier, plan)
        if plan.keys:
            _copy_keys(settings, partial / snapshots.KEYS)
        snapshots.seal(partial, _described(settings, partial, rows, plan, now))
        reader = pool if plan.blobs else store
        report = proving.prove(root, snapshots.read(partial), reader, plan.sample)
        target = root / "snapshots" / snapshots.name_of(now)
        partial.rename(target)
        sync_folder(target.parent)
        return Made(snapshots.read(target), report, copier.blobs, copier.size_bytes)


def prune(root: Path, keep: int) -> tuple[int, int]:
    """Remove all but the newest `keep` snapshots, and the blobs that none of these needs: how many of each.

    A set of the digests that are needed is in memory: some 200 bytes for each.
    """
    with held(root):
        old = snapshots.names(root)[:-keep]
        for name in old:
            shutil.rmtree(root / "snapshots" / name)
        needed = {
            row["digest"]
            for name in snapshots.names(root)
            for row in rows_of(root / "snapshots" / name / snapshots.TABLES, "blob")
        }
        pool = Pool(root / "blobs")
        unneeded = [digest for digest in pool.digests() if digest not in needed]
        for digest in unneeded:
            pool.remove(digest)
        return len(old), len(unneeded)


@contextmanager
def held(root: Path) -> Iterator[None]:
    """Keep others from writing to the backup in `root`; what a killed run left is removed first.

    Raises:
        ConflictError: somebody else does, or `root` holds something else.
    """
    with translated("the backup"):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_backup(root)
        handle = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(handle, root)
        (root / "snapshots").mkdir(exist_ok=True)
        for left in root.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left)
        yield
    finally:
        os.close(handle)


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """Keep others from removing anything from the backup in `root`, which may be mounted read-only.

    Raises:
        ConflictError: somebody writes to it.
    """
    try:
        handle = os.open(root / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # a copy of a backup, made without it
        yield
        return
    try:
        _lock(handle, root, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, root: Path, how: int = fcntl.LOCK_EX) -> None:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except OSError as error:
        raise ConflictError(
            f"another backup is being written to {root}", hint="wait for it to end"
        ) from error


def _require_backup(root: Path) -> None:
    """Mark an empty folder as a backup, and refuse a folder of something else."""
    mark = root / MARK
    if mark.exists():
        return
    strays = [path.name for path in root.iterdir() if path.name != "lock"]
    if strays:
        raise ConflictError(
            f"{root} holds something else: {strays[0]}", hint="name a new folder, or a backup"
        )
    mark.write_text(json.dumps({"format": snapshots.FORMAT, "what": "memcube registry backup"}))


def _partial(root: Path, now: datetime) -> Path:
    name = snapshots.name_of(now)
    if (root / "snapshots" / name).exists():
        raise ConflictError(f"there is a snapshot {name} already", hint="try again in a second")
    partial = root / f"{_PARTIAL}{name}"
    partial.mkdir(mode=0o700)
    return partial


def _dump_whole(database: Database, partial: Path, copier: _Copier, plan: Plan) -> dict[str, int]:
    """Dump the tables so that every blob they name is in the backup; how many rows each has."""
    tables = partial / snapshots.TABLES
    for _ in range(_ATTEMPTS):
        rows = dump(database, tables)
        if not plan.blobs or copier.complete(tables, plan.threads):
            return rows
        shutil.rmtree(tables)
    raise UnavailableError(
        f"blobs were removed during each of {_ATTEMPTS} attempts", hint="try again in a while"
    )


def _copy_keys(settings: Settings, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for name, setting in KEY_FILES.items():
        source: Path = getattr(settings, setting)
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(source.read_bytes())


def _described(
    settings: Settings, partial: Path, rows: dict[str, int], plan: Plan, now: datetime
) -> Description:
    state = next(rows_of(partial / snapshots.TABLES, "log_state"), None)
    return Description(
        made_at=now,
        registry=settings.url,
        revision=newest_revision(),
        blobs_copied=plan.blobs,
        rows=rows,
        log_origin=state["origin"] if state else "",
        log_size=state["size"] if state else 0,
        sums={},
    )


class _Copier:
    """Copies blobs that the backup lacks, and counts them."""

    def __init__(self, database: Database, store: BlobStore, pool: Pool) -> None:
        self._database, self._store, self._pool = database, store, pool
        self.blobs = 0
        self.size_bytes = 0

    def copy(self, blobs: Sequence[StoredBlob], threads: int) -> bool:
        """Copy those that the backup lacks; whether none was collected meanwhile."""
        lacking = [blob for blob in blobs if not self._pool.has(blob.digest, blob.size_bytes)]
        if not lacking:
            return True
        with ThreadPoolExecutor(threads, thread_name_prefix="backup") as workers:
            sizes = list(workers.map(self._copy, lacking))
        copied = [size for size in sizes if size is not None]
        self.blobs += len(copied)
        self.size_bytes += sum(copied)
        return len(copied) == len(sizes)

    def complete(self, tables: Path, threads: int) -> bool:
        """As `copy`, for every blob that a dump names."""
        named = (_stored(row) for row in rows_of(tables, "blob"))
        while portion := list(islice(named, _PORTION)):
            if not self.copy(portion, threads):
                return False
        return True

    def _copy(self, blob: StoredBlob) -> int | None:
        """How many bytes were copied; None where the blob was collected since it was listed."""
        try:
            with closing(self._store.read(blob.location)) as pieces:
                return self._pool.add(blob.digest, pieces)
        except NotFoundError as error:
            if is_known(self._database, blob):
                raise IntegrityError(
                    f"the store has no object for blob {blob.digest}",
                    hint="`memcube-registry fsck` lists what is damaged",
                ) from error
            return None


def _stored(row: dict[str, Any]) -> StoredBlob:
    return StoredBlob(row["id"], row["digest"], row["size_bytes"], row["location"])
