"""PostgreSQL: how a process connects to it, how long it may take, and what its refusals mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DataError, DBAPIError, OperationalError

if TYPE_CHECKING:
    import psycopg

NAME: Final = "memcube-registry"
"""What `pg_stat_activity` calls our connections, unless the URL says otherwise."""
_SILENCE_S: Final = 30
"""How long a host that fell silent, and closed nothing, is believed to be there."""
_NOT_SERIALISABLE: Final = frozenset({"40001", "40P01"})
# Serialisable transactions may also meet as the violation of a unique or a foreign key.
_RACES: Final = frozenset({"23503", "23505"})
_ENDED_FOR_IDLING: Final = "25P03"


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


class Refusal(Enum):
    """Why PostgreSQL did not do something."""

    NOT_SERIALISABLE = auto()
    """Another transaction came between, or each waited for the other: again, from the start."""
    RACE = auto()
    """A key is taken or gone: for good, or by a transaction that came between."""
    UNAVAILABLE = auto()
    """It is down, starting, full, or took longer than it may."""
    UNACCEPTABLE = auto()
    """No column could hold a value: a text with a NUL, a number beyond 64 bits."""


def engine(url: URL, options: Options) -> Engine:
    """A pool of connections that are tried before each use: those from before a restart are replaced."""
    kept = max(1, options.connections // 2)
    made = create_engine(
        url,
        pool_size=kept,
        max_overflow=options.connections - kept,
        pool_timeout=options.lock_timeout_s or None,
        pool_pre_ping=True,
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
    return made


def refusal(error: DBAPIError) -> Refusal | None:
    """What `error` means; None where it is a mistake of ours."""
    state = getattr(error.orig, "sqlstate", None)
    if state in _NOT_SERIALISABLE:
        return Refusal.NOT_SERIALISABLE
    if state in _RACES:
        return Refusal.RACE
    if isinstance(error, DataError):
        return Refusal.UNACCEPTABLE
    is_gone = error.connection_invalidated or state == _ENDED_FOR_IDLING
    if is_gone or isinstance(error, OperationalError):
        return Refusal.UNAVAILABLE
    return None


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
