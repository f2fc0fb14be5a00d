"""PostgreSQL: how a process connects to it, how long it may take, and what its refusals mean."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import InvalidatePoolError

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.pool import ConnectionPoolEntry

NAME: Final = "memcube-registry"
"""What `pg_stat_activity` calls our connections, unless the URL says otherwise."""
_SILENCE_S: Final = 30
"""How long a host that fell silent, and closed nothing, is believed to be there."""
_REST_S: Final = 5.0
"""A connection that was used less long ago is not asked whether it is there."""
_RESTED_FROM: Final = "memcube_rested_from_s"

SNAPSHOT: Final[dict[str, Any]] = {
    "isolation_level": "REPEATABLE READ",
    "postgresql_readonly": True,
}
"""Execution options of transactions that read."""
ALONE: Final[dict[str, Any]] = {"isolation_level": "AUTOCOMMIT"}
"""Execution options of statements that need no transaction."""
WRITING: Final[dict[str, Any]] = {"isolation_level": "SERIALIZABLE"}
"""Execution options of transactions that write."""
LOCKING: Final[dict[str, Any]] = {"isolation_level": "READ COMMITTED"}
"""Execution options of transactions that lock every row they rely on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one process asks of PostgreSQL. Times are seconds; 0 is no limit.

    `lock_timeout_s` is for one lock, `idle_timeout_s` for a pause inside a transaction.
    """

    connections: int = 32
    connect_timeout_s: int = 5
    statement_timeout_s: float = 60.0
    lock_timeout_s: float = 10.0
    idle_timeout_s: float = 60.0


UNLIMITED: Final = Options(statement_timeout_s=0, lock_timeout_s=0, idle_timeout_s=0)
"""For migrations: they wait for one another, and for as long as a table takes."""


def engine(url: URL, options: Options) -> Engine:
    """A pool of connections that are looked at before each use: those from before a restart are replaced."""
    kept = max(1, options.connections // 2)
    made = create_engine(
        url,
        pool_size=kept,
        max_overflow=options.connections - kept,
        pool_timeout=options.lock_timeout_s or None,
        connect_args={
            "connect_timeout": options.connect_timeout_s,
            "fallback_application_name": NAME,
            "keepalives_idle": _SILENCE_S // 2,
            "keepalives_interval": _SILENCE_S // 6,
            "keepalives_count": 3,
            "tcp_user_timeout": _SILENCE_S * 1000,
        },
    )
    event.listen(made, "connect", _limited(options))
    event.listen(made, "checkin", _note_rest)
    event.listen(made, "checkout", _alive(made))
    event.listen(made, "rollback", _end_reading)
    return made


def _limited(options: Options) -> Callable[[psycopg.Connection[Any], object], None]:
    """What sets the limits of a new connection."""
    limits_s = {
        "statement_timeout": options.statement_timeout_s,
        "lock_timeout": options.lock_timeout_s,
        "idle_in_transaction_session_timeout": options.idle_timeout_s,
    }
    chosen = ", ".join(
        f"set_config('{name}', '{int(limit_s * 1000)}', false)"
        for name, limit_s in limits_s.items()
    )

    def limit(connection: psycopg.Connection[Any], _record: object) -> None:
        connection.execute(f"SELECT {chosen}".encode())  # ours, and without a value from outside
        connection.commit()

    return limit


def _note_rest(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info[_RESTED_FROM] = time.monotonic()


def _alive(
    engine: Engine,
) -> Callable[[psycopg.Connection[Any], ConnectionPoolEntry, object], None]:
    """What replaces a connection that has ended, and with it all that are as old.

    Asking PostgreSQL costs as much as reading a row. A server that ended, or was killed, has closed its
    end, and that is seen without asking; only one that rested may have been forgotten on the way.
    """

    def look(
        connection: psycopg.Connection[Any], record: ConnectionPoolEntry, _proxy: object
    ) -> None:
        rested_from_s = record.info.get(_RESTED_FROM)
        if rested_from_s is None:  # it is new
            return
        if time.monotonic() - rested_from_s < _REST_S and _is_quiet(connection):
            return
        try:
            engine.dialect.do_ping(connection)  # type: ignore[arg-type] # psycopg names no protocol of it
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error

    return look


def _is_quiet(connection: psycopg.Connection[Any]) -> bool:
    """Whether PostgreSQL has said nothing unasked, such as that it ends."""
    if connection.closed:
        return False
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return not waiting.poll(0)


def _end_reading(connection: Connection) -> None:
    """End a transaction that only read by COMMIT: at a ROLLBACK psycopg forgets its prepared statements.

    SQLAlchemy then finds nothing that it would have to roll back.
    """
    if connection.invalidated or not connection.get_execution_options().get("postgresql_readonly"):
        return
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    with suppress(connection.dialect.loaded_dbapi.Error):  # it meets SQLAlchemy's ROLLBACK again
        driver.commit()
