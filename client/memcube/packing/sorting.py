"""Sorting records by id with constant memory: SQLite's temporary database spills to the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final

from memcube_protocol.errors import InvalidRecordError
from memcube_protocol.records import Record, write_record

from memcube.closing import Closing

_CACHE_KIB: Final = 32 * 1024


class RecordSorter(Closing):
    """Takes records in any order and gives them back in ascending order of their ids.

    Ids compare by their UTF-8 bytes, as shards want them (docs/spec/records.md).
    """

    def __init__(self) -> None:
        # An empty name is SQLite's private temporary database: in memory up to the cache's size,
        # then in an unlinked file, gone when it is closed.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(
            "CREATE TABLE record (id BLOB PRIMARY KEY, line BLOB NOT NULL) WITHOUT ROWID"
        )
        self._database.execute("BEGIN")
        self.count = 0
        self.size = 0

    def close(self) -> None:
        """Forget the records."""
        self._database.close()

    def add(self, records: Iterable[Record], *, origin: str) -> None:
        """Take `records`, which come from `origin`; `count` and `size` (bytes of lines) grow.

        Raises:
            InvalidRecordError: an id that was taken before.
        """
        for record in records:
            line = write_record(record)
            try:
                self._database.execute(
                    "INSERT INTO record VALUES (?, ?)", (record.id.encode(), line)
                )
            except sqlite3.IntegrityError:
                raise InvalidRecordError(
                    f"{origin} holds a second record {record.id!r}",
                    hint="give every record of a cube an id of its own",
                ) from None
            self.count += 1
            self.size += len(line) + 1

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Id and canonical line of every record, ascending by id, a few in memory at a time."""
        for record_id, line in self._database.execute("SELECT id, line FROM record ORDER BY id"):
            yield record_id.decode(), line
