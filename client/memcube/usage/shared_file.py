"""An SQLite file that processes share, of which this one keeps a single connection.

To close a connection costs more than to write: the last one that goes moves the journal into the file
and waits for the disk.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from memcube_protocol.errors import StorageError

from memcube.store.files import make_folder, open_file, require_ours, storage_errors

_PAGE_BYTES: Final = 4096
_ABANDONED: Final[list[sqlite3.Connection]] = []
"""Connections of the process that this one was forked from: neither to be used nor closed here."""


class SharedFile:
    """The file at `path`, of at most `most_bytes`; used by one thread at a time."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        self.path = path
        self._most_bytes = most_bytes
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._mark: tuple[int, ...] | None = None

    def make(self) -> None:
        """Make the file, private and empty, where it is absent.

        Raises:
            StorageError: it is a link or something else, or it cannot be made.
        """
        make_folder(self.path.parent)
        with storage_errors(f"{self.path} cannot be made"):
            # Only a new one is opened: to close another descriptor of a file that SQLite has open would
            # take SQLite's locks away.
            with suppress(FileExistsError):
                os.close(open_file(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
            if not stat.S_ISREG(self.path.lstat().st_mode):
                raise StorageError(
                    f"{self.path} is not a regular file", hint="links are not followed: remove it"
                )

    @contextmanager
    def transaction(self, *, wait_s: float, writes: bool) -> Iterator[sqlite3.Connection]:
        """A connection within a transaction: whole or nothing where it `writes`, else one state.

        `wait_s` is how long other processes are waited for.

        Raises:
            sqlite3.Error: the file is absent, locked, damaged, full or read-only.
            StorageError: as `opened`.
        """
        with self.opened(wait_s=wait_s) as db:
            db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:  # a full file ends it by itself
                    db.execute("ROLLBACK")

    @contextmanager
    def opened(self, *, wait_s: float) -> Iterator[sqlite3.Connection]:
        """The connection to the file that lies there now.

        Raises:
            sqlite3.Error: as `transaction`.
            StorageError: others can write it: what they put there would run with each question.
        """
        with self._lock:
            if self._db is None or self._mark != self._looks():
                self.close()
                self._db, self._mark = self._connect(wait_s), self._looks()
            self._db.execute(f"PRAGMA busy_timeout = {int(wait_s * 1000)}")
            yield self._db

    def close(self) -> None:
        """Close the file; it is opened again when it is next used."""
        with self._lock:
            db, self._db = self._db, None
            if db is None:
                return
            if self._mark and self._mark[0] != os.getpid():
                _ABANDONED.append(db)
            else:
                db.close()

    def remove(self) -> None:
        """Take the file away; who has it open in another process begins a new one.

        Raises:
            StorageError: it cannot be removed.
        """
        self.close()
        with storage_errors(f"{self.path} cannot be removed"):
            for suffix in ("", "-wal", "-shm"):
                self.path.with_name(f"{self.path.name}{suffix}").unlink(missing_ok=True)

    def _looks(self) -> tuple[int, ...] | None:
        """By what a connection is known to be this process's, and to the file that lies there."""
        try:
            found = self.path.lstat()
        except OSError:
            return None
        return os.getpid(), found.st_dev, found.st_ino

    def _connect(self, wait_s: float) -> sqlite3.Connection:
        for path in (self.path.parent, self.path):
            require_ours(path)
        uri = f"{self.path.absolute().as_uri()}?mode=rw"  # never makes one that others could read
        db = sqlite3.connect(
            uri, uri=True, timeout=wait_s, isolation_level=None, check_same_thread=False
        )
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")  # a write does not wait for the disk
            db.execute(f"PRAGMA max_page_count = {self._most_bytes // _PAGE_BYTES}")
        except BaseException:
            db.close()
            raise
        return db
