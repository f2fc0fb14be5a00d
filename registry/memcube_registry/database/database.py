"""The registry's database: SQLite by default, PostgreSQL (psycopg 3) by its URL.

`read()`, `write()` and `run()` are the only ways to a session (docs/adr), and
`glance()` is the one to a single SELECT, which sees one snapshot by itself:

- SQLite: WAL, foreign keys on, writes begin with `BEGIN IMMEDIATE`. A default session would lose
  concurrent increments without an error.
- PostgreSQL: writes are SERIALIZABLE, reads see one snapshot (REPEATABLE READ, read only).

The body of a `with database.write()` runs once: if PostgreSQL refuses it as not serialisable, it
ends in `ConflictError`. `database.run(work)` calls `work` again instead, so `work` must do nothing
that a rollback does not undo: bytes are removed after `run` has returned. A commit whose answer was
lost ends in `UnavailableError` and is not tried again, for it may have been heard.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final, TypeVar

from memcube_protocol.errors import InvalidSettingError
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlmodel import Session

from memcube_registry.database import postgres, sqlite
from memcube_registry.database.columns import utc_now
from memcube_registry.database.refusals import REFUSALS, Refusal, busy, refusal, translated
from memcube_registry.settings import Settings

Result = TypeVar("Result")

RETRY_S: Final = 15.0
"""How long `run` tries again what came between others: of many at once, one gets through at a time."""
RACES_AT_MOST: Final = 4
"""How often it tries again what a taken key stopped: most often, that key stays taken."""
_LANES: Final = 64
_FIRST_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.5


class Database:
    """One database and its pool of connections; safe to share between threads.

    Raises:
        InvalidSettingError: `url` is neither `sqlite:///FILE` nor `postgresql://…`.
    """

    def __init__(self, url: str, options: postgres.Options | None = None) -> None:
        """`options` are for PostgreSQL."""
        self.url = _parse(url)
        self.engine = (
            sqlite.engine(self.url)
            if self.is_sqlite
            else postgres.engine(self.url, options or postgres.Options())
        )
        self._reader = self._variant(sqlite.SNAPSHOT, postgres.SNAPSHOT)
        self._glancer = self._variant(sqlite.ALONE, postgres.ALONE)
        self._writer = self._variant(sqlite.WRITING, postgres.WRITING)
        self._locker = self._variant(sqlite.WRITING, postgres.LOCKING)
        self._write_lock = threading.Lock()
        self._lanes = tuple(threading.Lock() for _ in range(_LANES))

    @classmethod
    def of(cls, settings: Settings) -> Database:
        """The database that `settings` name."""
        options = postgres.Options(
            connections=settings.postgres_connections,
            connect_timeout_s=settings.postgres_connect_timeout_s,
            statement_timeout_s=settings.postgres_statement_timeout_s,
            lock_timeout_s=settings.postgres_lock_timeout_s,
            idle_timeout_s=settings.postgres_idle_timeout_s,
        )
        return cls(settings.database_url, options)

    @classmethod
    def patient(cls, settings: Settings) -> Database:
        """As `of`, for commands that read or write everything: no statement takes too long."""
        return cls(settings.database_url, postgres.UNLIMITED)

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the embedded database, which admits one writer at a time."""
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one snapshot; what it changes is never kept."""
        with translated(), Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def glance(self) -> Iterator[Connection]:
        """A connection for one SELECT, without what asks the database twice more: BEGIN and the end."""
        with translated(), self._glancer.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end, or rolls back if the body raises.

        Raises:
            ConflictError: another transaction came between (PostgreSQL); nothing was changed.
            UnavailableError: the database stayed locked or did not answer.
        """
        with translated(), self._turn(), Session(self._writer, expire_on_commit=False) as session:
            yield session
            session.commit()

    def run(
        self, work: Callable[[Session], Result], *, locks: bool = False, lane: int | None = None
    ) -> Result:
        """What `work` returns, committed; called again when another transaction came between.

        `locks` is for work that locks every row it relies on, as queues do: on PostgreSQL it sees what
        others commit meanwhile (READ COMMITTED), and neither overtakes nor is overtaken. Works of this
        process in the same `lane`, such as those that count for one account, go one after the other:
        they would only make each other begin anew.

        Raises:
            ConflictError: a key that it needs was taken, or another transaction removed what it refers to.
            InvalidRequestError: no column could hold a value of its own.
            UnavailableError: others came between for `RETRY_S`, or the database stayed locked, took
                longer than it may, or did not answer.
            DiskFullError: no space is left for the database.
        """
        engine = self._locker if locks else self._writer
        deadline_s = time.monotonic() + RETRY_S
        for attempt in count():
            try:
                with self._turn(lane), Session(engine, expire_on_commit=False) as session:
                    result = work(session)
                    session.commit()
                    return result
            except REFUSALS as error:
                if not _may_go_well(error, attempt, deadline_s):
                    with translated():
                        raise
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)
            time.sleep(random.uniform(0, 2) * pause_s)  # noqa: S311 - spreads retries, hides nothing
        raise AssertionError("counting does not end")

    def now(self, session: Session) -> datetime:
        """This instant by the clock that every process on this database shares, in UTC."""
        if self.is_sqlite:
            return utc_now()
        found: datetime = session.connection().execute(select(func.clock_timestamp())).scalar_one()
        return found.astimezone(UTC)

    def migrate(self, revision: str = "head") -> None:
        """Bring the schema to `revision`; `base` removes every table."""
        from memcube_registry.database.migrating import migrate  # slow to import, rarely needed

        if self.is_sqlite:
            migrate(self._writer, revision)
            return
        # A snapshot of PostgreSQL taken before the wait for the lock would not see what the other did.
        patient = postgres.engine(self.url, postgres.UNLIMITED)
        try:
            with translated():
                migrate(patient, revision)
        finally:
            patient.dispose()

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()

    @contextmanager
    def _turn(self, lane: int | None = None) -> Iterator[None]:
        """This thread's turn to write: fair within the process, where the database would poll or refuse."""
        if self.is_sqlite:
            if not self._write_lock.acquire(timeout=sqlite.BUSY_TIMEOUT_S):
                raise busy()
            turn = self._write_lock
        elif lane is None:
            yield
            return
        else:
            turn = self._lanes[lane % _LANES]
            if not turn.acquire(timeout=RETRY_S):  # it spares work, and keeps nobody out
                yield
                return
        try:
            yield
        finally:
            turn.release()

    def _variant(self, on_sqlite: dict[str, Any], on_postgres: dict[str, Any]) -> Engine:
        return self.engine.execution_options(**(on_sqlite if self.is_sqlite else on_postgres))


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed and parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    unnamed = (None, "", ":memory:")
    if parsed and parsed.get_backend_name() == "sqlite" and parsed.database not in unnamed:
        return parsed
    raise InvalidSettingError(
        "the database URL is neither sqlite:///FILE nor postgresql://…",
        hint="for example sqlite:////var/lib/memcube/registry.db",
    )


def _may_go_well(error: Exception, attempt: int, deadline_s: float) -> bool:
    """Whether the same work may succeed if it is tried again.

    Raises:
        UnavailableError: it may, but has been tried for long enough.
    """
    kind = refusal(error)
    if kind is Refusal.NOT_SERIALISABLE and time.monotonic() > deadline_s:
        raise busy() from error
    return kind is Refusal.NOT_SERIALISABLE or (kind is Refusal.RACE and attempt < RACES_AT_MOST)
