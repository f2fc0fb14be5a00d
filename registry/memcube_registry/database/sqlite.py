"""Connections to SQLite, and how their transactions begin."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

BUSY_TIMEOUT_S: Final = 30
"""How long a connection waits for another process that writes."""
_BEGIN: Final = "memcube_begin"
"""The execution option that says how a transaction begins; none begins where it is empty."""
SNAPSHOT: Final[dict[str, Any]] = {}
"""Execution options of transactions that read."""
ALONE: Final[dict[str, Any]] = {_BEGIN: ""}
"""Execution options of statements that need no transaction."""
WRITING: Final[dict[str, Any]] = {_BEGIN: "BEGIN IMMEDIATE"}
"""Execution options of transactions that write."""


def engine(url: URL) -> Engine:
    """A pool of connections to the file of `url`; its folder is made with the first connection, if need be."""
    folder = Path(url.database or "").parent
    made = create_engine(
        url,
        pool_size=16,
        max_overflow=32,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )
    # Not before: whoever only asks whether the file is there leaves no folder behind.
    event.listen(made, "do_connect", lambda *_: folder.mkdir(parents=True, exist_ok=True))
    event.listen(made, "connect", _prepare)
    event.listen(made, "begin", _begin)
    return made


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin by itself: see _begin
    for pragma in (
        "journal_mode = WAL",
        # A commit that was acknowledged must survive a power cut, not only a crash of the process.
        "synchronous = FULL",
        "foreign_keys = ON",
        "temp_store = MEMORY",
        "mmap_size = 268435456",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    statement = connection.get_execution_options().get(_BEGIN, "BEGIN")
    if not statement:
        return
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    # Straight to the driver: SQLAlchemy's own way costs as much as a query.
    driver.execute(statement).close()
