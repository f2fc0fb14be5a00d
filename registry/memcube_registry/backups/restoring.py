"""Restores a snapshot into an empty registry: proven first, keys and blobs next, then all rows at once.

Until the one transaction that writes the rows has ended, nothing of it can be seen, and a registry
does not start: a journal in the data folder says that a restore is not complete. A run that is killed
goes on where it was, by that journal.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self

from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError, DigestMismatchError, UnsupportedError
from memcube_signing.transparency.checkpoint import SignedCheckpoint
from sqlalchemy import inspect

from memcube_registry.backups.making import KEY_FILES, read_only
from memcube_registry.backups.pool import Pool
from memcube_registry.backups.proving import prove, require_whole
from memcube_registry.backups.restores import journal_of
from memcube_registry.backups.snapshot import Snapshot
from memcube_registry.backups.tables import load, require_empty, rows_of
from memcube_registry.checking.content import Sample
from memcube_registry.checking.findings import Report
from memcube_registry.checking.history import log_key
from memcube_registry.checking.service import Thoroughness, check
from memcube_registry.database import Database
from memcube_registry.database.migrating import newest_revision
from memcube_registry.settings import Settings
from memcube_registry.storage.interface import BlobStore
from memcube_registry.storage.local import sync_folder, translated

LOG_TABLES: Final = frozenset(
    {"log_entry", "log_tile", "log_state", "log_usage", "log_witness", "logged_release"}
)
_PORTION: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a snapshot is restored: what is read to prove it, and a checkpoint that its log must hold.

    With `new_log` its log and the log's key are left out: another log begins at the next start.
    """

    sample: Sample
    threads: int = 4
    seen: SignedCheckpoint | None = None
    new_log: bool = False


def restore(
    settings: Settings,
    database: Database,
    store: BlobStore,
    root: Path,
    snapshot: Snapshot,
    wish: Wish,
    now: datetime,
) -> Report:
    """Make the registry of `settings` what `snapshot` says; what `fsck` then says of it.

    Raises:
        ConflictError: the target is not empty, or another restore or backup runs.
        UnsupportedError: another version of memcube made the snapshot.
        IntegrityError: the snapshot is damaged, or its log lacks what `wish.seen` shows.
        DiskFullError, ReadOnlyError, StorageError, UnavailableError: the target cannot be written.
    """
    require_version(snapshot)
    with read_only(root):
        pool = Pool(root / "blobs")
        copied = snapshot.description.blobs_copied
        with translated("the data folder"):
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        prove(settings.data_dir, snapshot, pool if copied else store, wish.sample, wish.seen)
        if not journal_of(settings.data_dir).exists():
            # Before the journal: it would keep a registry that is in use from starting.
            _require_empty(database, store if copied else None)
        with _Journal.opened(settings, snapshot) as journal:
            if not journal.is_committed(database):
                _put_keys(settings, snapshot, wish)
                if copied:
                    _put_blobs(store, pool, snapshot, journal, wish.threads)
                journal.write({"rows": "next"})
                change = {"blob": journal.located} if copied else {}
                but = LOG_TABLES if wish.new_log else frozenset()
                load(database, snapshot.tables, change, but=but)
            report = check(database, store, _thoroughly(settings, database, wish), now)
            require_whole(report, "the restored registry")
            journal.remove()
    return report


def require_version(snapshot: Snapshot) -> None:
    """Refuse tables of another version of memcube.

    Raises:
        UnsupportedError: they are.
    """
    if snapshot.description.revision != newest_revision():
        raise UnsupportedError(
            f"the snapshot has tables of revision {snapshot.description.revision}, "
            f"this version of memcube has {newest_revision()}",
            hint="restore it with the version that made it, then upgrade",
        )


def _thoroughly(settings: Settings, database: Database, wish: Wish) -> Thoroughness:
    key = log_key(settings.log_key_file, database)
    return Thoroughness(wish.sample, wish.threads, log_key=key, seen=wish.seen)


def _require_empty(database: Database, store: BlobStore | None) -> None:
    """Refuse a target that holds anything: rows, or objects where bytes are going to be written.

    Makes the tables: some stores note in the database what they hold.
    """
    if inspect(database.engine).has_table("blob"):
        with database.read() as session:
            require_empty(session)
    database.migrate()
    if store is not None and next(iter(store.objects()), None) is not None:
        raise ConflictError(
            "the blob store is not empty", hint="restore into a new data folder or bucket"
        )


def _put_keys(settings: Settings, snapshot: Snapshot, wish: Wish) -> None:
    """Put each key of the snapshot where the settings want it, for its owner only.

    Raises:
        ConflictError: another key is there.
    """
    for name, setting in KEY_FILES.items():
        source, target = snapshot.keys / name, getattr(settings, setting)
        if not source.is_file() or (wish.new_log and name == "log.key"):
            continue
        key = source.read_bytes()
        if target.exists():
            if target.read_bytes() != key:
                raise ConflictError(
                    f"{target} holds another key than the backup",
                    hint="restore into a new data folder, or move that key away",
                )
            continue
        with translated("a key"):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(key)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(target)
            sync_folder(target.parent)


def _put_blobs(
    store: BlobStore, pool: Pool, snapshot: Snapshot, journal: _Journal, threads: int
) -> None:
    """Write every blob of the snapshot that the journal does not name into the store."""
    rows = (row for row in rows_of(snapshot.tables, "blob") if not journal.has(row["digest"]))

    def put(row: Mapping[str, Any]) -> None:
        journal.write({"digest": row["digest"], "location": _put_blob(store, pool, row)})

    with ThreadPoolExecutor(threads, thread_name_prefix="restore") as workers:
        while portion := list(islice(rows, _PORTION)):
            for _ in workers.map(put, portion):
                pass


def _put_blob(store: BlobStore, pool: Pool, row: Mapping[str, Any]) -> str:
    """Where a blob lies in the store from now on, durable; its bytes are checked on the way."""
    upload, expected = uuid.uuid4().hex, Digest.parse(row["digest"])
    hasher = expected.hasher()
    with closing(store.open(upload, size=0)) as sink, closing(pool.read(row["digest"])) as pieces:
        for piece in pieces:
            hasher.update(piece)
            sink.write([piece])
    if Digest.finish(expected.algorithm, hasher) != expected:
        store.abort(upload)
        raise DigestMismatchError(
            f"the backup holds other bytes for blob {expected}", hint="use another backup"
        )
    return store.finish(upload, size=row["size_bytes"])


class _Journal:
    """What of a restore is done: a line for each blob, durable when it is written. Safe for threads."""

    def __init__(self, path: Path, mark: str) -> None:
        """`mark` names the snapshot; a journal of another one is refused.

        Raises:
            ConflictError: a restore of another snapshot is not complete.
        """
        self._path = path
        self._lock = threading.Lock()
        lines = list(_lines(path))
        if lines and lines[0].get("snapshot") != mark:
            raise ConflictError(
                f"a restore of another snapshot is not complete: {path}",
                hint="restore that one, or begin with a new data folder",
            )
        self._locations = {line["digest"]: line["location"] for line in lines if "digest" in line}
        self._may_be_committed = any("rows" in line for line in lines)
        self._file = path.open("ab")
        # A line that was cut off by a kill must not swallow the next one.
        self._append(b"\n")
        if not lines:
            self.write({"snapshot": mark})

    @classmethod
    def opened(cls, settings: Settings, snapshot: Snapshot) -> Self:
        """The journal in the data folder."""
        with translated("the data folder"):
            made = cls(journal_of(settings.data_dir), snapshot.identity)
            sync_folder(settings.data_dir)
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def has(self, digest: str) -> bool:
        """Whether the blob is in the store."""
        return digest in self._locations

    def located(self, row: dict[str, Any]) -> dict[str, Any]:
        """A blob's row with the place where it lies now."""
        return {**row, "location": self._locations[row["digest"]]}

    def write(self, line: Mapping[str, str]) -> None:
        """Note what was done."""
        with self._lock:
            self._append(json.dumps(dict(line)).encode() + b"\n")
            if "digest" in line:
                self._locations[line["digest"]] = line["location"]

    def is_committed(self, database: Database) -> bool:
        """Whether a run before this one was killed after it had written the rows."""
        if not self._may_be_committed:
            return False
        try:
            with database.read() as session:
                require_empty(session)
        except ConflictError:
            return True
        return False

    def remove(self) -> None:
        """The restore is complete."""
        self._path.unlink()
        sync_folder(self._path.parent)

    def _append(self, content: bytes) -> None:
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())


def _lines(path: Path) -> Iterator[dict[str, str]]:
    """The whole lines of a journal."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue  # empty, or cut off
        if isinstance(value, dict):
            yield value
