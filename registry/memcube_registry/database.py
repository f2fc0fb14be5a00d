"""The registry's database: SQLite by default, PostgreSQL (psycopg 3) by its URL.

`read()`, `write()` and `run()` are the only ways to a session (docs/adr, identity and access §4), and
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
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

from memcube_protocol.errors import (
    ConflictError,
    DiskFullError,
    InvalidRequestError,
    InvalidSettingError,
    StorageError,
    UnavailableError,
)
from sqlalchemy import (
    Connection,
    DateTime,
    Dialect,
    Engine,
    Enum,
    Table,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.types import TypeDecorator
from sqlmodel import Session, SQLModel

from memcube_registry import postgres
from memcube_registry.postgres import Options, Refusal, refusal
from memcube_registry.settings import Settings

Result = TypeVar("Result")

RETRY_S: Final = 15.0
"""How long `run` tries again what came between others: of many at once, one gets through at a time."""
RACES_AT_MOST: Final = 4
"""How often it tries again what a taken key stopped: most often, that key stays taken."""
BUSY_TIMEOUT_S: Final = 30
_LANES: Final = 64
_FIRST_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.5
_BEGIN: Final = "memcube_begin"
"""The execution option that says how SQLite begins a transaction; none begins where it is empty."""

PASSING: Final = {"info": {"passing": True}}
"""Table arguments of what is worth nothing after a restart elsewhere: backups leave it out."""

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An instant. Naive values are refused; what comes back is always in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """`value` in UTC; without its zone on SQLite, which stores none."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError(f"{value!r} names no time zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        """`value` with its zone, UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def choice(kind: type[StrEnum]) -> Enum:
    """A text column that holds the values of `kind` and nothing else."""
    return Enum(
        kind,
        name=kind.__name__.lower(),
        native_enum=False,
        create_constraint=True,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


def table_of(model: type[SQLModel]) -> Table:
    """The table of `model`: queries of its columns avoid what rows as objects cost."""
    table: Table = model.__table__  # type: ignore[attr-defined]
    return table


def utc_now() -> datetime:
    """This instant, in UTC."""
    return datetime.now(UTC)


class Database:
    """One database and its pool of connections; safe to share between threads.

    Raises:
        InvalidSettingError: `url` is neither `sqlite:///FILE` nor `postgresql://…`.
    """

    def __init__(self, url: str, options: Options | None = None) -> None:
        """`options` are for PostgreSQL."""
        self.url = _parse(url)
        self.engine = _engine(self.url, options or Options())
        self._reader = self.engine.execution_options(**self._read_options())
        self._glancer = self.engine.execution_options(**self._glance_options())
        self._writer = self.engine.execution_options(**self._write_options("SERIALIZABLE"))
        self._locker = self.engine.execution_options(**self._write_options("READ COMMITTED"))
        self._write_lock = threading.Lock()
        self._lanes = tuple(threading.Lock() for _ in range(_LANES))

    @classmethod
    def of(cls, settings: Settings) -> Database:
        """The database that `settings` name."""
        options = Options(
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
        with _translated(), Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def glance(self) -> Iterator[Connection]:
        """A connection for one SELECT, without what asks the database twice more: BEGIN and the end."""
        with _translated(), self._glancer.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end, or rolls back if the body raises.

        Raises:
            ConflictError: another transaction came between (PostgreSQL); nothing was changed.
            UnavailableError: the database stayed locked or did not answer.
        """
        with _translated(), self._turn(), Session(self._writer, expire_on_commit=False) as session:
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
            except _REFUSALS as error:
                if not _may_go_well(error, attempt, deadline_s):
                    with _translated():
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
        from memcube_registry.migrating import migrate

        if self.is_sqlite:
            migrate(self._writer, revision)
            return
        # A snapshot of PostgreSQL taken before the wait for the lock would not see what the other did.
        patient = postgres.engine(self.url, postgres.UNLIMITED)
        try:
            with _translated():
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
            if not self._write_lock.acquire(timeout=BUSY_TIMEOUT_S):
                raise _busy()
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

    def _read_options(self) -> dict[str, Any]:
        return {} if self.is_sqlite else postgres.SNAPSHOT

    def _glance_options(self) -> dict[str, Any]:
        return {_BEGIN: ""} if self.is_sqlite else postgres.ALONE

    def _write_options(self, isolation: str) -> dict[str, Any]:
        return {_BEGIN: "BEGIN IMMEDIATE"} if self.is_sqlite else {"isolation_level": isolation}


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


def _engine(url: URL, options: Options) -> Engine:
    if url.get_backend_name() != "sqlite":
        return postgres.engine(url, options)
    Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        pool_size=16,
        max_overflow=32,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin by itself: see _begin_sqlite
    for pragma in (
        "journal_mode = WAL",
        # A commit that was acknowledged must survive a power cut, not only a crash of the process.
        "synchronous = FULL",
        "foreign_keys = ON",
        "temp_store = MEMORY",
        "mmap_size = 268435456",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    statement = connection.get_execution_options().get(_BEGIN, "BEGIN")
    if not statement:
        return
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    # Straight to the driver: SQLAlchemy's own way costs as much as a query.
    driver.execute(statement).close()


_DISK_FULL: Final = "53100"
_REFUSALS: Final = (DBAPIError, PoolTimeoutError, OverflowError, sqlite3.OperationalError)
"""What a database raises: SQLite's driver the third, of a number that is too large; `_begin_sqlite` the last."""


def _kind_of(error: Exception) -> Refusal | None:
    if isinstance(error, DBAPIError):
        return refusal(error)
    return Refusal.UNACCEPTABLE if isinstance(error, OverflowError) else Refusal.UNAVAILABLE


def _may_go_well(error: Exception, attempt: int, deadline_s: float) -> bool:
    """Whether the same work may succeed if it is tried again.

    Raises:
        UnavailableError: it may, but has been tried for long enough.
    """
    kind = _kind_of(error)
    if kind is Refusal.NOT_SERIALISABLE and time.monotonic() > deadline_s:
        raise _busy() from error
    return kind is Refusal.NOT_SERIALISABLE or (kind is Refusal.RACE and attempt < RACES_AT_MOST)


@contextmanager
def _translated() -> Iterator[None]:
    """Turns the database's refusals into memcube's errors."""
    try:
        yield
    except _REFUSALS as error:
        kind = _kind_of(error)
        if kind is None:
            raise
        if kind is Refusal.UNACCEPTABLE:
            raise InvalidRequestError(
                "the request holds a text with a NUL, or a number, that nothing here can have",
                hint="check the names and numbers in it",
            ) from error
        if kind is Refusal.OTHER_TABLES:
            raise StorageError(
                "the database's tables are not those of this version of memcube",
                hint="run `memcube-registry migrate`",
            ) from error
        if _is_full(error):
            raise DiskFullError(
                "no space is left for the database",
                hint="free space on the database's disk, or collect garbage",
            ) from error
        if kind is Refusal.UNAVAILABLE:
            raise _busy() from error
        raise ConflictError(
            "another request changed the same thing at the same time", hint="try again"
        ) from error


def _is_full(error: Exception) -> bool:
    """Whether there was no room on the database's disk."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        return cause.sqlite_errorcode == sqlite3.SQLITE_FULL
    return getattr(cause, "sqlstate", None) == _DISK_FULL


def _busy() -> UnavailableError:
    return UnavailableError(
        "the database did not answer in time",
        hint="try again in a moment; if it lasts, look at the server's log",
    )
