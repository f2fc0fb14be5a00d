"""The file that keeps the indicators: SQLite, private, bounded, shared by processes, told in portions.

Nobody waits for it: a portion that finds it locked is refused at once, and its writer tries again
later. What is written is whole: a process that is killed loses its last portion, and no more.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from memcube_protocol import limits
from memcube_protocol.errors import StorageError

from memcube.settings import Settings
from memcube.usage import tables
from memcube.usage.indicators import Answered, CubeUse, RecordUse, Use, Version
from memcube.usage.shared_file import SharedFile

FOLDER: Final = "usage"
FILE_NAME: Final = "usage.db"
FILE_BYTES: Final = 64 * limits.MIB
_KEPT_SHARE: Final = 0.9
_BOUNDED_EVERY: Final = 256
_WAIT_S: Final = 0.05
_ASK_WAIT_S: Final = 5.0
_Ask = Callable[[str, Sequence[object]], list[tuple[Any, ...]]]


@dataclass(slots=True)
class Portion:
    """What happened since the last portion, gathered: a burst of queries becomes one write."""

    mounts: list[tuple[str, str, int]] = field(default_factory=list[tuple[str, str, int]])
    accesses: list[tuple[Use, int]] = field(default_factory=list[tuple[Use, int]])
    answers: list[tuple[int, tuple[Use, ...]]] = field(
        default_factory=list[tuple[int, tuple[Use, ...]]]
    )

    def __len__(self) -> int:
        return len(self.mounts) + len(self.accesses) + len(self.answers)

    def before(self, later: Portion) -> Portion:
        """This portion followed by `later`."""
        return Portion(
            self.mounts + later.mounts, self.accesses + later.accesses, self.answers + later.answers
        )


class Sidecar:
    """The indicators in `folder`, which is made when something is first written."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self._file = SharedFile(self.path, FILE_BYTES)
        self._writes = 0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The indicators of this user, kept or not."""
        return cls(settings.home / FOLDER)

    def write(self, portion: Portion) -> None:
        """Add `portion`, all of it or nothing, and let the least used go where there is too much.

        Raises:
            sqlite3.Error: the file is locked, damaged, full or read-only; nothing was added.
            StorageError: it cannot be made, or is no regular file.
        """
        self._file.make()
        with self._file.transaction(wait_s=_WAIT_S, writes=True) as db:
            if not _is_made(db):
                for statement in (*tables.SCHEMA.split(";"), tables.SET_FORMAT):
                    db.execute(statement)
            _add(db, portion)
            if self._writes % _BOUNDED_EVERY == 0:
                _bound(db, _KEPT_SHARE)
        self._writes += 1

    def shrink(self) -> None:
        """Delete half of everything, the longest unused first: the file is full.

        Raises:
            sqlite3.Error: it cannot be changed.
        """
        with self._file.transaction(wait_s=_WAIT_S, writes=True) as db:
            _bound(db, 0.5, full=True)

    def cubes(self) -> tuple[CubeUse, ...]:
        """Every cube that was used, the last one first.

        Raises:
            StorageError: the file cannot be read.
        """
        with self._reading() as ask:
            return tuple(map(_cube_use, ask(tables.ALL_CUBES, ())))

    def cube(self, name: str) -> CubeUse | None:
        """How the cube `name` is used; None: it never was.

        Raises:
            StorageError: the file cannot be read.
        """
        with self._reading() as ask:
            return next(map(_cube_use, ask(tables.ONE_CUBE, (name,))), None)

    def versions(self, cube: str) -> tuple[Version, ...]:
        """The versions of `cube` that were mounted, in the order in which they first were.

        Raises:
            StorageError: the file cannot be read.
        """
        with self._reading() as ask:
            rows = ask(tables.VERSIONS_OF, (cube,))
        return tuple(Version(row[0], row[1], _time(row[2]), _time(row[3])) for row in rows)

    def records(
        self, cube: str, ids: Iterable[str] | None = None, *, limit: int = tables.RECORDS
    ) -> tuple[RecordUse, ...]:
        """Records of `cube` that were used, the most used first; those of `ids` where they are given.

        Raises:
            StorageError: the file cannot be read.
        """
        with self._reading() as ask:
            if ids is None:
                rows = ask(tables.RECORDS_OF, (cube, limit))
            else:
                wanted = list(dict.fromkeys(ids))[:limit]
                rows = [row for one in wanted for row in ask(tables.ONE_RECORD, (cube, one))]
        return tuple(map(_record_use, rows))

    def answers(self, cube: str, *, limit: int = 20) -> tuple[Answered, ...]:
        """The last answers that records of `cube` were used for, with all that each of them used.

        Raises:
            StorageError: the file cannot be read.
        """
        with self._reading() as ask:
            rows = ask(tables.ANSWERS_OF, (cube, limit))
        found: dict[int, Answered] = {}
        for number, at, *use in rows:
            before = found.get(number, Answered(number, _time(at), ()))
            found[number] = Answered(number, before.at, (*before.used, Use(*use)))
        return tuple(found.values())

    def forget(self, cube: str | None = None) -> bool:
        """Forget what is known of `cube`, or everything, with the file. Says whether there was something.

        Raises:
            StorageError: it cannot be changed.
        """
        if not self.path.exists():
            return False
        if cube is None:
            self.remove()
            return True
        with _as_storage_error(self.path):
            with self._file.transaction(wait_s=_ASK_WAIT_S, writes=True) as db:
                changed = _is_made(db) and _forget(db, cube)
            if changed:
                with self._file.opened(wait_s=_ASK_WAIT_S) as db:
                    db.execute("VACUUM")  # what is forgotten does not stay in free pages
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return changed

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def remove(self) -> None:
        """Take the file away: it is damaged, or nobody wants it.

        Raises:
            StorageError: it cannot be removed.
        """
        self._file.remove()

    @contextmanager
    def _reading(self) -> Iterator[_Ask]:
        """Asks the file, of which each question sees the same state; nothing where there is none."""
        if not self.path.exists():
            yield lambda _query, _values: []
            return
        with (
            _as_storage_error(self.path),
            self._file.transaction(wait_s=_ASK_WAIT_S, writes=False) as db,
        ):
            is_made = _is_made(db)
            yield lambda query, values: db.execute(query, values).fetchall() if is_made else []


def _add(db: sqlite3.Connection, portion: Portion) -> None:
    cubes: dict[str, _Counts] = defaultdict(_Counts)
    for cube, digest, at in portion.mounts:
        cubes[cube].add(at, mounts=1)
        db.execute(tables.ADD_VERSION, (cube, digest, at))
    for use, at in portion.accesses:
        cubes[use.cube].add(at, accesses=1)
        db.execute(tables.ADD_RECORD, (use.cube, use.record, 1, 0, use.score, at))
    for at, used in portion.answers:
        number = db.execute(tables.ADD_ANSWER, (at,)).lastrowid
        for cube in {use.cube for use in used}:
            cubes[cube].add(at, answers=1)
        for use in used:
            db.execute(tables.ADD_RECORD, (use.cube, use.record, 0, 1, use.score, at))
            db.execute(tables.ADD_USED, (number, use.cube, use.record, use.score))
    rows = ((cube, *counts.counted, counts.last) for cube, counts in cubes.items())
    db.executemany(tables.ADD_CUBE, rows)


@dataclass(slots=True)
class _Counts:
    """What a portion adds to one cube: mounts, accesses and answers; and when the last of them was."""

    counted: tuple[int, int, int] = (0, 0, 0)
    last: int = 0

    def add(self, at: int, *, mounts: int = 0, accesses: int = 0, answers: int = 0) -> None:
        before = self.counted
        self.counted = before[0] + mounts, before[1] + accesses, before[2] + answers
        self.last = max(self.last, at)


def _forget(db: sqlite3.Connection, cube: str) -> bool:
    before = db.total_changes
    for statement in tables.FORGET_CUBE:
        db.execute(statement, (cube,))
    db.execute(tables.FORGET_EMPTY_ANSWERS)
    return db.total_changes > before


def _bound(db: sqlite3.Connection, kept: float, *, full: bool = False) -> None:
    """Where a table holds too much, or all is `full`, keep a share of it: the longest unused goes."""
    for bound in tables.BOUNDS:
        (count,) = db.execute(bound.counting).fetchone()
        if full or count > bound.most:
            db.execute(bound.dropping, (count - int(min(count, bound.most) * kept),))
    db.execute(tables.FORGET_OLD_USES)


def _is_made(db: sqlite3.Connection) -> bool:
    """Whether the tables are there.

    Raises:
        sqlite3.DatabaseError: they are those of another version of memcube.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in (0, tables.FORMAT):
        raise sqlite3.DatabaseError(f"its format is {version}, and not {tables.FORMAT}")
    return bool(version)


@contextmanager
def _as_storage_error(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"{path} cannot be used: {error}",
            hint="`memcube usage --forget` starts anew; no cube is touched",
        ) from error


def _cube_use(row: tuple[Any, ...]) -> CubeUse:
    name, mounts, accesses, answers, records, last = row
    return CubeUse(name, mounts, accesses, answers, records, _time(last))


def _record_use(row: tuple[Any, ...]) -> RecordUse:
    record, accesses, answers, score, last = row
    return RecordUse(record, accesses, answers, score, _time(last))


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
