"""What was found out about files of this disk, remembered for as long as they stay as they were.

    checks = FileChecks(home / "checks.sqlite")
    checks.remembered("sha256", file, lambda: digest_of(file))    # read once, known from then on

A finding belongs to device, inode, size, time of modification and time of change in nanoseconds: a
program can set the one time back, but not the other. A file is only believed to be unchanged from a
stamp on that is older than a tick of the file system's clock, so that a later change shows; and no
longer than the machine runs, so that damage by a crash is found (as `marks` has it for the store's
blobs, of which each digest has one file).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

from memcube.store import files
from memcube.store.marks import boot_id

CHECKS_FILE: Final = "checks.sqlite"
"""Where the findings lie below the client's home."""
_TICK_NS: Final = 20_000_000
_COARSE_TICK_NS: Final = 2_000_000_000
"""Of file systems that count whole seconds, or two."""
_FINDINGS: Final = 4096
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS finding (
    kind TEXT, device TEXT, inode TEXT, size INTEGER, modified_ns INTEGER, changed_ns INTEGER,
    boot TEXT, value TEXT NOT NULL, PRIMARY KEY (kind, device, inode)
)"""


class Stamp(NamedTuple):
    """How a file looked to the file system; `is_settled` if any later change gives another stamp."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int
    is_settled: bool

    @classmethod
    def of(cls, file: int | Path) -> Stamp:
        """The stamp of an open or a named file, as it is now.

        Raises:
            OSError: there is no such file.
        """
        found = os.stat(file)  # noqa: PTH116 - of a descriptor too
        times = (found.st_mtime_ns, found.st_ctime_ns)
        coarse = all(moment % 1_000_000_000 == 0 for moment in times)
        tick = _COARSE_TICK_NS if coarse else _TICK_NS
        settled = time.time_ns() - max(times) > tick
        return cls(found.st_dev, found.st_ino, found.st_size, *times, settled)

    @classmethod
    def settled(cls, file: int | Path) -> Stamp:
        """As `of`; waits a tick of the clock for a file that was changed just now."""
        stamp = cls.of(file)
        if not stamp.is_settled:
            time.sleep(1.5 * _TICK_NS / 1e9)
            stamp = cls.of(file)
        return stamp

    def is_of(self, other: Stamp) -> bool:
        """Whether both are of the same file in the same state."""
        return self[:5] == other[:5]


class FileChecks:
    """Findings by kind and file, in one SQLite file that several processes may use at once.

    It is a memory, not a record: where it is damaged or cannot be written, all is looked at anew.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def get(self, kind: str, stamp: Stamp) -> str | None:
        """What was found of this `kind` about the file with this `stamp`.

        Raises:
            StorageError: others can write the findings, so that they cannot be believed.
        """
        self.require_ours()
        if not stamp.is_settled or not self._file.is_file():
            return None
        try:
            with closing(self._open()) as database:
                row = database.execute(
                    "SELECT value FROM finding WHERE kind = ? AND device = ? AND inode = ?"
                    " AND size = ? AND modified_ns = ? AND changed_ns = ? AND boot = ?",
                    (kind, *_columns(stamp)),
                ).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        return row[0] if row else None

    def remembered(self, kind: str, file: int | Path, find: Callable[[], str]) -> str:
        """What `find` says of `file`, asked only if it is not known of the file as it is now.

        Raises:
            OSError: there is no such file.
            StorageError: others can write the findings.
        """
        stamp = Stamp.settled(file)
        known = self.get(kind, stamp)
        if known is not None:
            return known
        value = find()
        if Stamp.of(file).is_of(stamp):
            self.put(kind, stamp, value)
        return value

    def put(self, kind: str, stamp: Stamp, value: str) -> None:
        """Remember `value`, found while the file had `stamp`; one that is not settled is left out.

        Raises:
            StorageError: others can write the findings.
        """
        if not stamp.is_settled:
            return
        files.make_folder(self._file.parent)
        self.require_ours()
        try:
            with closing(self._open()) as database, database:
                database.execute(
                    "INSERT OR REPLACE INTO finding VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (kind, *_columns(stamp), value),
                )
                database.execute(
                    "DELETE FROM finding WHERE rowid <= (SELECT max(rowid) FROM finding) - ?",
                    (_FINDINGS,),
                )
        except sqlite3.Error as error:
            self._give_up(error)

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._file, timeout=30)
        # What the disk lost in a crash of the machine belongs to an earlier boot.
        database.execute("PRAGMA synchronous = OFF")
        database.execute(_SCHEMA)
        return database

    def _give_up(self, error: sqlite3.Error) -> None:
        """Take a damaged file away; one that is busy, full or read-only stays."""
        if not isinstance(error, sqlite3.OperationalError):
            with suppress(OSError):
                self._file.unlink()

    def require_ours(self) -> None:
        """Refuse findings that others can write.

        Raises:
            StorageError: another user owns them or their folder, or everybody may write there.
        """
        files.require_ours(self._file.parent)
        files.require_ours(self._file)


def _columns(stamp: Stamp) -> tuple[str | int, ...]:
    """Device and inode as text: both have 64 bits without a sign, which SQLite's integers lack."""
    return str(stamp.device), str(stamp.inode), *stamp[2:5], boot_id()
