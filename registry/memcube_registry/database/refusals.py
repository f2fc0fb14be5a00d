"""What the database's refusals mean, and memcube's errors for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Final

from memcube_protocol.errors import (
    ConflictError,
    DiskFullError,
    InvalidRequestError,
    MemcubeError,
    StorageError,
    UnavailableError,
)
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

REFUSALS: Final = (DBAPIError, PoolTimeoutError, OverflowError, sqlite3.OperationalError)
"""What a database raises. SQLite's driver raises the third for a number that is too large, and the last,
which SQLAlchemy does not wrap, where a transaction begins (`sqlite.engine`)."""

_NOT_SERIALISABLE: Final = frozenset({"40001", "40P01"})
_OTHER_TABLES: Final = frozenset({"42703", "42P01"})
"""Undefined column, undefined table."""
_NOT_THERE: Final = ("no such table", "no such column")
"""How SQLite says the same; it has no code for it."""
# Serialisable transactions may also meet as the violation of a unique or a foreign key.
_RACES: Final = frozenset({"23503", "23505"})
_ENDED_FOR_IDLING: Final = "25P03"
_FULL: Final = "53100"


class Refusal(Enum):
    """Why a database did not do something."""

    NOT_SERIALISABLE = auto()
    """Another transaction came between, or each waited for the other: again, from the start."""
    RACE = auto()
    """A key is taken or gone: for good, or by a transaction that came between."""
    FULL = auto()
    """No space is left on its disk."""
    UNAVAILABLE = auto()
    """It is down, starting, locked, or took longer than it may."""
    UNACCEPTABLE = auto()
    """No column could hold a value: a text with a NUL, a number beyond 64 bits."""
    OTHER_TABLES = auto()
    """A table or column is not there: the tables are those of another version."""


def refusal(error: Exception) -> Refusal | None:
    """What `error`, one of `REFUSALS`, means; None where it is a mistake of ours."""
    if _is_full(error):
        return Refusal.FULL
    if isinstance(error, DBAPIError):
        return _refusal_by_state(error)
    return Refusal.UNACCEPTABLE if isinstance(error, OverflowError) else Refusal.UNAVAILABLE


@contextmanager
def translated() -> Iterator[None]:
    """Turns the database's refusals into memcube's errors; mistakes of ours pass as they are."""
    try:
        yield
    except REFUSALS as error:
        kind = refusal(error)
        if kind is None:
            raise
        raise _told(kind) from error


def busy() -> UnavailableError:
    """The error of a database that did not answer, or stayed locked, for longer than we wait."""
    return UnavailableError(
        "the database did not answer in time",
        hint="try again in a moment; if it lasts, look at the server's log",
    )


def _refusal_by_state(error: DBAPIError) -> Refusal | None:
    state = getattr(error.orig, "sqlstate", None)
    if state in _NOT_SERIALISABLE:
        return Refusal.NOT_SERIALISABLE
    if state in _RACES:
        return Refusal.RACE
    if isinstance(error, DataError):
        return Refusal.UNACCEPTABLE
    if state in _OTHER_TABLES or str(error.orig).startswith(_NOT_THERE):
        return Refusal.OTHER_TABLES
    is_gone = error.connection_invalidated or state == _ENDED_FOR_IDLING
    if is_gone or isinstance(error, OperationalError):
        return Refusal.UNAVAILABLE
    return None


def _is_full(error: Exception) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        return cause.sqlite_errorcode == sqlite3.SQLITE_FULL
    return getattr(cause, "sqlstate", None) == _FULL


def _told(kind: Refusal) -> MemcubeError:
    match kind:
        case Refusal.UNACCEPTABLE:
            return InvalidRequestError(
                "the request holds a text with a NUL, or a number, that nothing here can have",
                hint="check the names and numbers in it",
            )
        case Refusal.OTHER_TABLES:
            return StorageError(
                "the database's tables are not those of this version of memcube",
                hint="run `memcube-registry migrate`",
            )
        case Refusal.FULL:
            return DiskFullError(
                "no space is left for the database",
                hint="free space on the database's disk, or collect garbage",
            )
        case Refusal.UNAVAILABLE:
            return busy()
        case Refusal.NOT_SERIALISABLE | Refusal.RACE:
            return ConflictError(
                "another request changed the same thing at the same time", hint="try again"
            )
